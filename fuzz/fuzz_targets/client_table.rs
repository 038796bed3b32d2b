//! The file of vlan_learning's `--config`: what is read reads back when it is written anew, and what is refused is
//! refused in one line that names its place.

#![no_main]

use std::fmt::Write;

use libfuzzer_sys::fuzz_target;
use netbpf::vlan_learning::{Settings, Unknown, Untagged};
use netbpf_fuzz::assert_refusal;

const FILE: &str = "clients.toml";

fuzz_target!(|text: &str| {
    match Settings::parse(FILE, text) {
        Ok(settings) => {
            let again = written(&settings);
            let read = Settings::parse(FILE, &again);
            assert_eq!(read.expect("what was written"), settings, "{again}");
        }
        Err(failure) => assert_refusal(FILE, text, &failure),
    }
});

fn written(settings: &Settings) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            writeln!(text, "{name} = {value}").expect("a string has room");
        }
    };
    line("trunk", settings.trunk.as_deref().map(quoted));
    line(
        "unknown",
        settings.unknown.as_ref().map(|unknown| match unknown {
            Unknown::Pass => quoted("pass"),
            Unknown::Drop => quoted("drop"),
            Unknown::To(interface) => quoted(interface),
        }),
    );
    line(
        "untagged",
        settings.untagged.map(|untagged| match untagged {
            Untagged::Pass => quoted("pass"),
            Untagged::Drop => quoted("drop"),
        }),
    );
    line(
        "no_move",
        settings.no_move.map(|no_move| no_move.to_string()),
    );
    text.push_str("[clients]\n");
    for (mac, entry) in &settings.mapping.clients {
        let address = entry.address.map(|ip| format!(", address = \"{ip}\""));
        let (worker, address) = (quoted(&entry.worker), address.unwrap_or_default());
        writeln!(text, "\"{mac}\" = {{ worker = {worker}{address} }}").expect("a string has room");
    }
    text
}

/// As a string of TOML, which has no control characters in it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

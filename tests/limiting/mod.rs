//! tokenbucket at work on an interface, and what its rule allows.
//!
//! A burst of packets takes less than a second, in which no token of the default rule regenerates: so
//! exactly six of a source's packets pass.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::Value;
use testbed::line::Line;
use testbed::namespace::Place;
use testbed::packet::Packet;
use testbed::reports::Reporting;
use testbed::sandbox::Sandbox;
use testbed::tool::{READY_WITHIN, Tool};
use testbed::traffic::{Paced, inject};

pub const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tokenbucket"));

/// tokenbucket at work. Its reports are those of docs/tokenbucket.schema.json.
pub type Limiting<'a> = Reporting<'a, Value>;

/// Attached to wan0, at its ingress if the arguments do not say otherwise.
pub fn limit<'a>(sandbox: &'a Sandbox, arguments: &str) -> Limiting<'a> {
    limit_at(sandbox, "wan0", arguments)
}

/// Attached to another interface. It reports often, if the arguments do not say otherwise.
pub fn limit_at<'a>(sandbox: &'a Sandbox, interface: &str, arguments: &str) -> Limiting<'a> {
    let often = if arguments.contains("--interval") {
        ""
    } else {
        "--interval 200ms"
    };
    let arguments = format!("--iface {interface} --json {often} {arguments}");
    let process = sandbox.start(TOOL.command(&arguments));
    process.wait_for_error(&format!("Limiting {interface} "), READY_WITHIN);
    Reporting::of(process)
}

/// A figure in a report, by its path: `number(&report, "/passed/packets")`.
#[track_caller]
pub fn number(report: &Value, path: &str) -> u64 {
    let number = report.pointer(path).and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("no {path} in {report}"))
}

/// The rule of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    pub tokens: u64,
    /// Of one token.
    pub regeneration: Duration,
}

/// What tokenbucket does if it is told nothing else.
pub const DEFAULT: Bucket = Bucket {
    tokens: 5,
    regeneration: Duration::from_secs(1),
};

impl Bucket {
    /// What a source that never pauses gets through.
    fn allows(self, sent: Paced) -> u64 {
        let regenerated = sent.span.as_nanos() / self.regeneration.as_nanos();
        (self.tokens + 1 + regenerated as u64).min(sent.packets)
    }

    /// Give or take one: for the moments between two clocks.
    #[track_caller]
    pub fn assert_passed(self, what: &str, sent: Paced, passed: u64) {
        let allowed = self.allows(sent);
        assert!(
            passed.abs_diff(allowed) <= 1,
            "{what}: {passed} of {sent:?} passed, {allowed} are allowed"
        );
    }
}

/// What is left of a burst, by the default rule.
pub const LEFT: u64 = 6;
/// Packets of a burst.
pub const BURST: u64 = 20;

/// A source, of so many that nobody has.
pub fn ipv4(host: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, host).into()
}

/// Sends frames in turn, as fast as it goes.
pub fn burst_at(at: &Place, frames: &[Packet]) {
    let frames: Vec<Vec<u8>> = frames.iter().map(Packet::build).collect();
    let frames = frames
        .iter()
        .cycle()
        .take(BURST as usize)
        .map(Vec::as_slice);
    inject(at, "eth0", frames, Duration::ZERO);
}

/// From the sender on.
pub fn burst(line: &Line, frames: &[Packet]) {
    burst_at(&line.sender, frames);
}

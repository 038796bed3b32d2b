//! The units of packaging/systemd: systemd understands them, and every tool does its work with the capabilities
//! and as the user that its unit gives it, and not with one capability less.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use netbpf::privilege::Cap;
use netbpf::tcp_hold::agent;
use netbpf::{neighbor_sharing, tokenbucket, tunnel_monitor, vlan_learning};
use nix::sys::signal::Signal;
use testbed::attaching;
use testbed::namespace::{Place, Veth};
use testbed::process::{Input, Output, Process};
use testbed::sandbox::{self, Sandbox};
use testbed::tool::{AT_ONCE, ENDS_WITHIN, READY_WITHIN};
use testbed::{is_installed, skip, step};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/install.md");
/// Where tests put what a unit has in /etc/netbpf: /etc is the machine's.
const SETTINGS: &str = "/run/settings";
/// A copy of the tools: everybody can reach it, while a checkout may be below /root.
const PROGRAMS: &str = "/run/programs";
const TOKENBUCKET: &str = env!("CARGO_BIN_EXE_tokenbucket");
const TOOLS: [&str; 5] = [
    env!("CARGO_BIN_EXE_neighbor_sharing"),
    TOKENBUCKET,
    env!("CARGO_BIN_EXE_vlan_learning"),
    env!("CARGO_BIN_EXE_tunnel_monitor"),
    env!("CARGO_BIN_EXE_tcp_hold"),
];
/// Debian's nobody, for a unit's dynamic user.
const NOBODY: &str = "65534";

/// A unit, for one interface.
struct Unit {
    name: String,
    interface: &'static str,
    text: String,
}

impl Unit {
    fn read(name: &str, interface: &'static str) -> Unit {
        let path = format!("{FOLDER}/{name}@.service");
        let text = step(&path, fs::read_to_string(&path));
        Unit {
            name: name.into(),
            interface,
            text,
        }
    }

    /// What a setting says, in its first line.
    fn value(&self, setting: &str) -> Option<&str> {
        let mut lines = self.text.lines().filter_map(|line| line.split_once('='));
        let (_, value) = lines.find(|(name, _)| *name == setting)?;
        Some(value)
    }

    /// The capabilities that it gives, as setpriv and capabilities(7) call them but for case and prefix.
    fn capabilities(&self) -> Vec<String> {
        let names = self.value("CapabilityBoundingSet").unwrap_or_default();
        let names = names.split(' ').map(|name| name.trim_start_matches("CAP_"));
        names.map(str::to_lowercase).collect()
    }

    fn is_of_nobody(&self) -> bool {
        self.value("DynamicUser") == Some("yes")
    }

    /// The words that it starts, with those options.
    fn words(&self, options: &str) -> Vec<String> {
        let line = self.value("ExecStart").unwrap_or_default();
        let line = line
            .replace("%I", self.interface)
            .replace("$OPTIONS", options)
            .replace("/etc/netbpf", SETTINGS);
        line.split_whitespace().map(str::to_owned).collect()
    }

    /// What it starts, with these capabilities.
    fn command(&self, options: &str, capabilities: &[String]) -> Command {
        let mut all = "-all".to_owned();
        for name in capabilities {
            all.push_str(&format!(",+{name}"));
        }
        let mut command = Command::new("setpriv");
        command.args(["--no-new-privs", "--bounding-set", &all]);
        if self.is_of_nobody() {
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
            command.args(["--inh-caps", &all, "--ambient-caps", &all]);
        } else {
            command.args(["--inh-caps", "-all"]);
        }
        let mut words = self.words(options).into_iter();
        command.arg(Path::new(PROGRAMS).join(words.next().unwrap_or_default()));
        command.args(words);
        command
    }
}

/// How a unit is used, and what says that it is at work.
struct Use {
    unit: Unit,
    options: &'static str,
    ready: &'static str,
    /// What the main thread keeps at work.
    keeps: &'static [Cap],
}

fn uses() -> [Use; 5] {
    let unit = Unit::read;
    [
        Use {
            unit: unit("neighbor_sharing", "wan0"),
            options: "--neighbor nb0 --lan lan0",
            ready: "Sharing ",
            keeps: &[],
        },
        Use {
            unit: unit("tokenbucket", "wan0"),
            options: "--rate 1mbit --burst 32kb",
            ready: "Limiting wan0 ",
            keeps: &[],
        },
        Use {
            unit: unit("vlan_learning", "wan0"),
            options: "--no-move",
            ready: "Bringing 1 client ",
            keeps: &[],
        },
        Use {
            unit: unit("tunnel_monitor", "wan0"),
            options: "--port 4789,8472",
            ready: "HTTP on ",
            keeps: &[],
        },
        Use {
            unit: unit("tcp_hold-agent", "wan0"),
            options: "--mode 0666",
            ready: "Holding for ",
            keeps: &[Cap::Bpf, Cap::NetAdmin],
        },
    ]
}

/// The tools, where everybody can reach them, and what a unit needs to be there: interfaces, its settings, the
/// folder of its socket.
struct Machine {
    _interfaces: [Veth; 3],
}

impl Machine {
    fn new(unit: &Unit) -> Machine {
        let here = Place::here();
        for folder in [PROGRAMS, SETTINGS] {
            step(folder, fs::create_dir(folder));
        }
        let folders = unit.value("RuntimeDirectory").map(|folder| {
            let folder = format!("/run/{}", folder.replace("%I", unit.interface));
            fs::create_dir_all(folder)
        });
        step("make the folder of the socket", folders.transpose());
        let clients = "[clients]\n\"02:00:00:00:00:01\" = \"nb0\"\n";
        let path = format!("{SETTINGS}/vlan_learning@{}.toml", unit.interface);
        step(&path, fs::write(&path, clients));
        let tool = unit.words("").swap_remove(0);
        let built = TOOLS
            .iter()
            .find(|path| path.ends_with(&format!("/{tool}")));
        let built = built.unwrap_or_else(|| panic!("there is no {tool}"));
        step(built, fs::copy(built, format!("{PROGRAMS}/{tool}")));
        Machine {
            _interfaces: ["wan0", "nb0", "lan0"]
                .map(|name| Veth::new((&here, &format!("{name}-far")), (&here, name))),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for folder in [PROGRAMS, SETTINGS, "/run/tcp_hold"] {
            // The sandbox goes with all of it.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn start<'a>(sandbox: &'a Sandbox, command: Command) -> Process<'a> {
    sandbox.start_with(command, Input::AtEnd, Output::Read)
}

/// Which threads keep what, once the unit's tool is at work.
fn assert_keeps(process: &Process<'_>, use_: &Use, way: &str) {
    let mask = |caps: &[Cap]| caps.iter().fold(0, |mask, cap| mask | cap.bit());
    let mut expected = mask(use_.keeps);
    // Filters are taken off by the process itself.
    if way == "clsact" {
        expected |= Cap::NetAdmin.bit();
    }
    if expected == 0 {
        return process.assert_powerless();
    }
    let expected = |thread: &str| match thread {
        "agent" => Cap::NetAdmin.bit(),
        "http" => 0,
        _ => expected,
    };
    // A thread that has just begun gives up the rest first of all.
    let deadline = Instant::now() + AT_ONCE;
    loop {
        let found = process.capabilities();
        let mut more = found.iter();
        let Some((thread, caps)) = more.find(|(thread, caps)| *caps != expected(thread)) else {
            return;
        };
        let name = &use_.unit.name;
        assert!(Instant::now() < deadline, "{thread} of {name}: {caps:x}");
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_tool_works_with_what_its_unit_gives_it() {
    let name = "every_tool_works_with_what_its_unit_gives_it";
    attaching::by_each_way(|way| {
        for use_ in &uses() {
            sandbox::run(name, |sandbox| {
                let unit = &use_.unit;
                let machine = Machine::new(unit);
                let before = sandbox.snapshot();
                let options = format!("{} --attach {way}", use_.options);
                let process = start(sandbox, unit.command(&options, &unit.capabilities()));
                process.wait_for_error(use_.ready, READY_WITHIN);
                assert_keeps(&process, use_, way);
                if unit.value("ExecReload").is_some() {
                    process.signal(Signal::SIGHUP);
                    process.wait_for_error("reloaded: 0 clients added", AT_ONCE);
                }
                if unit.name == "tokenbucket" {
                    // Root's other commands find it: they obey the same user alone.
                    let mut status = Command::new(TOKENBUCKET);
                    status.args(["status", "--iface", unit.interface]);
                    let said = sandbox.start(status).finish(ENDS_WITHIN);
                    let is_found = format!("running as pid {}", process.pid());
                    assert!(said.assert_code(0).stderr.contains(&is_found), "{said:?}");
                }
                process.signal(Signal::SIGTERM);
                process.finish(ENDS_WITHIN).assert_code(0);
                before.assert_same(&sandbox.snapshot(), &unit.name);
                drop(machine);
            });
        }
    });
}

/// So no unit gives more than is asked for, and what is missing is not met by a restart.
#[test]
fn without_any_one_capability_a_tool_says_so() {
    sandbox::run("without_any_one_capability_a_tool_says_so", |sandbox| {
        for Use { unit, options, .. } in &uses() {
            let machine = Machine::new(unit);
            let all = unit.capabilities();
            for missing in &all {
                let others: Vec<_> = all.iter().filter(|cap| *cap != missing).cloned().collect();
                let ended = start(sandbox, unit.command(options, &others)).finish(ENDS_WITHIN);
                ended.assert_code(3);
                let named = format!("CAP_{} missing", missing.to_uppercase());
                assert!(ended.stderr.contains(&named), "{}: {ended:?}", unit.name);
            }
            let never = unit.value("RestartPreventExitStatus").unwrap_or_default();
            assert_eq!(never, "2 3 4", "{}", unit.name);
            drop(machine);
        }
    });
}

/// What the tools ask for is in their code: nothing else is in the units.
#[test]
fn units_give_what_the_tools_ask_for() {
    for Use { unit, options, .. } in &uses() {
        let words = unit.words(options);
        let asked = match unit.name.as_str() {
            "neighbor_sharing" => neighbor_sharing::Arguments::parse_from(&words).capabilities(),
            "tokenbucket" => tokenbucket::Arguments::parse_from(&words).capabilities(),
            "vlan_learning" => vlan_learning::Arguments::parse_from(&words).capabilities(),
            "tunnel_monitor" => tunnel_monitor::Arguments::parse_from(&words).capabilities(),
            "tcp_hold-agent" => agent::NEEDED,
            other => panic!("{other}?"),
        };
        let asked: BTreeSet<_> = asked.iter().map(|cap| cap.name()).collect();
        let given = unit.value("CapabilityBoundingSet").unwrap_or_default();
        assert_eq!(asked, given.split(' ').collect(), "{}", unit.name);
        let ambient = unit.value("AmbientCapabilities");
        assert_eq!(
            ambient,
            unit.is_of_nobody().then_some(given),
            "{}",
            unit.name
        );
    }
}

/// The table of docs/install.md: which are needed to start, and which stay.
#[test]
fn the_document_says_what_units_give() {
    let document = step(DOCUMENT, fs::read_to_string(DOCUMENT));
    let rows = |first: &str| {
        let mut rows = document
            .lines()
            .map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        let row = rows.find(|row| row.len() == 9 && row[1] == first);
        row.unwrap_or_else(|| panic!("no row of {first}"))
    };
    let heads = rows("unit");
    for use_ in &uses() {
        let unit = &use_.unit;
        let row = rows(&format!("`{}@`", unit.name));
        let said = heads
            .iter()
            .zip(&row)
            .filter(|(head, _)| head.starts_with("CAP_"));
        let kept: Vec<_> = use_.keeps.iter().map(|cap| cap.name()).collect();
        let given = unit.value("CapabilityBoundingSet").unwrap_or_default();
        for (cap, said) in said {
            let expected = match (
                given.split(' ').any(|name| name == *cap),
                kept.contains(cap),
            ) {
                (_, true) => "stays",
                (true, false) => "to start",
                (false, false) => "",
            };
            assert_eq!(*said, expected, "{cap} of {}", unit.name);
        }
        assert_eq!(row[6] == "root", !unit.is_of_nobody(), "{row:?}");
    }
}

/// Every unit stands in the same walls; it may only speak to others than its neighbours do.
#[test]
fn all_units_have_the_same_walls() {
    let walls = |unit: &Unit| {
        let (_, walls) = unit.text.split_once("# No more than").unwrap_or_default();
        let lines = walls.lines();
        let lines = lines.filter(|line| !line.starts_with("RestrictAddressFamilies="));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let [first, others @ ..] = uses();
    assert!(walls(&first.unit).contains(&"ProtectSystem=strict".to_owned()));
    for other in others {
        assert_eq!(
            walls(&other.unit),
            walls(&first.unit),
            "{}",
            other.unit.name
        );
        assert_ne!(other.unit.value("RestrictAddressFamilies"), None);
    }
    let files = step(FOLDER, fs::read_dir(FOLDER)).count();
    assert_eq!(files, uses().len(), "a unit that is not tested");
}

#[test]
fn systemd_has_nothing_to_say_of_any_unit() {
    let name = "systemd_has_nothing_to_say_of_any_unit";
    if !is_installed("systemd-analyze") {
        let reason = "systemd-analyze is not there: packaging/install-needs test installs it";
        return skip(name, reason);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    step("make a folder", fs::create_dir_all(&folder));
    for Use { unit, .. } in &uses() {
        // As `make install` does it.
        let programs = Path::new(TOKENBUCKET).parent().unwrap_or(&folder);
        let start = format!("ExecStart={}/", programs.display());
        let text = unit.text.replace("ExecStart=", &start);
        let file = format!("{}@.service", unit.name);
        step(&file, fs::write(folder.join(&file), text));
        let mut verify = Command::new("systemd-analyze");
        // The pages are installed with them; here they are not.
        verify.args(["--man=no", "verify"]);
        verify.arg(folder.join(format!("{}@eth0.service", unit.name)));
        let said = step("run systemd-analyze", verify.output());
        assert!(said.status.success(), "{file}: {said:?}");
        assert!(
            said.stdout.is_empty() && said.stderr.is_empty(),
            "{file}: {said:?}"
        );
    }
    step("remove the folder", fs::remove_dir_all(&folder));
}

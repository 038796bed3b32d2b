//! Help that fits the terminal; and outputs that cannot be written any more, under a tool at work: it goes
//! on.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use testbed::namespace::{Place, Veth};
use testbed::process::{Input, Output};
use testbed::sandbox;
use testbed::tool::{AT_ONCE, ENDS_WITHIN, READY_WITHIN, Tool};

/// Every tool that works on interfaces.
const TOOLS: [&str; 3] = [
    concat!(
        env!("CARGO_BIN_EXE_neighbor_sharing"),
        " --wan v0 --neighbor v1 --json --interval 50ms"
    ),
    concat!(
        env!("CARGO_BIN_EXE_tokenbucket"),
        " --iface v0 --json --interval 50ms"
    ),
    concat!(
        env!("CARGO_BIN_EXE_vlan_learning"),
        " --trunk v0 --map 02:00:00:00:00:01=v1 --json --interval 50ms"
    ),
];

fn interfaces() -> [Veth; 2] {
    let here = Place::here();
    ["v0", "v1"].map(|name| Veth::new((&here, &format!("{name}-far")), (&here, name)))
}

/// A command whose outputs the shell sets up.
fn redirected(command: &str, redirection: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec {command} {redirection}")]);
    shell
}

#[test]
fn help_fits_the_terminal() {
    sandbox::run("help_fits_the_terminal", |sandbox| {
        let tool = Tool::new(env!("CARGO_BIN_EXE_neighbor_sharing"));
        tool.assert_help_fits(sandbox, &[]);
        let tool = Tool::new(env!("CARGO_BIN_EXE_tokenbucket"));
        tool.assert_help_fits(sandbox, &["set", "status", "detach"]);
        let tool = Tool::new(env!("CARGO_BIN_EXE_vlan_learning"));
        tool.assert_help_fits(sandbox, &[]);
        let tool = Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor"));
        tool.assert_help_fits(sandbox, &["traffic"]);
    });
}

#[test]
fn a_tool_outlives_the_reader_of_its_errors() {
    sandbox::run("a_tool_outlives_the_reader_of_its_errors", |sandbox| {
        let here = Place::here();
        let _interfaces = interfaces();
        mkfifo("/run/errors", Mode::S_IRWXU).unwrap();
        for tool in TOOLS {
            let process = sandbox.start(redirected(tool, "2>/run/errors"));
            let mut errors = BufReader::new(File::open("/run/errors").unwrap());
            process.next_line(READY_WITHIN);
            assert!(!errors.fill_buf().unwrap().is_empty(), "nothing was said");
            drop(errors);
            // Said on stderr, as the next line of the reports after it shows.
            here.ip("link set v0-far down");
            here.ip("link set v0-far up");
            let until = Instant::now() + Duration::from_millis(500);
            while Instant::now() < until {
                process.next_line(AT_ONCE);
            }
            process.signal(Signal::SIGTERM);
            process.finish(ENDS_WITHIN).assert_code(0);
        }
        fs::remove_file("/run/errors").unwrap();
    });
}

#[test]
fn a_full_disk_is_said_once_and_fails_only_the_last_report() {
    let name = "a_full_disk_is_said_once_and_fails_only_the_last_report";
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        for tool in TOOLS {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("exec {tool}")]);
            let process = sandbox.start_with(command, Input::Open, Output::Full);
            process.wait_for_error("reports cannot be written: No space left", READY_WITHIN);
            sleep(Duration::from_millis(500));
            process.signal(Signal::SIGTERM);
            let ended = process.finish(ENDS_WITHIN);
            ended.assert_code(1);
            let told = ended.stderr.matches("reports cannot be written").count();
            assert_eq!(told, 1, "{}", ended.stderr);
            assert!(
                ended.stderr.ends_with("(os error 28)\n"),
                "{}",
                ended.stderr
            );
        }
    });
}

#[test]
fn reports_go_on_whole_once_the_disk_has_room_again() {
    let name = "reports_go_on_whole_once_the_disk_has_room_again";
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        for tool in TOOLS {
            fs::create_dir("/run/small").unwrap();
            let tmpfs = Some("tmpfs");
            // 16 pages: 15 are taken.
            let size = Some("size=64k");
            mount(tmpfs, "/run/small", tmpfs, MsFlags::empty(), size).unwrap();
            fs::write("/run/small/filler", vec![0; 15 << 12]).unwrap();

            let process = sandbox.start(redirected(tool, ">/run/small/reports"));
            process.wait_for_error("reports cannot be written", READY_WITHIN);
            // The reports of this time are left out.
            sleep(Duration::from_millis(300));
            fs::remove_file("/run/small/filler").unwrap();
            let deadline = Instant::now() + AT_ONCE;
            while fs::metadata("/run/small/reports").unwrap().len() < 3 << 12 {
                assert!(Instant::now() < deadline, "no report since there is room");
                sleep(Duration::from_millis(10));
            }
            process.signal(Signal::SIGTERM);
            process.finish(ENDS_WITHIN).assert_code(0);

            let text = fs::read_to_string("/run/small/reports").unwrap();
            let reports: Vec<Value> = text
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            let last = reports.last().unwrap();
            assert_eq!(last["final"], true, "{last}");
            assert!(last["skipped_reports"].as_u64().unwrap() > 0, "{last}");
            nix::mount::umount("/run/small").unwrap();
            fs::remove_dir("/run/small").unwrap();
        }
    });
}

//! Disks without room, where tools write something else than reports (those are in tests/outputs.rs).

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::Signal;
use testbed::job::{Job, Ready};
use testbed::namespace::{Place, Veth};
use testbed::process::{Input, Output};
use testbed::sandbox;
use testbed::step;
use testbed::tool::{ENDS_WITHIN, READY_WITHIN, Tool};

const TOKENBUCKET: Tool = Tool::new(env!("CARGO_BIN_EXE_tokenbucket"));
const TUNNEL_MONITOR: Tool = Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor"));
const TCP_HOLD: Tool = Tool::new(env!("CARGO_BIN_EXE_tcp_hold"));

/// A disk of one page, which is taken; goes when dropped.
struct FullDisk(&'static str);

impl FullDisk {
    fn at(path: &'static str) -> FullDisk {
        step(path, fs::create_dir_all(path));
        let tmpfs = Some("tmpfs");
        let size = Some("size=4k");
        step(path, mount(tmpfs, path, tmpfs, MsFlags::empty(), size));
        step(path, fs::write(format!("{path}/filler"), [0; 4096]));
        FullDisk(path)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // What stays, the comparison at the end of the sandbox finds.
        let _ = umount(self.0);
        let _ = fs::remove_dir(self.0);
    }
}

#[test]
fn without_room_for_the_ledger_nothing_is_built() {
    let name = "without_room_for_the_ledger_nothing_is_built";
    sandbox::run(name, |sandbox| {
        let disk = FullDisk::at("/run/netbpf");
        let neighbor_sharing = Tool::new(env!("CARGO_BIN_EXE_neighbor_sharing"));
        let vlan_learning = Tool::new(env!("CARGO_BIN_EXE_vlan_learning"));
        for (tool, arguments) in [
            (neighbor_sharing, "--demo"),
            (vlan_learning, "--demo"),
            (TOKENBUCKET, "--demo"),
            (TUNNEL_MONITOR, ""),
            (TCP_HOLD, ""),
            (TCP_HOLD, "net-up"),
        ] {
            let network = tool.name();
            let words = format!("write /run/netbpf/{network}.json: No space left on device");
            tool.assert_refused(sandbox, arguments, 1, &words);
        }
        drop(disk);
    });
}

#[test]
fn an_answer_without_room_is_a_failure_and_what_was_asked_for_is_done() {
    let name = "an_answer_without_room_is_a_failure_and_what_was_asked_for_is_done";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let _cable = Veth::new((&here, "wan0"), (&here, "far0"));
        let job = Job::new(
            sandbox,
            TOKENBUCKET,
            "--iface wan0",
            Ready::SaysAside("Limiting "),
        );
        let process = job.at_work("");
        let ask = |arguments: &str, output: Output| {
            let command = TOKENBUCKET.command(arguments);
            let answered = sandbox.start_with(command, Input::AtEnd, output);
            answered.finish(ENDS_WITHIN)
        };
        for arguments in [
            "status --iface wan0",
            "set --iface wan0 --rate 7/s",
            "detach --iface wan0",
        ] {
            let ended = ask(arguments, Output::Full);
            ended.assert_code(1);
            let errors = TOKENBUCKET.errors(&ended);
            assert_eq!(errors.len(), 1, "{arguments}: {}", ended.stderr);
            assert!(errors[0].contains("No space left"), "{}", errors[0]);
            if arguments.starts_with("set") {
                let status = ask("status --iface wan0", Output::Read);
                let status = &status.assert_code(0).stdout;
                assert!(status.contains("5 tokens, 7 a second"), "{status}");
            }
        }
        // It was asked to end.
        process.finish(ENDS_WITHIN).assert_code(0);
    });
}

#[test]
fn data_files_without_room_are_said_once_and_the_run_goes_on() {
    let name = "data_files_without_room_are_said_once_and_the_run_goes_on";
    sandbox::run(name, |sandbox| {
        let disk = FullDisk::at("/run/small");
        let here = Place::here();
        let _cable = Veth::new((&here, "wan0"), (&here, "far0"));
        let arguments = "--iface wan0 --data-dir /run/small --duration 3.5";
        let ended = sandbox.start(TUNNEL_MONITOR.command(arguments));
        let ended = ended.finish(ENDS_WITHIN);
        ended.assert_code(0);
        let words = "No space left on device (os error 28); the run goes on";
        assert_eq!(ended.stderr.matches(words).count(), 1, "{}", ended.stderr);
        let left = step("read the disk", fs::read_dir("/run/small"));
        assert_eq!(left.count(), 1, "drafts are removed");
        drop(disk);
    });
}

#[test]
fn a_log_without_room_fails_the_measurement_behind_its_result() {
    let name = "a_log_without_room_fails_the_measurement_behind_its_result";
    sandbox::run(name, |sandbox| {
        let disk = FullDisk::at("/run/small");
        // A port that was free a moment ago.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let free = step("a port", free.and_then(|it| it.local_addr()));
        let server = sandbox.start(TCP_HOLD.command(&format!("server 1 echo 16 {free}")));
        server.wait_for("Ready to accept connections", READY_WITHIN);
        let log = "--duration 0.5 --hdr-log /run/small/log";
        let client = TCP_HOLD.command(&format!("client 1 ping 16 {free} {log}"));
        let ended = sandbox.start(client).finish(ENDS_WITHIN);
        ended.assert_code(1);
        assert!(ended.stdout.contains("client-ping-"), "{}", ended.stdout);
        let errors = TCP_HOLD.errors(&ended);
        assert_eq!(errors.len(), 1, "{}", ended.stderr);
        assert!(
            errors[0].contains("write /run/small/log: No space left"),
            "{}",
            errors[0]
        );
        server.signal(Signal::SIGTERM);
        server.finish(ENDS_WITHIN);
        drop(disk);
    });
}

//! Measurement servers: they listen when they are said to, and never outlive their owner.

use std::env;
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netsetup::server::Kind;
use netsetup::topology::neighbor_sharing::{self, NAME};
use testbed::namespace::Place;
use testbed::sandbox::{self, Sandbox};
use testbed::{skip, step};

const SOON: Duration = Duration::from_secs(2);

/// Tells this test binary to build the network, to start the servers, and to end when its input
/// does.
const ROLE: &str = "NETSETUP_TEST_OWNS_SERVERS";

fn owner() -> Command {
    let mut command = Command::new(step("this program", env::current_exe()));
    command
        .args(["--ignored", "--exact", "--nocapture", "role_of_an_owner"])
        .env(ROLE, "1");
    command
}

/// A process that was killed takes a moment to be gone.
#[track_caller]
fn wait_until_only(sandbox: &Sandbox, count: usize) {
    let deadline = Instant::now() + SOON;
    while sandbox.processes().len() > count {
        let left = sandbox.processes();
        assert!(Instant::now() < deadline, "still there: {left:?}");
    }
}

#[test]
fn servers_listen_at_once_and_end_with_the_network() {
    let name = "servers_listen_at_once_and_end_with_the_network";
    let Some(kind) = Kind::find() else {
        return skip(name, "neither netserver nor iperf3 is installed");
    };
    sandbox::run(name, |sandbox| {
        let before = sandbox.snapshot();
        let processes = sandbox.processes().len();
        for _ in 0..3 {
            let mut network = neighbor_sharing::build(&mut |_| Ok(())).unwrap();
            assert_eq!(network.start_servers().unwrap(), Some(kind));
            // The last one first, and at once: it has had the least time.
            for host in network.neighbors().iter().chain(network.locals()).rev() {
                let address = SocketAddr::from((host.ipv4, kind.port()));
                Place::named("wan0").run(|| {
                    let connection = TcpStream::connect_timeout(&address, SOON);
                    step(format!("connect to {address}"), connection)
                });
            }
            assert_eq!(sandbox.processes().len(), processes + 5);
            drop(network);
            before.assert_same(&sandbox.snapshot(), "after the servers");
        }
    });
}

#[test]
fn servers_die_with_an_owner_that_is_killed() {
    let name = "servers_die_with_an_owner_that_is_killed";
    if Kind::find().is_none() {
        return skip(name, "neither netserver nor iperf3 is installed");
    }
    sandbox::run(name, |sandbox| {
        let processes = sandbox.processes().len();
        let mut owner = owner()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = owner.stdout.take().unwrap();
        let mut said = String::new();
        while !said.contains("ready\n") {
            let mut bytes = [0; 256];
            let count = output.read(&mut bytes).unwrap();
            assert_ne!(count, 0, "the owner ended: {said}");
            said.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        assert_eq!(sandbox.processes().len(), processes + 6);
        owner.kill().unwrap();
        owner.wait().unwrap();
        wait_until_only(sandbox, processes);
        assert!(netsetup::guard::take_down(NAME).unwrap());
    });
}

#[test]
fn netserver_is_preferred_and_speaks_and_ends_with_its_children() {
    let name = "netserver_is_preferred_and_speaks_and_ends_with_its_children";
    if Command::new("iperf3").arg("--version").output().is_err() {
        return skip(name, "iperf3 is not installed");
    }
    sandbox::run(name, |sandbox| {
        // Stands in for netserver, which may not be installed: its line, a child as it has one
        // for each connection, its port.
        let line = "Starting netserver with host 'IN(6)ADDR_ANY' port '12865' and family AF_UNSPEC";
        let script = format!(
            "#!/bin/sh\n[ \"$*\" = -D ] || exit 1\necho \"{line}\"\nsleep 60 >/dev/null 2>&1 &\n\
             exec iperf3 -s -p 12865 >/dev/null\n"
        );
        fs::write("/run/script", script).unwrap();
        // A process of its own writes the program: a thread of ours that is starting a child would
        // pass the open file on, and what is open for writing cannot be run.
        let install = ["-m", "755", "/run/script", "/run/netserver"];
        let status = Command::new("install").args(install).status().unwrap();
        assert!(status.success());
        let processes = sandbox.processes().len();
        let output = owner()
            .env("PATH", format!("/run:{}", env::var("PATH").unwrap()))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(said.matches(line).count(), 5, "{said}");
        wait_until_only(sandbox, processes);
        fs::remove_file("/run/netserver").unwrap();
        fs::remove_file("/run/script").unwrap();
    });
}

#[test]
#[ignore = "the owner in other tests, nothing by itself"]
fn role_of_an_owner() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let mut network = neighbor_sharing::build(&mut |_| Ok(())).unwrap();
    network.start_servers().unwrap();
    println!("ready");
    // Until we are killed, or until the test that started us closes our input.
    let _ = std::io::stdin().read(&mut [0; 1]);
}

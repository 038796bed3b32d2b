//! Measurement servers: they listen when they are said to, and never outlive their owner.

use std::env;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netsetup::server::Kind;
use netsetup::topology::neighbor_sharing::{self, NAME};
use testbed::namespace::Place;
use testbed::netserver::{LINE, Netserver};
use testbed::sandbox::{self, Sandbox};
use testbed::{is_installed, skip, step};

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

/// A process that was killed, or whose connection is over, takes a moment to be gone.
#[track_caller]
fn wait_until_only(sandbox: &Sandbox, count: usize) {
    let deadline = Instant::now() + SOON;
    while sandbox.processes().len() > count {
        let left = sandbox.processes();
        assert!(Instant::now() < deadline, "still there: {left:?}");
    }
    assert_eq!(sandbox.processes().len(), count);
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
            let mut lines = Vec::new();
            let started = network.start_servers(&mut |line| {
                lines.push(line.to_owned());
                Ok(())
            });
            assert_eq!(started.unwrap(), Some(kind));
            match kind {
                Kind::Netperf => assert_eq!(lines, [LINE; 5]),
                Kind::Iperf3 => assert_eq!(lines, [""; 0]),
            }
            // The last one first, and at once: it has had the least time.
            for host in network.neighbors().iter().chain(network.locals()).rev() {
                let address = SocketAddr::from((host.ipv4, kind.port()));
                Place::named("wan0").run(|| {
                    let connection = TcpStream::connect_timeout(&address, SOON);
                    step(format!("connect to {address}"), connection)
                });
            }
            wait_until_only(sandbox, processes + 5);
            drop(network);
            before.assert_same(&sandbox.snapshot(), "after the servers");
        }
    });
}

/// Kills an owner whose servers run, as `count` processes.
fn killed_with_its_servers(sandbox: &Sandbox, mut owner: Command, count: usize) {
    let processes = sandbox.processes().len();
    owner.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut owner = step("start the owner", owner.stderr(Stdio::null()).spawn());
    let mut said = String::new();
    if let Some(output) = &mut owner.stdout {
        while !said.contains("ready\n") {
            let mut bytes = [0; 256];
            let count = step("read what it says", output.read(&mut bytes));
            assert_ne!(count, 0, "the owner ended: {said}");
            said.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }
    wait_until_only(sandbox, processes + 1 + count);
    step("kill the owner", owner.kill());
    step("wait for the owner", owner.wait());
    wait_until_only(sandbox, processes);
    let removed = netsetup::guard::take_down(NAME);
    assert!(step("remove what it left", removed), "it left nothing");
}

#[test]
fn servers_die_with_an_owner_that_is_killed() {
    let name = "servers_die_with_an_owner_that_is_killed";
    if Kind::find().is_none() {
        return skip(name, "neither netserver nor iperf3 is installed");
    }
    sandbox::run(name, |sandbox| killed_with_its_servers(sandbox, owner(), 5));
}

#[test]
fn connections_of_netserver_die_with_an_owner_that_is_killed() {
    let name = "connections_of_netserver_die_with_an_owner_that_is_killed";
    if !is_installed("iperf3") {
        return skip(name, "iperf3 is not installed");
    }
    sandbox::run(name, |sandbox| {
        let netserver = Netserver::listening();
        let mut owner = owner();
        netserver.in_path_of(&mut owner);
        // The shell, two that sleep, iperf3.
        killed_with_its_servers(sandbox, owner, 5 * 4);
    });
}

#[test]
fn netserver_is_preferred_and_speaks_and_ends_with_its_own() {
    let name = "netserver_is_preferred_and_speaks_and_ends_with_its_own";
    if !is_installed("iperf3") {
        return skip(name, "iperf3 is not installed");
    }
    sandbox::run(name, |sandbox| {
        let netserver = Netserver::listening();
        let before = sandbox.snapshot();
        let mut owner = owner();
        netserver.in_path_of(&mut owner);
        let output = owner.stdin(Stdio::null()).output().unwrap();
        before.assert_same(&sandbox.snapshot(), "after the owner");
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        let expected = format!("{}ready\n", format!("{LINE}\n").repeat(5));
        assert!(said.contains(&expected), "{said}");
    });
}

#[test]
fn a_server_that_does_not_stay_is_a_failure() {
    let name = "a_server_that_does_not_stay_is_a_failure";
    sandbox::run(name, |sandbox| {
        for (script, status) in [
            ("exit 7", "exit status: 7"),
            // As if it knew no -D, and became a daemon.
            (
                "setsid sleep 60 >/dev/null 2>&1 &\nexit 0",
                "exit status: 0",
            ),
        ] {
            let netserver = Netserver::running(script);
            let before = sandbox.snapshot();
            let mut owner = owner();
            netserver.in_path_of(&mut owner);
            let output = owner.stdin(Stdio::null()).output().unwrap();
            before.assert_same(&sandbox.snapshot(), script);
            let said = String::from_utf8_lossy(&output.stderr);
            let complaint = format!("netserver -D in namespace neighbor0 ended at once ({status})");
            assert!(said.contains(&complaint), "{said}");
        }
    });
}

#[test]
#[ignore = "the owner in other tests, nothing by itself"]
fn role_of_an_owner() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let mut network = neighbor_sharing::build(&mut |_| Ok(())).unwrap();
    let print = &mut |line: &str| Ok(writeln!(io::stdout(), "{line}")?);
    network.start_servers(print).unwrap();
    println!("ready");
    // Until we are killed, or until the test that started us closes our input.
    let _ = io::stdin().read(&mut [0; 1]);
}

//! Measurement servers: they listen when they are said to, and never outlive their owner.

use std::env;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netsetup::server::Kind;
use netsetup::topology::neighbor_sharing::{self, NAME};
use testbed::namespace::Place;
use testbed::{sandbox, skip, step};

const SOON: Duration = Duration::from_secs(2);

/// Tells this test binary to build the network, to start the servers, and to wait.
const ROLE: &str = "NETSETUP_TEST_OWNS_SERVERS";

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
            assert_eq!(sandbox.processes().len(), processes + 5);
            for host in network.neighbors().iter().chain(network.locals()) {
                let address = SocketAddr::from((host.ipv4, kind.port()));
                Place::named("wan0").run(|| {
                    let connection = TcpStream::connect_timeout(&address, SOON);
                    step(format!("connect to {address}"), connection)
                });
            }
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
        let mut command = Command::new(env::current_exe().unwrap());
        let role = "role_of_an_owner_that_is_killed";
        command
            .args(["--ignored", "--exact", "--nocapture", role])
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut owner = command.spawn().unwrap();
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
        let deadline = Instant::now() + SOON;
        while sandbox.processes().len() > processes {
            let left = sandbox.processes();
            assert!(Instant::now() < deadline, "still there: {left:?}");
        }
        assert!(netsetup::guard::take_down(NAME).unwrap());
    });
}

#[test]
#[ignore = "the owner in servers_die_with_an_owner_that_is_killed, nothing by itself"]
fn role_of_an_owner_that_is_killed() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let mut network = neighbor_sharing::build(&mut |_| Ok(())).unwrap();
    network.start_servers().unwrap();
    println!("ready");
    // Until we are killed, or until the test that started us has gone.
    let _ = std::io::stdin().read(&mut [0; 1]);
}

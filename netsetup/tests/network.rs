//! The networks, built and removed in a sandbox; what they have in common is shown by that of
//! neighbor_sharing.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use netsetup::failure::Failure;
use netsetup::guard::{self, Guard};
use netsetup::ledger::{Object, Owner, Record};
use netsetup::link::{Ends, Link, VXLAN_PORT, Vxlan};
use netsetup::topology::host::Host;
use netsetup::topology::neighbor_sharing::{self, NAME, Network};
use netsetup::topology::tokenbucket;
use netsetup::{ip, namespace};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use testbed::namespace::{Namespace, Place};
use testbed::{sandbox, step};

const SOON: Duration = Duration::from_secs(2);

fn build() -> Result<Network> {
    neighbor_sharing::build(&mut |_| Ok(()))
}

fn hosts(network: &Network) -> impl Iterator<Item = &Host> {
    [network.wan()]
        .into_iter()
        .chain(network.neighbors())
        .chain(network.locals())
}

/// The host is as expected (namespace, port, IPv4 and IPv6 address), and usable.
#[track_caller]
fn assert_up(host: &Host, bridge: &str, expected: (&str, &str, &str, &str)) {
    let (name, port, ipv4, ipv6) = expected;
    assert_eq!((host.namespace.as_str(), host.port.as_str()), (name, port));
    let here = Place::here();
    let links = here.ip(&format!("-o link show dev {port}"));
    assert!(
        links.contains(&format!("master {bridge} state UP")),
        "{links}"
    );
    let addresses = Place::named(name).ip("-o address show dev eth0");
    for address in [format!("inet {ipv4}/24 "), format!("inet6 {ipv6}/64 ")] {
        assert!(addresses.contains(&address), "{address}: {addresses}");
    }
    assert!(!addresses.contains("tentative"), "{addresses}");
    let lo = Place::named(name).ip("-o link show dev lo");
    assert!(lo.contains("LOOPBACK,UP"), "{lo}");
    assert!(
        here.ip(&format!("-o address show dev {port}")).is_empty(),
        "the machine has an address on {port}"
    );
}

/// The bridge is up, and the machine does not take part in what passes over it.
#[track_caller]
fn assert_bridge(name: &str) {
    let here = Place::here();
    let link = here.ip(&format!("-o link show dev {name}"));
    assert!(link.contains("state UP"), "{link}");
    let addresses = here.ip(&format!("-o address show dev {name}"));
    assert!(addresses.is_empty(), "{addresses}");
}

fn places() -> Vec<String> {
    Place::all().iter().map(Place::to_string).collect()
}

/// The text of a conflict; a panic if it is another failure, or none.
#[track_caller]
fn conflict<T>(result: Result<T>) -> String {
    match result {
        Err(error) if matches!(error.downcast_ref(), Some(Failure::Conflict(_))) => {
            format!("{error:#}")
        }
        Err(error) => panic!("not a conflict: {error:#}"),
        Ok(_) => panic!("nothing was refused"),
    }
}

/// A TCP connection between two hosts of the network, accepted by the kernel.
#[track_caller]
fn connect(from: &str, to: &str, address: IpAddr) {
    // Any free port: other tests start children, which hold a copy of the last one until exec.
    let free = SocketAddr::new(address, 0);
    let listener = Place::named(to).run(|| step("listen", TcpListener::bind(free)));
    let address = step("its address", listener.local_addr());
    Place::named(from).run(|| {
        let what = format!("connect {from} to {address}");
        step(what, TcpStream::connect_timeout(&address, SOON))
    });
    drop(listener);
}

#[test]
fn it_is_the_network_of_the_original_and_goes_without_a_trace() {
    sandbox::run(
        "it_is_the_network_of_the_original_and_goes_without_a_trace",
        |sandbox| {
            let before = sandbox.snapshot();
            let network = build().unwrap();
            assert_eq!(
                places(),
                [
                    "sandbox",
                    "local0",
                    "local1",
                    "neighbor0",
                    "neighbor1",
                    "neighbor2",
                    "wan0"
                ]
            );
            let expected = [
                ("wan0", "wan0a", "172.16.1.5", "fd00:ac10:1::5"),
                (
                    "neighbor0",
                    "neighbor0a",
                    "172.16.1.100",
                    "fd00:ac10:1::100",
                ),
                (
                    "neighbor1",
                    "neighbor1a",
                    "172.16.1.101",
                    "fd00:ac10:1::101",
                ),
                (
                    "neighbor2",
                    "neighbor2a",
                    "172.16.1.102",
                    "fd00:ac10:1::102",
                ),
                ("local0", "local0a", "172.16.1.150", "fd00:ac10:1::150"),
                ("local1", "local1a", "172.16.1.151", "fd00:ac10:1::151"),
            ];
            assert_eq!(hosts(&network).count(), expected.len());
            for (host, expected) in hosts(&network).zip(expected) {
                assert_up(host, "br100", expected);
            }
            assert_eq!(network.bridge(), "br100");
            assert_bridge("br100");
            drop(network);
            before.assert_same(&sandbox.snapshot(), "after the network");
        },
    );
}

#[test]
fn the_network_of_tokenbucket_stands_beside_it() {
    sandbox::run("the_network_of_tokenbucket_stands_beside_it", |sandbox| {
        let other = build().unwrap();
        let before = sandbox.snapshot();
        let others = places();
        let network = tokenbucket::build(&mut |_| Ok(())).unwrap();
        let mut names = places();
        names.retain(|name| !others.contains(name));
        assert_eq!(names, ["receiver", "sender0", "sender1", "sender2"]);
        let expected = [
            ("sender0", "sender0a", "172.16.2.100", "fd00:ac10:2::100"),
            ("sender1", "sender1a", "172.16.2.101", "fd00:ac10:2::101"),
            ("sender2", "sender2a", "172.16.2.102", "fd00:ac10:2::102"),
            ("receiver", "receivera", "172.16.2.5", "fd00:ac10:2::5"),
        ];
        let receiver = network.receiver();
        let hosts = || network.senders().iter().chain([receiver]);
        assert_eq!(hosts().count(), expected.len());
        for (host, expected) in hosts().zip(expected) {
            assert_up(host, "br200", expected);
        }
        assert_eq!(network.bridge(), "br200");
        assert_bridge("br200");
        for sender in network.senders() {
            for address in [IpAddr::V4(receiver.ipv4), IpAddr::V6(receiver.ipv6)] {
                connect(&sender.namespace, "receiver", address);
            }
            connect("receiver", &sender.namespace, sender.ipv4.into());
        }
        network.close().unwrap();
        before.assert_same(&sandbox.snapshot(), "after the network");
        connect("wan0", "local0", other.locals()[0].ipv4.into());
    });
}

#[test]
fn packets_pass_as_soon_as_it_is_built() {
    sandbox::run("packets_pass_as_soon_as_it_is_built", |_| {
        for _ in 0..5 {
            let network = build().unwrap();
            for host in network.neighbors().iter().chain(network.locals()) {
                for address in [IpAddr::V4(host.ipv4), IpAddr::V6(host.ipv6)] {
                    connect("wan0", &host.namespace, address);
                    connect(&host.namespace, "wan0", network.wan().ipv4.into());
                }
            }
            network.close().unwrap();
        }
    });
}

#[test]
fn a_machine_that_has_never_had_a_namespace_is_left_as_it_was() {
    sandbox::run(
        "a_machine_that_has_never_had_a_namespace_is_left_as_it_was",
        |_| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let (tmpfs, none) = (Some("tmpfs"), None::<&str>);
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none).unwrap();
            mount(tmpfs, "/run", tmpfs, MsFlags::empty(), none).unwrap();
            let mounts = || fs::read_to_string("/proc/thread-self/mounts").unwrap();
            let before = mounts();
            for keep_one in [false, true] {
                let network = build().unwrap();
                let own = keep_one.then(|| Namespace::new("own"));
                network.close().unwrap();
                // A namespace of the user's keeps the directory; it is as `ip netns` made it.
                assert_eq!(fs::exists(namespace::DIRECTORY).unwrap(), keep_one);
                drop(own);
            }
            // Detached, because other tests start children, which hold what we hold until exec.
            umount2("/run/netns", MntFlags::MNT_DETACH).unwrap();
            fs::remove_dir("/run/netns").unwrap();
            assert_eq!(fs::read_dir("/run").unwrap().count(), 0);
            assert_eq!(mounts(), before);
            umount2("/run", MntFlags::MNT_DETACH).unwrap();
        },
    );
}

#[test]
fn what_belongs_to_the_user_is_refused_and_left_alone() {
    sandbox::run(
        "what_belongs_to_the_user_is_refused_and_left_alone",
        |sandbox| {
            let namespaces = ["neighbor1", "local0"].map(Namespace::new);
            let here = Place::here();
            here.ip("link add br100 type bridge");
            here.ip("link add other type bridge");
            here.ip("link property add dev other altname wan0a");
            let before = sandbox.snapshot();
            assert_eq!(
                conflict(build()),
                "in the way and not ours: namespace neighbor1 (ip netns delete neighbor1), \
                 namespace local0 (ip netns delete local0), interface br100 (ip link delete \
                 br100), interface wan0a (ip link delete wan0a); rename or delete what you do not \
                 need"
            );
            before.assert_same(&sandbox.snapshot(), "after the refusal");
            here.ip("link delete br100");
            here.ip("link delete other");
            drop(namespaces);

            // What a killed `ip netns add` leaves; it may be anybody's.
            fs::write("/run/netns/local0", "").unwrap();
            let text = conflict(build());
            assert!(text.contains("namespace local0"), "{text}");
            assert_eq!(fs::read("/run/netns/local0").unwrap(), b"");
            fs::remove_file("/run/netns/local0").unwrap();
        },
    );
}

#[test]
fn a_second_start_is_told_who_runs() {
    sandbox::run("a_second_start_is_told_who_runs", |sandbox| {
        let network = build().unwrap();
        let before = sandbox.snapshot();
        let pid = std::process::id();
        let refusal = format!("neighbor_sharing is already running as pid {pid}; stop it first");
        assert_eq!(conflict(build()), refusal);
        assert_eq!(conflict(guard::take_down(NAME)), refusal);
        before.assert_same(&sandbox.snapshot(), "after the refusals");
        drop(network);
        build().unwrap().close().unwrap();
    });
}

#[test]
fn an_owner_in_another_network_namespace_is_found_through_the_ledger() {
    sandbox::run(
        "an_owner_in_another_network_namespace_is_found_through_the_ledger",
        |sandbox| {
            let elsewhere = Namespace::new("elsewhere");
            let network = build().unwrap();
            let before = sandbox.snapshot();
            let pid = std::process::id();
            assert_eq!(
                elsewhere.run(|| conflict(build())),
                format!(
                    "neighbor_sharing is already running as pid {pid} in another network \
                     namespace; stop it first"
                )
            );
            before.assert_same(&sandbox.snapshot(), "after the refusal");
            network.close().unwrap();
        },
    );
}

#[test]
fn what_was_left_in_another_network_namespace_goes_as_far_as_it_can_be_reached() {
    let name = "what_was_left_in_another_network_namespace_goes_as_far_as_it_can_be_reached";
    sandbox::run(name, |sandbox| {
        let elsewhere = Namespace::new("elsewhere");
        let before = sandbox.snapshot();
        elsewhere.run(|| build().unwrap().into_guard().keep().unwrap());
        assert!(guard::take_down(NAME).unwrap());
        // The namespaces are gone, and take the veths along; the bridge cannot be seen from here.
        let bridge = elsewhere.ip("-br link show type bridge");
        assert!(bridge.starts_with("br100 "), "{bridge}");
        let deadline = Instant::now() + SOON;
        while !elsewhere.ip("-br link show type veth").is_empty() {
            assert!(Instant::now() < deadline, "the veths stay");
        }
        elsewhere.ip("link delete br100");
        before.assert_same(&sandbox.snapshot(), "after the network elsewhere");
    });
}

#[test]
fn two_starts_at_once_give_one_network() {
    sandbox::run("two_starts_at_once_give_one_network", |_| {
        for _ in 0..10 {
            let built: Vec<Result<Network>> = std::thread::scope(|scope| {
                let starts: Vec<_> = (0..4).map(|_| scope.spawn(build)).collect();
                starts
                    .into_iter()
                    .map(|start| start.join().unwrap())
                    .collect()
            });
            let (networks, refusals): (Vec<_>, Vec<_>) = built.into_iter().partition(Result::is_ok);
            assert_eq!(networks.len(), 1);
            for refusal in refusals {
                let text = conflict(refusal);
                assert!(text.contains("is already running as pid"), "{text}");
            }
        }
    });
}

#[test]
fn a_build_that_is_stopped_is_undone_at_every_step() {
    sandbox::run(
        "a_build_that_is_stopped_is_undone_at_every_step",
        |sandbox| {
            let before = sandbox.snapshot();
            let mut steps = 0;
            loop {
                let mut seen = 0;
                let result = neighbor_sharing::build(&mut |step| {
                    seen += 1;
                    if seen > steps {
                        bail!("stopped before {step}");
                    }
                    Ok(())
                });
                let Err(error) = result else {
                    break;
                };
                assert!(
                    error.to_string().starts_with("stopped before "),
                    "{error:#}"
                );
                before.assert_same(&sandbox.snapshot(), &error.to_string());
                steps += 1;
            }
            // Look, six namespaces, the links, six times addresses, wait.
            assert_eq!(steps, 15);
        },
    );
}

#[test]
fn a_command_that_fails_is_named_and_what_was_built_is_undone() {
    sandbox::run(
        "a_command_that_fails_is_named_and_what_was_built_is_undone",
        |sandbox| {
            let before = sandbox.snapshot();
            let links = [
                Link::bridge("br7"),
                Link::veth("first", "eth0", "far").port_of("br7"),
                Link::veth("second", "eth0", "far").port_of("br7"),
            ];
            let mut guard = Guard::claim("test", &["far"], &links).unwrap();
            guard.make_namespace("far").unwrap();
            let error = guard.make_links(&links).unwrap_err().to_string();
            assert!(
                error.starts_with("ip link add second index ")
                    && error.ends_with(
                        "type veth peer name eth0 netns far: \
                        RTNETLINK answers: File exists"
                    ),
                "{error}"
            );
            let lines = ["link set dev nosuch up".to_owned()];
            assert_eq!(
                guard.configure("far", &lines).unwrap_err().to_string(),
                "ip link set dev nosuch up (in namespace far): Cannot find device \"nosuch\""
            );
            guard.close().unwrap();
            before.assert_same(&sandbox.snapshot(), "after the failure");
        },
    );
}

#[test]
fn a_port_is_waited_for_until_packets_pass() {
    sandbox::run("a_port_is_waited_for_until_packets_pass", |_| {
        let links = [
            Link::bridge("br7"),
            Link::veth("fara", "eth0", "far").port_of("br7"),
        ];
        let mut guard = Guard::claim("test", &["far"], &links).unwrap();
        guard.make_namespace("far").unwrap();
        guard.make_links(&links).unwrap();
        let shown = || Place::here().ip("-d -o link show dev fara");
        assert!(!shown().contains("state UP"), "{}", shown());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                Place::named("far").ip("link set dev eth0 up");
            });
            guard.wait_until_up(&["fara"]).unwrap();
            let text = shown();
            assert!(
                text.contains("state UP") && text.contains("bridge_slave state forwarding"),
                "{text}"
            );
        });
    });
}

#[test]
fn what_the_user_changed_meanwhile_is_not_in_the_way_of_the_clean_up() {
    sandbox::run(
        "what_the_user_changed_meanwhile_is_not_in_the_way_of_the_clean_up",
        |sandbox| {
            let before = sandbox.snapshot();
            let network = build().unwrap();
            let here = Place::here();
            here.ip("link delete local0a");
            here.ip("link set dev wan0a name uplink");
            here.ip("netns delete neighbor2");
            network.close().unwrap();
            before.assert_same(&sandbox.snapshot(), "after the clean-up");
        },
    );
}

#[test]
fn a_stranger_in_the_place_of_ours_is_not_removed() {
    sandbox::run("a_stranger_in_the_place_of_ours_is_not_removed", |_| {
        let here = Place::here();
        let network = build().unwrap();
        let record = Record::load(NAME).unwrap().unwrap();
        let index = |wanted: &str| {
            record.objects.iter().find_map(|object| match object {
                Object::Link { name, identity } if name == wanted => Some(identity.index),
                _ => None,
            })
        };
        for name in ["local0", "local1", "neighbor0"] {
            here.ip(&format!("link delete {name}a"));
            here.ip(&format!("netns delete {name}"));
        }
        // Our index with another name, our name and index, our name alone, and our namespaces:
        // the kernel likes to give a new one the inode of one that has just gone.
        let (first, second) = (index("local0a").unwrap(), index("local1a").unwrap());
        here.ip(&format!("link add other index {first} type bridge"));
        here.ip(&format!("link add local1a index {second} type bridge"));
        here.ip("link add neighbor0a type bridge");
        let strangers = ["local0", "local1", "neighbor0"].map(Namespace::new);
        let doubt = "the MAC address of local1a was changed, so it cannot be proved ours; delete it by hand";
        assert_eq!(network.close().unwrap_err().to_string(), doubt);
        assert_eq!(places(), ["sandbox", "local0", "local1", "neighbor0"]);
        let links = here.ip("-br link show type bridge");
        let mut names: Vec<&str> = links
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["local1a", "neighbor0a", "other"]);

        // What is in doubt stays in the ledger until the user has decided.
        assert_eq!(guard::take_down(NAME).unwrap_err().to_string(), doubt);
        assert_eq!(
            build().unwrap_err().to_string(),
            "remove what a killed neighbor_sharing left"
        );
        for name in names {
            here.ip(&format!("link delete {name}"));
        }
        drop(strangers);
        assert!(guard::take_down(NAME).unwrap());
    });
}

#[test]
fn a_namespace_with_the_inode_of_ours_is_not_ours() {
    sandbox::run("a_namespace_with_the_inode_of_ours_is_not_ours", |_| {
        build().unwrap().into_guard().keep().unwrap();
        let file = "/run/netbpf/neighbor_sharing.json";
        let mut ledger: serde_json::Value =
            serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let cookie = ledger["objects"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .find(|object| object["name"] == "neighbor1")
            .map(|object| &mut object["cookie"])
            .unwrap();
        *cookie = (cookie.as_u64().unwrap() + 1_000_000).into();
        fs::write(file, ledger.to_string()).unwrap();
        assert!(guard::take_down(NAME).unwrap());
        assert_eq!(places(), ["sandbox", "neighbor1"]);
        Place::here().ip("netns delete neighbor1");
    });
}

#[test]
fn tunnels_are_made_on_the_host_and_in_namespaces() {
    sandbox::run(
        "tunnels_are_made_on_the_host_and_in_namespaces",
        |sandbox| {
            let before = sandbox.snapshot();
            let tunnel = |vni, local: &str| {
                let vxlan = Vxlan {
                    vni,
                    ends: Ends::Fixed {
                        local: local.parse().unwrap(),
                        remote: Some("192.0.2.2".parse().unwrap()),
                    },
                    port: VXLAN_PORT,
                    learning: false,
                };
                Link::vxlan(format!("vx{vni}"), vxlan)
            };
            let on_host = [
                Link::bridge("br7"),
                tunnel(7, "192.0.2.1").port_of("br7"),
                Link::veth("hosta", "eth0", "host").port_of("br7"),
            ];
            let mut guard = Guard::claim("test", &["host"], &on_host).unwrap();
            guard.make_namespace("host").unwrap();
            guard.make_links(&on_host).unwrap();
            let inside = tunnel(16_777_215, "192.0.2.3");
            let lines = [
                ip::up_line("eth0"),
                ip::address_line("eth0", "192.0.2.3".parse().unwrap(), 24),
                inside.add_line(None),
            ];
            let lines: Vec<String> = lines.into_iter().chain(inside.up_lines(false)).collect();
            guard.configure("host", &lines).unwrap();
            let shown = Place::here().ip("-d -o link show dev vx7");
            for part in [
                "vxlan id 7 remote 192.0.2.2 local 192.0.2.1",
                "dstport 4789 nolearning",
                "master br7",
            ] {
                assert!(shown.contains(part), "{part}: {shown}");
            }
            let shown = Place::named("host").ip("-d -o link show dev vx16777215");
            assert!(
                shown.contains("vxlan id 16777215 remote 192.0.2.2 local 192.0.2.3"),
                "{shown}"
            );
            drop(guard);
            before.assert_same(&sandbox.snapshot(), "after the tunnels");
        },
    );
}

#[test]
fn a_kept_network_stays_until_it_is_taken_down() {
    sandbox::run("a_kept_network_stays_until_it_is_taken_down", |sandbox| {
        let before = sandbox.snapshot();
        assert!(!guard::take_down(NAME).unwrap());
        build().unwrap().into_guard().keep().unwrap();
        assert_eq!(Record::load(NAME).unwrap().unwrap().owner, Owner::Kept);
        assert_eq!(
            conflict(build()),
            "neighbor_sharing is kept up by `netsetup up`; take it down with `netsetup down \
             neighbor_sharing` first"
        );
        connect("wan0", "local0", "172.16.1.150".parse().unwrap());
        assert!(guard::take_down(NAME).unwrap());
        before.assert_same(&sandbox.snapshot(), "after the kept network");
    });
}

#[test]
fn a_ledger_that_cannot_be_read_is_one_clear_line() {
    sandbox::run(
        "a_ledger_that_cannot_be_read_is_one_clear_line",
        |sandbox| {
            fs::create_dir("/run/netbpf").unwrap();
            let file = "/run/netbpf/neighbor_sharing.json";
            for damaged in ["", "{", "[]", r#"{"version":1}"#, "\0\0\0\0"] {
                fs::write(file, damaged).unwrap();
                let before = sandbox.snapshot();
                for text in [conflict(build()), conflict(guard::take_down(NAME))] {
                    assert!(
                        text.starts_with(&format!("the ledger {file} cannot be")),
                        "{text}"
                    );
                    assert!(
                        text.ends_with("then delete the file") && !text.contains('\n'),
                        "{text}"
                    );
                }
                before.assert_same(&sandbox.snapshot(), "after the refusal");
            }
            fs::remove_file(file).unwrap();
            build().unwrap().close().unwrap();
            assert!(!fs::exists("/run/netbpf").unwrap());
        },
    );
}

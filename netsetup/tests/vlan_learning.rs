//! The network of vlan_learning, built and removed in a sandbox, with VLAN devices where the kernel has
//! them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Error, bail};
use netsetup::failure::Failure;
use netsetup::topology::vlan_learning::{Client, Network, Plan, Tagger, Worker, build};
use testbed::namespace::{Namespace, Place};
use testbed::packet::Mac;
use testbed::sandbox::{self, Sandbox};
use testbed::step;

const SOON: Duration = Duration::from_secs(2);

fn built(plan: &Plan) -> Network {
    step("build the network", build(plan, &mut |_| Ok(())))
}

/// Whether this kernel has VLAN devices.
fn knows_vlans() -> bool {
    let here = Place::here();
    here.ip("link add probe0 type veth peer name probe1");
    let mut ip = here.command("ip");
    ip.args("link add link probe0 name probe2 type vlan id 2".split(' '));
    let known = step("run ip", ip.output()).status.success();
    here.ip("link delete probe0");
    known
}

/// That the machine cannot take part in what passes: the interface is up, and has no address.
#[track_caller]
fn assert_silent(interface: &str) {
    let here = Place::here();
    let link = here.ip(&format!("-o link show dev {interface}"));
    assert!(link.contains("state UP"), "{link}");
    let addresses = here.ip(&format!("-o address show dev {interface}"));
    assert_eq!(addresses, "");
}

#[track_caller]
fn assert_addresses(namespace: &str, ipv4: &str, ipv6: &str) {
    let addresses = Place::named(namespace).ip("-o address show dev eth0");
    for address in [format!("inet {ipv4}/24 "), format!("inet6 {ipv6}/64 ")] {
        assert!(addresses.contains(&address), "{address}: {addresses}");
    }
    assert!(!addresses.contains("tentative"), "{addresses}");
}

/// Joins what comes out of the client's VLAN with its worker, as the tool will, but for one client. The
/// caller deletes `br7`.
fn join(client: &Client, worker: &Worker) {
    let here = Place::here();
    here.ip("link add br7 type bridge");
    let port = client.port.clone().unwrap_or_else(|| {
        let id = client.vlan;
        here.ip(&format!("link add link eth0b name vlan7 type vlan id {id}"));
        "vlan7".into()
    });
    for name in [port.as_str(), &worker.port, "br7"] {
        let master = if name == "br7" { "" } else { "master br7" };
        here.ip(&format!("link set dev {name} addrgenmode none {master} up"));
    }
}

#[track_caller]
fn connect(client: &Client, worker: &Worker, address: IpAddr) {
    let free = SocketAddr::new(address, 0);
    let at = Place::named(&worker.namespace);
    let listener = at.run(|| step("listen", TcpListener::bind(free)));
    let address = step("its address", listener.local_addr());
    Place::named(&client.namespace).run(|| {
        let what = format!("connect {} to {address}", client.namespace);
        step(what, TcpStream::connect_timeout(&address, SOON))
    });
}

#[track_caller]
fn text_of(error: &Error, code: u8) -> String {
    match error.downcast_ref::<Failure>() {
        Some(failure) if failure.code() == code => format!("{error:#}"),
        _ => panic!("not a failure of code {code}: {error:#}"),
    }
}

#[test]
fn it_is_the_network_of_the_original_and_goes_without_a_trace() {
    let name = "it_is_the_network_of_the_original_and_goes_without_a_trace";
    sandbox::run(name, |sandbox| {
        let before = sandbox.snapshot();
        let network = built(&Plan::default());
        let places: Vec<String> = Place::all().iter().map(Place::to_string).collect();
        let expected = [
            "sandbox", "client0", "client1", "client2", "worker0", "worker1", "worker2",
        ];
        assert_eq!(places, expected);
        assert_eq!((network.far_trunk(), network.trunk()), ("eth0a", "eth0b"));
        assert_silent("eth0a");
        assert_silent("eth0b");
        let far = Place::here().ip("-o link show dev eth0a");
        assert!(far.contains(": eth0a@eth0b: "), "{far}");
        for (i, worker) in network.workers().iter().enumerate() {
            assert_eq!(worker.namespace, format!("worker{i}"));
            assert_eq!(worker.port, format!("worker{i}a"));
            assert_silent(&worker.port);
            assert_addresses(&worker.namespace, "172.16.1.5", "fd00:ac10:1::5");
        }
        let tagger = if knows_vlans() {
            Tagger::Device
        } else {
            Tagger::Bpf
        };
        assert_eq!(network.tagger(), tagger);
        for (i, client) in (0..).zip(network.clients()) {
            assert_eq!(client.namespace, format!("client{i}"));
            let mac: Mac = [2, 0, 0, 0, 0, i];
            assert_eq!(client.mac, mac);
            assert_eq!(Place::named(&client.namespace).mac("eth0"), mac);
            assert_eq!(client.worker, usize::from(i));
            assert!((2..=17).contains(&client.vlan), "{client:?}");
            assert_addresses(&client.namespace, "172.16.1.100", "fd00:ac10:1::100");
            match &client.port {
                Some(port) => {
                    assert_eq!(*port, format!("client{i}a"));
                    assert_silent(port);
                }
                None => {
                    let link = Place::named(&client.namespace).ip("-d -o link show dev eth0");
                    let id = format!("vlan protocol 802.1Q id {} ", client.vlan);
                    assert!(link.contains(&id), "{link}");
                }
            }
            assert_eq!(client.port.is_none(), tagger == Tagger::Device);
        }
        network.close().unwrap();
        before.assert_same(&sandbox.snapshot(), "after the network");
    });
}

#[test]
fn a_client_reaches_the_worker_that_it_is_joined_with() {
    sandbox::run("a_client_reaches_the_worker_that_it_is_joined_with", |_| {
        let network = built(&Plan::default());
        for client in network.clients() {
            let worker = &network.workers()[client.worker];
            join(client, worker);
            connect(client, worker, worker.ipv4.into());
            connect(client, worker, worker.ipv6.into());
            let here = Place::here();
            here.ip("link delete br7");
            if client.port.is_none() {
                here.ip("link delete vlan7");
            }
        }
        network.close().unwrap();
    });
}

#[test]
fn more_clients_than_workers_have_addresses_and_vlans_of_their_own() {
    let name = "more_clients_than_workers_have_addresses_and_vlans_of_their_own";
    sandbox::run(name, |sandbox| {
        let before = sandbox.snapshot();
        let plan = Plan {
            clients: 20,
            workers: 2,
            vlans: 4090..=4092,
            ..Plan::default()
        };
        let mut steps = Vec::new();
        let network = build(&plan, &mut |step| {
            steps.push(step.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(steps[0], "taking the VLANs 4075-4094: there are 20 clients");
        let vlans: BTreeSet<u16> = network.clients().iter().map(|client| client.vlan).collect();
        assert!(vlans.into_iter().eq(4075..=4094));
        for (i, client) in network.clients().iter().enumerate() {
            assert_eq!(client.worker, i % 2);
            let digits = 100 + i;
            let (ipv4, ipv6) = ("172.16.1", "fd00:ac10:1:");
            assert_addresses(
                &client.namespace,
                &format!("{ipv4}.{digits}"),
                &format!("{ipv6}:{digits}"),
            );
        }
        let (client, worker) = (&network.clients()[19], &network.workers()[1]);
        join(client, worker);
        connect(client, worker, worker.ipv6.into());
        Place::here().ip("link delete br7");
        drop(network);
        before.assert_same(&sandbox.snapshot(), "after the network");
    });
}

#[test]
fn vlan_devices_where_there_are_none_are_a_missing_kernel_feature() {
    let name = "vlan_devices_where_there_are_none_are_a_missing_kernel_feature";
    sandbox::run(name, |sandbox| {
        let before = sandbox.snapshot();
        let plan = Plan {
            tagger: Tagger::Device,
            ..Plan::default()
        };
        let result = build(&plan, &mut |_| Ok(()));
        if knows_vlans() {
            assert_eq!(result.unwrap().tagger(), Tagger::Device);
        } else {
            let text = text_of(&result.unwrap_err(), 4);
            assert!(
                text.starts_with(
                    "this kernel cannot make the link eth0 (CONFIG_VLAN_8021Q is missing): ip link \
                     add link eth0a name eth0 address 02:00:00:00:00:00 netns client0 type vlan id "
                ) && !text.contains('\n'),
                "{text}"
            );
        }
        before.assert_same(&sandbox.snapshot(), "after the refusal");
    });
}

#[test]
fn tags_by_bpf_can_be_had_everywhere() {
    sandbox::run("tags_by_bpf_can_be_had_everywhere", |_| {
        let plan = Plan {
            tagger: Tagger::Bpf,
            ..Plan::default()
        };
        let network = built(&plan);
        assert_eq!(network.tagger(), Tagger::Bpf);
        assert!(network.clients().iter().all(|client| client.port.is_some()));
        network.close().unwrap();
    });
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() {
    sandbox::run(
        "what_cannot_be_is_refused_before_anything_is_made",
        |sandbox| {
            let before = sandbox.snapshot();
            let plan = Plan {
                clients: 151,
                ..Plan::default()
            };
            let error = build(&plan, &mut |step| bail!("{step}")).unwrap_err();
            assert_eq!(text_of(&error, 2), "there can be 1 to 150 clients, not 151");
            before.assert_same(&sandbox.snapshot(), "after the refusal");
        },
    );
}

#[test]
fn what_belongs_to_the_user_is_refused_and_left_alone() {
    sandbox::run(
        "what_belongs_to_the_user_is_refused_and_left_alone",
        |sandbox| {
            let here = Place::here();
            let client = Namespace::new("client1");
            for name in ["eth0b", "client2a"] {
                here.ip(&format!("link add {name} type bridge"));
            }
            let before = sandbox.snapshot();
            let error = build(&Plan::default(), &mut |_| Ok(())).unwrap_err();
            assert_eq!(
                text_of(&error, 5),
                "in the way and not ours: namespace client1 (ip netns delete client1), interface \
                 eth0b (ip link delete eth0b), interface client2a (ip link delete client2a); \
                 rename or delete what you do not need"
            );
            before.assert_same(&sandbox.snapshot(), "after the refusal");
            drop(client);
            for name in ["eth0b", "client2a"] {
                here.ip(&format!("link delete {name}"));
            }
        },
    );
}

/// Stops the build before each of its steps.
fn stopped_everywhere(sandbox: &Sandbox, tagger: Tagger) {
    let before = sandbox.snapshot();
    let plan = Plan {
        tagger,
        ..Plan::default()
    };
    for steps in 0.. {
        let mut seen = 0;
        let result = build(&plan, &mut |step| {
            seen += 1;
            if seen > steps {
                bail!("stopped before {step}");
            }
            Ok(())
        });
        match result {
            Ok(_) => break,
            Err(error) => {
                let text = error.to_string();
                if !text.starts_with("stopped before ") {
                    assert!(tagger == Tagger::Device && !knows_vlans(), "{text}");
                    break;
                }
                before.assert_same(&sandbox.snapshot(), &text);
            }
        }
    }
    before.assert_same(&sandbox.snapshot(), "after the last build");
}

#[test]
fn a_build_that_is_stopped_is_undone_at_every_step() {
    sandbox::run(
        "a_build_that_is_stopped_is_undone_at_every_step",
        |sandbox| {
            for tagger in [Tagger::Auto, Tagger::Device, Tagger::Bpf] {
                stopped_everywhere(sandbox, tagger);
            }
        },
    );
}

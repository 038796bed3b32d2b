//! The network of tunnel_monitor, built and removed in a sandbox.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Error, bail};
use netsetup::failure::Failure;
use netsetup::server::Kind;
use netsetup::topology::tunnel_monitor::{Client, Host, Network, Plan, build, running};
use testbed::namespace::{Namespace, Place};
use testbed::packet::Mac;
use testbed::traffic::{Capture, inject};
use testbed::{long, sandbox, step};

/// What everybody listens on.
const PORT: u16 = 7000;
/// All of a datagram is there within this time, or never.
const SOON: Duration = Duration::from_secs(5);

fn built(plan: &Plan) -> Network {
    step("build the network", build(plan, &mut |_| Ok(())))
}

#[track_caller]
fn text_of(error: &Error, code: u8) -> String {
    match error.downcast_ref::<Failure>() {
        Some(failure) if failure.code() == code => format!("{error:#}"),
        _ => panic!("not a failure of code {code}: {error:#}"),
    }
}

/// That device of the host has these addresses, which can be used, and no others.
#[track_caller]
fn assert_addresses(host: &Host, device: &str, expected: &[&str]) {
    let place = Place::named(&host.namespace);
    let lines = place.ip(&format!("-o address show dev {device} scope global"));
    let addresses: Vec<&str> = lines
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(3))
        .collect();
    assert_eq!(
        addresses, expected,
        "{device} of {}: {lines}",
        host.namespace
    );
    assert!(!lines.contains("tentative"), "{lines}");
}

/// The words of the link's description in the host's namespace.
#[track_caller]
fn assert_link(host: &Host, device: &str, parts: &[&str]) {
    let link = Place::named(&host.namespace).ip(&format!("-d -o link show dev {device}"));
    for part in parts {
        assert!(link.contains(part), "{part}: {link}");
    }
}

#[test]
fn it_is_the_network_of_the_original_and_goes_without_a_trace() {
    let name = "it_is_the_network_of_the_original_and_goes_without_a_trace";
    sandbox::run(name, |sandbox| {
        let before = sandbox.snapshot();
        assert_eq!(running().unwrap(), None);
        let network = built(&Plan::default());
        let places: Vec<String> = Place::all().iter().map(Place::to_string).collect();
        let hosts = (0..9).map(|h| format!("host{h}"));
        let expected: Vec<String> = ["sandbox".to_string()].into_iter().chain(hosts).collect();
        assert_eq!(places, expected);
        assert_eq!((network.bridge(), network.device()), ("br100", "eth0"));
        assert_eq!(running().unwrap().as_deref(), Some(network.hosts()));
        let here = Place::here();
        let silent = |link: &str| {
            assert_eq!(
                here.ip(&format!("-o address show dev {link}")),
                "",
                "{link}"
            );
        };
        silent("br100");
        assert_eq!(network.hosts().len(), 9);
        for (h, host) in network.hosts().iter().enumerate() {
            assert_eq!(host.namespace, format!("host{h}"));
            assert_eq!(host.port, format!("host{h}a"));
            let port = here.ip(&format!("-o link show dev {}", host.port));
            assert!(port.contains("master br100 state UP"), "{port}");
            silent(&host.port);
            let (ipv4, ipv6) = (format!("172.16.1.10{h}"), format!("fd00:ac10:1::10{h}"));
            assert_eq!(
                (host.ipv4.to_string(), host.ipv6.to_string()),
                (ipv4.clone(), ipv6.clone())
            );
            assert_addresses(
                host,
                "eth0",
                &[&format!("{ipv4}/24"), &format!("{ipv6}/64")],
            );
            assert_eq!(host.clients.len(), 4);
            for (v, client) in host.clients.iter().enumerate() {
                assert_client(host, client, h, v);
            }
        }
        network.close().unwrap();
        assert_eq!(running().unwrap(), None);
        before.assert_same(&sandbox.snapshot(), "after the network");
    });
}

/// The client of network `v` in host `h`, its bridge and its tunnel are as those of the original.
fn assert_client(host: &Host, client: &Client, h: usize, v: usize) {
    let ipv4 = format!("192.168.{v}.{}", h + 1);
    // As addresses are written: without the 0 of the first network.
    let ipv6: IpAddr = step("an address", format!("fd00:c0a8:{v}::{}", h + 1).parse());
    assert_eq!(client.vni as usize, 10_000 + v);
    assert_eq!(client.device, format!("c{v}a"));
    assert_eq!(client.ipv4.to_string(), ipv4);
    assert_eq!(IpAddr::V6(client.ipv6), ipv6);
    assert_addresses(
        host,
        &client.device,
        &[&format!("{ipv4}/24"), &format!("{ipv6}/64")],
    );
    let (bridge, port, tunnel) = (format!("br{v}"), format!("c{v}b"), format!("vxlan{v}"));
    assert_link(host, &client.device, &["mtu 1450 ", "state UP"]);
    assert_link(host, &bridge, &[" bridge ", "NOARP,UP,LOWER_UP"]);
    let master = format!("master {bridge} ");
    assert_link(host, &port, &[&master, "state UP", "state forwarding"]);
    let id = format!("vxlan id {} group 239.1.1.{} dev eth0 ", client.vni, v + 1);
    assert_link(
        host,
        &tunnel,
        &[
            &master,
            &id,
            "dstport 4789 ",
            "state forwarding",
            "UP,LOWER_UP",
        ],
    );
    for link in [bridge, port, tunnel] {
        assert_addresses(host, &link, &[]);
        let all = Place::named(&host.namespace).ip(&format!("-o address show dev {link}"));
        assert_eq!(all, "", "{link} would send into the tunnel");
    }
}

/// Where everybody listens, and a datagram is sent from.
struct Station {
    address: IpAddr,
    socket: UdpSocket,
}

impl Station {
    fn new(host: &Host, address: IpAddr) -> Station {
        let socket = Place::named(&host.namespace).run(|| {
            let socket = UdpSocket::bind(SocketAddr::new(address, PORT));
            step(format!("listen on {address}"), socket)
        });
        step("give up at last", socket.set_read_timeout(Some(SOON)));
        Station { address, socket }
    }

    fn hear(&self) -> IpAddr {
        let mut text = [0; 16];
        let got = self.socket.recv_from(&mut text);
        let (length, from) = step(format!("hear of all peers at {}", self.address), got);
        assert_eq!(&text[..length], b"hello");
        from.ip()
    }

    #[track_caller]
    fn assert_silence(&self) {
        step("wait no more", self.socket.set_nonblocking(true));
        let more = self.socket.recv_from(&mut [0; 16]).map(|(_, from)| from);
        let Err(error) = more else {
            panic!("{}: more was heard: {more:?}", self.address);
        };
        assert_eq!(
            error.kind(),
            ErrorKind::WouldBlock,
            "{}: {error}",
            self.address
        );
    }
}

/// The hosts' addresses of one network each, and those of the network that carries them all.
fn networks(hosts: &[Host]) -> Vec<Vec<Station>> {
    let outer = [0, 1].map(|version| {
        let address = move |host: &Host| [IpAddr::from(host.ipv4), host.ipv6.into()][version];
        hosts
            .iter()
            .map(|host| Station::new(host, address(host)))
            .collect()
    });
    let vnis = (0..hosts[0].clients.len()).flat_map(|v| [(v, 0), (v, 1)]);
    let inner = vnis.map(|(v, version)| {
        let address = |client: &Client| [IpAddr::from(client.ipv4), client.ipv6.into()][version];
        let clients = hosts.iter().map(|host| (host, &host.clients[v]));
        clients
            .map(|(host, client)| Station::new(host, address(client)))
            .collect()
    });
    outer.into_iter().chain(inner).collect()
}

/// Each address of these hosts sends one datagram to each of its network, and gets one of each.
fn everybody_reaches_everybody(hosts: &[Host]) {
    let networks = networks(hosts);
    for stations in &networks {
        let pairs = stations
            .iter()
            .flat_map(|from| stations.iter().map(move |to| (from, to)))
            .filter(|(from, to)| from.address != to.address);
        for (from, to) in pairs {
            let sent = from
                .socket
                .send_to(b"hello", SocketAddr::new(to.address, PORT));
            step(
                format!("send from {} to {}", from.address, to.address),
                sent,
            );
        }
        for station in stations {
            let others = stations.iter().map(|other| other.address);
            let expected: Vec<IpAddr> = others.filter(|other| *other != station.address).collect();
            let mut heard: Vec<IpAddr> = expected.iter().map(|_| station.hear()).collect();
            heard.sort_unstable();
            assert_eq!(heard, expected, "heard by {}", station.address);
        }
        // The kernel has 1024 neighbors at most, of all namespaces together (gc_thresh3 in neighbour/).
        for host in hosts {
            Place::named(&host.namespace).ip("neighbor flush all");
        }
    }
    networks.iter().flatten().for_each(Station::assert_silence);
}

#[test]
fn every_client_reaches_every_other_of_its_network() {
    sandbox::run("every_client_reaches_every_other_of_its_network", |_| {
        let network = built(&Plan::default());
        everybody_reaches_everybody(network.hosts());
        network.close().unwrap();
    });
}

/// A broadcast of an experimental protocol (IEEE 802, 0x88b5), in which the sender says who it is.
fn broadcast(mac: Mac, name: &str) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x88, 0xb5]);
    frame.extend(name.as_bytes());
    frame.resize(60, 0);
    frame
}

fn is_broadcast(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x88, 0xb5])
}

#[test]
fn no_frame_of_a_client_gets_into_another_network() {
    sandbox::run("no_frame_of_a_client_gets_into_another_network", |_| {
        let network = built(&Plan { hosts: 4, vnis: 3 });
        let clients = || {
            let hosts = network.hosts().iter();
            hosts.flat_map(|host| host.clients.iter().map(move |client| (host, client)))
        };
        let captures: Vec<Capture> = clients()
            .map(|(host, client)| {
                let place = Place::named(&host.namespace);
                Capture::start(&place, &client.device, 6 * SOON, is_broadcast)
            })
            .collect();
        for (host, client) in clients() {
            let place = Place::named(&host.namespace);
            let name = format!("{} {}", host.namespace, client.vni);
            let frame = broadcast(place.mac(&client.device), &name);
            inject(&place, &client.device, [frame.as_slice()], Duration::ZERO);
        }
        // All of them have arrived when all that is expected has: no frame overtakes another.
        captures
            .iter()
            .for_each(|capture| capture.wait_for(3, SOON));
        for ((host, client), capture) in clients().zip(captures) {
            let mut heard: Vec<String> = capture
                .finish()
                .packets
                .iter()
                .map(|frame| {
                    String::from_utf8_lossy(&frame[14..])
                        .trim_end_matches('\0')
                        .into()
                })
                .collect();
            heard.sort_unstable();
            let others = network.hosts().iter().filter(|other| *other != host);
            let expected: Vec<String> = others
                .map(|other| format!("{} {}", other.namespace, client.vni))
                .collect();
            assert_eq!(heard, expected, "{} at {}", client.device, host.namespace);
        }
        network.close().unwrap();
    });
}

#[test]
fn a_large_network_is_the_same_and_goes_without_a_trace() {
    let name = "a_large_network_is_the_same_and_goes_without_a_trace";
    sandbox::run(name, |sandbox| {
        let before = sandbox.snapshot();
        let plan = if long(name, "64 hosts with 8 VNIs; here 6 with 20") {
            Plan { hosts: 64, vnis: 8 }
        } else {
            Plan { hosts: 6, vnis: 20 }
        };
        let start = Instant::now();
        let network = built(&plan);
        println!("{plan:?} is up after {:?}", start.elapsed());
        network
            .hosts()
            .chunks(8)
            .for_each(everybody_reaches_everybody);
        let start = Instant::now();
        network.close().unwrap();
        println!("and down after {:?}", start.elapsed());
        before.assert_same(&sandbox.snapshot(), "after the network");
    });
}

#[test]
fn a_server_listens_in_every_host() {
    sandbox::run("a_server_listens_in_every_host", |sandbox| {
        let Some(kind) = Kind::find() else {
            testbed::skip(
                "a_server_listens_in_every_host",
                "neither netserver nor iperf3",
            );
            return;
        };
        let before = sandbox.snapshot();
        let mut network = built(&Plan::default());
        let started = network.start_servers(&mut |_| Ok(())).unwrap();
        assert_eq!(started, Some(kind));
        for host in network.hosts() {
            let address = SocketAddr::new(host.ipv4.into(), kind.port());
            Place::named("host0").run(|| {
                let connected = std::net::TcpStream::connect_timeout(&address, SOON);
                step(format!("connect to {address}"), connected);
            });
        }
        network.close().unwrap();
        before.assert_same(&sandbox.snapshot(), "after the servers");
    });
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() {
    let name = "what_cannot_be_is_refused_before_anything_is_made";
    sandbox::run(name, |sandbox| {
        let before = sandbox.snapshot();
        let plan = Plan { hosts: 1, vnis: 4 };
        let error = build(&plan, &mut |step| bail!("{step}")).unwrap_err();
        assert_eq!(text_of(&error, 2), "there can be 2 to 150 hosts, not 1");
        before.assert_same(&sandbox.snapshot(), "after the refusal");
    });
}

#[test]
fn what_belongs_to_the_user_is_refused_and_left_alone() {
    let name = "what_belongs_to_the_user_is_refused_and_left_alone";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let host = Namespace::new("host8");
        for name in ["br100", "host3a"] {
            here.ip(&format!("link add {name} type bridge"));
        }
        let before = sandbox.snapshot();
        let error = build(&Plan::default(), &mut |_| Ok(())).unwrap_err();
        assert_eq!(
            text_of(&error, 5),
            "in the way and not ours: namespace host8 (ip netns delete host8), interface br100 (ip \
             link delete br100), interface host3a (ip link delete host3a); rename or delete what you \
             do not need"
        );
        before.assert_same(&sandbox.snapshot(), "after the refusal");
        drop(host);
        for name in ["br100", "host3a"] {
            here.ip(&format!("link delete {name}"));
        }
    });
}

#[test]
fn a_build_that_is_stopped_is_undone_at_every_step() {
    let name = "a_build_that_is_stopped_is_undone_at_every_step";
    sandbox::run(name, |sandbox| {
        let before = sandbox.snapshot();
        let plan = Plan { hosts: 3, vnis: 2 };
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
                    assert!(text.starts_with("stopped before "), "{text}");
                    before.assert_same(&sandbox.snapshot(), &text);
                }
            }
        }
        before.assert_same(&sandbox.snapshot(), "after the last build");
    });
}

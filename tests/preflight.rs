//! Interfaces and TCP sessions as preflight sees them on links that are there.

use std::net::{SocketAddr, TcpListener, TcpStream};

use netbpf::Failure;
use netbpf::netlink::{Link, Netlink};
use netbpf::preflight::{
    LinkLayer, TcpSession, TcpSessions, expand_interfaces, find_interface, link_layer, warning,
};
use testbed::namespace::{Namespace, Place};
use testbed::sandbox;
use testbed::step;

fn ip(words: &str) {
    Place::here().ip(words);
}

fn link(name: &str) -> Link {
    let mut netlink = step("open netlink", Netlink::open());
    step(name, find_interface(&mut netlink, name))
}

#[test]
fn packets_begin_as_the_link_says() {
    sandbox::run("packets_begin_as_the_link_says", |_| {
        ip("link add wan type veth peer name wanb");
        ip("link add br7 type bridge");
        ip("tuntap add dev tun7 mode tun");
        ip("tuntap add dev tap7 mode tap");
        for (name, layer) in [
            ("lo", LinkLayer::Ethernet),
            ("wan", LinkLayer::Ethernet),
            ("br7", LinkLayer::Ethernet),
            ("tap7", LinkLayer::Ethernet),
            ("tun7", LinkLayer::Raw),
        ] {
            assert_eq!(link_layer(&link(name)).unwrap(), layer, "{name}");
        }
        for name in ["wan", "br7", "tun7", "tap7"] {
            ip(&format!("link del {name}"));
        }
    });
}

#[test]
fn ports_of_a_named_bridge_are_left_out() {
    sandbox::run("ports_of_a_named_bridge_are_left_out", |_| {
        ip("link add br7 type bridge");
        ip("link add wan type veth peer name wanb");
        ip("link set wan master br7");
        let mut netlink = Netlink::open().unwrap();
        let patterns = ["w*", "br7"].map(String::from);
        let expanded = expand_interfaces(&mut netlink, &patterns).unwrap();
        let names: Vec<_> = expanded.links.iter().map(|link| &link.name).collect();
        assert_eq!(names, ["wanb", "br7"]);
        let said: Vec<_> = expanded
            .left_out
            .iter()
            .map(|left| left.to_string())
            .collect();
        assert_eq!(
            said,
            ["wan is left out: it is a port of br7, which sees its packets"]
        );
        let error = find_interface(&mut netlink, "vlan").unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().map(Failure::code), Some(2));
        ip("link del wan");
        ip("link del br7");
    });
}

/// Established sessions from here to these addresses in the room; both ends stay open.
fn connect(room: &Place, addresses: &[&str]) -> Vec<(TcpStream, TcpStream)> {
    let listeners: Vec<TcpListener> = room.run(|| {
        let bind = |address: &&str| step(address, TcpListener::bind(address));
        addresses.iter().map(bind).collect()
    });
    listeners
        .into_iter()
        .map(|listener| {
            let to = step("ask where it listens", listener.local_addr());
            let client = step(to, TcpStream::connect(to));
            let (server, _) = step("accept", listener.accept());
            (client, server)
        })
        .collect()
}

#[test]
fn sessions_are_found_by_the_way_their_packets_go() {
    sandbox::run("sessions_are_found_by_the_way_their_packets_go", |_| {
        let room = Namespace::new("room");
        ip("link add wan type veth peer name eth0 netns room");
        ip("link add lan type veth peer name eth1 netns room");
        ip("link add br7 type bridge");
        ip("link set lan master br7 up");
        ip("link set wan up");
        ip("link set br7 up");
        ip("addr add 192.0.2.1/24 dev wan");
        ip("addr add 2001:db8:7::1/64 dev wan nodad");
        ip("addr add fe80::1/64 dev wan nodad");
        ip("addr add 198.51.100.1/24 dev br7");
        for words in [
            "link set eth0 up",
            "link set eth1 up",
            "addr add 192.0.2.2/24 dev eth0",
            "addr add 2001:db8:7::2/64 dev eth0 nodad",
            "addr add fe80::2/64 dev eth0 nodad",
            "addr add 198.51.100.2/24 dev eth1",
        ] {
            room.ip(words);
        }
        let scoped = format!("[fe80::2%{}]:0", room.run(|| link("eth0").ifindex));
        let mut open = connect(
            &room,
            &["192.0.2.2:0", "[2001:db8:7::2]:0", "198.51.100.2:0"],
        );
        // The number of the link differs on either side of the cable.
        let listener = room.run(|| step("listen", TcpListener::bind(&scoped)));
        let port = listener.local_addr().unwrap().port();
        let near = format!("[fe80::2%{}]:{port}", link("wan").ifindex);
        let client = TcpStream::connect(&near).unwrap();
        open.push((client, listener.accept().unwrap().0));
        // A session with ourselves goes over no interface.
        let own = TcpListener::bind("192.0.2.1:0").unwrap();
        let to_self = TcpStream::connect(own.local_addr().unwrap()).unwrap();

        let sessions = TcpSessions::read(&mut Netlink::open().unwrap()).unwrap();
        let over = |name: &str| -> Vec<TcpSession> { sessions.over(link(name).ifindex) };
        let ends = |sessions: &[TcpSession]| -> Vec<(SocketAddr, SocketAddr)> {
            let mut ends: Vec<_> = sessions
                .iter()
                .map(|session| (session.local, session.peer))
                .collect();
            ends.sort();
            ends
        };
        let expected = |streams: &[&TcpStream]| -> Vec<(SocketAddr, SocketAddr)> {
            let plain = |mut address: SocketAddr| {
                if let SocketAddr::V6(address) = &mut address {
                    // /proc knows no scope.
                    address.set_scope_id(0);
                }
                address
            };
            let mut ends: Vec<_> = streams
                .iter()
                .map(|stream| {
                    let (local, peer) = (stream.local_addr(), stream.peer_addr());
                    (plain(local.unwrap()), plain(peer.unwrap()))
                })
                .collect();
            ends.sort();
            ends
        };
        let wan = over("wan");
        assert_eq!(ends(&wan), expected(&[&open[0].0, &open[1].0, &open[3].0]));
        let bridged = expected(&[&open[2].0]);
        assert_eq!(ends(&over("br7")), bridged);
        assert_eq!(ends(&over("lan")), bridged, "through its bridge");
        assert_eq!(over("lo"), [], "what stays on the host is not in danger");
        assert!(wan.iter().all(|session| !session.own_ssh));
        assert!(warning("wan", &wan).unwrap().contains("192.0.2.2"));
        assert_eq!(warning("lo", &over("lo")), None);

        drop((open, to_self));
        for name in ["wan", "lan", "br7"] {
            ip(&format!("link del {name}"));
        }
    });
}

//! Links, routes and filters as the kernel tells them, against what `ip` and `tc` made.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::{Duration, Instant};

use netbpf::netlink::{
    CLSACT, CLSACT_EGRESS, CLSACT_INGRESS, Change, Filter, Link, LinkChange, LinkWatch, Netlink,
    Refusal,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::RcvBuf;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, getsockname, sendto,
    setsockopt, socket,
};
use testbed::namespace::{Namespace, Place};
use testbed::sandbox::{self, Sandbox};
use testbed::step;

fn ip(words: &str) {
    Place::here().ip(words);
}

/// Runs the body in a sandbox, and deletes every link that it made there.
fn with_links(name: &str, body: impl FnOnce(&Sandbox) + Send) {
    sandbox::run(name, |sandbox| {
        body(sandbox);
        while let Some(link) = step("list links", netlink().links())
            .into_iter()
            .find(|link| link.name != "lo")
        {
            ip(&format!("link del {}", link.name));
        }
    });
}

fn netlink() -> Netlink {
    step("open netlink", Netlink::open())
}

fn named(name: &str) -> Link {
    let link = step("look up a link", netlink().link_named(name));
    link.unwrap_or_else(|| panic!("no link {name}"))
}

fn address(text: &str) -> IpAddr {
    step(text, text.parse())
}

#[test]
fn links_are_what_ip_made() {
    with_links("links_are_what_ip_made", |_| {
        ip("link add br7 type bridge");
        ip("link add wan type veth peer name wanb");
        ip("link set wan master br7 address 02:00:00:00:00:07 mtu 1400 up");
        ip("link set wanb up");
        ip("link property add dev wan altname cellar altname the-uplink-in-the-cellar");
        ip("tuntap add dev tun7 mode tun");

        let wan = named("wan");
        assert_eq!(wan.kind.as_deref(), Some("veth"));
        assert_eq!(wan.mac, Some([2, 0, 0, 0, 0, 7]));
        assert_eq!((wan.mtu, wan.arphrd), (1400, 1));
        assert!(wan.up && wan.running);
        assert_eq!(wan.master, Some(named("br7").ifindex));
        assert_eq!(wan.lower, Some(named("wanb").ifindex));
        assert!(!wan.lower_elsewhere);
        assert_eq!(wan.altnames, ["cellar", "the-uplink-in-the-cellar"]);

        for name in ["cellar", "the-uplink-in-the-cellar"] {
            assert_eq!(named(name), wan);
        }
        assert_eq!(netlink().link(wan.ifindex).unwrap(), Some(wan.clone()));
        let links = netlink().links().unwrap();
        assert!(links.contains(&wan), "the list and the look-up agree");
        let mut names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["br7", "lo", "tun7", "wan", "wanb"]);

        let tun = named("tun7");
        assert_eq!((tun.arphrd, tun.mac, tun.up), (0xfffe, None, false));
        assert_eq!(tun.kind.as_deref(), Some("tun"));
        let lo = named("lo");
        assert_eq!((lo.arphrd, lo.kind, lo.master), (772, None, None));
    });
}

#[test]
fn what_is_not_there_is_none() {
    with_links("what_is_not_there_is_none", |_| {
        ip("link add wan type veth peer name wanb");
        let long = "x".repeat(200);
        for name in [
            "",
            "wan0",
            "a-name-longer-than-fifteen",
            "wan\0",
            "wan\0b",
            "a/b",
            &long,
        ] {
            assert_eq!(netlink().link_named(name).unwrap(), None, "{name:?}");
        }
        for ifindex in [0, 99_999, 0x7fff_ffff] {
            assert_eq!(netlink().link(ifindex).unwrap(), None, "{ifindex}");
        }
    });
}

#[test]
fn the_other_end_of_a_cable_into_a_namespace_is_elsewhere() {
    with_links(
        "the_other_end_of_a_cable_into_a_namespace_is_elsewhere",
        |_| {
            let _room = Namespace::new("room");
            ip("link add out type veth peer name in netns room");
            let out = named("out");
            assert!(out.lower_elsewhere);
            assert!(out.lower.is_some());
            ip("link del out");
        },
    );
}

#[test]
fn a_list_of_many_links_is_whole() {
    with_links("a_list_of_many_links_is_whole", |_| {
        let batch: String = (0..100)
            .map(|n| format!("link add a{n} type veth peer name b{n}\n"))
            .collect();
        std::fs::write("/run/batch", batch).unwrap();
        ip("-batch /run/batch");
        std::fs::remove_file("/run/batch").unwrap();
        let links = netlink().links().unwrap();
        assert_eq!(links.len(), 201, "two ends each, and lo");
    });
}

#[test]
fn addresses_and_routes() {
    with_links("addresses_and_routes", |_| {
        ip("link add wan type veth peer name wanb");
        ip("link add lan type veth peer name lanb");
        for link in ["lo", "wan", "wanb", "lan", "lanb"] {
            ip(&format!("link set {link} up"));
        }
        ip("addr add 192.0.2.1/24 dev wan");
        ip("addr add 10.9.0.1 peer 10.9.0.2/32 dev lan");
        ip("addr add 2001:db8:7::1/64 dev wan nodad");
        ip("route add default via 192.0.2.254");
        ip("route add unreachable 203.0.113.1/32");
        ip("route add blackhole 203.0.113.2/32");
        ip("route add prohibit 203.0.113.3/32");
        ip("rule add from 10.9.0.1 lookup 77");
        ip("route add default dev lan table 77");

        let (lo, wan, lan) = (named("lo"), named("wan"), named("lan"));
        let of = |link: &Link| -> Vec<String> {
            let found = netlink().addresses().unwrap().into_iter();
            let text = found
                .filter(|found| found.ifindex == link.ifindex)
                .map(|found| format!("{}/{}", found.address, found.prefix));
            text.filter(|text| !text.starts_with("fe80")).collect()
        };
        assert_eq!(of(&wan), ["192.0.2.1/24", "2001:db8:7::1/64"]);
        assert_eq!(of(&lan), ["10.9.0.1/32"], "our end of it");

        let mut netlink = netlink();
        let mut over = |to: &str, from: Option<&str>| {
            netlink.route_to(address(to), from.map(address)).unwrap()
        };
        assert_eq!(over("192.0.2.9", None), Some(wan.ifindex));
        assert_eq!(over("198.51.100.1", None), Some(wan.ifindex));
        assert_eq!(over("198.51.100.1", Some("10.9.0.1")), Some(lan.ifindex));
        assert_eq!(over("10.9.0.2", None), Some(lan.ifindex));
        assert_eq!(over("192.0.2.1", None), Some(lo.ifindex), "it is ours");
        assert_eq!(over("2001:db8:7::9", None), Some(wan.ifindex));
        assert_eq!(over("2001:db8:7::9", Some("192.0.2.1")), Some(wan.ifindex));
        assert_eq!(over("2001:db8:8::9", None), None);
        for refused in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
            assert_eq!(over(refused, None), None, "{refused}");
        }
        assert_eq!(
            over("198.51.100.1", Some("192.0.2.77")),
            None,
            "not our address"
        );
        ip("rule del from 10.9.0.1 lookup 77");
        ip("route del unreachable 203.0.113.1/32");
        ip("route del blackhole 203.0.113.2/32");
        ip("route del prohibit 203.0.113.3/32");
    });
}

fn tc(words: &str) {
    Place::here().tc(words);
}

/// A classic BPF program that says "not mine".
fn add_filter(words: &str) {
    let mut command = Command::new("tc");
    command.args("filter add dev wan".split(' '));
    command.args(words.split(' '));
    command.args(["bpf", "bytecode", "1,6 0 0 0"]);
    assert!(step("run tc", command.status()).success(), "{words}");
}

#[test]
fn qdiscs_and_filters_are_what_tc_made() {
    with_links("qdiscs_and_filters_are_what_tc_made", |_| {
        ip("link add wan type veth peer name wanb");
        let wan = named("wan").ifindex;
        let mut netlink = netlink();
        assert_eq!(netlink.tc_filters(wan, CLSACT_INGRESS).unwrap(), []);

        tc("qdisc add dev wan clsact");
        let qdiscs = netlink.qdiscs(wan).unwrap();
        let clsact = qdiscs.iter().find(|qdisc| qdisc.parent == CLSACT).unwrap();
        assert_eq!(
            (clsact.kind.as_str(), clsact.handle),
            ("clsact", 0xffff_0000)
        );
        let others = netlink.qdiscs(named("wanb").ifindex).unwrap();
        assert!(others.iter().all(|qdisc| qdisc.parent != CLSACT));
        assert_eq!(netlink.tc_filters(wan, CLSACT_EGRESS).unwrap(), []);

        add_filter("egress protocol ip prio 7 handle 3");
        assert_eq!(netlink.tc_filters(wan, CLSACT_INGRESS).unwrap(), []);
        let ours = Filter {
            ifindex: wan,
            parent: CLSACT_EGRESS,
            kind: "bpf".into(),
            priority: 7,
            handle: 3,
            protocol: 0x0800,
        };
        let priority = Filter {
            handle: 0,
            ..ours.clone()
        };
        let filters = netlink.tc_filters(wan, CLSACT_EGRESS).unwrap();
        assert_eq!(filters, [priority, ours]);
    });
}

#[test]
fn changes_are_made_in_order_and_each_is_answered() {
    with_links("changes_are_made_in_order_and_each_is_answered", |_| {
        ip("link add wan type veth peer name wanb");
        let wan = named("wan").ifindex;
        let make = Change::MakeClsact { ifindex: wan };
        let remove = Change::RemoveClsact { ifindex: wan };
        let errnos = |outcomes: &[Result<(), Refusal>]| -> Vec<Option<Errno>> {
            let errno = |outcome: &Result<(), Refusal>| Some(outcome.as_ref().err()?.errno);
            outcomes.iter().map(errno).collect()
        };
        let mut netlink = netlink();
        let outcomes = netlink.change([remove, make, make, remove, make]).unwrap();
        let expected = [Some(Errno::ENOENT), None, Some(Errno::EEXIST), None, None];
        assert_eq!(errnos(&outcomes), expected);
        assert!(
            outcomes[2].as_ref().unwrap_err().text.contains("xclusiv"),
            "the kernel's own words are with it: {outcomes:?}"
        );

        add_filter("ingress protocol ip prio 7 handle 3");
        add_filter("ingress protocol ip prio 7 handle 4");
        let filters = netlink.tc_filters(wan, CLSACT_INGRESS).unwrap();
        let [priority, first, second] = filters.as_slice() else {
            panic!("{filters:?}");
        };
        let other_protocol = Filter {
            protocol: 0x86dd,
            ..first.clone()
        };
        let other_kind = Filter {
            kind: "u32".into(),
            ..first.clone()
        };
        for other in [&other_protocol, &other_kind] {
            let outcomes = netlink.change([Change::RemoveFilter(other)]).unwrap();
            assert!(outcomes[0].is_err(), "{other:?}");
        }
        let outcomes = netlink.change([Change::RemoveFilter(first); 2]).unwrap();
        assert_eq!(errnos(&outcomes), [None, Some(Errno::ENOENT)]);
        assert_eq!(
            netlink.tc_filters(wan, CLSACT_INGRESS).unwrap(),
            [priority.clone(), second.clone()]
        );

        let nowhere = Change::MakeClsact { ifindex: 99_999 };
        let outcomes = netlink.change([nowhere, remove]).unwrap();
        assert_eq!(errnos(&outcomes), [Some(Errno::ENODEV), None]);
    });
}

#[test]
fn an_ingress_qdisc_is_neither_replaced_nor_removed() {
    with_links(
        "an_ingress_qdisc_is_neither_replaced_nor_removed",
        |sandbox| {
            ip("link add wan type veth peer name wanb");
            tc("qdisc add dev wan ingress");
            let before = sandbox.snapshot();
            let ifindex = named("wan").ifindex;
            let changes = [
                Change::MakeClsact { ifindex },
                Change::RemoveClsact { ifindex },
            ];
            let outcomes = netlink().change(changes).unwrap();
            assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
            before.assert_same(&sandbox.snapshot(), "after the refusals");
        },
    );
}

#[test]
fn loading_the_module_of_filters_changes_nothing_else() {
    let name = "loading_the_module_of_filters_changes_nothing_else";
    with_links(name, |sandbox| {
        ip("link add wan type veth peer name wanb");
        tc("qdisc add dev wan clsact");
        let before = sandbox.snapshot();
        netlink().load_bpf_filters().unwrap();
        before.assert_same(&sandbox.snapshot(), "after the module was asked for");
    });
}

/// The changes until nothing comes for a while.
fn changes(watch: &mut LinkWatch) -> Vec<String> {
    let mut seen = Vec::new();
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(300) {
        while let Some(event) = step("watch", watch.next()) {
            seen.push(event.to_string());
            quiet = Instant::now();
        }
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        step("poll", poll(&mut fds, PollTimeout::from(50u8)));
    }
    seen
}

#[test]
fn a_watch_tells_what_happens_in_order() {
    with_links("a_watch_tells_what_happens_in_order", |_| {
        let _room = Namespace::new("room");
        ip("link add wan type veth peer name wanb");
        ip("link add lan type veth peer name lanb");
        let (wan, lan) = (named("wan"), named("lan"));
        let mut watch = LinkWatch::over(&[wan.clone(), lan]).unwrap();
        assert_eq!(changes(&mut watch), [""; 0]);

        ip("link set wan up");
        ip("link set wan down");
        ip("link set wan name uplink");
        ip("link set wanb up");
        // Joining and leaving a bridge is no news, nor is a link that nobody watches.
        ip("link add br7 type bridge");
        ip("link set uplink master br7");
        ip("link set uplink nomaster");
        ip("link set uplink mtu 1400");
        assert_eq!(
            changes(&mut watch),
            ["wan went up", "wan went down", "wan was renamed to uplink"]
        );

        ip("link set uplink netns room");
        ip("link del lan");
        assert_eq!(
            changes(&mut watch),
            [
                "uplink was moved to another network namespace",
                "lan was deleted"
            ]
        );
        // Or its other end would go with the namespace, some time later.
        Place::named("room").ip("link del uplink");
    });
}

#[test]
fn a_watch_starts_from_what_its_caller_saw() {
    with_links("a_watch_starts_from_what_its_caller_saw", |_| {
        ip("link add wan type veth peer name wanb");
        ip("link add lan type veth peer name lanb");
        let (wan, lan) = (named("wan"), named("lan"));
        ip("link set wan name uplink up");
        ip("link del lan");
        let mut watch = LinkWatch::over(&[wan, lan]).unwrap();
        let mut seen = changes(&mut watch);
        seen.sort();
        assert_eq!(
            seen,
            [
                "lan was deleted",
                "uplink went up",
                "wan was renamed to uplink"
            ]
        );
    });
}

#[test]
fn a_watch_over_all_sees_what_appears() {
    with_links("a_watch_over_all_sees_what_appears", |_| {
        let mut watch = LinkWatch::all(&netlink().links().unwrap()).unwrap();
        ip("link add wan type veth peer name wanb");
        let mut seen = changes(&mut watch);
        seen.sort();
        assert_eq!(seen, ["wan appeared", "wanb appeared"]);

        let mut from_nothing = LinkWatch::all(&[]).unwrap();
        let mut seen = changes(&mut from_nothing);
        seen.sort();
        assert_eq!(seen, ["lo appeared", "wan appeared", "wanb appeared"]);
    });
}

#[test]
fn watched_links_come_and_go() {
    with_links("watched_links_come_and_go", |_| {
        ip("link add wan type veth peer name wanb");
        let (wan, wanb) = (named("wan"), named("wanb"));
        let mut watch = LinkWatch::over(&[]).unwrap();
        ip("link set wan up");
        assert_eq!(changes(&mut watch), [""; 0]);
        watch.add(&named("wan"));
        watch.add(&wanb);
        ip("link set wan down");
        ip("link set wanb up");
        assert_eq!(changes(&mut watch), ["wan went down", "wanb went up"]);
        watch.remove(wan.ifindex);
        ip("link set wan up");
        ip("link set wanb down");
        assert_eq!(changes(&mut watch), ["wanb went down"]);
    });
}

#[test]
fn an_overrun_loses_no_change() {
    with_links("an_overrun_loses_no_change", |_| {
        ip("link add wan type veth peer name wanb");
        ip("link add lan type veth peer name lanb");
        ip("link add noise type veth peer name noiseb");
        let links = ["wan", "wanb", "lan"].map(named);
        let numbers = links.each_ref().map(|link| link.ifindex);
        let mut watch = LinkWatch::over(&links).unwrap();
        // The smallest buffer that the kernel gives holds a message or two.
        setsockopt(&watch, RcvBuf, &1).unwrap();
        for _ in 0..50 {
            ip("link set noise up");
            ip("link set noise down");
        }
        ip("link set wan up");
        ip("link set lan name cellar");
        ip("link del wan");
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap();
        let error = fds[0].revents().unwrap().contains(PollFlags::POLLERR);
        assert!(error, "messages were lost");
        let mut seen = Vec::new();
        while let Some(event) = watch.next().unwrap() {
            seen.push((event.ifindex, event.change));
        }
        seen.sort_by_key(|(ifindex, _)| *ifindex);
        let renamed = LinkChange::Renamed {
            to: "cellar".into(),
        };
        let mut expected = [
            (numbers[0], LinkChange::Deleted),
            (numbers[1], LinkChange::Deleted),
            (numbers[2], renamed),
        ];
        expected.sort_by_key(|(ifindex, _)| *ifindex);
        assert_eq!(seen, expected);
    });
}

#[test]
fn only_the_kernel_is_believed() {
    with_links("only_the_kernel_is_believed", |_| {
        ip("link add wan type veth peer name wanb");
        let wan = named("wan");
        let mut watch = LinkWatch::over(std::slice::from_ref(&wan)).unwrap();
        let port: NetlinkAddr = getsockname(watch.as_fd().as_raw_fd()).unwrap();
        // RTM_DELLINK about wan, from another socket: root may send it.
        let mut forged = vec![0; 32];
        forged[0..4].copy_from_slice(&32u32.to_ne_bytes());
        forged[4..6].copy_from_slice(&17u16.to_ne_bytes());
        forged[20..24].copy_from_slice(&wan.ifindex.to_ne_bytes());
        let liar = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .unwrap();
        let target = NetlinkAddr::new(port.pid(), 0);
        sendto(liar.as_raw_fd(), &forged, &target, MsgFlags::empty()).unwrap();
        ip("link set wan up");
        assert_eq!(changes(&mut watch), ["wan went up"]);
    });
}

#[test]
fn lists_are_whole_while_links_change() {
    with_links("lists_are_whole_while_links_change", |sandbox| {
        for n in 0..100 {
            ip(&format!("link add s{n} type veth peer name t{n}"));
        }
        let churn =
            "for n in $(seq 40); do ip link add c type veth peer name d; ip link del c; done";
        let mut command = Command::new("sh");
        command.args(["-c", churn]);
        let churning = sandbox.start(command);
        let mut netlink = netlink();
        for _ in 0..200 {
            let links = netlink.links().unwrap();
            let steady = links
                .iter()
                .filter(|link| link.name.starts_with(['s', 't']))
                .count();
            assert_eq!(steady, 200);
        }
        churning.finish(Duration::from_secs(30)).assert_code(0);
    });
}

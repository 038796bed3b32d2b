//! The network of tcp_hold: a host and a namespace that reach each other, and a way out that is undone.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use netsetup::failure::Failure;
use netsetup::topology::tcp_hold::{Network, Plan, build};
use netsetup::{guard, namespace};
use testbed::namespace::{Namespace, Place, Veth};
use testbed::traffic::reaches;
use testbed::{sandbox, step};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

fn network(uplink: Option<&str>) -> anyhow::Result<Network> {
    let plan = Plan {
        uplink: uplink.map(str::to_owned),
    };
    build(&plan, &mut |_| Ok(()))
}

#[test]
fn host_and_namespace_reach_each_other() {
    sandbox::run("host_and_namespace_reach_each_other", |sandbox| {
        let before = sandbox.snapshot();
        let network = step("build", network(None));
        assert_eq!((network.namespace(), network.inner()), ("ns0", "inner0"));
        let inside = Place::named("ns0");
        let (ipv4, ipv6) = network.host();
        assert_eq!(ipv4, Ipv4Addr::new(192, 168, 100, 100));
        for host in [IpAddr::V4(ipv4), IpAddr::V6(ipv6)] {
            assert!(reaches(&inside, host), "{host}");
        }
        let addresses = inside.ip("-o address show dev inner0");
        for address in ["inet 192.168.100.101/24 ", "inet6 fd00:c0a8:64::101/64 "] {
            assert!(addresses.contains(address), "{addresses}");
        }
        let route = inside.ip("route show default");
        assert!(route.starts_with("default via 192.168.100.100 "), "{route}");
        // Everybody may ping there.
        let range = inside.run(|| fs::read_to_string("/proc/sys/net/ipv4/ping_group_range"));
        let range = step("read the range", range);
        assert_eq!(
            range.split_whitespace().collect::<Vec<_>>(),
            ["0", "2147483647"]
        );
        let forwarding = step(FORWARDING, fs::read_to_string(FORWARDING));
        assert_eq!(forwarding, "0\n", "without an uplink nothing is forwarded");
        step("remove", network.close());
        before.assert_same(&sandbox.snapshot(), "after it is removed");
    });
}

/// A router's worth of network: an interface up9, and somebody outside who knows only the host.
struct Outside {
    // Before the namespace.
    _cable: Veth,
    outside: Namespace,
}

impl Outside {
    fn new() -> Outside {
        let outside = Namespace::new("outside");
        let cable = Veth::new((&Place::here(), "up9"), (&outside, "eth0"));
        Place::here().ip("address add 203.0.113.1/24 dev up9");
        outside.ip(&format!("address add {OUTSIDE}/24 dev eth0"));
        Outside {
            _cable: cable,
            outside,
        }
    }
}

/// Rules as they are, of both programs.
fn rules() -> String {
    let of = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output();
        let output = step(program, output);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    of("nft", &["list", "ruleset"])
}

fn forwarding() -> String {
    step(FORWARDING, fs::read_to_string(FORWARDING))
}

#[test]
fn the_way_out_is_opened_and_closed_exactly() {
    sandbox::run("the_way_out_is_opened_and_closed_exactly", |sandbox| {
        let outside = Outside::new();
        let before = (sandbox.snapshot(), rules(), forwarding());
        // Somebody else's rules stay as they are.
        step(
            "nft",
            Command::new("nft").args(["add table ip others"]).status(),
        );
        let others = rules();
        let built = step("build", network(Some("up9")));
        assert!(reaches(&Place::named("ns0"), OUTSIDE.into()));
        // Out there nobody knows the way back but to the host.
        assert!(!reaches(
            &outside.outside,
            Ipv4Addr::new(192, 168, 100, 101).into()
        ));
        assert_eq!(forwarding(), "1\n");
        let ours = rules();
        assert!(ours.contains("masquerade"), "{ours}");
        step("keep", built.keep());
        assert_eq!(rules(), ours);
        assert!(step("take down", guard::take_down("tcp_hold")));
        assert_eq!((rules(), forwarding()), (others, "0\n".to_owned()));
        step(
            "nft",
            Command::new("nft")
                .args(["delete table ip others"])
                .status(),
        );
        before
            .0
            .assert_same(&sandbox.snapshot(), "after it is taken down");
        assert_eq!((rules(), forwarding()), (before.1, before.2));
    });
}

#[test]
fn who_forwards_already_goes_on() {
    sandbox::run("who_forwards_already_goes_on", |_| {
        let _outside = Outside::new();
        step(FORWARDING, fs::write(FORWARDING, "1"));
        let built = step("build", network(Some("up9")));
        assert!(reaches(&Place::named("ns0"), OUTSIDE.into()));
        step("remove", built.close());
        assert_eq!(forwarding(), "1\n");
        step(FORWARDING, fs::write(FORWARDING, "0"));
    });
}

/// Rules that somebody has taken away already, and a table of ours that stays after a kill.
#[test]
fn rules_that_are_gone_are_no_failure() {
    sandbox::run("rules_that_are_gone_are_no_failure", |_| {
        let _outside = Outside::new();
        let built = step("build", network(Some("up9")));
        step("nft", Command::new("nft").args(["flush ruleset"]).status());
        step("remove", built.close());
        assert_eq!(rules(), "");
        assert_eq!(forwarding(), "0\n");
    });
}

#[test]
fn an_uplink_has_to_be_there() {
    sandbox::run("an_uplink_has_to_be_there", |sandbox| {
        let before = sandbox.snapshot();
        let Err(error) = network(Some("up9")) else {
            panic!("built");
        };
        let failure = error.downcast_ref();
        assert!(matches!(failure, Some(Failure::Usage(_))), "{error:#}");
        assert!(error.to_string().contains("up9"), "{error:#}");
        before.assert_same(&sandbox.snapshot(), "after it was refused");
        assert!(!namespace::exists("ns0"));
    });
}

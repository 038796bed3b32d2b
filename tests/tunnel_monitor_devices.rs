//! What the kernel's own tunnel devices send is counted as known: packets and bytes of each conversation,
//! both ways, and by what name its tunnel goes.
//!
//! ```text
//! sandbox [tunnel0 ~ up0] --- [far0 ~ tunnel0] far
//! ```
//! The monitor stands at up0, at both sides of it. A kernel without modules has few of these devices;
//! `make check-kernels` runs this where all of them are.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use serde::Deserialize;
use serde_json::Value;
use testbed::attaching::by_each_way;
use testbed::namespace::{Namespace, Place, Veth};
use testbed::reports::Reporting;
use testbed::tool::{READY_WITHIN, Tool};
use testbed::traffic::ping;
use testbed::{sandbox, skip, step};

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor"));
/// A sample is taken each second, an emulated machine takes its time.
const SOON: Duration = Duration::from_secs(30);

const PINGS: u64 = 10;
const PING_PAYLOAD: u64 = 56;
/// Datagrams that go out, and others that come in: how many, and how long.
const OUT: (u64, u64) = (7, 333);
const IN: (u64, u64) = (5, 1);

/// Headers, in bytes.
const ETHERNET: u64 = 14;
/// ICMP's is as long.
const UDP: u64 = 8;
const VXLAN: u64 = 8;
const GENEVE: u64 = 8;
const GRE: u64 = 4;
/// A key, a checksum or a sequence number (RFC 2890).
const GRE_OPTION: u64 = 4;
/// Destination options that say how deep tunnels may be nested (RFC 2473, 4.1.1): the kernel's default
/// over IPv6, but for UDP.
const ENCAPSULATION_LIMIT: u64 = 8;

#[derive(Clone, Copy)]
enum Version {
    V4,
    V6,
}
use Version::{V4, V6};

impl Version {
    fn header(self) -> u64 {
        match self {
            V4 => 20,
            V6 => 40,
        }
    }

    /// Of the cable: here, far.
    fn outer(self) -> [&'static str; 2] {
        match self {
            V4 => ["192.0.2.1", "192.0.2.2"],
            V6 => ["2001:db8::1", "2001:db8::2"],
        }
    }

    /// Of the tunnel.
    fn inner(self) -> [&'static str; 2] {
        match self {
            V4 => ["10.9.0.1", "10.9.0.2"],
            V6 => ["fd09::1", "fd09::2"],
        }
    }

    fn prefix(self) -> u8 {
        match self {
            V4 => 24,
            V6 => 64,
        }
    }
}

struct Device {
    /// As `ip link add type` knows it.
    kind: &'static str,
    /// What follows; the ends are put in for LOCAL and REMOTE.
    words: &'static str,
    outer: Version,
    /// Bytes between the outer and the inner IP header.
    between: u64,
    /// What it carries, and by what name that is reported.
    carries: &'static [(Version, &'static str)],
    vni: u32,
    /// More arguments of the monitor.
    options: &'static str,
}

/// A conversation as /data/tunnel.json has it.
#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Row {
    vni: u32,
    encap: String,
    local: String,
    outer_sip: String,
    outer_dip: String,
    inner_sip: String,
    inner_dip: String,
    tx_pkts: u64,
    tx_bytes: u64,
    rx_pkts: u64,
    rx_bytes: u64,
}

impl Device {
    fn words(&self, local: &str, remote: &str) -> String {
        let words = self.words.replace("LOCAL", local);
        format!("type {} {}", self.kind, words.replace("REMOTE", remote))
    }

    /// Whether the kernel makes it; that it does not is said. In a namespace of its own, ahead of the test's:
    /// a module that is loaded for its first device may put others into every namespace that is there.
    fn is_there(&self) -> bool {
        if !geteuid().is_root() {
            // The sandbox says so.
            return true;
        }
        let [local, remote] = self.outer.outer();
        let mut probe = Command::new("unshare");
        probe.args(["--net", "ip", "link", "add", "probe0"]);
        probe.args(self.words(local, remote).split_whitespace());
        let output = step("run unshare", probe.output());
        if output.status.success() {
            return true;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let is_unknown = said.contains("Unknown device type") || said.contains("not supported");
        assert!(is_unknown, "{}: {said}", self.words);
        let name = format!("tunnel_device_{}", self.kind);
        skip(&name, "this kernel has no such device");
        false
    }

    /// One end of it, with addresses of all that it carries.
    fn make(&self, at: &Place, this: usize) {
        let (ends, other) = (self.outer.outer(), 1 - this);
        let words = self.words(ends[this], ends[other]);
        at.ip(&format!("link add tunnel0 {words}"));
        at.ip("link set tunnel0 up");
        for (version, _) in self.carries {
            let (address, prefix) = (version.inner()[this], version.prefix());
            let nodad = if matches!(version, V6) { "nodad" } else { "" };
            at.ip(&format!(
                "address add {address}/{prefix} dev tunnel0 {nodad}"
            ));
        }
    }

    /// So that nobody asks who is at the other end: that would be packets of the same conversation.
    fn introduce(&self, at: &Place, to: &Place, this: usize) {
        if !at.ip("-o link show dev tunnel0").contains("link/ether") {
            return;
        }
        let octets = to.mac("tunnel0").map(|octet| format!("{octet:02x}"));
        for (version, _) in self.carries {
            let address = version.inner()[1 - this];
            at.ip(&format!(
                "neighbour replace {address} lladdr {} dev tunnel0 nud permanent",
                octets.join(":")
            ));
        }
    }

    fn expected(&self, inner: Version, encap: &str) -> Row {
        let frame = |payload: u64| {
            let headers = ETHERNET + self.outer.header() + self.between + inner.header() + UDP;
            headers + payload
        };
        let ([local, remote], [inner_local, inner_remote]) = (self.outer.outer(), inner.inner());
        let pings = PINGS * frame(PING_PAYLOAD);
        Row {
            vni: self.vni,
            encap: encap.to_owned(),
            local: local.to_owned(),
            outer_sip: local.to_owned(),
            outer_dip: remote.to_owned(),
            inner_sip: inner_local.to_owned(),
            inner_dip: inner_remote.to_owned(),
            tx_pkts: PINGS + OUT.0,
            tx_bytes: pings + OUT.0 * frame(OUT.1),
            rx_pkts: PINGS + IN.0,
            rx_bytes: pings + IN.0 * frame(IN.1),
        }
    }

    #[track_caller]
    fn assert_counted(&self, name: &str) {
        if self.is_there() {
            by_each_way(|attach| {
                sandbox::run(name, |sandbox| self.count(sandbox, attach));
            });
        }
    }

    fn count(&self, sandbox: &sandbox::Sandbox, attach: &str) {
        let (here, far) = (Place::here(), Namespace::new("far"));
        let _cable = Veth::new((&here, "up0"), (&far, "far0"));
        for (place, interface, this) in [(&here, "up0", 0), (&*far, "far0", 1)] {
            for version in [V4, V6] {
                let (address, prefix) = (version.outer()[this], version.prefix());
                let nodad = if matches!(version, V6) { "nodad" } else { "" };
                place.ip(&format!(
                    "address add {address}/{prefix} dev {interface} {nodad}"
                ));
            }
            self.make(place, this);
        }
        self.introduce(&here, &far, 0);
        self.introduce(&far, &here, 1);

        let arguments = format!("--iface up0 --json --interval 1s --attach {attach}");
        let process = sandbox.start(TOOL.command(&format!("{arguments} {}", self.options)));
        process.wait_for_error("HTTP on 127.0.0.1:8080", READY_WITHIN);
        let monitor = Reporting::<Value>::of(process);
        for (version, _) in self.carries {
            let ends = version.inner().map(address);
            let (sent, answered) = ping(&here, ends[0], ends[1], 50.0, PINGS);
            assert_eq!((sent.packets, answered), (PINGS, PINGS), "{}", self.words);
            send_datagrams((&here, ends[0]), (&far, ends[1]), OUT);
            send_datagrams((&far, ends[1]), (&here, ends[0]), IN);
        }

        let mut expected: Vec<Row> = (self.carries.iter())
            .map(|(version, encap)| self.expected(*version, encap))
            .collect();
        expected.sort_by(|one, other| one.inner_sip.cmp(&other.inner_sip));
        let deadline = Instant::now() + SOON;
        while self.conversations() != expected && Instant::now() < deadline {
            monitor.report();
        }
        assert_eq!(self.conversations(), expected, "{} {attach}", self.words);
        let last = monitor.finish();
        for kind in ["fragments", "malformed", "table_errors"] {
            assert_eq!(last["uncounted"][kind], 0, "{kind}: {last}");
        }
        here.ip("link delete tunnel0");
    }

    /// What there is between the addresses of the tunnel. What else goes through it, the kernel's own search
    /// for neighbours and routers, is seen to be of the same tunnel.
    fn conversations(&self) -> Vec<Row> {
        let url = "http://127.0.0.1:8080/data/tunnel.json";
        let mut response = step(url, ureq::get(url).call());
        let text = step(url, response.body_mut().read_to_string());
        let mut rows: Vec<Row> = step(&text, serde_json::from_str(&text));
        let [local, remote] = self.outer.outer();
        for row in &rows {
            let ends = [&row.local, &row.outer_sip, &row.outer_dip];
            assert_eq!(ends, [local, local, remote], "{row:?}");
            let is_known = self.carries.iter().any(|(_, encap)| *encap == row.encap);
            assert!(is_known && row.vni == self.vni, "{row:?}");
        }
        let ends: Vec<_> = self.carries.iter().map(|it| it.0.inner()).collect();
        rows.retain(|row| ends.contains(&[&row.inner_sip, &row.inner_dip]));
        rows.sort_by(|one, other| one.inner_sip.cmp(&other.inner_sip));
        rows
    }
}

fn address(text: &str) -> IpAddr {
    step(text, text.parse())
}

/// From an address to another, and all of them have come.
#[track_caller]
fn send_datagrams(from: (&Place, IpAddr), to: (&Place, IpAddr), (count, length): (u64, u64)) {
    let bound = |(place, address): (&Place, IpAddr)| {
        place.run(|| step("bind", UdpSocket::bind((address, 0))))
    };
    let (sender, receiver) = (bound(from), bound(to));
    step("bound the time", receiver.set_read_timeout(Some(SOON)));
    let address = step("own address", receiver.local_addr());
    let payload = vec![7; length as usize];
    for _ in 0..count {
        step("send", sender.send_to(&payload, address));
        let mut buffer = [0; 2048];
        let received = step("receive", receiver.recv(&mut buffer));
        assert_eq!(received, payload.len());
    }
}

/// Ethernet in it: both versions of IP.
const ETHERNET_IN_VXLAN: &[(Version, &str)] = &[(V4, "vxlan"), (V6, "vxlan")];
const ANY_IN_GENEVE: &[(Version, &str)] = &[(V4, "geneve"), (V6, "geneve")];
const ANY_IN_GRE: &[(Version, &str)] = &[(V4, "gre"), (V6, "gre")];
const ANY_IN_IP: &[(Version, &str)] = &[(V4, "ipip"), (V6, "sit")];

#[test]
fn vxlan_devices() {
    for (outer, vni, words) in [
        (V4, 42, "id 42 local LOCAL remote REMOTE dstport 4789"),
        (
            V6,
            0xff_ffff,
            "id 16777215 local LOCAL remote REMOTE dstport 4789",
        ),
    ] {
        let device = Device {
            kind: "vxlan",
            words,
            outer,
            between: UDP + VXLAN + ETHERNET,
            carries: ETHERNET_IN_VXLAN,
            vni,
            options: "",
        };
        device.assert_counted("vxlan_devices");
    }
}

#[test]
fn geneve_devices() {
    for (outer, vni, words) in [
        (V4, 7007, "id 7007 remote REMOTE"),
        (V6, 0xff_ffff, "id 16777215 remote REMOTE"),
    ] {
        let device = Device {
            kind: "geneve",
            words,
            outer,
            between: UDP + GENEVE + ETHERNET,
            carries: ANY_IN_GENEVE,
            vni,
            options: "",
        };
        device.assert_counted("geneve_devices");
    }
}

/// Without a key, with one, and with all that GRE has.
#[test]
fn gre_devices() {
    for (options, vni, words) in [
        (0, 0, "local LOCAL remote REMOTE"),
        (1, 0xfedc_ba98, "local LOCAL remote REMOTE key 4275878552"),
        (3, 5, "local LOCAL remote REMOTE key 5 csum seq"),
    ] {
        let device = Device {
            kind: "gre",
            words,
            outer: V4,
            between: GRE + options * GRE_OPTION,
            carries: ANY_IN_GRE,
            vni,
            options: "",
        };
        device.assert_counted("gre_devices");
    }
}

/// Ethernet in GRE, read as such and as NVGRE.
#[test]
fn gretap_devices() {
    let device = Device {
        kind: "gretap",
        words: "local LOCAL remote REMOTE key 180149767",
        outer: V4,
        between: GRE + GRE_OPTION + ETHERNET,
        carries: ANY_IN_GRE,
        vni: 0x0abc_de07,
        options: "",
    };
    device.assert_counted("gretap_devices");
    let as_nvgre = Device {
        carries: &[(V4, "nvgre"), (V6, "nvgre")],
        vni: 0x0a_bcde,
        options: "--nvgre",
        ..device
    };
    as_nvgre.assert_counted("gretap_devices");
}

#[test]
fn ip6gre_devices() {
    for (options, vni, words) in [
        (0, 0, "local LOCAL remote REMOTE"),
        (1, 99, "local LOCAL remote REMOTE key 99"),
    ] {
        let device = Device {
            kind: "ip6gre",
            words,
            outer: V6,
            between: ENCAPSULATION_LIMIT + GRE + options * GRE_OPTION,
            carries: ANY_IN_GRE,
            vni,
            options: "",
        };
        device.assert_counted("ip6gre_devices");
    }
}

#[test]
fn ip6gretap_devices() {
    let device = Device {
        kind: "ip6gretap",
        words: "local LOCAL remote REMOTE key 77",
        outer: V6,
        between: ENCAPSULATION_LIMIT + GRE + GRE_OPTION + ETHERNET,
        carries: ANY_IN_GRE,
        vni: 77,
        options: "",
    };
    device.assert_counted("ip6gretap_devices");
}

#[test]
fn ipip_devices() {
    let device = Device {
        kind: "ipip",
        words: "local LOCAL remote REMOTE",
        outer: V4,
        between: 0,
        carries: &[(V4, "ipip")],
        vni: 0,
        options: "",
    };
    device.assert_counted("ipip_devices");
}

#[test]
fn sit_devices() {
    let device = Device {
        kind: "sit",
        words: "local LOCAL remote REMOTE",
        outer: V4,
        between: 0,
        carries: &[(V6, "sit")],
        vni: 0,
        options: "",
    };
    device.assert_counted("sit_devices");
    let with_both = Device {
        words: "local LOCAL remote REMOTE mode any",
        carries: ANY_IN_IP,
        ..device
    };
    with_both.assert_counted("sit_devices");
}

/// With destination options before what is inside, and without.
#[test]
fn ip6tnl_devices() {
    for (between, words) in [
        (ENCAPSULATION_LIMIT, "local LOCAL remote REMOTE mode any"),
        (0, "local LOCAL remote REMOTE mode any encaplimit none"),
    ] {
        let device = Device {
            kind: "ip6tnl",
            words,
            outer: V6,
            between,
            carries: ANY_IN_IP,
            vni: 0,
            options: "",
        };
        device.assert_counted("ip6tnl_devices");
    }
}

//! The BPF objects of src/bpf without our loader: bpftool and tc load them as they are, and they do what the
//! documents say under "Without our loader", by the commands that stand there.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use libbpf_rs::ObjectBuilder;
use nix::net::if_::if_nametoindex;
use serde_json::Value;
use testbed::bpf::remove_folders_of_tc;
use testbed::line::{Line, RECEIVER, datagram, of};
use testbed::namespace::{Namespace, Place, Veth};
use testbed::packet::Packet;
use testbed::sandbox;
use testbed::step;
use testbed::traffic::{Capture, inject, tcp_transfer};

/// Whom packets claim to be from.
const SOURCES: [Ipv4Addr; 2] = [
    Ipv4Addr::new(198, 51, 100, 1),
    Ipv4Addr::new(198, 51, 100, 2),
];
/// Where the objects stand for users who have built them: what `packaging/bpf-objects` fills.
const BUILT: &str = "target/bpf";
const PINS: &str = "/sys/fs/bpf/plain";

/// Every object that there is a source of.
fn stems() -> BTreeSet<String> {
    let entries = step("read src/bpf", fs::read_dir("src/bpf"));
    let names = entries.map(|entry| step("read src/bpf", entry).file_name());
    let names = names.filter_map(|name| Some(name.to_str()?.strip_suffix(".bpf.c")?.to_owned()));
    let stems: BTreeSet<_> = names.collect();
    assert!(stems.len() >= 6, "{stems:?}");
    stems
}

/// As build.rs has left it, from where `packaging/bpf-objects` takes it.
fn object(stem: &str) -> PathBuf {
    Path::new(env!("OUT_DIR")).join(format!("{stem}.bpf.o"))
}

/// Runs a command line here; what became of it.
fn typed(line: &str) -> Output {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    step(line, Command::new(program).args(words).output())
}

/// The same of one that has to work; what it said.
#[track_caller]
fn run(line: &str) -> String {
    let output = typed(line);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn run_json(line: &str) -> Value {
    let said = run(line);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{line}: {error}: {said}"))
}

/// The names in a folder, folders apart.
fn files(folder: &str) -> BTreeSet<String> {
    let entries = step(folder, fs::read_dir(folder)).map(|entry| step(folder, entry));
    let files = entries.filter(|entry| !entry.path().is_dir());
    files
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// What is in the object, by libbpf-rs: its programs, and its maps under the names that pins have.
fn contents(stem: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut builder = ObjectBuilder::default();
    let open = step(stem, builder.open_file(object(stem)));
    let programs = open.progs().map(|program| program.name().to_owned());
    let programs = programs.map(|name| name.to_string_lossy().into_owned());
    let maps = open.maps().map(|map| map.name().to_owned());
    // A dot is not allowed there.
    let maps = maps.map(|name| name.to_string_lossy().replace('.', "_"));
    (programs.collect(), maps.collect())
}

#[test]
fn bpftool_loads_every_object_and_tc_attaches_every_program() {
    let name = "bpftool_loads_every_object_and_tc_attaches_every_program";
    sandbox::run(name, |_| {
        let far = Namespace::new("far");
        let _cable = Veth::new((&Place::here(), "wan0"), (&far, "eth0"));
        run("tc qdisc add dev wan0 clsact");
        for stem in stems() {
            let path = object(&stem);
            run(&format!(
                "bpftool prog loadall {} {PINS} pinmaps {PINS}/maps",
                path.display()
            ));
            let (programs, maps) = contents(&stem);
            assert!(!programs.is_empty() && !maps.is_empty(), "{stem}");
            assert_eq!(files(PINS), programs, "{stem}");
            assert_eq!(files(&format!("{PINS}/maps")), maps, "{stem}");
            for program in &programs {
                let pin = format!("{PINS}/{program}");
                let id = run_json(&format!("bpftool -j prog show pinned {pin}"))["id"].clone();
                run(&format!(
                    "tc filter add dev wan0 ingress bpf da pinned {pin}"
                ));
                assert_eq!(filter().map(|it| it["id"].clone()), Some(id));
                run("tc filter del dev wan0 ingress");
            }
            step(&stem, fs::remove_dir_all(PINS));
        }
        remove_folders_of_tc();
    });
}

/// The program of the only filter where packets come in at wan0.
fn filter() -> Option<Value> {
    let shown = run_json("tc -j filter show dev wan0 ingress");
    let shown: Vec<Value> = serde_json::from_value(shown).unwrap_or_default();
    let mut programs = shown.iter().filter_map(|it| it["options"].get("prog"));
    let program = programs.next().cloned();
    assert_eq!(programs.next(), None, "more than one filter");
    program
}

/// tc loads the first program of a section, and no other one.
#[test]
fn tc_loads_what_needs_no_other_program() {
    let name = "tc_loads_what_needs_no_other_program";
    sandbox::run(name, |_| {
        let far = Namespace::new("far");
        let _cable = Veth::new((&Place::here(), "wan0"), (&far, "eth0"));
        run("tc qdisc add dev wan0 clsact");
        for stem in stems() {
            let section = match stem.as_str() {
                "tokenbucket" => "classifier",
                _ => "tc",
            };
            let path = object(&stem);
            let line = format!(
                "tc filter add dev wan0 ingress bpf da obj {} sec {section}",
                path.display()
            );
            if stem == "tunnel_monitor" {
                // handle_ingress would call programs that are not there.
                let output = typed(&line);
                let errors = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{errors}");
                let words = "libbpf: map 'parser': failed to initialize slot [";
                assert!(errors.contains(words), "{errors}");
                assert!(errors.ends_with("Unable to load program\n"), "{errors}");
                assert_eq!(filter(), None);
                continue;
            }
            run(&line);
            let program = step(&line, filter().ok_or("no filter"));
            // The kernel keeps 15 bytes of a name.
            let first = match stem.as_str() {
                "explain" => "cut_and_run",
                "neighbor_sharing" => "classify_neighb",
                "tcp_hold" => "hold_back",
                "tokenbucket" => "tokenbucket",
                "vlan_learning" => "to_worker",
                "vlan_tagger" => "tag_client",
                other => panic!("{other}: which is its first program?"),
            };
            assert_eq!(program["name"], first);
            run("tc filter del dev wan0 ingress");
        }
        remove_folders_of_tc();
    });
}

/// The commands of a document's section, as they would be typed, in a folder where the objects stand as after
/// `make build`; eth0 is wan0 here.
struct Section {
    commands: std::vec::IntoIter<String>,
    tree: PathBuf,
}

impl Section {
    fn of(document: &str) -> Section {
        let tree = PathBuf::from("/run/tree");
        let built = tree.join(BUILT);
        step("make a tree", fs::create_dir_all(&built));
        for stem in stems() {
            let from = object(&stem);
            let to = built.join(step(&stem, from.file_name().ok_or("no name")));
            step(from.display(), fs::copy(&from, to));
        }
        let text = testbed::document::blocks(document, "Without our loader").concat();
        let lines = text.lines().filter_map(|line| line.strip_prefix("$ "));
        let commands: Vec<String> = lines
            .map(|line| line.strip_prefix("sudo ").unwrap_or(line))
            .map(|line| line.replace("dev eth0 ", "dev wan0 "))
            .collect();
        assert!(commands.len() >= 4, "{commands:?}");
        Section {
            commands: commands.into_iter(),
            tree,
        }
    }

    /// What the next one says; it is the one that begins so.
    #[track_caller]
    fn run(&mut self, beginning: &str) -> String {
        let line = step(beginning, self.commands.next().ok_or("no more commands"));
        assert!(line.starts_with(beginning), "{line}, and not {beginning}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).current_dir(&self.tree);
        let output = step(&line, shell.output());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    fn run_json(&mut self, beginning: &str) -> Value {
        let said = self.run(beginning);
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{beginning}: {error}: {said}"))
    }

    /// The rest of them, which clean up: the comparison at the end of the sandbox holds them to it.
    #[track_caller]
    fn finish(mut self) {
        for line in self.commands.as_slice().to_vec() {
            self.run(&line);
        }
        remove_folders_of_tc();
        step("remove the tree", fs::remove_dir_all(&self.tree));
    }
}

/// The sum over all CPUs of what a per-CPU map's entry has there, as bpftool shows it.
fn sum(entry: &Value, place: &str) -> u64 {
    let values = step(place, entry["values"].as_array().ok_or("no CPUs"));
    let counts = values.iter().map(|it| it["value"].pointer(place)?.as_u64());
    step(place, counts.sum::<Option<u64>>().ok_or("not there"))
}

fn bytes(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().map(Packet::build).collect()
}

fn send(from: &Place, frames: &[Vec<u8>]) {
    inject(
        from,
        "eth0",
        frames.iter().map(Vec::as_slice),
        Duration::ZERO,
    );
}

/// The only map of that name which the program uses.
fn map_of(program: &Value, name: &str) -> Value {
    let id = &program["id"];
    let ids = run_json(&format!("bpftool -j prog show id {id}"))["map_ids"].clone();
    let ids = step("its maps", ids.as_array().ok_or("none"));
    let is_it = |id: &&Value| run_json(&format!("bpftool -j map show id {id}"))["name"] == name;
    let id = step(name, ids.iter().find(is_it).ok_or("no such map"));
    run_json(&format!("bpftool -j map dump id {id}"))[0]["formatted"].clone()
}

#[test]
fn tokenbucket_limits_by_tc_alone() {
    sandbox::run("tokenbucket_limits_by_tc_alone", |_| {
        let line = Line::new();
        let mut section = Section::of("docs/tokenbucket.md");
        section.run("tc qdisc add");
        section.run("tc filter add");
        assert!(section.run("tc filter show").contains(" name tokenbucket "));
        let began = Instant::now();
        let arrivals = line.arrivals();
        let packets: Vec<_> = (0..40)
            .map(|number| datagram(line.frame(), SOURCES[number % 2].into()))
            .collect();
        send(&line.sender, &bytes(&packets));
        let (arrived, _) = arrivals.finish();
        // Six at once, then one a second.
        let most = 6 + began.elapsed().as_secs();
        assert!(most < 20, "the machine stood still");
        for source in SOURCES {
            assert!((6..=most).contains(&of(&arrived, source)), "{arrived:?}");
        }
        let program = step("the filter", filter().ok_or("none"));
        let events = map_of(&program, "events");
        let passed: u64 = arrived.values().sum();
        assert_eq!(sum(&events, "/passed/packets"), passed);
        assert_eq!(sum(&events, "/dropped/packets"), 40 - passed);
        assert_eq!(sum(&events, "/flows"), 2);
        section.finish();
    });
}

#[test]
fn neighbor_sharing_meters_by_bpftool_and_tc() {
    sandbox::run("neighbor_sharing_meters_by_bpftool_and_tc", |_| {
        let line = Line::new();
        let mut section = Section::of("docs/neighbor_sharing.md");
        section.run("bpftool prog loadall");
        section.run("tc qdisc add");
        section.run("tc filter add");
        section.run("tc filter add");
        let arrivals = line.arrivals();
        let down = vec![datagram(line.frame(), SOURCES[0].into()); 20];
        send(&line.sender, &bytes(&down));
        // It ends with a frame of its own: 14 bytes of header, 15 of text.
        let (arrived, _) = arrivals.finish();
        assert_eq!(of(&arrived, SOURCES[0]), 20, "nothing is limited yet");
        let up = vec![datagram(line.frame_back(), SOURCES[1].into()); 10];
        let back = Capture::start(&line.sender, "eth0", Duration::from_secs(30), |frame| {
            frame.len() == 64
        });
        send(&line.receiver, &bytes(&up));
        back.wait_for(10, Duration::from_secs(10));
        let meters = section.run_json("bpftool map dump");
        // Class + 2 * direction: the rest's downloads, and its uploads.
        let metered: Vec<_> = (0..4)
            .map(|row| {
                let row = &meters[row];
                (sum(row, "/packets"), sum(row, "/bytes"))
            })
            .collect();
        let length = up[0].build().len() as u64;
        assert_eq!(length, 64);
        assert_eq!(metered[0], (21, 20 * length + 29));
        assert_eq!(
            (metered[1], metered[2], metered[3]),
            ((0, 0), (10, 640), (0, 0))
        );
        section.finish();
    });
}

#[test]
fn vlan_learning_tells_who_is_where_by_bpftool_and_tc() {
    sandbox::run("vlan_learning_tells_who_is_where_by_bpftool_and_tc", |_| {
        let line = Line::new();
        let mut section = Section::of("docs/vlan_learning.md");
        section.run("bpftool prog loadall");
        section.run("tc qdisc add");
        section.run("tc filter add");
        let arrivals = line.arrivals();
        let mut packets = vec![datagram(line.frame().vlan(7), SOURCES[0].into()); 5];
        packets.extend(vec![datagram(line.frame(), SOURCES[1].into()); 3]);
        send(&line.sender, &bytes(&packets));
        let (arrived, _) = arrivals.finish();
        // Nothing is dropped as long as nobody has said so.
        let came = SOURCES.map(|source| of(&arrived, source));
        assert_eq!(came, [5, 3]);
        let strangers = section.run_json("bpftool map dump");
        let mac = line.sender.mac("eth0");
        let mac = mac
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
        assert_eq!(strangers.as_array().map(Vec::len), Some(1), "{strangers}");
        assert_eq!(strangers[0]["key"], mac);
        assert_eq!(strangers[0]["value"]["packets"], 5);
        // IS_TAGGED, and no inner tag.
        assert_eq!(strangers[0]["value"]["tags"], (1_u64 << 32) + 7);
        section.finish();
    });
}

/// A frame in network 77 of VXLAN.
fn tunnelled(frame: Packet, ends: [Ipv4Addr; 2], inner: &Packet) -> Packet {
    let [from, to] = ends;
    let tunnel = frame.ipv4(from, to).udp(40000, 4789);
    tunnel.vxlan(77, &inner.build())
}

#[test]
fn tunnel_monitor_counts_by_bpftool_and_tc() {
    sandbox::run("tunnel_monitor_counts_by_bpftool_and_tc", |_| {
        let line = Line::new();
        let mut section = Section::of("docs/tunnel_monitor.md");
        section.run("bpftool prog loadall");
        section.run("tc qdisc add");
        section.run("tc filter add");
        section.run("tc filter add");
        let [near, far] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 7)];
        let inner = |from: Ipv4Addr, to: Ipv4Addr| {
            let frame = Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
            frame.ipv4(from, to).udp(9, 9).payload_of(20)
        };
        let [one, other] = SOURCES;
        let came = tunnelled(line.frame(), [one, other], &inner(far, near));
        let left = tunnelled(line.frame_back(), [other, one], &inner(near, far));
        let length = came.build().len() as u64;
        let is_ours = move |frame: &[u8]| frame.len() as u64 == length;
        let within = Duration::from_secs(10);
        for (from, to, packet, number) in [
            (&line.sender, &line.receiver, &came, 20),
            (&line.receiver, &line.sender, &left, 10),
        ] {
            let capture = Capture::start(to, "eth0", Duration::from_secs(30), is_ours);
            send(from, &bytes(&vec![packet.clone(); number as usize]));
            capture.wait_for(number, within);
        }
        let flows = section.run_json("bpftool map dump");
        let flows = step("flows", flows.as_array().ok_or("no list"));
        assert_eq!(flows.len(), 1, "both ways are one flow: {flows:?}");
        // VNI, encap (0: VXLAN), IPv4 outside and inside.
        assert_eq!(flows[0]["key"]["kind"], 77_u64 | 4 << 40 | 4 << 48);
        assert_eq!(flows[0]["value"], 0, "the first slot");
        let expected = [20, 20 * length, 10, 10 * length];
        let columns = ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"];
        let tallies = section.run_json("bpftool map dump");
        let tallies = step("tallies", tallies.as_array().ok_or("no list"));
        let totals = columns.map(|column| {
            let counts = tallies
                .iter()
                .map(|it| it["value"]["totals"][column].as_u64());
            counts.map(Option::unwrap_or_default).sum::<u64>()
        });
        assert_eq!(totals, expected);
        // Of slot 0, on each CPU, 4,096 slots apart.
        let maps = "/sys/fs/bpf/tunnels/maps";
        let mut counted = [0; 4];
        for cpu in 0..tallies.len() {
            let key = ((cpu * 4096) as u32).to_ne_bytes();
            let key = key.map(|byte| byte.to_string()).join(" ");
            let line = format!("bpftool -j map lookup pinned {maps}/counters key {key}");
            let counts = run_json(&line);
            for (sum, column) in counted.iter_mut().zip(columns) {
                *sum += counts["formatted"]["value"][column]
                    .as_u64()
                    .unwrap_or_default();
            }
        }
        assert_eq!(counted, expected);
        section.finish();
    });
}

#[test]
fn tcp_hold_lets_everything_pass_by_bpftool_and_tc() {
    sandbox::run("tcp_hold_lets_everything_pass_by_bpftool_and_tc", |_| {
        let here = Place::here();
        let far = Namespace::new("far");
        let _cable = Veth::new((&here, "wan0"), (&far, "eth0"));
        here.ip("address add 192.0.2.1/24 dev wan0");
        far.ip("address add 192.0.2.2/24 dev eth0");
        let mut section = Section::of("docs/tcp_hold.md");
        section.run("bpftool prog loadall");
        section.run("tc qdisc add");
        section.run("tc filter add");
        assert!(section.run("tc filter show").contains(" name hold_back "));
        let within = Duration::from_secs(30);
        tcp_transfer(&here, &far, RECEIVER.0.into(), 1 << 20, within);
        tcp_transfer(
            &far,
            &here,
            Ipv4Addr::new(192, 0, 2, 1).into(),
            1 << 20,
            within,
        );
        let events = section.run_json("bpftool map dump");
        for event in ["lowered", "bounds", "probes", "unreadable", "failed"] {
            assert_eq!(sum(&events[0], &format!("/{event}")), 0, "{event}");
        }
        section.finish();
    });
}

#[test]
fn vlan_tagger_takes_its_table_from_bpftool() {
    sandbox::run("vlan_tagger_takes_its_table_from_bpftool", |_| {
        let line = Line::new();
        let path = object("vlan_tagger");
        let path = path.display();
        run(&format!(
            "bpftool prog loadall {path} {PINS} pinmaps {PINS}/maps"
        ));
        run("tc qdisc add dev wan0 clsact");
        run(&format!(
            "tc filter add dev wan0 ingress bpf da pinned {PINS}/untag_trunk"
        ));
        // What is in VLAN 7 goes out by lan0.
        let port = step("lan0", if_nametoindex("lan0")).to_le_bytes();
        let port = port.map(|byte| byte.to_string()).join(" ");
        run(&format!(
            "bpftool map update pinned {PINS}/maps/port_of_vlan key 7 0 0 0 value {port}"
        ));
        let is_ours = |source: Ipv4Addr| {
            move |frame: &[u8]| frame.get(26..30) == Some(source.octets().as_slice())
        };
        let at_most = Duration::from_secs(30);
        let [refused, taken] =
            SOURCES.map(|source| Capture::start(&line.receiver, "eth0", at_most, is_ours(source)));
        let to =
            |vlan: u16, source: Ipv4Addr| datagram(line.frame().vlan(vlan), IpAddr::from(source));
        let mut packets = vec![to(8, SOURCES[0]); 5];
        packets.extend(vec![to(7, SOURCES[1]); 5]);
        send(&line.sender, &bytes(&packets));
        taken.wait_for(5, Duration::from_secs(10));
        assert_eq!(refused.finish().count.packets, 0, "it is no client's VLAN");
        assert_eq!(taken.finish().count.packets, 5);
        run("tc qdisc del dev wan0 clsact");
        step("unpin", fs::remove_dir_all(PINS));
        remove_folders_of_tc();
    });
}

//! The web server, and what tunnel_monitor answers: against samples that the tests make up, without a
//! data plane. The clients are the tests' own.

#[path = "tunnel_monitor_http/client.rs"]
mod client;
#[path = "tunnel_monitor_http/document.rs"]
mod document;
#[path = "tunnel_monitor_http/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use netbpf::Failure;
use netbpf::http::{self, Limits, Options, Server};
use netbpf::tunnel_monitor::{Counts, Encap, Sample, Which, web, write_rows};
use serde_json::{Value, json};
use testbed::schema::Schema;
use testbed::tool::AT_ONCE;
use testbed::{sandbox, step, threads};
use tokio::sync::watch;

use client::{Answer, Event, Events, answer, connect, get, get_with, request, rest};
use table::{Table, counts, flow, usual};

/// Long enough for what is under way to get on.
const MOMENT: Duration = Duration::from_millis(300);

/// Some tests look at the threads or the memory of this process: the others do not run beside them.
static THREADS: RwLock<()> = RwLock::new(());

/// A monitor without a data plane.
struct Monitor {
    table: Table,
    feed: watch::Sender<Arc<Sample>>,
    server: Server,
}

impl Monitor {
    fn of(table: Table) -> Monitor {
        Monitor::with(table, Options::default())
    }

    fn with(table: Table, options: Options) -> Monitor {
        let (feed, fed) = watch::channel(table.last());
        let listening = step("listen", http::bind(([127, 0, 0, 1], 0).into()));
        let server = step("serve", listening.serve(web::router(fed, about()), options));
        Monitor {
            table,
            feed,
            server,
        }
    }

    fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    fn publish(&mut self, ends_window: bool) -> Arc<Sample> {
        let sample = self.table.sample(ends_window);
        self.feed.send_replace(Arc::clone(&sample));
        sample
    }
}

/// What the page says of it.
fn about() -> web::About {
    web::About {
        namespace: Some("lab".into()),
        simulation: false,
        ports: vec![4789, 8472],
        interval: Duration::from_secs(5),
        traffic: None,
    }
}

fn impatient() -> Options {
    let limits = Limits {
        head: Duration::from_secs(2),
        stalled: Duration::from_secs(1),
        ..Limits::default()
    };
    Options {
        limits,
        ..Options::default()
    }
}

/// For readers who have something else to do, on a machine that has too.
fn patient() -> Options {
    let limits = Limits {
        stalled: Duration::from_secs(120),
        ..Limits::default()
    };
    Options {
        limits,
        ..Options::default()
    }
}

#[track_caller]
fn ended_at_once<T>(what: T) {
    let start = Instant::now();
    drop(what);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never {what}");
        sleep(Duration::from_millis(2));
    }
}

/// Connections at this end that stand, and the bytes that they have sent and nobody has taken.
fn waiting_at(address: SocketAddr) -> (usize, u64) {
    let path = "/proc/thread-self/net/tcp";
    let connections = step(path, fs::read_to_string(path));
    let port = format!(":{:04X}", address.port());
    let sent = connections.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let stands = fields.get(1)?.ends_with(&port) && *fields.get(3)? == "01";
        let (sent, _) = fields.get(4)?.split_once(':')?;
        u64::from_str_radix(sent, 16).ok().filter(|_| stands)
    });
    let sent: Vec<u64> = sent.filter(|sent| *sent > 0).collect();
    (sent.len(), sent.iter().sum())
}

/// Kinds of flows that differ in how they are written.
fn mixed() -> Table {
    let mut table = Table::new(&["eth0"]);
    // The remote end is the lower one.
    let lower = ["172.16.1.100", "172.16.1.9"];
    let one = flow(
        Encap::Vxlan,
        10000,
        lower,
        Some(["192.168.0.1", "192.168.0.2"]),
    );
    table.count(0, &one, counts(5, 740, 6, 750));
    let two = flow(
        Encap::Geneve,
        16_777_215,
        ["172.16.1.100", "172.16.1.101"],
        None,
    );
    table.count(1, &two, counts(1, 42, 0, 0));
    let outer = ["2001:db8::1", "2001:db8::2"];
    let three = flow(Encap::Ipip, 0, outer, Some(["192.168.0.1", "192.168.0.2"]));
    table.count(3, &three, counts(0, 0, 1, u64::from(u32::MAX) + 1));
    let inner = Some(["fd00::a", "fd00::b"]);
    let four = flow(Encap::Sit, 0, ["10.0.0.2", "10.0.0.10"], inner);
    table.count(4, &four, counts(7, 700, 8, 800));
    table
}

const ALL: &str = r#"[
{"vni":10000,"outer_sip":"172.16.1.9","outer_dip":"172.16.1.100","inner_sip":"192.168.0.2","inner_dip":"192.168.0.1","tx_pkts":5,"tx_bytes":740,"rx_pkts":6,"rx_bytes":750,"local":"172.16.1.100","encap":"vxlan"},
{"vni":16777215,"outer_sip":"172.16.1.100","outer_dip":"172.16.1.101","inner_sip":"0.0.0.0","inner_dip":"0.0.0.0","tx_pkts":1,"tx_bytes":42,"rx_pkts":0,"rx_bytes":0,"local":"172.16.1.100","encap":"geneve"},
{"vni":0,"outer_sip":"2001:db8::1","outer_dip":"2001:db8::2","inner_sip":"192.168.0.1","inner_dip":"192.168.0.2","tx_pkts":0,"tx_bytes":0,"rx_pkts":1,"rx_bytes":4294967296,"local":"2001:db8::1","encap":"ipip"},
{"vni":0,"outer_sip":"10.0.0.2","outer_dip":"10.0.0.10","inner_sip":"fd00::a","inner_dip":"fd00::b","tx_pkts":7,"tx_bytes":700,"rx_pkts":8,"rx_bytes":800,"local":"10.0.0.2","encap":"sit"}
]
"#;

fn written(sample: &Sample, which: Which) -> String {
    let mut file = Vec::new();
    step("write", write_rows(&mut file, sample, which));
    step("read it back", String::from_utf8(file))
}

#[test]
fn the_files_have_the_originals_fields_in_its_order() {
    let _beside = THREADS.read();
    let mut monitor = Monitor::of(mixed());
    let address = monitor.address();
    for path in ["/data/tunnel.json", "/data/tunnel-delta.json"] {
        assert_eq!(get(address, path).text(), "[]\n", "{path} before the first");
    }
    let sample = monitor.publish(false);
    let all = get(address, "/data/tunnel.json");
    assert_eq!(all.text(), ALL);
    assert_eq!(all.header("content-type"), Some("application/json"));
    assert_eq!(written(&sample, Which::Totals), ALL);
    assert_eq!(list(&all.json()).len(), 4);
    // No window has ended.
    assert_eq!(get(address, "/data/tunnel-delta.json").text(), "[]\n");

    let sample = monitor.publish(true);
    assert_eq!(get(address, "/data/tunnel-delta.json").text(), ALL);
    assert_eq!(written(&sample, Which::Window), ALL);
    let one = monitor.table.last().flows[0].clone().unwrap();
    monitor.table.count(0, &one, counts(1, 2, 3, 4));
    // The window stays what it was until the next one has ended.
    monitor.publish(false);
    assert_eq!(get(address, "/data/tunnel-delta.json").text(), ALL);
    let sample = monitor.publish(true);
    let delta = get(address, "/data/tunnel-delta.json");
    assert_eq!(delta.text(), written(&sample, Which::Window));
    assert_eq!(
        delta.json(),
        json!([{
            "vni": 10000, "outer_sip": "172.16.1.9", "outer_dip": "172.16.1.100",
            "inner_sip": "192.168.0.2", "inner_dip": "192.168.0.1",
            "tx_pkts": 1, "tx_bytes": 2, "rx_pkts": 3, "rx_bytes": 4,
            "local": "172.16.1.100", "encap": "vxlan",
        }])
    );
    let all = get(address, "/data/tunnel.json").json();
    assert_eq!(
        (&all[0]["rx_bytes"], &all[1]["tx_bytes"]),
        (&json!(754), &json!(42))
    );
    // Nothing passed.
    monitor.publish(true);
    assert_eq!(get(address, "/data/tunnel-delta.json").text(), "[]\n");
}

#[test]
fn many_rows_come_in_pieces_and_are_all_there() {
    let _beside = THREADS.read();
    let mut monitor = Monitor::of(Table::with(5000));
    // Rows that are further apart than what is looked at in one go.
    let far = usual(400_000);
    monitor.table.count(400_000, &far, counts(1, 2, 3, 4));
    let sample = monitor.publish(true);
    for (path, which) in [
        ("/data/tunnel.json", Which::Totals),
        ("/data/tunnel-delta.json", Which::Window),
    ] {
        let answer = get(monitor.address(), path);
        assert_eq!(answer.text(), written(&sample, which));
        assert_eq!(list(&answer.json()).len(), 5001);
        assert_eq!(answer.header("content-length"), None);
        let rows = sample.rows().count();
        assert_eq!(answer.text().lines().count(), rows + 2);
    }
    monitor.publish(true);
    assert_eq!(
        get(monitor.address(), "/data/tunnel-delta.json").text(),
        "[]\n"
    );
    monitor.table.count(400_000, &far, counts(1, 2, 3, 4));
    monitor.publish(true);
    let delta = get(monitor.address(), "/data/tunnel-delta.json");
    assert_eq!(list(&delta.json()).len(), 1);
}

#[test]
fn who_has_it_is_told_so() {
    let _beside = THREADS.read();
    let mut monitor = Monitor::of(mixed());
    let address = monitor.address();
    let ask = |path, known: &str| get_with(address, path, &[("If-None-Match", known)]);
    let tag_of = |answer: &Answer| answer.header("etag").unwrap().to_owned();
    let (all, delta) = ("/data/tunnel.json", "/data/tunnel-delta.json");
    monitor.publish(true);
    let (first_of_all, first_delta) = (tag_of(&get(address, all)), tag_of(&get(address, delta)));
    assert_ne!(first_of_all, first_delta);
    for known in [
        first_of_all.clone(),
        format!("W/{first_of_all}"),
        format!("\"other\", {first_of_all} ,\"x\""),
        "*".to_owned(),
    ] {
        let answer = ask(all, &known);
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{known}");
        assert_eq!(tag_of(&answer), first_of_all);
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
    }
    for known in [
        "",
        "x",
        "\"\"",
        &first_delta,
        first_of_all.trim_matches('"'),
    ] {
        assert_eq!(ask(all, known).text(), ALL, "{known}");
    }
    // Another sample: other totals perhaps, and the same window.
    monitor.publish(false);
    assert_eq!(ask(all, &first_of_all).status, 200);
    assert_eq!(ask(delta, &first_delta).status, 304);
    // A flow that goes leaves both.
    monitor.table.take_out(1);
    monitor.publish(false);
    let without = ask(delta, &first_delta);
    assert_eq!(list(&without.json()).len(), 3);
    monitor.publish(true);
    assert_eq!(ask(delta, &tag_of(&without)).text(), "[]\n");
    // Another run: the same numbers, and not the same.
    let mut other = Monitor::of(mixed());
    other.publish(true);
    let known = [("If-None-Match", first_of_all.as_str())];
    assert_eq!(get_with(other.address(), all, &known).status, 200);
}

/// A reader of events that knows only what the schema says.
#[derive(Default)]
struct Reader {
    number: Option<u64>,
    total: BTreeMap<u64, Value>,
    window: BTreeMap<u64, Value>,
    since: BTreeMap<u64, Value>,
    flows: BTreeMap<u64, Value>,
}

fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("{value} is no list"))
}

fn number_in(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

const FIGURES: [&str; 4] = ["tx_pkts", "tx_bytes", "rx_pkts", "rx_bytes"];

fn added(one: Option<&Value>, other: &Value) -> Value {
    let figure = |of: Option<&Value>, name: &str| of.map_or(0, |of| number_in(&of[name]));
    let sum = |name| (name, figure(one, name) + figure(Some(other), name));
    json!(FIGURES.map(sum).into_iter().collect::<BTreeMap<_, _>>())
}

impl Reader {
    /// The data of the event, which fits the schema.
    fn take(&mut self, event: &Event, schema: &Schema) -> Value {
        let data: Value = step(&event.data, serde_json::from_str(&event.data));
        let misfits = schema.misfits(&data);
        assert!(misfits.is_empty(), "{misfits:#?} in {data}");
        assert_eq!(data["event"], json!(event.name));
        assert_eq!(data["number"].to_string(), event.id);
        let number = number_in(&data["number"]);
        let is_snapshot = event.name == "snapshot";
        if is_snapshot {
            *self = Reader::default();
            assert_eq!(data["gone"], json!([]));
        } else {
            assert_eq!(self.number, Some(number - 1), "a gap");
        }
        self.number = Some(number);
        for slot in list(&data["gone"]) {
            let slot = number_in(slot);
            for column in [&mut self.total, &mut self.window, &mut self.since] {
                column.remove(&slot);
            }
            assert!(self.flows.remove(&slot).is_some(), "{slot} was not there");
        }
        for row in list(&data["rows"]) {
            let slot = number_in(&row["slot"]);
            let who = json!([row["encap"], row["vni"], row["outer"], row["inner"]]);
            let known = self.flows.insert(slot, who.clone());
            assert!(known.is_none_or(|known| known == who), "{slot} changed");
            if is_snapshot {
                let columns = [(&mut self.window, "window"), (&mut self.since, "since")];
                for (column, name) in columns {
                    if let Some(counts) = row.get(name) {
                        column.insert(slot, counts.clone());
                    }
                }
            } else {
                assert!(row.get("window").is_none() && row.get("since").is_none());
                let since = added(self.since.get(&slot), &row["second"]);
                self.since.insert(slot, since);
                let total = added(self.total.get(&slot), &row["second"]);
                assert_eq!(total, row["total"]);
            }
            self.total.insert(slot, row["total"].clone());
        }
        if data["window"]["ended"] == json!(true) {
            if !is_snapshot {
                self.window = std::mem::take(&mut self.since);
            }
            assert!(self.since.is_empty(), "{:?}", self.since);
        }
        assert_eq!(data["flows"], json!(self.flows.len()));
        data
    }

    /// It knows what the sample holds.
    #[track_caller]
    fn assert_knows(&self, sample: &Sample) {
        assert_eq!(self.number, Some(sample.number));
        let column = |figures: &dyn Fn(usize) -> Counts| -> BTreeMap<u64, Value> {
            let rows = sample
                .rows()
                .map(|row| (row.slot as u64, figures(row.slot)));
            let rows = rows.filter(|(_, counts)| !counts.is_zero());
            rows.map(|(slot, counts)| (slot, json!(counts))).collect()
        };
        let row = |slot: usize| {
            let row = sample.rows_from(slot).next();
            row.unwrap_or_else(|| panic!("nobody is in slot {slot}"))
        };
        assert_eq!(self.total, column(&|slot| row(slot).total));
        assert_eq!(self.window, column(&|slot| row(slot).window));
        let ended = |slot: usize| sample.window.after.get(slot).copied().unwrap_or_default();
        assert_eq!(self.since, column(&|slot| row(slot).total - ended(slot)));
    }
}

fn schema() -> Schema {
    Schema::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/docs/tunnel_monitor.events.schema.json"
    ))
}

#[test]
fn events_tell_a_snapshot_and_then_what_changes() {
    let _beside = THREADS.read();
    let schema = schema();
    let mut table = mixed();
    let mut monitor = Monitor::of(Table::new(&["eth0", "<b>\"\n"]));
    let (mut early, mut reader) = (Events::open(monitor.address()), Reader::default());
    let first = early.next().unwrap();
    let data = reader.take(&first, &schema);
    assert_eq!((first.name.as_str(), first.id.as_str()), ("snapshot", "0"));
    assert_eq!(early.retry.as_deref(), Some("1000"));
    assert_eq!(data["interfaces"], json!(["eth0", "<b>\"\n"]));
    assert_eq!((&data["rows"], &data["seconds"]), (&json!([]), &json!(0.0)));
    assert_eq!(data["window"]["ended"], json!(false));

    table.last();
    let names = monitor.table.last().interfaces.clone();
    let flows: Vec<_> = [0, 1, 3, 4]
        .map(|slot| (slot, table.sample(false).flows[slot].clone().unwrap()))
        .into();
    drop((table, names));
    let mut told = |monitor: &mut Monitor, ends_window| {
        let sample = monitor.publish(ends_window);
        let event = early.next().unwrap();
        assert_eq!(event.name, "delta");
        let data = reader.take(&event, &schema);
        reader.assert_knows(&sample);
        // Who comes now is told the same.
        let (mut late, mut other) = (Events::open(monitor.address()), Reader::default());
        let event = late.next().unwrap();
        assert_eq!(event.name, "snapshot");
        other.take(&event, &schema);
        other.assert_knows(&sample);
        data
    };
    for (place, (slot, flow)) in flows.iter().enumerate() {
        monitor
            .table
            .count(*slot, flow, counts(1, 10, 2, 20 + place as u64));
        let data = told(&mut monitor, false);
        assert_eq!(list(&data["rows"]).len(), 1);
        assert_eq!(data["seconds"], json!(1.0));
    }
    // The window ends with the last packet, and once more.
    monitor.table.count(0, &flows[0].1, counts(9, 9, 9, 9));
    let data = told(&mut monitor, true);
    assert_eq!(data["window"]["ended"], json!(true));
    assert_eq!(data["window"]["seconds"], json!(5.0));
    assert_eq!(list(&data["rows"]).len(), 1);
    let row = &data["rows"][0];
    assert_eq!(
        row["outer"],
        json!(["172.16.1.100", "172.16.1.9"]),
        "here, there"
    );
    assert_eq!(row["inner"], json!(["192.168.0.1", "192.168.0.2"]));
    let data = told(&mut monitor, false);
    assert_eq!(
        (&data["rows"], &data["window"]["ended"]),
        (&json!([]), &json!(false))
    );
    told(&mut monitor, true);
    // Two go, one of them while another comes; later somebody else has the slot.
    monitor.table.take_out(3);
    monitor.table.count(2, &usual(7), counts(1, 1, 1, 1));
    let data = told(&mut monitor, false);
    assert_eq!(data["gone"], json!([3]));
    assert_eq!(data["forgotten_flows"], json!(1));
    assert_eq!(data["forgotten"]["rx_bytes"], json!(22));
    monitor.table.take_out(0);
    assert_eq!(told(&mut monitor, true)["gone"], json!([0]));
    assert_eq!(told(&mut monitor, true)["gone"], json!([]));
    monitor.table.count(0, &usual(8), counts(0, 0, 5, 5));
    let data = told(&mut monitor, false);
    assert_eq!(data["rows"][0]["second"]["rx_pkts"], json!(5));
    let last = monitor.table.last();
    assert_eq!(data["totals"], json!(last.totals));
    assert_eq!(data["capacity"], json!(1024));
    let uncounted = [
        "fragments",
        "malformed",
        "multicast",
        "not_tunnel",
        "table_errors",
    ]
    .map(|name| (name, 0));
    assert_eq!(data["uncounted"], json!(BTreeMap::from(uncounted)));

    // No sample will come any more.
    let Monitor { feed, server, .. } = monitor;
    drop(feed);
    assert!(early.next().is_none());
    ended_at_once(server);
}

#[test]
fn many_flows_that_come_and_go_are_told_in_pieces() {
    let _beside = THREADS.read();
    let schema = schema();
    let mut monitor = Monitor::with(Table::with(9000), patient());
    let first = monitor.publish(true);
    let (mut events, mut reader) = (Events::open(monitor.address()), Reader::default());
    reader.take(&events.next().unwrap(), &schema);
    reader.assert_knows(&first);
    for slot in (0..9000).filter(|slot| slot % 4 > 0) {
        monitor.table.take_out(slot);
    }
    for number in (0..9000).filter(|slot| slot % 4 == 0) {
        monitor
            .table
            .count(number as usize, &usual(number), counts(1, 1, 1, 1));
    }
    let sample = monitor.publish(true);
    let data = reader.take(&events.next().unwrap(), &schema);
    reader.assert_knows(&sample);
    assert_eq!(list(&data["gone"]).len(), 6750);
    assert_eq!(list(&data["rows"]).len(), 2250);
}

#[test]
fn who_missed_a_sample_gets_a_snapshot() {
    let _beside = THREADS.read();
    let schema = schema();
    let mut monitor = Monitor::with(Table::with(30_000), patient());
    monitor.publish(true);
    // Asks, and does not read: a snapshot of 30,000 flows is larger than what the kernel holds.
    let (mut slow, mut reader) = (Events::open(monitor.address()), Reader::default());
    let fast_reads = |monitor: &Monitor| get(monitor.address(), "/plain").status;
    monitor.publish(false);
    assert_eq!(fast_reads(&monitor), 200);
    let sample = monitor.publish(false);
    let event = slow.next().unwrap();
    assert_eq!((event.name.as_str(), event.id.as_str()), ("snapshot", "1"));
    reader.take(&event, &schema);
    let event = slow.next().unwrap();
    assert_eq!((event.name.as_str(), event.id.as_str()), ("snapshot", "3"));
    reader.take(&event, &schema);
    reader.assert_knows(&sample);
    // Whoever keeps up goes on.
    let sample = monitor.publish(false);
    let event = slow.next().unwrap();
    assert_eq!(event.name, "delta");
    reader.take(&event, &schema);
    reader.assert_knows(&sample);
}

#[test]
fn readers_who_take_their_time_keep_no_old_samples() {
    let _beside = THREADS.read();
    let mut monitor = Monitor::with(Table::with(30_000), patient());
    let address = monitor.address();
    let old = Arc::downgrade(&monitor.publish(true));
    let ask = |path: &str| {
        let stream = connect(address);
        let asked = request(&format!("GET {path} HTTP/1.1"), &[("Host", "localhost")]);
        step("ask", (&stream).write_all(&asked));
        // It has begun to come.
        step("peek", stream.peek(&mut [0; 64]));
        stream
    };
    let slow = ["/data/tunnel.json", "/data/tunnel-delta.json", "/events"].map(ask);
    let mut later = Vec::new();
    for _ in 0..3 {
        monitor.publish(true);
        later.push(ask("/data/tunnel.json"));
    }
    // Four are lent, all of them readable.
    assert!(old.upgrade().is_some());
    monitor.publish(true);
    later.push(ask("/data/tunnel.json"));
    assert!(old.upgrade().is_none());
    // Who had the oldest is told that it is not all.
    for stream in &slow {
        let answer = client::read(&mut BufReader::new(stream), true).unwrap();
        assert!(!answer.is_whole && !answer.body.is_empty());
    }
    for stream in &later {
        let answer = client::read(&mut BufReader::new(stream), true).unwrap();
        assert_eq!(list(&answer.json()).len(), 30_000);
    }
}

#[test]
fn json_is_valid_while_samples_come_at_full_speed() {
    let _beside = THREADS.read();
    let mut monitor = Monitor::with(Table::with(500), patient());
    monitor.publish(true);
    let (address, is_over) = (monitor.address(), AtomicBool::new(false));
    let sum = |rows: &Value| -> u64 {
        let rows = list(rows).iter();
        rows.map(|row| number_in(&row["rx_bytes"])).sum()
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|reader| {
                scope.spawn(move || {
                    let mut last = 0;
                    for _ in 0..15 {
                        let path = ["/data/tunnel.json", "/data/tunnel-delta.json"][reader % 2];
                        let answer = get(address, path);
                        // Each flow has received as much as the others when a sample is taken.
                        let rows = answer.json();
                        assert_eq!(list(&rows).len(), 500);
                        assert_eq!(sum(&rows) % 500, 0, "of two samples");
                        if reader % 2 == 0 {
                            assert!(sum(&rows) >= last, "an older sample");
                            last = sum(&rows);
                        }
                    }
                })
            })
            .collect();
        let streams: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    let schema = schema();
                    let (mut events, mut reader) = (Events::open(address), Reader::default());
                    for _ in 0..15 {
                        reader.take(&events.next().unwrap(), &schema);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for number in 0..500 {
                    monitor
                        .table
                        .count(number as usize, &usual(number), counts(1, 1, 1, 1));
                }
                monitor.publish(true);
            }
        });
        let outcomes: Vec<_> = readers
            .into_iter()
            .chain(streams)
            .map(|reader| reader.join())
            .collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(outcomes.iter().all(Result::is_ok));
    });
}

#[test]
fn the_plain_page_is_text_and_needs_nothing() {
    let _beside = THREADS.read();
    let mut table = Table::new(&["<script>alert(1)</script>", "a&b\"'"]);
    let quiet = Table::new(&["eth0"]);
    for number in 0..40 {
        let passed = counts(0, 0, 1, 1_000_000 + u64::from(number));
        table.count(number as usize, &usual(number), passed);
    }
    let not_ip = flow(Encap::Vxlan, 7, ["10.0.0.1", "10.0.0.2"], None);
    table.count(50, &not_ip, counts(1, 9_999_999, 0, 0));
    let mut monitor = Monitor::of(table);
    let before = get(monitor.address(), "/plain");
    assert!(
        before
            .text()
            .contains("The first interval has not ended yet")
    );
    monitor.publish(true);
    let page = get(monitor.address(), "/plain");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let text = page.text();
    assert!(
        text.contains("&lt;script&gt;alert(1)&lt;/script&gt;, a&amp;b&quot;&#39;"),
        "{text}"
    );
    assert!(!text.contains("<script") && text.contains("http-equiv=\"refresh\""));
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("<tr><td>"))
        .collect();
    assert_eq!(rows.len(), 16);
    assert!(
        rows[0].contains("<td>7</td>") && rows[0].contains(">not IP<"),
        "{}",
        rows[0]
    );
    assert!(rows[1].contains(">1,000,039<") && rows[15].contains(">1,000,025<"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'self';"),
        "{policy}"
    );
    let style = get(monitor.address(), "/plain.css");
    assert_eq!(
        style.header("content-type"),
        Some("text/css; charset=utf-8")
    );
    assert!(text.contains("href=\"/plain.css\""));

    let mut quiet = Monitor::of(quiet);
    quiet.publish(true);
    assert!(
        get(quiet.address(), "/plain")
            .text()
            .contains("nothing passed")
    );
}

#[test]
fn the_page_is_what_was_built() {
    let _beside = THREADS.read();
    let monitor = Monitor::of(mixed());
    let address = monitor.address();
    for (path, file, kind) in [
        ("/", "tunnel.html", "text/html; charset=utf-8"),
        ("/tunnel.js", "tunnel.js", "text/javascript; charset=utf-8"),
        ("/tunnel.css", "tunnel.css", "text/css; charset=utf-8"),
    ] {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/dist");
        let built = step(file, fs::read_to_string(built.join(file)));
        let answer = get(address, path);
        assert_eq!((answer.status, answer.text()), (200, &built[..]), "{path}");
        assert_eq!(answer.header("content-type"), Some(kind));
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        let length = built.len().to_string();
        assert_eq!(answer.header("content-length"), Some(&length[..]));
        let tag = answer.header("etag").unwrap();
        let known = get_with(address, path, &[("If-None-Match", tag)]);
        assert_eq!((known.status, known.body.len()), (304, 0), "{path}");
        let other = get_with(address, path, &[("If-None-Match", "\"other\"")]);
        assert_eq!(other.status, 200);
    }
    let policy = get(address, "/");
    let policy = policy.header("content-security-policy").unwrap();
    let mut rules: Vec<&str> = policy.split("; ").collect();
    rules.sort_unstable();
    assert_eq!(
        rules,
        [
            "base-uri 'none'",
            "connect-src 'self'",
            "default-src 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "img-src 'self' blob: data:",
            "script-src 'self'",
            "style-src 'self'",
        ]
    );
    // Nothing of it is inline, or the policy would keep it from working.
    let page = get(address, "/").text().to_owned();
    assert!(
        !page.contains("<style") && !page.contains("javascript:"),
        "{page}"
    );
    let is_inline =
        |word: &&str| word.starts_with("style=") || word.starts_with("on") && word.contains('=');
    assert_eq!(page.split_whitespace().find(is_inline), None);
    let mut scripts = page.split("<script").skip(1);
    assert!(scripts.all(|script| script.starts_with(" src=")), "{page}");
    // Who runs no scripts is led to the page that needs none.
    let (_, otherwise) = page.split_once("<noscript>").unwrap();
    let (otherwise, _) = otherwise.split_once("</noscript>").unwrap();
    assert!(otherwise.contains("href=\"plain\""), "{otherwise}");

    let old = get(address, "/demos/tunnel.html");
    assert_eq!((old.status, old.header("location")), (307, Some("/")));
}

#[test]
fn every_answer_keeps_browsers_in_bounds() {
    let _beside = THREADS.read();
    let monitor = Monitor::of(mixed());
    for (path, status) in [
        ("/", 200),
        ("/plain", 200),
        ("/tunnel.js", 200),
        ("/data/tunnel.json", 200),
        ("/data/page.json", 200),
        ("/nothing", 404),
    ] {
        let answer = get_with(
            monitor.address(),
            path,
            &[("Origin", "http://evil.example")],
        );
        assert_eq!(answer.status, status);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        // On plain HTTP, by an address, it does nothing but make browsers warn.
        assert_eq!(answer.header("cross-origin-opener-policy"), None);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        let cors = |(name, _): &(String, String)| name.starts_with("access-control");
        assert!(!answer.headers.iter().any(cors), "{:?}", answer.headers);
        assert_eq!(answer.header("server"), None);
    }
}

#[test]
fn what_is_no_question_of_ours_is_refused() {
    let _beside = THREADS.read();
    let options = Options {
        allow_hosts: vec!["monitor.example".parse().unwrap()],
        ..Options::default()
    };
    let monitor = Monitor::with(mixed(), options);
    let address = monitor.address();
    let ask = |line: &str, headers: &[(&str, &str)]| {
        let answer = answer(address, &request(line, headers));
        answer.unwrap_or_else(|| panic!("no answer to {line} {headers:?}"))
    };
    let get_line = "GET /data/tunnel.json HTTP/1.1";

    for method in [
        "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "XYZ", "get",
    ] {
        let line = format!("{method} / HTTP/1.1");
        let answer = ask(&line, &[("Host", "localhost")]);
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        assert_eq!(answer.text(), "only GET and HEAD are answered\n");
    }
    for (host, status) in [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("127.0.0.1:8080", 200),
        ("192.0.2.9", 200),
        ("[::1]:8080", 200),
        ("[2001:db8::1]", 200),
        ("monitor.example:8080", 200),
        ("Monitor.Example.", 200),
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[::1].evil.example", 400),
        ("localhost@evil.example", 400),
        ("", 400),
        ("localhost:99999", 400),
        ("a b", 400),
    ] {
        assert_eq!(ask(get_line, &[("Host", host)]).status, status, "{host}");
    }
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(ask(get_line, &[("Host", own.trim())]).status, 200, "{own}");
    let evil = ask(get_line, &[("Host", "evil.example")]);
    assert!(evil.text().contains("--allow-host") && evil.text().lines().count() == 1);
    assert!(!evil.text().contains("vni"));
    assert_eq!(ask(get_line, &[]).status, 400);
    assert_eq!(
        ask(get_line, &[("Host", "localhost"), ("Host", "evil.example")]).status,
        400
    );
    assert_eq!(
        ask(get_line, &[("Host", "localhost"), ("Host", "localhost")]).status,
        400
    );
    // A target that names a host stands above the header.
    let absolute = |host: &str| format!("GET http://{host}/data/tunnel.json HTTP/1.1");
    assert_eq!(
        ask(&absolute("localhost:8080"), &[("Host", "localhost")]).status,
        200
    );
    assert_eq!(
        ask(&absolute("evil.example"), &[("Host", "localhost")]).status,
        403
    );
    assert_eq!(
        ask(&absolute("localhost"), &[("Host", "evil.example")]).status,
        403
    );
    assert_eq!(
        ask(&absolute("x@localhost"), &[("Host", "localhost")]).status,
        400
    );

    for headers in [
        [("Host", "localhost"), ("Content-Length", "5")],
        [("Host", "localhost"), ("Transfer-Encoding", "chunked")],
    ] {
        assert_eq!(ask("GET / HTTP/1.1", &headers).status, 413, "{headers:?}");
    }
    let expects = [
        ("Host", "localhost"),
        ("Content-Length", "5"),
        ("Expect", "100-continue"),
    ];
    assert_eq!(ask("GET / HTTP/1.1", &expects).status, 413);
    let no_body = [
        ("Host", "localhost"),
        ("Content-Length", "0"),
        ("Connection", "close"),
    ];
    assert_eq!(ask("GET / HTTP/1.1", &no_body).status, 200);
}

#[test]
fn nothing_but_what_there_is_is_found() {
    let _beside = THREADS.read();
    let monitor = Monitor::of(mixed());
    for path in [
        "/data",
        "/data/",
        "/data/tunnel.json/",
        "/data/../data/tunnel.json",
        "/../../etc/passwd",
        "/data/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//data/tunnel.json",
        "/data//tunnel.json",
        "/DATA/tunnel.json",
        "/data/tunnel.json%00",
        "/data\\tunnel.json",
        "/index.html",
        "/favicon.ico",
        "/demos",
        "/demos/",
        "/Cargo.toml",
        "/*",
        "/{path}",
    ] {
        let answer = get(monitor.address(), path);
        assert_eq!(
            (answer.status, answer.text()),
            (404, "Not Found\n"),
            "{path}"
        );
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
    }
    assert_eq!(
        get(monitor.address(), "/data/tunnel.json?_=17#x").status,
        200
    );
}

#[test]
fn heads_and_old_and_reused_connections_are_answered() {
    let _beside = THREADS.read();
    let mut monitor = Monitor::of(mixed());
    monitor.publish(true);
    let address = monitor.address();
    let localhost = [("Host", "localhost"), ("Connection", "close")];
    for path in [
        "/",
        "/plain",
        "/tunnel.js",
        "/data/tunnel.json",
        "/data/page.json",
        "/events",
        "/nothing",
    ] {
        let line = format!("HEAD {path} HTTP/1.1");
        let stream = connect(address);
        step("ask", (&stream).write_all(&request(&line, &localhost)));
        let (bytes, ended) = rest(&stream);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.ends_with("\r\n\r\n") && ended.is_ok(), "{text}");
        assert_eq!(
            text.starts_with("HTTP/1.1 200 "),
            path != "/nothing",
            "{text}"
        );
    }
    // Without Host: nobody who speaks so is a browser.
    let stream = connect(address);
    step(
        "ask",
        (&stream).write_all(b"GET /data/tunnel.json HTTP/1.0\r\n\r\n"),
    );
    let (bytes, ended) = rest(&stream);
    assert!(ended.is_ok());
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.starts_with("HTTP/1.0 200 OK\r\n") && text.ends_with(ALL),
        "{text}"
    );

    // One connection, several requests; the second before the first is answered.
    let stream = connect(address);
    let again = request("GET /data/tunnel.json HTTP/1.1", &localhost[..1]);
    let both = [again.clone(), again.clone()].concat();
    step("ask twice", (&stream).write_all(&both));
    let mut reader = BufReader::new(&stream);
    for _ in 0..2 {
        assert_eq!(client::read(&mut reader, true).unwrap().text(), ALL);
    }
    step("ask again", (&stream).write_all(&again));
    assert_eq!(client::read(&mut reader, true).unwrap().text(), ALL);
}

#[test]
fn garbage_is_refused_and_harms_nobody() {
    let _beside = THREADS.read();
    let monitor = Monitor::of(mixed());
    let address = monitor.address();
    let long_line = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a".repeat(9000)
    );
    let mut many_headers = "GET / HTTP/1.1\r\nHost: localhost\r\n".to_owned();
    for number in 0..100 {
        let _ = write!(many_headers, "a{number}: b\r\n");
    }
    many_headers += "\r\n";
    let huge_header = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nA: {}",
        "b".repeat(4 << 20)
    );
    for (name, bytes, statuses) in [
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), &[400][..]),
        ("zeros", vec![0; 5000], &[400]),
        ("ones", vec![0xff; 5000], &[400]),
        ("a line of nothing", b"\n\n\n\nx\n\n".to_vec(), &[400]),
        ("no version", b"GET /\r\n\r\n".to_vec(), &[400]),
        ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n".to_vec(), &[400, 505]),
        ("a space in a name", b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n".to_vec(), &[400]),
        ("a zero in a value", b"GET / HTTP/1.1\r\nHost: local\0host\r\n\r\n".to_vec(), &[400]),
        ("two lengths", b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_vec(), &[400, 413]),
        ("both lengths", b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), &[400, 413]),
        ("a long line", long_line.into_bytes(), &[414, 431]),
        ("many headers", many_headers.into_bytes(), &[431]),
        ("a huge header", huge_header.into_bytes(), &[431]),
    ] {
        // A flood may be cut off before its answer has been read.
        let is_flood = bytes.len() > 100_000;
        match answer(address, &bytes) {
            Some(answer) => assert!(statuses.contains(&answer.status), "{name}: {}", answer.status),
            None => assert!(is_flood, "no answer to {name}"),
        }
    }
    // HTTP/2, as a browser would begin it.
    let stream = connect(address);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    step("begin HTTP/2", (&stream).write_all(preface));
    let (bytes, _) = rest(&stream);
    assert!(
        bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 4"),
        "{bytes:?}"
    );
    // Some who leave in the middle.
    for bytes in [&b""[..], b"G", b"GET / HTTP/1.1\r\nHost: local"] {
        step("ask a part", connect(address).write_all(bytes));
    }
    assert_eq!(get(address, "/data/tunnel.json").text(), "[]\n");
}

#[test]
fn who_says_nothing_or_takes_nothing_is_cut() {
    let _beside = THREADS.read();
    let mut monitor = Monitor::with(Table::with(30_000), impatient());
    let address = monitor.address();
    monitor.publish(true);
    let is_cut = |mut stream: &TcpStream| {
        // Nothing is sent that would be an answer; that the other side is gone shows in either.
        stream.write_all(b"x").is_err()
            || !matches!(stream.read(&mut [0; 1]), Ok(length) if length > 0)
    };
    thread::scope(|scope| {
        scope.spawn(|| assert!(is_cut(&connect(address)), "who says nothing"));
        scope.spawn(|| {
            let mut slow = connect(address);
            step("begin", slow.write_all(b"GET / HTTP/1.1\r\n"));
            let deadline = Instant::now() + Duration::from_secs(20);
            while slow.write_all(b"A: b\r\n").is_ok() {
                assert!(Instant::now() < deadline, "who says little");
                sleep(Duration::from_millis(20));
            }
        });
        scope.spawn(|| {
            // Has an answer, and asks no more.
            let stream = connect(address);
            let asked = request("GET /nothing HTTP/1.1", &[("Host", "localhost")]);
            step("ask", (&stream).write_all(&asked));
            let mut reader = BufReader::new(&stream);
            assert_eq!(client::read(&mut reader, true).unwrap().status, 404);
            assert_eq!(reader.fill_buf().map(<[u8]>::len).unwrap_or(0), 0);
        });
    });
    for path in ["/data/tunnel.json", "/events"] {
        let stream = connect(address);
        let asked = request(&format!("GET {path} HTTP/1.1"), &[("Host", "localhost")]);
        step("ask", (&stream).write_all(&asked));
        // Takes nothing until the server has given up, which ends what the kernel knows of it.
        until("cut", || {
            stream.take_error().is_ok_and(|error| error.is_some())
        });
        let answer = client::read(&mut BufReader::new(&stream), true);
        assert!(answer.is_none_or(|answer| !answer.is_whole), "{path}");
    }
    // Who reads is not cut, however long it takes.
    let mut events = Events::open(address);
    let (mut reader, schema) = (Reader::default(), schema());
    reader.take(&events.next().unwrap(), &schema);
    sleep(Duration::from_secs(3));
    monitor.publish(true);
    reader.take(&events.next().unwrap(), &schema);
}

#[test]
fn the_thread_has_no_capability_and_ends_at_once() {
    let _alone = THREADS.write().unwrap_or_else(PoisonError::into_inner);
    let mut monitor = Monitor::of(Table::with(30_000));
    monitor.publish(true);
    let address = monitor.address();
    let none = BTreeMap::from([("http".to_owned(), "0000000000000000".to_owned())]);
    assert_eq!(threads::capabilities("http"), none);
    step("check", monitor.server.check());
    let idle = connect(address);
    let mut events = Events::open(address);
    events.next().unwrap();
    let stalled = connect(address);
    let asked = request("GET /data/tunnel.json HTTP/1.1", &[("Host", "localhost")]);
    step("ask", (&stalled).write_all(&asked));
    step("peek", stalled.peek(&mut [0; 1]));
    let Monitor { server, feed, .. } = monitor;
    ended_at_once(server);
    assert_eq!(threads::capabilities("http"), BTreeMap::new());
    assert!(events.next().is_none());
    assert!(!matches!((&idle).read(&mut [0; 1]), Ok(length) if length > 0));
    let answer = client::read(&mut BufReader::new(&stalled), true);
    assert!(answer.is_none_or(|answer| !answer.is_whole));
    // Nothing listens there, and no connection that lingers keeps the port.
    assert!(TcpStream::connect(address).is_err());
    drop(step("listen again", TcpListener::bind(address)));
    // Whoever publishes does not notice.
    assert!(feed.is_closed());
    feed.send_replace(Arc::new(Sample::empty(Vec::new(), 1)));
}

#[test]
fn a_port_that_is_taken_and_an_address_that_is_none_are_named() {
    let _beside = THREADS.read();
    let refused = |address: SocketAddr| {
        let error = http::bind(address).unwrap_err();
        let code = error.downcast_ref::<Failure>().map(Failure::code);
        (code, format!("{error:#}"))
    };
    let taken = step("listen", TcpListener::bind("127.0.0.1:0"));
    let address = taken.local_addr().unwrap();
    let (code, text) = refused(address);
    assert_eq!(code, Some(5));
    let (port, pid) = (address.port(), std::process::id());
    assert!(
        text.starts_with(&format!("port {port} of 127.0.0.1 is taken by ")),
        "{text}"
    );
    assert!(
        text.contains(&format!("(pid {pid})")) && text.lines().count() == 1,
        "{text}"
    );
    let (code, text) = refused("192.0.2.1:8080".parse().unwrap());
    assert_eq!(code, Some(2));
    assert!(
        text.contains("no interface here has the address 192.0.2.1"),
        "{text}"
    );
    drop(taken);
    let again = step("listen", http::bind(address));
    assert_eq!(again.local_addr(), address);
}

/// Environment variable that makes this program the server which a test attacks.
const ROLE: &str = "NETBPF_TEST_SERVES_SAMPLES";

#[test]
#[ignore = "the server in other tests, nothing by itself"]
fn role_of_a_server() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    // Readers who stall are to be there until the end.
    let mut monitor = Monitor::with(Table::with(2500), patient());
    monitor.publish(true);
    println!("\n{}", monitor.address());
    let (mut longest, mut published) = (Duration::ZERO, 0_u64);
    let is_over = AtomicBool::new(false);
    // A line is the sign to begin with samples.
    let _ = io::stdin().lines().next();
    thread::scope(|scope| {
        scope.spawn(|| {
            // To its end.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            is_over.store(true, Ordering::Relaxed);
        });
        while !is_over.load(Ordering::Relaxed) {
            monitor.table.count(0, &usual(0), counts(1, 1, 1, 1));
            let sample = monitor.table.sample(true);
            let start = Instant::now();
            monitor.feed.send_replace(sample);
            longest = longest.max(start.elapsed());
            published += 1;
            // More often than it is done for people.
            sleep(Duration::from_millis(50));
        }
    });
    step("check", monitor.server.check());
    println!("{published} {}", longest.as_micros());
}

/// A server in a process of its own, whose memory can be looked at.
struct Attacked {
    process: Child,
    stdout: BufReader<std::process::ChildStdout>,
    address: SocketAddr,
}

impl Attacked {
    fn start() -> Attacked {
        let mut command = Command::new(step("this program", env::current_exe()));
        command
            .args(["--ignored", "--exact", "--nocapture", "role_of_a_server"])
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = step("start the server", command.spawn());
        let stdout = process.stdout.take();
        let mut stdout = BufReader::new(stdout.unwrap_or_else(|| panic!("no pipe")));
        let address = stdout
            .by_ref()
            .lines()
            .find_map(|line| line.ok()?.parse().ok());
        Attacked {
            process,
            stdout,
            address: address.unwrap_or_else(|| panic!("the server has no address")),
        }
    }

    /// In KiB: what is resident, and the most that was since somebody began to look.
    fn memory(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.process.id());
        let status = step("read its status", fs::read_to_string(path));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let figure = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            figure.unwrap_or_else(|| panic!("{name} is not there"))
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Lets it take samples.
    fn go_on(&mut self) {
        let stdin = self.process.stdin.as_mut();
        let asked = stdin.map_or(Ok(()), |stdin| stdin.write_all(b"\n"));
        step("let it go on", asked);
    }

    fn begin_to_look(&self) -> u64 {
        let path = format!("/proc/{}/clear_refs", self.process.id());
        step("forget the peak", fs::write(path, "5"));
        self.memory().0
    }

    /// How many samples it has published, and the longest time that one took.
    fn end(mut self) -> (u64, Duration) {
        drop(self.process.stdin.take());
        let report = self.stdout.by_ref().lines().find_map(|line| {
            let line = line.ok()?;
            let (published, longest) = line.split_once(' ')?;
            Some((published.parse().ok()?, longest.parse().ok()?))
        });
        assert!(step("wait for it", self.process.wait()).success());
        let (published, longest) = report.unwrap_or_else(|| panic!("no report"));
        (published, Duration::from_micros(longest))
    }
}

impl Drop for Attacked {
    fn drop(&mut self) {
        // Where a test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_attack_costs_little_and_keeps_nobody_out() {
    let _alone = THREADS.write().unwrap_or_else(PoisonError::into_inner);
    sandbox::run("an_attack_costs_little_and_keeps_nobody_out", |_| {
        let mut attacked = Attacked::start();
        let address = attacked.address;
        let honest = || {
            let rows = get(address, "/data/tunnel.json").json();
            assert_eq!(list(&rows).len(), 2500);
            assert_eq!(get(address, "/").status, 200);
        };
        honest();
        // Whatever it does is loaded: what comes now is for readers.
        assert!(Events::open(address).next().is_some());
        let _ = answer(address, &[0xff; 10_000]);
        assert_eq!(get(address, "/nothing").status, 404);
        let before = attacked.begin_to_look();

        let stalled: Vec<TcpStream> = (0..200)
            .map(|number| {
                let path = ["/data/tunnel.json", "/events"][number % 2];
                let stream = connect(address);
                let asked = request(&format!("GET {path} HTTP/1.1"), &[("Host", "localhost")]);
                step("ask", (&stream).write_all(&asked));
                stream
            })
            .collect();
        // Until each has all that the kernel takes for it, so that the server holds the rest.
        let mut waiting = (0, 0);
        until("stalled", || {
            let before = std::mem::replace(&mut waiting, waiting_at(address));
            sleep(MOMENT);
            waiting == before
        });
        assert_eq!(waiting.0, 200, "who is there and has not taken all");
        honest();
        let with_stalled = attacked.memory().1;
        attacked.go_on();

        // A thousand connections a second, for three.
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..750_u32 {
                        let due = start + Duration::from_millis(4) * number;
                        sleep(due.saturating_duration_since(Instant::now()));
                        let stream = connect(address);
                        if number % 3 == 0 {
                            let localhost = [("Host", "localhost"), ("Connection", "close")];
                            let asked = request("GET /tunnel.css HTTP/1.1", &localhost);
                            step("ask", (&stream).write_all(&asked));
                            let _ = rest(&stream);
                        }
                    }
                });
            }
            scope.spawn(|| (0..20).for_each(|_| honest()));
            scope.spawn(|| {
                let huge =
                    "GET / HTTP/1.1\r\nHost: localhost\r\nA: ".to_owned() + &"b".repeat(1 << 20);
                for _ in 0..30 {
                    // An answer or none.
                    let _ = answer(address, huge.as_bytes());
                    let _ = answer(address, &[0xff; 10_000]);
                    assert_eq!(get(address, "/../../etc/passwd").status, 404);
                }
            });
        });
        honest();
        // As many as there is room for, who send a byte now and then; and more of them.
        let slow: Vec<TcpStream> = (0..400).map(|_| connect(address)).collect();
        for byte in b"GET / HTTP/1.1\r\nHost: loc" {
            for mut stream in &slow {
                // Those who had to go cannot write.
                let _ = stream.write_all(&[*byte]);
            }
            honest();
        }
        let (_, most) = attacked.memory();
        eprintln!(
            "resident before {before} KiB, with stalled readers {with_stalled} KiB, at most {most} KiB"
        );
        assert!(
            most - before <= 5 * 1024,
            "{before} KiB before, then {most} KiB"
        );
        drop((stalled, slow));
        honest();
        let (published, longest) = attacked.end();
        eprintln!("{published} samples, the longest publishing {longest:?}");
        assert!(longest < AT_ONCE, "{longest:?}");
        assert!(published > 10, "{published}");
    });
}

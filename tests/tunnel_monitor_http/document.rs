//! What the page draws: /data/page.json.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use netbpf::tunnel_monitor::{Counts, Row, Sample};
use serde_json::{Value, json};
use testbed::schema::Schema;
use testbed::step;

use crate::client::{get, get_with};
use crate::table::{Table, counts, usual};
use crate::{FIGURES, Monitor, THREADS, list, mixed, number_in};

const PATH: &str = "/data/page.json";

/// The document, which fits its schema, whose description of a row is that of `columns`.
fn document(monitor: &Monitor) -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/docs/tunnel_monitor.page.schema.json"
    );
    let answer = get(monitor.address(), PATH);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    let misfits = Schema::read(path).misfits(&document);
    assert!(misfits.is_empty(), "{misfits:#?} in {document}");

    let schema = step(path, std::fs::read_to_string(path));
    let schema: Value = step(path, serde_json::from_str(&schema));
    let row = &schema["properties"]["rows"]["items"];
    assert_eq!(row["minItems"], json!(list(&row["prefixItems"]).len()));
    let columns = list(&document["columns"]);
    assert_eq!(columns.len(), list(&row["prefixItems"]).len());
    for (column, rule) in columns.iter().zip(list(&row["prefixItems"])) {
        let description = rule["description"].as_str();
        let named = description.and_then(|text| text.split([':', ',', ' ']).next());
        assert_eq!(named, column.as_str());
    }
    document
}

/// The four figures that begin with this word, of a row.
fn figures(document: &Value, row: &Value, word: &str) -> Value {
    let columns = list(&document["columns"]);
    let value = |name: &str| {
        let name = json!(format!("{word}_{name}"));
        let place = columns.iter().position(|it| *it == name);
        row[step(&name, place.ok_or("no such column"))].clone()
    };
    json!(
        FIGURES
            .map(|name| (name, value(name)))
            .into_iter()
            .collect::<BTreeMap<_, _>>()
    )
}

/// The rows are those of the sample, in all their figures.
#[track_caller]
fn assert_rows_of(document: &Value, sample: &Sample, since: impl Fn(&Row<'_>) -> Counts) {
    let rows = list(&document["rows"]);
    assert_eq!(rows.len(), sample.rows().count());
    for (told, row) in rows.iter().zip(sample.rows()) {
        let [local, remote] = row.flow.outer();
        let [inner_local, inner_remote] = match row.flow.inner() {
            Some(ends) => ends.map(|end| json!(end)),
            None => [Value::Null, Value::Null],
        };
        let who = json!([
            row.flow.vni,
            row.flow.encap,
            local,
            remote,
            inner_local,
            inner_remote
        ]);
        assert_eq!(list(told)[..6], list(&who)[..]);
        for (word, counts) in [
            ("window", row.window),
            ("since", since(&row)),
            ("total", row.total),
        ] {
            assert_eq!(
                figures(document, told, word),
                json!(counts),
                "{word} of {told}"
            );
        }
    }
}

#[test]
fn the_document_of_the_page_says_what_the_sample_holds() {
    let _beside = THREADS.read();
    let mut monitor = Monitor::of(mixed());
    let started = monitor.table.last().time;
    let empty = document(&monitor);
    assert_eq!((&empty["rows"], &empty["number"]), (&json!([]), &json!(0)));
    assert_eq!(empty["window"]["seconds"], json!(0.0));

    // Before the first window all that passed is since then.
    let sample = monitor.publish(false);
    assert_rows_of(&document(&monitor), &sample, |row| row.total);
    let sample = monitor.publish(true);
    assert_rows_of(&document(&monitor), &sample, |_| Counts::default());
    let (slot, flow) = (0, sample.flows[0].clone().unwrap());
    monitor.table.count(slot, &flow, counts(1, 2, 3, 4));
    monitor.table.take_out(1);
    let sample = monitor.publish(false);
    let told = document(&monitor);
    assert_rows_of(&told, &sample, |row| {
        if row.slot == slot {
            counts(1, 2, 3, 4)
        } else {
            Counts::default()
        }
    });

    let milliseconds =
        |time: std::time::SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let uncounted = [
        "fragments",
        "multicast",
        "malformed",
        "not_tunnel",
        "table_errors",
    ];
    let nothing = json!(Counts::default());
    let mut head = told.clone();
    for name in ["columns", "rows", "run"] {
        head.as_object_mut().unwrap().remove(name).unwrap();
    }
    assert_eq!(
        head,
        json!({
            "schema": "netbpf.tunnel_monitor.page/1",
            "version": env!("CARGO_PKG_VERSION"),
            "number": 3,
            "time": milliseconds(sample.time) as u64,
            "started": milliseconds(started) as u64,
            "elapsed": 3.0,
            "interval": 5.0,
            "simulation": false,
            "namespace": "lab",
            "interfaces": ["eth0"],
            "ports": [4789, 8472],
            "traffic": null,
            "window": {
                "from": milliseconds(sample.window.from) as u64,
                "to": milliseconds(sample.window.to) as u64,
                "seconds": 2.0,
                "age": 1.0,
            },
            "flows": 3,
            "capacity": 1024,
            "totals": sample.totals,
            "other": nothing,
            "forgotten": counts(1, 42, 0, 0),
            "forgotten_flows": 1,
            "uncounted": uncounted.map(|name| (name, 0)).into_iter().collect::<BTreeMap<_, _>>(),
            "rest": { "flows": 0, "window": nothing, "since": nothing, "total": nothing },
        })
    );
}

#[test]
fn who_polls_is_told_that_nothing_is_new() {
    let _beside = THREADS.read();
    let mut monitor = Monitor::of(mixed());
    let address = monitor.address();
    let ask = |tag: &str| get_with(address, PATH, &[("If-None-Match", tag)]);
    monitor.publish(true);
    let first = get(address, PATH);
    let tag = first.header("etag").unwrap();
    let known = ask(tag);
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(known.header("cache-control"), Some("no-cache"));
    monitor.publish(false);
    let next = ask(tag);
    assert_eq!(next.status, 200);
    assert_eq!(ask(next.header("etag").unwrap()).status, 304);
    assert_eq!(next.json()["run"], first.json()["run"]);
    // Another run has the same numbers, and is not the same.
    let mut other = Monitor::of(mixed());
    other.publish(true);
    let again = get_with(other.address(), PATH, &[("If-None-Match", tag)]);
    assert_eq!(again.status, 200);
    assert_ne!(again.json()["run"], first.json()["run"]);
}

#[test]
fn flows_without_a_row_are_in_the_rest() {
    let _beside = THREADS.read();
    let (all, most) = (12_000, 10_000);
    let mut table = Table::new(&["eth0"]);
    // The loudest are the last ones, of which some are quiet now.
    for number in 0..all {
        let passed = counts(1, u64::from(number), 1, 1);
        table.count(number as usize, &usual(number), passed);
    }
    let mut monitor = Monitor::of(table);
    monitor.publish(true);
    let loud_now: HashSet<u32> = (0..50).collect();
    for number in &loud_now {
        monitor.table.count(
            *number as usize,
            &usual(*number),
            counts(0, 0, 1, 1_000_000),
        );
    }
    let sample: Arc<Sample> = monitor.publish(false);
    let told = document(&monitor);
    let rows = list(&told["rows"]);
    assert_eq!((rows.len(), &told["flows"]), (most, &json!(all)));
    let rest = &told["rest"];
    assert_eq!(rest["flows"], json!(all as usize - most));
    for word in ["window", "since", "total"] {
        for name in FIGURES {
            let of_rows: u64 = rows
                .iter()
                .map(|row| number_in(&figures(&told, row, word)[name]))
                .sum();
            let of_all: Counts = match word {
                "window" => sample.rows().map(|row| row.window).sum(),
                "since" => sample
                    .rows()
                    .map(|row| row.total - sample.window.after[row.slot])
                    .sum(),
                _ => sample.rows().map(|row| row.total).sum(),
            };
            let sum = of_rows + number_in(&rest[word][name]);
            assert_eq!(json!(sum), json!(of_all)[name], "{word} {name}");
        }
    }
    // Those that are loud now, and behind them the loudest so far.
    let shown: HashSet<&str> = rows.iter().map(|row| row[5].as_str().unwrap()).collect();
    for number in 0..all {
        let is_loud = loud_now.contains(&number) || number >= all - (most as u32 - 50);
        let remote = usual(number).inner().unwrap()[1].to_string();
        assert_eq!(shown.contains(remote.as_str()), is_loud, "{number}");
    }
}

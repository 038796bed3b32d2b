//! Server-sent events of a monitor (docs/tunnel_monitor.events.schema.json), read from whoever answers.
//!
//! Nobody is trusted: lines, events, rows and names have bounds, and an event counts only when all of it
//! came. What a later version may add to the format is skipped.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};

use super::picture::{Head, Known, Update};
use crate::tunnel_monitor::flow::{Counts, Encap, Flow, Inner, Outer};
use crate::tunnel_monitor::monitor::MOST_FLOWS;
use crate::tunnel_monitor::sample::Uncounted;

/// The only format that is understood.
const SCHEMA: &str = "netbpf.tunnel_monitor.events/1";
/// A row has less than 1 KiB, but the names of all interfaces are one line.
const LONGEST_LINE: u64 = 1024 * 1024;
/// A million flows with all their figures, and as much again.
const LONGEST_EVENT: u64 = 2 * 1024 * 1024 * 1024;
/// More are not kept: they are only shown.
const MOST_INTERFACES: usize = 1024;
/// The kernel's bound is 15 bytes.
const LONGEST_NAME: usize = 64;

/// The events of one connection.
#[derive(Debug)]
pub(super) struct Events<R> {
    lines: R,
    /// The sample of the last event.
    last: Option<u64>,
}

impl<R: BufRead> Events<R> {
    pub(super) fn new(lines: R) -> Events<R> {
        Events { lines, last: None }
    }

    /// The next one; `None`: the stream ended between two events.
    pub(super) fn next(&mut self) -> Result<Option<Update>> {
        loop {
            let mut data = Data::new(&mut self.lines);
            if !data.begins().context("read the events")? {
                return Ok(None);
            }
            if data.is_over {
                // A comment, or an event without data.
                continue;
            }
            let event = Event::read(&mut data)?;
            if !data.is_over {
                bail!("an event goes on behind its end");
            }
            let update = event.update()?;
            let number = update.head.number;
            let follows = self
                .last
                .is_some_and(|last| last.checked_add(1) == Some(number));
            if !update.is_snapshot && !follows {
                bail!("sample {number} does not follow upon the one before");
            }
            self.last = Some(number);
            return Ok(Some(update));
        }
    }
}

/// The data of one event: its `data` lines, without what the format puts around them.
struct Data<'a, R> {
    lines: &'a mut R,
    line: Vec<u8>,
    /// How much of the line was given.
    given: usize,
    /// Bytes of the event up to here.
    length: u64,
    /// The blank line came.
    is_over: bool,
}

impl<'a, R: BufRead> Data<'a, R> {
    fn new(lines: &'a mut R) -> Data<'a, R> {
        Data {
            lines,
            line: Vec::new(),
            given: 0,
            length: 0,
            is_over: false,
        }
    }

    /// Goes to the first line of data. False: there is nothing any more.
    fn begins(&mut self) -> io::Result<bool> {
        match self.advance() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.is_untouched() => {
                Ok(false)
            }
            result => result.map(|()| true),
        }
    }

    /// Whether not a byte of the event has come.
    fn is_untouched(&self) -> bool {
        self.length == 0 && self.line.is_empty()
    }

    /// Goes to the next line of data, or to the end of the event.
    fn advance(&mut self) -> io::Result<()> {
        while !self.is_over {
            self.line.clear();
            self.given = 0;
            let mut bounded = self.lines.by_ref().take(LONGEST_LINE);
            let length = bounded.read_until(b'\n', &mut self.line)?;
            if self.line.pop_if(|last| *last == b'\n').is_none() {
                return Err(if length as u64 == LONGEST_LINE {
                    io::Error::other("a line of the events is too long")
                } else {
                    io::Error::new(io::ErrorKind::UnexpectedEof, "the events were cut off")
                });
            }
            self.line.pop_if(|last| *last == b'\r');
            self.length += length as u64;
            if self.length > LONGEST_EVENT {
                return Err(io::Error::other("an event is too long"));
            }
            if self.line.is_empty() {
                self.is_over = true;
            } else if let Some(text) = self.line.strip_prefix(b"data:") {
                // One space belongs to the format; JSON does not mind another.
                self.given = self.line.len() - text.len();
                self.line.push(b'\n');
                return Ok(());
            }
            // Others are: id, event (it stands in the data too), retry, comments.
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.line.len() {
            self.advance()?;
        }
        if self.is_over {
            return Ok(0);
        }
        let rest = &self.line[self.given..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.given += length;
        Ok(length)
    }
}

#[derive(Deserialize)]
struct Event {
    schema: Name,
    event: Kind,
    number: u64,
    elapsed: f64,
    seconds: f64,
    #[serde(deserialize_with = "interfaces")]
    interfaces: Vec<String>,
    window: Window,
    flows: u64,
    capacity: u64,
    totals: Counts,
    other: Counts,
    forgotten: Counts,
    forgotten_flows: u64,
    uncounted: WireUncounted,
    #[serde(deserialize_with = "gone")]
    gone: Vec<u32>,
    #[serde(deserialize_with = "rows")]
    rows: Vec<(u32, Known)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Snapshot,
    Delta,
}

#[derive(Deserialize)]
struct Window {
    seconds: f64,
    ended: bool,
}

/// [`Uncounted`], whose last reason came later.
#[derive(Deserialize)]
struct WireUncounted {
    fragments: u64,
    multicast: u64,
    malformed: u64,
    not_tunnel: u64,
    #[serde(default)]
    table_errors: u64,
}

impl Event {
    fn read(data: &mut impl Read) -> Result<Event> {
        // `from_reader` looks behind the end of the object, to the end of the event.
        serde_json::from_reader(data).context("an event is not as it should be")
    }

    fn update(self) -> Result<Update> {
        if self.schema.0 != SCHEMA {
            bail!("it speaks {}, not {SCHEMA}", self.schema.0);
        }
        let head = Head {
            number: self.number,
            elapsed: self.elapsed,
            second: self.seconds,
            window: self.window.seconds,
            window_ended: self.window.ended,
            interfaces: self.interfaces,
            flows: self.flows,
            capacity: self.capacity,
            totals: self.totals,
            other: self.other,
            forgotten: self.forgotten,
            forgotten_flows: self.forgotten_flows,
            uncounted: Uncounted {
                fragments: self.uncounted.fragments,
                multicast: self.uncounted.multicast,
                malformed: self.uncounted.malformed,
                not_tunnel: self.uncounted.not_tunnel,
                table_errors: self.uncounted.table_errors,
            },
        };
        Ok(Update {
            head,
            is_snapshot: self.event == Kind::Snapshot,
            gone: self.gone,
            rows: self.rows,
        })
    }
}

#[derive(Deserialize)]
struct WireRow {
    slot: u32,
    encap: Encap,
    vni: u32,
    outer: [IpAddr; 2],
    inner: Option<[IpAddr; 2]>,
    total: Counts,
    #[serde(default)]
    second: Counts,
    #[serde(default)]
    window: Counts,
    #[serde(default)]
    since: Counts,
}

impl WireRow {
    fn known(self) -> Result<(u32, Known), &'static str> {
        let outer = match pair(self.outer)? {
            Pair::V4([local, remote]) => Outer::V4 { local, remote },
            Pair::V6(ends) => Outer::V6(ends),
        };
        let inner = match self.inner.map(pair).transpose()? {
            None => Inner::NotIp,
            Some(Pair::V4([local, remote])) => Inner::V4 { local, remote },
            Some(Pair::V6(ends)) => Inner::V6(ends),
        };
        let known = Known {
            flow: Flow {
                encap: self.encap,
                vni: self.vni,
                outer,
                inner,
            },
            total: self.total,
            second: self.second,
            window: self.window,
            since: self.since,
        };
        Ok((self.slot, known))
    }
}

enum Pair {
    V4([Ipv4Addr; 2]),
    V6(Box<[Ipv6Addr; 2]>),
}

fn pair(ends: [IpAddr; 2]) -> Result<Pair, &'static str> {
    match ends {
        [IpAddr::V4(local), IpAddr::V4(remote)] => Ok(Pair::V4([local, remote])),
        [IpAddr::V6(local), IpAddr::V6(remote)] => Ok(Pair::V6(Box::new([local, remote]))),
        _ => Err("the two ends of a flow are of the same version of IP"),
    }
}

/// A word that is shown to the user: short, and without what would move his cursor.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Name(harmless(&text, LONGEST_NAME)))
    }
}

/// What control characters are in it is replaced, and what is behind this length left out.
pub(super) fn harmless(text: &str, most: usize) -> String {
    let shown = |it: char| if it.is_control() { '\u{fffd}' } else { it };
    text.chars().take(most).map(shown).collect()
}

fn interfaces<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_seq(Bounded {
        most: MOST_INTERFACES,
        refuses: false,
        take: |name: Name| Ok(name.0),
    })
}

fn gone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    deserializer.deserialize_seq(Bounded {
        most: MOST_FLOWS as usize,
        refuses: true,
        take: Ok,
    })
}

fn rows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(u32, Known)>, D::Error> {
    deserializer.deserialize_seq(Bounded {
        most: MOST_FLOWS as usize,
        refuses: true,
        take: WireRow::known,
    })
}

/// A list whose length is somebody else's.
struct Bounded<W, T> {
    most: usize,
    /// More than that is an error. Otherwise it is left out.
    refuses: bool,
    take: fn(W) -> Result<T, &'static str>,
}

impl<'de, W: Deserialize<'de>, T> Visitor<'de> for Bounded<W, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {} at most", self.most)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut taken = Vec::new();
        while taken.len() < self.most {
            match list.next_element::<W>()? {
                Some(element) => taken.push((self.take)(element).map_err(A::Error::custom)?),
                None => return Ok(taken),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            if self.refuses {
                let text = format!("a list has more than {}", self.most);
                return Err(A::Error::custom(text));
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples;
    use super::*;
    use crate::tunnel_monitor::sample::Sample;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::io::Cursor;

    fn event(kind: &str, number: u64, rows: Value) -> Value {
        let zero = json!({"tx_pkts": 0, "tx_bytes": 0, "rx_pkts": 0, "rx_bytes": 0});
        json!({
            "schema": SCHEMA, "event": kind, "number": number, "time": 1.5, "elapsed": 2.5,
            "seconds": 1.0, "interfaces": ["up0"],
            "window": {"from": 0.0, "to": 5.0, "seconds": 5.0, "ended": false},
            "flows": 1, "capacity": 8, "totals": zero, "other": zero, "forgotten": zero,
            "forgotten_flows": 0,
            "uncounted": {"fragments": 1, "multicast": 2, "malformed": 3, "not_tunnel": 4},
            "gone": [], "rows": rows,
        })
    }

    fn row() -> Value {
        let one = json!({"tx_pkts": 1, "tx_bytes": 1, "rx_pkts": 1, "rx_bytes": 1});
        json!({
            "slot": 3, "encap": "vxlan", "vni": 10_002, "outer": ["172.16.0.1", "172.16.0.2"],
            "inner": ["10.0.2.1", "10.0.2.2"], "total": one, "second": one,
        })
    }

    /// As it goes over the wire, a line of data for each line of JSON.
    fn wire(event: &Value) -> String {
        let json = serde_json::to_string_pretty(event).unwrap();
        let data: String = json.lines().map(|line| format!("data: {line}\n")).collect();
        format!("id: 1\nevent: x\n{data}\n")
    }

    fn read(text: impl AsRef<[u8]>) -> Result<Vec<Update>> {
        let mut events = Events::new(Cursor::new(text.as_ref()));
        let mut updates = Vec::new();
        while let Some(update) = events.next()? {
            updates.push(update);
        }
        Ok(updates)
    }

    fn refusal(text: impl AsRef<[u8]>) -> String {
        format!("{:#}", read(text).unwrap_err())
    }

    #[test]
    fn events_that_follow_upon_each_other_are_read() {
        let text = [
            "retry: 1000\n: a comment\n\n".to_owned(),
            wire(&event("snapshot", 4, json!([row()]))),
            wire(&event("delta", 5, json!([]))),
        ]
        .concat();
        for text in [text.clone(), text.replace('\n', "\r\n")] {
            let updates = read(text).unwrap();
            assert_eq!(updates.len(), 2);
            assert!(updates[0].is_snapshot && !updates[1].is_snapshot);
            let (slot, known) = &updates[0].rows[0];
            assert_eq!((*slot, &known.flow), (3, &examples::flow(2)));
            assert_eq!(known.second, examples::counts(1));
            assert_eq!(known.window, Counts::default());
            assert_eq!(updates[0].head.uncounted.malformed, 3);
        }
    }

    #[test]
    fn what_a_later_version_adds_is_skipped() {
        let mut told = event("snapshot", 1, json!([row()]));
        told["more"] = json!({"a": [1, {"b": null}]});
        told["rows"][0]["colour"] = json!("red");
        told["window"]["name"] = json!(7);
        assert_eq!(read(wire(&told)).unwrap()[0].rows.len(), 1);
    }

    #[test]
    fn what_is_missing_or_of_another_kind_is_refused() {
        let whole = event("snapshot", 1, json!([row()]));
        // Nothing is done with these; all others are needed.
        let unused = ["time"];
        for name in whole.as_object().unwrap().keys() {
            let mut told = whole.clone();
            told.as_object_mut().unwrap().remove(name);
            assert_eq!(
                read(wire(&told)).is_ok(),
                unused.contains(&&name[..]),
                "{name}"
            );
            if !unused.contains(&&name[..]) {
                told[name] = json!({"of": "another kind"});
                assert!(read(wire(&told)).is_err(), "{name}");
            }
        }
        let optional = ["inner", "second", "window", "since"];
        for name in row().as_object().unwrap().keys() {
            let mut told = row();
            told.as_object_mut().unwrap().remove(name);
            let text = wire(&event("snapshot", 1, json!([told])));
            assert_eq!(read(text).is_ok(), optional.contains(&&name[..]), "{name}");
        }
        for (name, value) in [
            ("slot", json!(-1)),
            ("slot", json!(1_u64 << 32)),
            ("encap", json!("stt")),
            ("outer", json!(["172.16.0.1"])),
            ("outer", json!(["172.16.0.1", "172.16.0.2", "172.16.0.3"])),
            ("outer", json!(["172.16.0.1", "2001:db8::1"])),
            ("inner", json!(["x", "y"])),
            ("total", json!({"tx_pkts": 1})),
        ] {
            let mut told = row();
            told[name] = value.clone();
            let text = wire(&event("snapshot", 1, json!([told])));
            assert!(read(text).is_err(), "{name}: {value}");
        }
    }

    #[test]
    fn another_format_is_named_without_its_control_characters() {
        let mut told = event("snapshot", 1, json!([]));
        told["schema"] = json!("other\u{1b}[2J/2");
        let said = refusal(wire(&told));
        assert!(said.contains("it speaks other\u{fffd}[2J/2"), "{said}");
        told["schema"] = json!(SCHEMA);
        told["interfaces"] = json!(["a\u{7}b", "c".repeat(1000)]);
        let names = &read(wire(&told)).unwrap()[0].head.interfaces;
        assert_eq!(names[0], "a\u{fffd}b");
        assert_eq!(names[1].len(), LONGEST_NAME);
    }

    #[test]
    fn a_delta_needs_the_sample_before() {
        let delta = |number| wire(&event("delta", number, json!([])));
        let snapshot = |number| wire(&event("snapshot", number, json!([])));
        assert!(refusal(delta(1)).contains("does not follow"));
        assert!(refusal(snapshot(1) + &delta(3)).contains("does not follow"));
        assert!(refusal(snapshot(1) + &delta(1)).contains("does not follow"));
        assert!(refusal(snapshot(u64::MAX) + &delta(0)).contains("does not follow"));
        assert!(read(snapshot(1) + &snapshot(9) + &delta(10)).is_ok());
    }

    #[test]
    fn half_an_event_is_none() {
        let whole = wire(&event("snapshot", 1, json!([row()])));
        // The stream may end before the first byte of an event only.
        for length in 1..whole.len() {
            let said = read(&whole[..length]);
            assert!(said.is_err(), "{length} bytes: {said:?}");
        }
        assert_eq!(read("").unwrap().len(), 0);
    }

    #[test]
    fn nothing_is_read_without_bound() {
        let endless = io::repeat(b'x');
        let mut events = Events::new(io::BufReader::new(endless));
        let said = format!("{:#}", events.next().unwrap_err());
        assert!(said.contains("too long"), "{said}");

        let many = "\"up0\",".repeat(MOST_INTERFACES);
        let told =
            wire(&event("snapshot", 1, json!([]))).replace("\"up0\"", &format!("{many}\"up1\""));
        assert_eq!(
            read(told).unwrap()[0].head.interfaces.len(),
            MOST_INTERFACES
        );

        let deep = format!("data: {}\n\n", "[".repeat(100_000));
        assert!(refusal(deep).contains("not as it should be"));
    }

    #[test]
    fn more_slots_than_there_can_be_are_refused() {
        let numbers = (0..=MOST_FLOWS).map(|slot| format!("data: {slot},\n"));
        let numbers: String = numbers.collect();
        let told = wire(&event("snapshot", 1, json!([])));
        let told = told.replacen(
            "\"gone\": [],",
            &format!("\"gone\": [\n{numbers}data: 1],"),
            1,
        );
        let said = refusal(told);
        assert!(said.contains("more than"), "{said}");
    }

    #[test]
    fn an_event_without_end_is_refused_before_memory_is() {
        // Lines that say nothing, for ever: what counts is what was read.
        struct Comments(u64);
        impl Read for Comments {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill(b':');
                if let Some(last) = buffer.last_mut() {
                    *last = b'\n';
                }
                self.0 += buffer.len() as u64;
                Ok(buffer.len())
            }
        }
        let lines = io::BufReader::with_capacity(1 << 18, Comments(0));
        let mut events = Events::new(lines);
        let said = format!("{:#}", events.next().unwrap_err());
        assert!(said.contains("too long"), "{said}");
    }

    proptest! {
        #[test]
        fn whatever_comes_makes_no_panic(bytes: Vec<u8>) {
            let _ = read(bytes);
        }

        #[test]
        fn a_byte_that_is_another_makes_no_panic(at: prop::sample::Index, byte: u8) {
            let mut bytes = wire(&event("snapshot", 1, json!([row()]))).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(updates) = read(bytes) {
                let mut picture = super::super::picture::Picture::default();
                updates.into_iter().for_each(|update| picture.apply(update));
            }
        }
    }

    #[test]
    fn the_server_of_this_version_is_understood() {
        // The bound of its rows, and the schema it names.
        let sample = Sample::empty(vec!["up0".into()], 8);
        assert_eq!(sample.number, 0);
        let document = include_str!("../../../docs/tunnel_monitor.events.schema.json");
        let document: Value = serde_json::from_str(document).unwrap();
        assert_eq!(document["properties"]["schema"]["enum"][0], SCHEMA);
        // Everything that is read is promised.
        let promised = document["required"].as_array().unwrap();
        for name in event("snapshot", 1, json!([])).as_object().unwrap().keys() {
            assert!(promised.contains(&json!(name)), "{name}");
        }
    }
}

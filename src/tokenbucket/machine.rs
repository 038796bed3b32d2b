//! Machines of the Open Packet Processor: read from TOML, checked, shown, and compiled into the data
//! that `src/bpf/xfsm.h` runs.

mod check;
mod expression;
mod file;
mod names;
mod picture;

use std::time::Duration;

use serde::Deserialize;

use super::skeleton::types;
use crate::Failure;
use crate::settings;
use expression::{Figure, Moment, Subject, Test};

/// `MOST_STATES`, `MOST_CONDITIONS` and `MOST_UPDATES` of xfsm.h.
const MOST_STATES: usize = 64;
const MOST_CONDITIONS: usize = 8;
const MOST_UPDATES: usize = 16;

/// Times in ns are less than this: a register has 58 bits, and its distance from now a sign.
const TIME_LIMIT: i64 = 1 << 57;
/// Segments of one packet: gso_segs of the kernel has 16 bits.
const MOST_SEGMENTS: i64 = 65_535;
/// A larger file is no machine.
const LARGEST_FILE: u64 = 1 << 20;

/// Times that follow from tokens and regeneration, R: R, (N - 1) R, N R and 2 N R.
const BUCKET_TIMES: [&str; 4] = ["regeneration", "depth", "window", "rest"];

/// The machines that come with the tool, by name.
const BUILT_IN: [(&str, &str); 2] = [
    ("tokenbucket", include_str!("machines/tokenbucket.toml")),
    ("port_knocking", include_str!("machines/port_knocking.toml")),
];

/// A machine that has been checked.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Where it was read from, for errors.
    file: String,
    name: String,
    about: String,
    times: Vec<Time>,
    /// A condition's bit is its place.
    conditions: Vec<Condition>,
    updates: Vec<Update>,
    /// A state's number is its place; the first is that of a new flow.
    states: Vec<State>,
    fresh: Moment,
    forget: Forget,
    segment: Option<Segment>,
    /// Whether flows that find the table full share some entries.
    shares_overflow: bool,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Time {
    name: String,
    nanoseconds: i64,
}

#[derive(Clone, Debug)]
struct Condition {
    name: String,
    test: Test,
}

#[derive(Clone, Debug)]
struct Update {
    name: String,
    moment: Moment,
}

#[derive(Clone, Debug)]
struct State {
    name: String,
    /// Where it is named first.
    line: usize,
}

/// The time that each further segment of a packet adds.
#[derive(Clone, Debug)]
struct Segment {
    time: usize,
    line: usize,
}

/// A flow that is older begins anew.
#[derive(Clone, Debug)]
struct Forget {
    text: String,
    age: Figure,
    line: usize,
}

/// States, conditions and updates by their places.
#[derive(Clone, Debug)]
struct Row {
    line: usize,
    state: usize,
    /// The conditions that matter, as bits, and which of them are to be true.
    named: u8,
    wanted: u8,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    next: usize,
    action: Action,
    update: usize,
}

/// `enum action` of xfsm.h; 0 is `NO_ROW`.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Action {
    Forward = 1,
    Drop,
}

impl Row {
    fn matches(&self, conditions: u8) -> bool {
        conditions & self.named == self.wanted
    }
}

/// A machine as `src/bpf/tokenbucket.bpf.c` takes it.
#[derive(Clone, Copy, Debug)]
pub struct Compiled {
    /// What is constant as long as the program is loaded.
    pub machine: types::machine,
    /// What can change while it runs.
    pub figures: types::figures,
    /// A condition looks behind the IP header.
    pub needs_transport: bool,
}

/// What a token bucket consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens of a full bucket. A new flow has one more: that which regenerates just now.
    pub tokens: u64,
    /// What one token takes.
    pub regeneration: Duration,
}

impl Machine {
    /// The token bucket of 5 tokens, one a second.
    pub fn tokenbucket() -> Result<Machine, Failure> {
        Machine::find("tokenbucket")
    }

    /// A sequence of UDP ports that opens TCP port 22.
    pub fn port_knocking() -> Result<Machine, Failure> {
        Machine::find("port_knocking")
    }

    /// A built-in machine, or the one in this file.
    pub fn find(name_or_path: &str) -> Result<Machine, Failure> {
        let built_in = BUILT_IN.iter().find(|(name, _)| *name == name_or_path);
        if let Some((name, text)) = built_in {
            return Machine::parse(&format!("{name}.toml"), text);
        }
        Machine::parse(name_or_path, &read(name_or_path)?)
    }

    /// What the machine calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does, in one line.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// Its times, by name.
    pub fn times(&self) -> impl Iterator<Item = (&str, Duration)> {
        let length = |time: &Time| Duration::from_nanos(time.nanoseconds.unsigned_abs());
        self.times
            .iter()
            .map(move |time| (time.name.as_str(), length(time)))
    }

    /// Tokens and regeneration, if its times are those of a bucket.
    pub fn bucket(&self) -> Option<Bucket> {
        let times = self
            .bucket_times()?
            .map(|place| self.times[place].nanoseconds);
        let [regeneration, _, window, _] = times.map(i64::unsigned_abs);
        let bucket = Bucket {
            tokens: window.checked_div(regeneration)?,
            regeneration: Duration::from_nanos(regeneration),
        };
        (bucket.times() == Some(times)).then_some(bucket)
    }

    /// The same machine with another bucket: its times follow from tokens and regeneration.
    pub fn with_tokens(mut self, tokens: u64, regeneration: Duration) -> Result<Machine, Failure> {
        let Some(places) = self.bucket_times() else {
            return Err(Failure::Usage(format!(
                "machine '{}' has no tokens: it does not name all the times {}",
                self.name,
                BUCKET_TIMES.join(", ")
            )));
        };
        let bucket = Bucket {
            tokens,
            regeneration,
        };
        for (place, nanoseconds) in places.into_iter().zip(bucket.checked_times()?) {
            self.times[place].nanoseconds = nanoseconds;
        }
        self.check()?;
        Ok(self)
    }

    /// The data that the BPF program takes; with `count_segments` each segment of a packet is charged.
    pub fn compile(&self, count_segments: bool) -> Result<Compiled, Failure> {
        let mut machine = types::machine {
            shares_overflow: self.shares_overflow.into(),
            ..Default::default()
        };
        let mut figures = types::figures {
            fresh: self.fresh.figure.value(&self.times),
            forget: self.forget.age.value(&self.times),
            ..Default::default()
        };
        if count_segments {
            figures.segment = self.checked_segment()?;
            // No packet is to ask for more than a flow that begins anew has: flows get no older than
            // that one.
            figures.forget = -figures.fresh;
        }
        for (place, Condition { test, .. }) in self.conditions.iter().enumerate() {
            machine.conditions[place] = types::condition {
                subject: test.subject as u8,
                comparison: test.comparison as u8,
            };
            figures.conditions[place] = test.figure.value(&self.times);
        }
        for (place, Update { moment, .. }) in self.updates.iter().enumerate() {
            machine.updates[place].from_now = moment.from_now.into();
            figures.updates[place] = moment.figure.value(&self.times);
        }
        for row in &self.rows {
            for conditions in self.combinations() {
                let place = row.state << MOST_CONDITIONS | usize::from(conditions);
                let cell = &mut machine.rows[place];
                // Rows differ only about conditions that no packet makes true together.
                if row.matches(conditions) && cell.action == 0 {
                    *cell = types::row {
                        next: row.outcome.next as u8,
                        action: row.outcome.action as u8,
                        update: row.outcome.update as u8,
                    };
                }
            }
        }
        Ok(Compiled {
            machine,
            figures,
            needs_transport: self.conditions.iter().any(|condition| {
                matches!(condition.test.subject, Subject::Protocol | Subject::Port)
            }),
        })
    }

    /// Every way in which the conditions could be true or false, as bits.
    fn combinations(&self) -> impl Iterator<Item = u8> + use<> {
        (0..1_u16 << self.conditions.len()).map(|conditions| conditions as u8)
    }

    /// The places of [`BUCKET_TIMES`].
    fn bucket_times(&self) -> Option<[usize; 4]> {
        let mut places = [0; 4];
        for (place, name) in places.iter_mut().zip(BUCKET_TIMES) {
            *place = self.times.iter().position(|time| time.name == name)?;
        }
        Some(places)
    }

    /// What a further segment adds, in ns.
    fn checked_segment(&self) -> Result<i64, Failure> {
        let Some(segment) = &self.segment else {
            return Err(Failure::Usage(format!(
                "machine '{}' does not count segments: it has no line 'segment = TIME'",
                self.name
            )));
        };
        let Time { name, nanoseconds } = &self.times[segment.time];
        if *nanoseconds > TIME_LIMIT / MOST_SEGMENTS {
            return Err(Failure::Usage(format!(
                "machine '{}' cannot count segments with a {name} of {}: 36 min is the most, so that a \
                 register holds {MOST_SEGMENTS} of them",
                self.name,
                picture::as_written(*nanoseconds)
            )));
        }
        Ok(*nanoseconds)
    }
}

impl Bucket {
    /// The four times of a bucket in ns, in the order of [`BUCKET_TIMES`]; none if a register cannot
    /// hold them.
    fn times(&self) -> Option<[i64; 4]> {
        let regeneration = i64::try_from(self.regeneration.as_nanos()).ok()?;
        let tokens = i64::try_from(self.tokens).ok()?;
        let window = regeneration.checked_mul(tokens)?;
        let rest = window.checked_mul(2).filter(|rest| *rest < TIME_LIMIT)?;
        Some([regeneration, window - regeneration, window, rest])
    }

    fn checked_times(&self) -> Result<[i64; 4], Failure> {
        let refuse = |text: String| Err(Failure::Usage(text));
        if self.tokens == 0 {
            return refuse("a bucket needs at least 1 token".into());
        }
        if self.regeneration.is_zero() {
            return refuse("a token takes at least 1 ns: 1000000000 a second are the most".into());
        }
        self.times().map_or_else(
            || {
                refuse(format!(
                    "{} tokens at one in {:?} fill up in more than 2.2 years, which no register holds: \
                     take fewer tokens or a higher rate",
                    self.tokens, self.regeneration
                ))
            },
            Ok,
        )
    }
}

/// The file's text. What cannot be read is the fault of who named it.
fn read(path: &str) -> Result<String, Failure> {
    let read = settings::read(path, "machine", LARGEST_FILE)?;
    read.ok_or_else(|| {
        let names = names::list(BUILT_IN.iter().map(|(name, _)| *name));
        settings::in_one_line(&format!(
            "no machine '{path}': no such file, machines are: {names}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::mem::MaybeUninit;

    use libbpf_rs::OpenObject;
    use libbpf_rs::skel::SkelBuilder;

    use super::super::skeleton::{OpenTokenbucketSkel, TokenbucketSkelBuilder};
    use super::expression::Comparison;
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const HEADER: &str = include_str!("../bpf/xfsm.h");

    /// Not loaded: no privilege is needed.
    fn open(object: &mut MaybeUninit<OpenObject>) -> OpenTokenbucketSkel<'_> {
        TokenbucketSkelBuilder::default().open(object).unwrap()
    }

    fn same(one: &types::figures, other: &types::figures) -> bool {
        (one.conditions, one.updates) == (other.conditions, other.updates)
            && (one.fresh, one.forget, one.segment) == (other.fresh, other.forget, other.segment)
    }

    #[test]
    fn the_token_bucket_is_what_the_object_file_has() {
        let compiled = Machine::tokenbucket().unwrap().compile(false).unwrap();
        let mut object = MaybeUninit::uninit();
        let skeleton = open(&mut object);
        let machine = &skeleton.maps.rodata_data.as_deref().unwrap().machine;
        let conditions = |machine: &types::machine| {
            let pairs = machine.conditions.map(|c| (c.subject, c.comparison));
            (
                pairs,
                machine.updates.map(|u| u.from_now),
                (machine.initial, machine.shares_overflow),
            )
        };
        assert_eq!(conditions(&compiled.machine), conditions(machine));
        let rows = machine.rows.iter().zip(&compiled.machine.rows);
        for (place, (ours, theirs)) in rows.enumerate() {
            let cells = |row: &types::row| (row.next, row.action, row.update);
            assert_eq!(cells(ours), cells(theirs), "row {place}");
        }
        let rule = &skeleton.maps.data_data.as_deref().unwrap().rulebook.rules[0];
        assert!(
            same(&compiled.figures, &rule.xfsm),
            "{:?}",
            compiled.figures
        );
        assert!(!compiled.needs_transport);

        let bucket = Bucket {
            tokens: rule.tokens,
            regeneration: Duration::from_nanos(rule.regeneration),
        };
        assert_eq!(Machine::tokenbucket().unwrap().bucket(), Some(bucket));
    }

    /// The number of a `#define` in xfsm.h.
    fn defined(name: &str) -> usize {
        let line = HEADER
            .lines()
            .find_map(|line| line.strip_prefix(&format!("#define {name} ")));
        line.unwrap().parse().unwrap()
    }

    /// The names of an enum in xfsm.h, in their order.
    fn enumerated(name: &str) -> Vec<&'static str> {
        let (_, body) = HEADER.split_once(&format!("enum {name} {{\n")).unwrap();
        let (body, _) = body.split_once("};").unwrap();
        body.lines()
            .map(|line| line.trim().split(',').next().unwrap())
            .collect()
    }

    #[test]
    fn numbers_are_those_of_the_header() {
        assert_eq!(defined("MOST_STATES"), MOST_STATES);
        assert_eq!(defined("MOST_CONDITIONS"), MOST_CONDITIONS);
        assert_eq!(defined("MOST_UPDATES"), MOST_UPDATES);
        assert_eq!(1 << (defined("REGISTER_BITS") - 1), TIME_LIMIT);

        let subjects = [
            Subject::Age,
            Subject::Protocol,
            Subject::Port,
            Subject::Length,
        ];
        let names = ["AGE", "PROTOCOL", "PORT", "LENGTH"];
        for (subject, name) in subjects.into_iter().zip(names) {
            assert_eq!(enumerated("subject")[subject as usize], name);
        }
        let comparisons = [
            Comparison::Less,
            Comparison::LessOrEqual,
            Comparison::Equal,
            Comparison::NotEqual,
            Comparison::GreaterOrEqual,
            Comparison::Greater,
        ];
        let names = [
            "LESS",
            "LESS_OR_EQUAL",
            "EQUAL",
            "NOT_EQUAL",
            "GREATER_OR_EQUAL",
            "GREATER",
        ];
        for (comparison, name) in comparisons.into_iter().zip(names) {
            assert_eq!(enumerated("comparison")[comparison as usize], name);
        }
        let actions = enumerated("action");
        assert_eq!(actions[Action::Forward as usize], "FORWARD");
        assert_eq!(actions[Action::Drop as usize], "DISCARD");
    }

    #[test]
    fn every_part_reaches_its_place() {
        let text = r#"
            name = "parts"
            about = "One of everything"
            initial = "A"
            fresh = "now + later"
            forget = "now > register + rest"
            [times]
            later = "250ms"
            rest = "2m"
            [conditions]
            young = "now < register - later"
            icmp6 = "protocol != icmpv6"
            high = "port >= 1024"
            long = "length > 1000"
            [updates]
            back = "register - later"
            ahead = "now + rest"
            [[row]]
            state = "A"
            when = { icmp6 = true, long = false }
            next = "B"
            action = "drop"
            update = "ahead"
            [[row]]
            state = "B"
            next = "A"
            action = "forward"
            update = "back"
        "#;
        let machine = Machine::parse("parts.toml", text).unwrap();
        assert_eq!(
            (machine.name(), machine.about()),
            ("parts", "One of everything")
        );
        let times: Vec<_> = machine.times().collect();
        let expected = [
            ("later", Duration::from_millis(250)),
            ("rest", Duration::from_secs(120)),
        ];
        assert_eq!(times, expected);
        assert_eq!(machine.bucket(), None);
        let compiled = machine.compile(false).unwrap();
        assert!(compiled.needs_transport);
        let figures = compiled.figures;
        assert_eq!(
            figures.conditions,
            [-SECOND / 4, 58, 1024, 1000, 0, 0, 0, 0]
        );
        assert_eq!(figures.updates[..3], [-SECOND / 4, 120 * SECOND, 0]);
        assert_eq!(
            (figures.fresh, figures.forget, figures.segment),
            (SECOND / 4, 120 * SECOND, 0)
        );
        let conditions = compiled
            .machine
            .conditions
            .map(|c| (c.subject, c.comparison));
        assert_eq!(conditions[..5], [(1, 0), (2, 3), (3, 4), (4, 5), (0, 0)]);
        let updates = compiled.machine.updates.map(|update| update.from_now);
        assert_eq!(updates[..3], [0, 1, 0]);
        for conditions in 0..256 {
            let [a, b] = [0, 1].map(|state| compiled.machine.rows[state << 8 | conditions]);
            let is_dropped = conditions < 16 && conditions & 0b1010 == 0b0010;
            let expected = if is_dropped { (1, 2, 1) } else { (0, 0, 0) };
            assert_eq!((a.next, a.action, a.update), expected, "{conditions:b}");
            let expected = if conditions < 16 {
                (0, 1, 0)
            } else {
                (0, 0, 0)
            };
            assert_eq!((b.next, b.action, b.update), expected, "{conditions:b}");
        }
    }

    #[test]
    fn protocol_and_port_stand_behind_the_ip_header() {
        let cases = [
            ("protocol == tcp", true),
            ("port != 53", true),
            ("length > 1000", false),
            ("now > register", false),
        ];
        for (condition, needs_transport) in cases {
            let text = BUILT_IN[0].1.replace("now >= register", condition);
            let machine = Machine::parse("asks.toml", &text).unwrap();
            assert_eq!(
                machine.compile(false).unwrap().needs_transport,
                needs_transport,
                "{condition}"
            );
        }
    }

    #[test]
    fn buckets_of_any_size() {
        let bucket = |tokens, regeneration| {
            let machine = Machine::tokenbucket().unwrap();
            machine.with_tokens(tokens, Duration::from_nanos(regeneration))
        };
        let figures = |machine: &Machine| machine.compile(false).unwrap().figures;
        let default = Machine::tokenbucket().unwrap();
        let same_again = bucket(5, SECOND as u64).unwrap();
        assert!(same(&figures(&default), &figures(&same_again)));

        let three_a_second = bucket(1, 333_333_333).unwrap();
        let single = figures(&three_a_second);
        assert_eq!(single.conditions[..2], [0, 333_333_333]);
        assert_eq!(single.updates[..3], [333_333_333, 0, 0]);
        assert_eq!((single.fresh, single.forget), (-333_333_333, 666_666_666));
        let expected = Bucket {
            tokens: 1,
            regeneration: Duration::from_nanos(333_333_333),
        };
        assert_eq!(three_a_second.bucket(), Some(expected));

        let tightest = figures(&bucket(1, 1).unwrap());
        assert_eq!((tightest.fresh, tightest.forget), (-1, 2));
        // 2 * tokens * regeneration is to be less than 2^57.
        assert_eq!(
            figures(&bucket((1 << 56) - 1, 1).unwrap()).forget,
            (1 << 57) - 2
        );
        let refused = |tokens, regeneration| {
            let error = bucket(tokens, regeneration).unwrap_err();
            assert_eq!(error.code(), 2, "{error}");
            error.to_string()
        };
        assert_eq!(refused(0, 1), "a bucket needs at least 1 token");
        assert_eq!(
            refused(1, 0),
            "a token takes at least 1 ns: 1000000000 a second are the most"
        );
        for (tokens, regeneration) in [
            (1 << 28, 1 << 28),
            (1 << 56, 1),
            (1, 1 << 56),
            (u64::MAX, u64::MAX),
        ] {
            let said = refused(tokens, regeneration);
            assert!(said.contains("fill up in more than 2.2 years"), "{said}");
        }
        assert_eq!(
            refused(1_000_000, 86_400 * SECOND as u64),
            "1000000 tokens at one in 86400s fill up in more than 2.2 years, which no register holds: \
             take fewer tokens or a higher rate"
        );
        let knocking = Machine::port_knocking().unwrap();
        let error = knocking.with_tokens(5, Duration::from_secs(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "machine 'port_knocking' has no tokens: it does not name all the times regeneration, depth, \
             window, rest"
        );
    }

    #[test]
    fn segments_are_charged_up_to_a_full_bucket() {
        let machine = Machine::tokenbucket().unwrap();
        let machine = machine.with_tokens(7, Duration::from_millis(20)).unwrap();
        let whole = machine.compile(false).unwrap().figures;
        let segmented = machine.compile(true).unwrap().figures;
        assert_eq!((whole.segment, whole.forget), (0, 280_000_000));
        assert_eq!(
            (segmented.segment, segmented.forget),
            (20_000_000, 140_000_000)
        );
        let as_whole = types::figures {
            segment: whole.segment,
            forget: whole.forget,
            ..segmented
        };
        assert!(same(&as_whole, &whole));

        let error = Machine::port_knocking().unwrap().compile(true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "machine 'port_knocking' does not count segments: it has no line 'segment = TIME'"
        );
        let slow = |nanoseconds| {
            let machine = Machine::tokenbucket().unwrap();
            let machine = machine
                .with_tokens(1, Duration::from_nanos(nanoseconds))
                .unwrap();
            machine.compile(true)
        };
        let most = (1 << 57) / 65_535;
        assert_eq!(slow(most).unwrap().figures.segment, most as i64);
        assert_eq!(
            slow(most + 1).unwrap_err().to_string(),
            "machine 'tokenbucket' cannot count segments with a regeneration of 2199.056810497s: 36 min is \
             the most, so that a register holds 65535 of them"
        );
    }

    #[test]
    fn machines_are_found_by_name_or_path() {
        assert_eq!(Machine::find("tokenbucket").unwrap().name(), "tokenbucket");
        assert_eq!(
            Machine::find("port_knocking").unwrap().name(),
            "port_knocking"
        );
        let folder = std::env::temp_dir().join(format!("netbpf-machines-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("own.toml");
        let path = path.to_str().unwrap();
        let said = || Machine::find(path).unwrap_err().to_string();
        assert_eq!(
            said(),
            format!("no machine '{path}': no such file, machines are: tokenbucket, port_knocking")
        );
        fs::write(path, BUILT_IN[1].1).unwrap();
        assert_eq!(Machine::find(path).unwrap().name(), "port_knocking");
        fs::write(path, b"name = \"x\"\nabout = \"\xff\"").unwrap();
        assert_eq!(said(), format!("{path}:2: this is not UTF-8 text"));
        fs::write(path, "#".repeat((1 << 20) + 1)).unwrap();
        assert_eq!(
            said(),
            format!("{path} is no machine: it has more than 1048576 bytes")
        );
        let folder_itself = Machine::find(folder.to_str().unwrap()).unwrap_err();
        assert!(
            folder_itself.to_string().contains("Is a directory"),
            "{folder_itself}"
        );
        fs::remove_dir_all(&folder).unwrap();
    }

    /// `step_of` of xfsm.h for packets of one segment, with a register that does not wrap.
    struct Flow<'a> {
        compiled: &'a Compiled,
        state: u8,
        register: i64,
    }

    impl Flow<'_> {
        fn new(compiled: &Compiled, now: i64) -> Flow<'_> {
            Flow {
                compiled,
                state: compiled.machine.initial,
                register: now + compiled.figures.fresh,
            }
        }

        /// Whether the packet passes.
        fn passes(&mut self, now: i64, protocol: i64, port: i64) -> bool {
            let Compiled {
                machine, figures, ..
            } = self.compiled;
            if now - self.register > figures.forget {
                *self = Flow::new(self.compiled, now);
            }
            let mut conditions = 0;
            for (place, condition) in machine.conditions.iter().enumerate() {
                let left = match condition.subject {
                    1 => now - self.register,
                    2 => protocol,
                    3 => port,
                    _ => continue,
                };
                let right = figures.conditions[place];
                let holds = [
                    left < right,
                    left <= right,
                    left == right,
                    left != right,
                    left >= right,
                ];
                let holds = *holds
                    .get(usize::from(condition.comparison))
                    .unwrap_or(&(left > right));
                conditions |= usize::from(holds) << place;
            }
            let row = machine.rows[usize::from(self.state) << MOST_CONDITIONS | conditions];
            if row.action == 0 {
                return true;
            }
            let update = usize::from(row.update);
            let base = match machine.updates[update].from_now {
                0 => self.register,
                _ => now,
            };
            self.register = base + figures.updates[update];
            self.state = row.next;
            row.action == Action::Forward as u8
        }
    }

    #[test]
    fn the_token_bucket_by_hand() {
        let compiled = Machine::tokenbucket().unwrap().compile(false).unwrap();
        let mut flow = Flow::new(&compiled, 0);
        let passed = |flow: &mut Flow<'_>, times: &[i64]| {
            let passes = times.iter().filter(|now| flow.passes(**now, 1, -1));
            passes.count()
        };
        // Six at once, then one a second; after a pause of any length six again.
        assert_eq!(passed(&mut flow, &[0; 20]), 6);
        assert_eq!(passed(&mut flow, &[SECOND - 1]), 0);
        assert_eq!(passed(&mut flow, &[SECOND, SECOND]), 1);
        assert_eq!(passed(&mut flow, &[7 * SECOND; 20]), 6);
        assert_eq!(passed(&mut flow, &[100 * SECOND; 20]), 6);
    }

    const TCP: i64 = 6;
    const UDP: i64 = 17;

    /// Sends UDP to these ports, a second apart from `now` on; whether TCP port 22 is open right after.
    fn knock(compiled: &Compiled, ports: &[i64]) -> bool {
        let mut flow = Flow::new(compiled, 0);
        let mut now = 0;
        for port in ports {
            assert!(flow.passes(now, UDP, *port), "UDP port {port} passes");
            now += SECOND;
        }
        flow.passes(now, TCP, 22)
    }

    #[test]
    fn knocks_open_in_their_order_only() {
        let compiled = Machine::port_knocking().unwrap().compile(false).unwrap();
        assert!(compiled.needs_transport);
        for first in [7000, 8000, 9000] {
            assert!(!knock(&compiled, &[first]));
            for second in [7000, 8000, 9000] {
                assert!(!knock(&compiled, &[first, second]));
                for third in [7000, 8000, 9000] {
                    let ports = [first, second, third];
                    assert_eq!(
                        knock(&compiled, &ports),
                        ports == [7000, 8000, 9000],
                        "{ports:?}"
                    );
                }
            }
        }
        // A wrong knock resets; the first one begins anew wherever it comes.
        assert!(!knock(&compiled, &[7000, 9000, 8000, 9000]));
        assert!(!knock(&compiled, &[7000, 8000, 8000, 9000]));
        assert!(knock(&compiled, &[7000, 9000, 7000, 8000, 9000]));
        assert!(knock(&compiled, &[7000, 7000, 8000, 9000]));
        assert!(knock(&compiled, &[7000, 8000, 7000, 8000, 9000]));
        // What is no knock changes nothing; neither does a knock once it is open.
        assert!(knock(&compiled, &[7000, 53, 8000, 22, 9000]));
        assert!(knock(&compiled, &[7000, 8000, 9000, 9000, 7000]));
        let mut flow = Flow::new(&compiled, 0);
        for port in [7000, 8000, 9000] {
            assert!(flow.passes(0, TCP, port));
        }
        assert!(!flow.passes(0, TCP, 22));
    }

    #[test]
    fn knocks_and_open_doors_time_out() {
        let compiled = Machine::port_knocking().unwrap().compile(false).unwrap();
        for (late, opens) in [(0, true), (1, false)] {
            let mut flow = Flow::new(&compiled, 0);
            flow.passes(0, UDP, 7000);
            flow.passes(5 * SECOND, UDP, 8000);
            flow.passes(10 * SECOND + late, UDP, 9000);
            assert_eq!(flow.passes(10 * SECOND + late, TCP, 22), opens);
        }
        let mut flow = Flow::new(&compiled, 0);
        for port in [7000, 8000, 9000] {
            flow.passes(0, UDP, port);
        }
        for seconds in [30, 60, 90] {
            assert!(flow.passes(seconds * SECOND, TCP, 22));
        }
        // Other traffic does not keep it open.
        assert!(flow.passes(110 * SECOND, TCP, 443));
        assert!(!flow.passes(120 * SECOND + 1, TCP, 22));
        assert!(!flow.passes(120 * SECOND + 2, TCP, 22));
    }

    #[test]
    fn plain_traffic_needs_no_entry() {
        let compiled = Machine::port_knocking().unwrap().compile(false).unwrap();
        let packets = [
            (TCP, 22),
            (TCP, 443),
            (TCP, 7000),
            (UDP, 22),
            (UDP, 8000),
            (UDP, 53),
            (1, -1),
            (UDP, -1),
        ];
        for (protocol, port) in packets {
            let mut flow = Flow::new(&compiled, 3);
            assert_eq!(
                flow.passes(3, protocol, port),
                (protocol, port) != (TCP, 22)
            );
            assert_eq!((flow.state, flow.register), (0, 3), "{protocol} {port}");
        }
    }
}

//! What can be wrong with a machine though each of its lines is right.

use std::collections::BTreeSet;

use super::expression::{Subject, Test};
use super::names;
use super::{Condition, MOST_CONDITIONS, Machine, Row, State, Time};
use crate::Failure;
use crate::settings::refusal;

/// Protocols whose headers begin with ports, as tokenbucket.bpf.c reads them: TCP, UDP, DCCP, SCTP and
/// UDP-Lite.
const WITH_PORTS: [i64; 5] = [6, 17, 33, 132, 136];
/// Protocol of what could not be parsed, port of what has none.
const NONE: i64 = -1;

impl Machine {
    /// To be asked again when the times have changed.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.check_register()?;
        self.check_rows()?;
        self.check_states()
    }

    fn check_register(&self) -> Result<(), Failure> {
        let fresh_age = -self.fresh.figure.value(&self.times);
        if fresh_age > self.forget.age.value(&self.times) {
            let problem = format!(
                "'{}' forgets every new flow at once: its register is '{}'",
                self.forget.text, self.fresh.text
            );
            return self.refuse(self.forget.line, problem);
        }
        if let Some(segment) = self.segment.as_ref().filter(|_| fresh_age <= 0) {
            let problem = format!(
                "segments cannot be charged to a new flow whose register is '{}': it is to be in the \
                 past",
                self.fresh.text
            );
            return self.refuse(segment.line, problem);
        }
        Ok(())
    }

    /// Each row matches some packet, and no packet two rows that differ.
    fn check_rows(&self) -> Result<(), Failure> {
        let possible = possible(&self.conditions, &self.times);
        let mut taken: Vec<Option<&Row>> = vec![None; self.states.len() << MOST_CONDITIONS];
        for row in &self.rows {
            let mut matching = possible
                .iter()
                .filter(|conditions| row.matches(**conditions))
                .peekable();
            if matching.peek().is_none() {
                let wanted = self.describe(row.named, row.wanted);
                let problem = format!("row never matches: no packet has {wanted}");
                return self.refuse(row.line, problem);
            }
            for conditions in matching {
                let place = row.state << MOST_CONDITIONS | usize::from(*conditions);
                let first = *taken[place].get_or_insert(row);
                if first.outcome != row.outcome {
                    return self.refuse(row.line, self.contradiction(first, row, *conditions));
                }
            }
        }
        Ok(())
    }

    fn contradiction(&self, first: &Row, second: &Row, conditions: u8) -> String {
        let named = first.named | second.named;
        let line = first.line;
        let state = &self.states[first.state].name;
        if named == 0 {
            return format!("row contradicts that of line {line}: both match in state '{state}'");
        }
        let when = self.describe(named, conditions & named);
        format!("row contradicts that of line {line}: with {when} both match in state '{state}'")
    }

    /// Every state is left by rows, and reached by rows from the first one.
    fn check_states(&self) -> Result<(), Failure> {
        let mut has_rows = vec![false; self.states.len()];
        let mut ways = vec![Vec::new(); self.states.len()];
        for row in &self.rows {
            has_rows[row.state] = true;
            ways[row.state].push(row.outcome.next);
        }
        let mut reached = vec![false; self.states.len()];
        let mut to_visit = vec![0];
        while let Some(state) = to_visit.pop() {
            if !reached[state] {
                reached[state] = true;
                to_visit.extend(&ways[state]);
            }
        }
        for (place, State { name, line }) in self.states.iter().enumerate() {
            if !has_rows[place] {
                let with_rows = self.states.iter().zip(&has_rows).filter(|(_, has)| **has);
                let with_rows = names::list(with_rows.map(|(state, _)| state.name.as_str()));
                let problem =
                    format!("state '{name}' has no row, states with rows are: {with_rows}");
                return self.refuse(*line, problem);
            }
            if !reached[place] {
                let initial = &self.states[0].name;
                let problem = format!("no row leads from state '{initial}' to state '{name}'");
                return self.refuse(*line, problem);
            }
        }
        Ok(())
    }

    /// These conditions, as a row would name them.
    fn describe(&self, named: u8, wanted: u8) -> String {
        let mut words = Vec::new();
        for (place, Condition { name, .. }) in self.conditions.iter().enumerate() {
            if named & 1 << place != 0 {
                words.push(format!("{name} = {}", wanted & 1 << place != 0));
            }
        }
        words.join(", ")
    }

    fn refuse(&self, line: usize, problem: String) -> Result<(), Failure> {
        Err(refusal(&self.file, line, &problem))
    }
}

/// Which conditions can be true together, as bits: those of one packet each.
fn possible(conditions: &[Condition], times: &[Time]) -> BTreeSet<u8> {
    let tests: Vec<&Test> = conditions.iter().map(|condition| &condition.test).collect();
    // The truth of comparisons changes only next to what is compared with.
    let values = |subject: Subject, others: &[i64]| -> BTreeSet<i64> {
        let figures = tests.iter().filter(|test| test.subject == subject);
        let figures = figures.map(|test| test.figure.value(times));
        let near = figures.flat_map(|figure| [figure - 1, figure, figure + 1]);
        near.chain(others.iter().copied()).collect()
    };
    let mut ports = values(Subject::Port, &[NONE]);
    ports.retain(|port| (NONE..=65_535).contains(port));
    let mut protocols = values(Subject::Protocol, &WITH_PORTS);
    protocols.retain(|protocol| (NONE..=255).contains(protocol));
    let mut lengths = values(Subject::Length, &[1]);
    lengths.retain(|length| *length > 0);

    let mut possible = BTreeSet::new();
    for age in values(Subject::Age, &[0]) {
        for protocol in &protocols {
            for port in &ports {
                if *port != NONE && !WITH_PORTS.contains(protocol) {
                    continue;
                }
                for length in &lengths {
                    let mut conditions = 0;
                    for (place, test) in tests.iter().enumerate() {
                        let value = match test.subject {
                            Subject::Age => age,
                            Subject::Protocol => *protocol,
                            Subject::Port => *port,
                            Subject::Length => *length,
                        };
                        let holds = test.comparison.holds(value, test.figure.value(times));
                        conditions |= u8::from(holds) << place;
                    }
                    possible.insert(conditions);
                }
            }
        }
    }
    possible
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::super::MOST_CONDITIONS;
    use super::*;

    const HEAD: &str = r#"name = "test"
about = "A machine to contradict"
initial = "A"
fresh = "now"
forget = "now > register + rest"
[times]
rest = "10s"
[conditions]
late = "now > register"
udp = "protocol == udp"
dns = "port == 53"
[updates]
stay = "register"
now = "now"
"#;

    /// Lines after HEAD.
    fn row(state: &str, when: &str, next: &str, action: &str) -> String {
        format!(
            "[[row]]\nstate = \"{state}\"\nwhen = {{ {when} }}\nnext = \"{next}\"\n\
             action = \"{action}\"\nupdate = \"stay\"\n"
        )
    }

    fn said(rows: &[String]) -> String {
        match Machine::parse("test.toml", &(HEAD.to_owned() + &rows.concat())) {
            Ok(_) => "nothing".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn rows_that_contradict_each_other() {
        let late = row("A", "late = true", "A", "drop");
        let udp = row("A", "udp = true", "A", "forward");
        assert_eq!(
            said(&[late.clone(), udp]),
            "test.toml:21: row contradicts that of line 15: with late = true, udp = true both match in \
             state 'A'"
        );
        let always = row("A", "", "A", "drop");
        assert_eq!(
            said(&[always.clone(), row("A", "", "A", "forward")]),
            "test.toml:21: row contradicts that of line 15: both match in state 'A'"
        );
        // The same outcome twice is no contradiction, in another state neither.
        assert_eq!(said(&[late, always]), "nothing");
        let one = row("A", "udp = true", "B", "drop");
        let other = row("B", "udp = true", "A", "forward");
        assert_eq!(said(&[one, other]), "nothing");
    }

    #[test]
    fn what_never_holds_together_contradicts_nothing() {
        let port = |name: &str, port: u16| {
            HEAD.replace(
                "[updates]",
                &format!("{name} = \"port == {port}\"\n[updates]"),
            )
        };
        let rows = [
            row("A", "dns = true", "A", "drop"),
            row("A", "web = true", "A", "forward"),
        ];
        assert!(Machine::parse("test.toml", &(port("web", 80) + &rows.concat())).is_ok());
        assert!(Machine::parse("test.toml", &(port("web", 53) + &rows.concat())).is_err());
        let both = row("A", "dns = true, web = true", "A", "drop");
        let error = Machine::parse("test.toml", &(port("web", 80) + &both)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "test.toml:16: row never matches: no packet has dns = true, web = true"
        );
    }

    #[test]
    fn packets_without_ports_have_none() {
        let machine = |condition: &str, row: String| {
            let head = HEAD.replace("port == 53", condition);
            Machine::parse("test.toml", &(head + &row)).map(|_| ())
        };
        let icmp = |dns: bool| {
            let head = HEAD.replace("protocol == udp", "protocol == icmp");
            let row = row("A", &format!("udp = true, dns = {dns}"), "A", "drop");
            Machine::parse("test.toml", &(head + &row)).map(|_| ())
        };
        assert!(icmp(true).is_err());
        assert!(icmp(false).is_ok());
        // A datagram that is cut off has no port either, so it is below every other.
        assert!(machine("port < 0", row("A", "udp = true, dns = true", "A", "drop")).is_ok());
        assert!(machine("port > 65535", row("A", "dns = true", "A", "drop")).is_err());
        assert!(machine("length < 1", row("A", "dns = true", "A", "drop")).is_err());
        assert!(machine("protocol > 255", row("A", "dns = true", "A", "drop")).is_err());
    }

    #[test]
    fn states_are_reached_and_left() {
        let typo = [
            row("A", "udp = true", "B", "drop"),
            row("C", "udp = true", "A", "drop"),
        ];
        assert_eq!(
            said(&typo),
            "test.toml:18: state 'B' has no row, states with rows are: A, C"
        );
        let apart = [row("A", "", "A", "drop"), row("B", "", "A", "drop")];
        assert_eq!(
            said(&apart),
            "test.toml:22: no row leads from state 'A' to state 'B'"
        );
    }

    #[test]
    fn registers_that_would_be_forgotten_at_once() {
        let rows = row("A", "", "A", "drop");
        let fresh = |fresh: &str, forget: &str, more: &str| {
            let head = HEAD
                .replace(
                    "\"now\"\nforget = \"now > register + rest\"",
                    &format!("\"{fresh}\"\nforget = \"{forget}\"\n{more}"),
                )
                .replace("[conditions]", "longer = \"10.000000001s\"\n[conditions]");
            let parsed = Machine::parse("test.toml", &(head + &rows));
            parsed.map_or_else(|error| error.to_string(), |_| "nothing".into())
        };
        assert_eq!(fresh("now - rest", "now > register + rest", ""), "nothing");
        assert_eq!(
            fresh("now - longer", "now > register + rest", ""),
            "test.toml:5: 'now > register + rest' forgets every new flow at once: its register is \
             'now - longer'"
        );
        assert_eq!(fresh("now + longer", "now > register", ""), "nothing");
        let segment = "segment = \"rest\"";
        assert_eq!(
            fresh("now - rest", "now > register + rest", segment),
            "nothing"
        );
        assert_eq!(
            fresh("now", "now > register + rest", segment),
            "test.toml:6: segments cannot be charged to a new flow whose register is 'now': it is to be \
             in the past"
        );
    }

    /// Figures that are next to each other and to the ends.
    fn random_condition() -> impl Strategy<Value = String> {
        let signs = proptest::sample::select(vec!["<", "<=", "==", "!=", ">=", ">"]);
        let subjects = prop_oneof![
            proptest::sample::select(vec!["", "+ one", "+ two", "- one"])
                .prop_map(|figure| ("now", format!("register {figure}"))),
            (0..=3_u16).prop_map(|port| ("port", port.to_string())),
            (65_533..=65_535_u16).prop_map(|port| ("port", port.to_string())),
            proptest::sample::select(vec![0_u8, 5, 6, 7, 17, 18, 254, 255])
                .prop_map(|protocol| ("protocol", protocol.to_string())),
            (0..=3_u16).prop_map(|length| ("length", length.to_string())),
        ];
        (subjects, signs).prop_map(|((left, right), sign)| format!("{left} {sign} {right}"))
    }

    /// Age, protocol, port and length; where there is no port, -1.
    fn random_packet() -> impl Strategy<Value = [i64; 4]> {
        let ports = prop_oneof![-1..5_i64, 65_530..65_536_i64];
        (-5..5_i64, -1..256_i64, ports, 1..5_i64).prop_map(|(age, protocol, port, length)| {
            let has_port = [6, 17, 33, 132, 136].contains(&protocol);
            [age, protocol, if has_port { port } else { -1 }, length]
        })
    }

    /// What random rows say: for each state, three conditions that matter or not, and an outcome.
    type RandomRow = (usize, [Option<bool>; 3], usize, bool, bool);

    const STATES: [&str; 3] = ["A", "B", "C"];
    const NAMES: [&str; 3] = ["late", "udp", "dns"];

    fn random_row() -> impl Strategy<Value = RandomRow> {
        let matters = proptest::option::weighted(0.8, any::<bool>());
        (
            0..STATES.len(),
            [matters.clone(), matters.clone(), matters],
            0..STATES.len(),
            any::<bool>(),
            any::<bool>(),
        )
    }

    fn written(rows: &[RandomRow]) -> String {
        let mut text = HEAD.to_owned();
        for (state, when, next, forwards, to_now) in rows {
            let when = NAMES.iter().zip(when);
            let when: Vec<_> = when
                .filter_map(|(name, value)| value.map(|value| format!("{name} = {value}")))
                .collect();
            text += &format!(
                "[[row]]\nstate = \"{}\"\nwhen = {{ {} }}\nnext = \"{}\"\naction = \"{}\"\nupdate = \"{}\"\n",
                STATES[*state],
                when.join(", "),
                STATES[*next],
                if *forwards { "forward" } else { "drop" },
                if *to_now { "now" } else { "stay" },
            );
        }
        text
    }

    proptest! {
        // The same cases in every run; a failure prints its input and leaves no file in the tree.
        #![proptest_config(ProptestConfig {
            cases: 1_000,
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(1),
            ..ProptestConfig::default()
        })]

        #[test]
        fn whatever_packets_make_true_is_possible(
            texts in vec(random_condition(), 1..=MOST_CONDITIONS),
            packets in vec(random_packet(), 100),
        ) {
            let times = [("one", 1), ("two", 2)].map(|(name, nanoseconds)| Time {
                name: name.into(),
                nanoseconds,
            });
            let conditions: Vec<_> = texts.iter().map(|text| Condition {
                name: "any".into(),
                test: Test::parse(text, &times).unwrap(),
            }).collect();
            let possible = possible(&conditions, &times);
            for packet in packets {
                let mut seen = 0;
                for (place, Condition { test, .. }) in conditions.iter().enumerate() {
                    let value = packet[test.subject as usize - 1];
                    seen |= u8::from(test.comparison.holds(value, test.figure.value(&times))) << place;
                }
                prop_assert!(possible.contains(&seen), "{:?}: {:b}", packet, seen);
            }
        }

        /// Row by row, condition by condition, as somebody would with the file in the hand.
        #[test]
        fn random_rows_as_a_naive_reader_takes_them(rows in vec(random_row(), 1..10)) {
            // Any of these eight can be a packet's, so that none is too much or too little.
            let mut expected: BTreeMap<(usize, usize), (&str, u8, u8)> = BTreeMap::new();
            let mut contradictory = false;
            for state in 0..STATES.len() {
                for conditions in 0..8 {
                    for (of, when, next, forwards, to_now) in &rows {
                        let matches = (0..3).all(|place| {
                            when[place].is_none_or(|wanted| wanted == (conditions >> place & 1 == 1))
                        });
                        if *of == state && matches {
                            let outcome = (
                                STATES[*next],
                                if *forwards { 1 } else { 2 },
                                u8::from(*to_now),
                            );
                            let first = *expected.entry((state, conditions)).or_insert(outcome);
                            contradictory |= first != outcome;
                        }
                    }
                }
            }
            let has_rows = |state: usize| rows.iter().any(|row| row.0 == state);
            let mut reached = [true, false, false];
            for _ in STATES {
                for (state, _, next, ..) in &rows {
                    reached[*next] |= reached[*state];
                }
            }
            let lost = (0..3).any(|state| reached[state] != has_rows(state));

            let parsed = Machine::parse("random.toml", &written(&rows));
            prop_assert_eq!(parsed.is_err(), contradictory || lost, "{:?}", parsed);
            let Ok(machine) = parsed else {
                return Ok(());
            };
            let compiled = machine.compile(false).unwrap();
            let number = |name: &str| machine.states.iter().position(|state| state.name == name);
            let mut rows_left = compiled.machine.rows.iter().filter(|row| row.action != 0).count();
            for ((state, conditions), (next, action, update)) in expected {
                let state = number(STATES[state]).unwrap();
                let row = compiled.machine.rows[state << MOST_CONDITIONS | conditions];
                prop_assert_eq!(usize::from(row.next), number(next).unwrap());
                prop_assert_eq!((row.action, row.update), (action, update));
                rows_left -= 1;
            }
            prop_assert_eq!(rows_left, 0);
        }
    }
}

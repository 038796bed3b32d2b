//! A machine's file: TOML of a fixed shape, every error with its line.

use serde::Deserialize;
use toml::Spanned;

use super::expression::{self, Figure, Moment, Test};
use super::{
    Action, Condition, Forget, MOST_CONDITIONS, MOST_STATES, MOST_UPDATES, Machine, Outcome, Row,
    Segment, State, TIME_LIMIT, Time, Update, names,
};
use crate::Failure;
use crate::rate;
use crate::settings::{At, Named, Source};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: Spanned<String>,
    about: Spanned<String>,
    initial: Spanned<String>,
    fresh: Spanned<String>,
    forget: Spanned<String>,
    segment: Option<Spanned<String>>,
    #[serde(default)]
    overflow: Overflow,
    #[serde(default)]
    times: Named<String>,
    #[serde(default)]
    conditions: Named<String>,
    updates: Named<String>,
    row: Vec<Spanned<RowTable>>,
}

/// What flows are that find the table full.
#[derive(Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Overflow {
    /// Each of their packets is a new flow's.
    #[default]
    New,
    /// Some of them together are one.
    Shared,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowTable {
    state: Spanned<String>,
    #[serde(default)]
    when: Named<bool>,
    next: Spanned<String>,
    action: Action,
    update: Spanned<String>,
}

impl Source<'_> {
    fn about(&self, about: &Spanned<String>) -> Result<String, Failure> {
        let text = about.as_ref();
        let is_line = !text.trim().is_empty() && !text.contains(char::is_control);
        is_line
            .then(|| text.clone())
            .ok_or("'about' is to be one line of text")
            .at(self, about.span())
    }

    /// A name as it can stand in a condition and in a column of the table.
    fn name(&self, name: &Spanned<String>, what: &str) -> Result<String, Failure> {
        let text = name.as_ref();
        names::is_name(text)
            .then(|| text.clone())
            .ok_or_else(|| {
                format!("'{text}' is no {what}'s name: a letter, then letters, digits and _")
            })
            .at(self, name.span())
    }

    fn times(&self, Named(entries): &Named<String>) -> Result<Vec<Time>, Failure> {
        let mut times = Vec::new();
        for (key, length) in entries {
            let name = self.name(key, "time")?;
            if expression::RESERVED.contains(&name.as_str()) {
                let problem = format!("a time cannot be called '{name}': the word has a meaning");
                return Err(problem).at(self, key.span());
            }
            let nanoseconds = rate::seconds(length.as_ref())
                .map_err(|error| format!("time '{name}': {error}"))
                .at(self, length.span())?
                .as_nanos();
            let nanoseconds = i64::try_from(nanoseconds)
                .ok()
                .filter(|nanoseconds| *nanoseconds < TIME_LIMIT)
                .ok_or_else(|| {
                    format!("time '{name}' is more than 4.5 years, which no register holds")
                })
                .at(self, length.span())?;
            times.push(Time { name, nanoseconds });
        }
        Ok(times)
    }

    fn conditions(
        &self,
        Named(entries): &Named<String>,
        times: &[Time],
    ) -> Result<Vec<Condition>, Failure> {
        let mut conditions = Vec::new();
        for (key, test) in entries {
            let name = self.name(key, "condition")?;
            room(conditions.len(), MOST_CONDITIONS, "conditions").at(self, key.span())?;
            let test = Test::parse(test.as_ref(), times)
                .map_err(|problem| format!("condition '{name}', '{}': {problem}", test.as_ref()))
                .at(self, test.span())?;
            conditions.push(Condition { name, test });
        }
        Ok(conditions)
    }

    fn updates(
        &self,
        Named(entries): &Named<String>,
        times: &[Time],
    ) -> Result<Vec<Update>, Failure> {
        let mut updates = Vec::new();
        for (key, moment) in entries {
            let name = self.name(key, "update")?;
            room(updates.len(), MOST_UPDATES, "updates").at(self, key.span())?;
            let moment = Moment::parse(moment.as_ref(), times)
                .map_err(|problem| format!("update '{name}', '{}': {problem}", moment.as_ref()))
                .at(self, moment.span())?;
            updates.push(Update { name, moment });
        }
        Ok(updates)
    }

    fn fresh(&self, text: &Spanned<String>, times: &[Time]) -> Result<Moment, Failure> {
        Moment::parse(text.as_ref(), times)
            .and_then(|moment| {
                let problem = "a new flow has no register yet, only now";
                moment.from_now.then_some(moment).ok_or(problem.into())
            })
            .map_err(|problem| format!("'fresh', '{}': {problem}", text.as_ref()))
            .at(self, text.span())
    }

    /// The one comparison that the engine makes by itself.
    fn forget(&self, text: &Spanned<String>, times: &[Time]) -> Result<Forget, Failure> {
        let test = Test::parse(text.as_ref(), times)
            .map_err(|problem| format!("'forget', '{}': {problem}", text.as_ref()))
            .at(self, text.span())?;
        let is_after = !matches!(test.figure, Figure::Minus(_));
        if !(test.subject == expression::Subject::Age
            && test.comparison == expression::Comparison::Greater
            && is_after)
        {
            let problem = format!(
                "'forget', '{}': is to be 'now > register' or 'now > register + TIME'",
                test.text
            );
            return Err(problem).at(self, text.span());
        }
        Ok(Forget {
            text: test.text,
            age: test.figure,
            line: self.line(&text.span()),
        })
    }

    /// The place of a state; states are named by being used.
    fn state(&self, name: &Spanned<String>, states: &mut Vec<State>) -> Result<usize, Failure> {
        let text = self.name(name, "state")?;
        if let Some(place) = states.iter().position(|state| state.name == text) {
            return Ok(place);
        }
        room(states.len(), MOST_STATES, "states").at(self, name.span())?;
        states.push(State {
            name: text,
            line: self.line(&name.span()),
        });
        Ok(states.len() - 1)
    }

    fn segment(&self, name: &Spanned<String>, times: &[Time]) -> Result<Segment, Failure> {
        let time = expression::place_of(name.as_ref(), times)
            .map_err(|problem| format!("'segment' {problem}"))
            .at(self, name.span())?;
        Ok(Segment {
            time,
            line: self.line(&name.span()),
        })
    }

    fn row(
        &self,
        row: &Spanned<RowTable>,
        states: &mut Vec<State>,
        conditions: &[Condition],
        updates: &[Update],
    ) -> Result<Row, Failure> {
        let table = row.as_ref();
        let state = self.state(&table.state, states)?;
        let (mut named, mut wanted) = (0, 0);
        for (name, value) in &table.when.0 {
            let known = conditions.iter().map(|condition| condition.name.as_str());
            let place = names::find(name.as_ref(), "condition", known)
                .map_err(|problem| format!("row {problem}"))
                .at(self, name.span())?;
            named |= 1 << place;
            wanted |= u8::from(*value.as_ref()) << place;
        }
        let known = updates.iter().map(|update| update.name.as_str());
        let update = names::find(table.update.as_ref(), "update", known)
            .map_err(|problem| format!("row {problem}"))
            .at(self, table.update.span())?;
        let next = self.state(&table.next, states)?;
        Ok(Row {
            line: self.line(&row.span()),
            state,
            named,
            wanted,
            outcome: Outcome {
                next,
                action: table.action,
                update,
            },
        })
    }
}

impl Machine {
    /// The machine that `text` describes, from a file of this name.
    pub fn parse(file_name: &str, text: &str) -> Result<Machine, Failure> {
        let source = Source {
            file: file_name,
            text,
        };
        let document = source.document::<Document>()?;
        let times = source.times(&document.times)?;
        let conditions = source.conditions(&document.conditions, &times)?;
        let updates = source.updates(&document.updates, &times)?;
        let mut states = Vec::new();
        source.state(&document.initial, &mut states)?;
        let rows = document
            .row
            .iter()
            .map(|row| source.row(row, &mut states, &conditions, &updates))
            .collect::<Result<Vec<_>, _>>()?;
        let segment = document.segment.as_ref();
        let machine = Machine {
            file: file_name.into(),
            name: source.name(&document.name, "machine")?,
            about: source.about(&document.about)?,
            fresh: source.fresh(&document.fresh, &times)?,
            forget: source.forget(&document.forget, &times)?,
            segment: segment
                .map(|name| source.segment(name, &times))
                .transpose()?,
            shares_overflow: document.overflow == Overflow::Shared,
            times,
            conditions,
            updates,
            states,
            rows,
        };
        machine.check()?;
        Ok(machine)
    }
}

fn room(used: usize, most: usize, what: &str) -> Result<(), String> {
    if used < most {
        return Ok(());
    }
    Err(format!("a machine has {most} {what} at most"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"name = "small"
about = "A machine to make mistakes with"
initial = "A"
fresh = "now - window"
forget = "now > register + rest"
segment = "window"

[times]
window = "5s"
rest = "10s"

[conditions]
early = "now < register"
udp = "protocol == udp"
dns = "port == 53"

[updates]
move = "register + window"
stay = "register"

[[row]]
state = "A"
when = { early = false }
next = "B"
action = "forward"
update = "move"

[[row]]
state = "B"
when = { early = true, udp = true }
next = "A"
action = "drop"
update = "stay"
"#;

    /// What is said of SMALL with `old`, which is there once, made `new`.
    fn refused(old: &str, new: &str) -> String {
        assert_eq!(SMALL.matches(old).count(), 1, "{old}");
        let error = Machine::parse("small.toml", &SMALL.replace(old, new)).unwrap_err();
        assert_eq!(error.code(), 2, "{error}");
        error.to_string()
    }

    fn row(state: &str, next: &str) -> String {
        format!(
            "[[row]]\nstate = \"{state}\"\nnext = \"{next}\"\naction = \"drop\"\nupdate = \"stay\"\n"
        )
    }

    #[test]
    fn names_keep_their_order() {
        let machine = Machine::parse("small.toml", SMALL).unwrap();
        let conditions: Vec<_> = machine.conditions.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(conditions, ["early", "udp", "dns"]);
        let updates: Vec<_> = machine.updates.iter().map(|u| u.name.as_str()).collect();
        assert_eq!(updates, ["move", "stay"]);
        let times: Vec<_> = machine.times.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(times, ["window", "rest"]);
        let states: Vec<_> = machine.states.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(states, ["A", "B"]);
    }

    #[test]
    fn mistakes_of_toml_and_of_its_shape() {
        let cases = [
            ("about = ", "about ", "2: key with no value, expected `=`"),
            (
                "\"now < register\"",
                "\"now < register",
                "13: invalid basic string, expected `\"`",
            ),
            ("udp = \"proto", "early = \"proto", "14: duplicate key"),
            ("[updates]", "[updates", "17: unclosed table, expected `]`"),
            (
                "segment",
                "segmnt",
                "6: unknown field `segmnt`, expected one of `name`, `about`, `initial`, `fresh`, \
                 `forget`, `segment`, `overflow`, `times`, `conditions`, `updates`, `row`",
            ),
            (
                "action = \"drop\"",
                "acton = \"drop\"",
                "32: unknown field `acton`, expected one of `state`, `when`, `next`, `action`, `update`",
            ),
            (
                "forget = \"now > register + rest\"\n",
                "",
                "1: missing field `forget`",
            ),
            ("next = \"B\"\n", "", "21: missing field `next`"),
            (
                "\"drop\"",
                "\"deny\"",
                "32: unknown variant `deny`, expected `forward` or `drop`",
            ),
            (
                "\"5s\"",
                "5",
                "9: invalid type: integer `5`, expected a string",
            ),
            (
                "early = false",
                "early = 0",
                "23: invalid type: integer `0`, expected a boolean",
            ),
        ];
        for (old, new, problem) in cases {
            assert_eq!(refused(old, new), format!("small.toml:{problem}"));
        }
        let error = Machine::parse("empty.toml", "").unwrap_err().to_string();
        assert_eq!(error, "empty.toml:1: missing field `name`");
    }

    #[test]
    fn mistakes_in_names_and_times() {
        let cases = [
            (
                "\"small\"",
                "\"sm all\"",
                "1: 'sm all' is no machine's name: a letter, then letters, digits and _",
            ),
            (
                "\"A machine to make mistakes with\"",
                "\"A\\u001b[2J\"",
                "2: 'about' is to be one line of text",
            ),
            (
                "\"A machine to make mistakes with\"",
                "\" \"",
                "2: 'about' is to be one line of text",
            ),
            (
                "initial = \"A\"",
                "initial = \"1\"",
                "3: '1' is no state's name: a letter, then letters, digits and _",
            ),
            (
                "rest = \"10s\"",
                "\"re\\nst\" = \"10s\"",
                "10: 're\\nst' is no time's name: a letter, then letters, digits and _",
            ),
            (
                "rest = \"10s\"",
                "port = \"10s\"",
                "10: a time cannot be called 'port': the word has a meaning",
            ),
            (
                "dns =",
                "\"\" =",
                "15: '' is no condition's name: a letter, then letters, digits and _",
            ),
            (
                "stay =",
                "\"über\" =",
                "19: 'über' is no update's name: a letter, then letters, digits and _",
            ),
            (
                "\"10s\"",
                "\"ten\"",
                "10: time 'rest': time 'ten' is not a number and a unit, such as 10, 0.5, 500ms or 2m",
            ),
            (
                "\"10s\"",
                "\"0s\"",
                "10: time 'rest': time '0s' is zero, or less than the smallest unit",
            ),
            (
                "\"10s\"",
                "\"144115188.075855872s\"",
                "10: time 'rest' is more than 4.5 years, which no register holds",
            ),
            (
                "\"10s\"",
                "\"9223372036854775808us\"",
                "10: time 'rest': time '9223372036854775808us' is too large",
            ),
            (
                "\"window\"",
                "\"windw\"",
                "6: 'segment' wants the time 'windw', times are: window, rest",
            ),
        ];
        for (old, new, problem) in cases {
            assert_eq!(refused(old, new), format!("small.toml:{problem}"));
        }
        let longest = SMALL.replace("10s", "144115188.075855871s");
        assert!(Machine::parse("small.toml", &longest).is_ok());
    }

    #[test]
    fn mistakes_in_conditions_and_updates() {
        let with_register =
            "now is compared with the register: 'now >= register' or 'now <= register + TIME'";
        let condition = "a condition is like 'now >= register', 'now <= register + TIME', \
                         'protocol == udp', 'port == 7000' or 'length > 1000'";
        let cases = [
            ("now == port", with_register),
            ("register <= now", with_register),
            ("now", with_register),
            ("port == now", "'now' is no port: a number from 0 to 65535"),
            (
                "port == 65536",
                "'65536' is no port: a number from 0 to 65535",
            ),
            (
                "length > 2147483648",
                "'2147483648' is no length: a number from 0 to 2147483647",
            ),
            (
                "protocol == ospf",
                "'ospf' is no protocol: a number from 0 to 255; names are: tcp, udp, icmp, icmpv6, sctp",
            ),
            (
                "port = 53",
                "'=' is no comparison; comparisons are <, <=, ==, !=, >= and >",
            ),
            (
                "now => register",
                "'=>' is no comparison; comparisons are <, <=, ==, !=, >= and >",
            ),
            (
                "now >= register + wndow",
                "wants the time 'wndow', times are: window, rest",
            ),
            (
                "now >= register + 5s",
                "wants the time '5s', times are: window, rest",
            ),
            ("now >= register * window", "'*' has no meaning here"),
            (
                "now >= register + window + rest",
                "'+ window + rest' is neither '+ TIME' nor '- TIME'",
            ),
            ("", condition),
            ("age > 5", condition),
            ("length > 5 bytes", condition),
        ];
        for (text, problem) in cases {
            let said = refused("\"port == 53\"", &format!("{text:?}"));
            assert_eq!(
                said,
                format!("small.toml:15: condition 'dns', '{text}': {problem}")
            );
        }

        let cases = [
            ("then", "a moment begins with now or register"),
            ("now + 5", "wants the time '5', times are: window, rest"),
            ("now window", "'window' is neither '+ TIME' nor '- TIME'"),
            ("register +", "'+' is neither '+ TIME' nor '- TIME'"),
        ];
        for (text, problem) in cases {
            let said = refused("stay = \"register\"", &format!("stay = {text:?}"));
            assert_eq!(
                said,
                format!("small.toml:19: update 'stay', '{text}': {problem}")
            );
        }
        assert_eq!(
            refused("\"now - window\"", "\"register\""),
            "small.toml:4: 'fresh', 'register': a new flow has no register yet, only now"
        );
        for text in ["now >= register", "now > register - rest", "port > 5"] {
            assert_eq!(
                refused("\"now > register + rest\"", &format!("{text:?}")),
                format!(
                    "small.toml:5: 'forget', '{text}': is to be 'now > register' or \
                     'now > register + TIME'"
                )
            );
        }
    }

    #[test]
    fn mistakes_in_rows() {
        let cases = [
            (
                "early = false",
                "erly = false",
                "23: row wants the condition 'erly', conditions are: early, udp, dns",
            ),
            (
                "update = \"stay\"",
                "update = \"stya\"",
                "33: row wants the update 'stya', updates are: move, stay",
            ),
            (
                "next = \"A\"",
                "next = \"C\"",
                "31: state 'C' has no row, states with rows are: A, B",
            ),
            (
                "initial = \"A\"",
                "initial = \"C\"",
                "3: state 'C' has no row, states with rows are: A, B",
            ),
        ];
        for (old, new, problem) in cases {
            assert_eq!(refused(old, new), format!("small.toml:{problem}"));
        }
        assert_eq!(
            refused(
                "[conditions]\nearly = \"now < register\"\nudp = \"protocol == udp\"\ndns = \"port == 53\"\n",
                ""
            ),
            "small.toml:19: row wants the condition 'early', conditions are: none"
        );
    }

    #[test]
    fn no_more_than_the_engine_has_room_for() {
        let more = |count: usize, line: &str| -> String {
            (0..count)
                .map(|i| line.replace('#', &i.to_string()))
                .collect()
        };
        let eight = format!("dns = \"port == 53\"\n{}", more(5, "c# = \"port == #\"\n"));
        let fits = SMALL.replace("dns = \"port == 53\"\n", &eight);
        assert!(Machine::parse("small.toml", &fits).is_ok());
        assert_eq!(
            refused(
                "dns = \"port == 53\"\n",
                &format!("{eight}ninth = \"port == 1\"\n")
            ),
            "small.toml:21: a machine has 8 conditions at most"
        );
        let sixteen = more(14, "u# = \"now\"\n");
        let fits = SMALL.replace("[updates]\n", &format!("[updates]\n{sixteen}"));
        assert!(Machine::parse("small.toml", &fits).is_ok());
        assert_eq!(
            refused(
                "[updates]\n",
                &format!("[updates]\n{sixteen}last = \"now\"\n")
            ),
            "small.toml:34: a machine has 16 updates at most"
        );
        let head = SMALL.split("[[row]]").next().unwrap();
        let circle: String = (0..64)
            .map(|i| (format!("S{i}"), format!("S{}", (i + 1) % 64)))
            .map(|(state, next)| row(&state, &next))
            .collect();
        let fits = head.replace("initial = \"A\"", "initial = \"S0\"") + &circle;
        assert!(Machine::parse("small.toml", &fits).is_ok());
        let rows: String = (0..63).map(|i| row(&format!("S{i}"), "A")).collect();
        assert_eq!(
            refused(
                "[[row]]\nstate = \"B\"",
                &format!("{}[[row]]\nstate = \"B\"", rows)
            ),
            "small.toml:339: a machine has 64 states at most"
        );
    }
}

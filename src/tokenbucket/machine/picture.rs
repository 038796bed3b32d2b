//! A machine as people read it: what it is made of, and its table.

use std::fmt;

use super::{Action, MOST_CONDITIONS, Machine, Row};

/// Columns of the terminal that everybody has.
const COLUMNS: usize = 80;

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self
            .conditions
            .iter()
            .map(|condition| condition.name.clone());
        let mut table = self.table(names.collect());
        let is_wide = width(&table) > COLUMNS;
        if is_wide {
            let numbers = 1..=self.conditions.len();
            table = self.table(numbers.map(|number| number.to_string()).collect());
        }
        let mut lines = vec![format!("{}: {}", self.name, self.about), String::new()];
        lines.extend(self.parts(is_wide));
        lines.push(String::new());
        lines.extend(drawn(&table));
        f.write_str(&lines.join("\n"))
    }
}

impl Machine {
    /// The row of this number (`ROW_OF` of xfsm.h): state, conditions, and what it says.
    pub fn taken(&self, number: u32) -> String {
        let number = number as usize;
        let (state, holds) = (number >> MOST_CONDITIONS, number as u8);
        let Some(name) = self.states.get(state).map(|state| &state.name) else {
            return format!("row {number}");
        };
        let mut text = format!("state {name}");
        for (place, condition) in self.conditions.iter().enumerate() {
            let truth = if holds >> place & 1 == 1 { "T" } else { "F" };
            text.push_str(&format!(", {} {truth}", condition.name));
        }
        let mut rows = self.rows.iter();
        let row = rows.find(|row| row.state == state && row.matches(holds));
        if let Some(Row { outcome, .. }) = row {
            let next = &self.states[outcome.next].name;
            text.push_str(&format!(", then {next}"));
        }
        text
    }

    /// Everything above the table, by the names that the file has for it. Conditions are numbered
    /// where the table has no room for their names.
    fn parts(&self, numbered: bool) -> Vec<String> {
        let times = self
            .times
            .iter()
            .map(|time| (time.name.clone(), as_written(time.nanoseconds)));
        let conditions = self
            .conditions
            .iter()
            .enumerate()
            .map(|(place, condition)| {
                let name = if numbered {
                    format!("{} {}", place + 1, condition.name)
                } else {
                    condition.name.clone()
                };
                (name, condition.test.text.clone())
            });
        let updates = self
            .updates
            .iter()
            .map(|update| (update.name.clone(), update.moment.text.clone()));
        let groups: [(&str, Vec<(String, String)>); 3] = [
            ("times", times.collect()),
            ("conditions", conditions.collect()),
            ("updates", updates.collect()),
        ];
        let names = groups.iter().flat_map(|(_, entries)| entries);
        let widest = names.map(|(name, _)| name.len()).max().unwrap_or(0);

        let mut lines = vec![
            format!("{:<12}{}", "initial", self.states[0].name),
            format!("{:<12}{}", "fresh", self.fresh.text),
            format!("{:<12}{}", "forget", self.forget.text),
        ];
        if let Some(segment) = &self.segment {
            lines.push(format!(
                "{:<12}{}",
                "segment", self.times[segment.time].name
            ));
        }
        if self.shares_overflow {
            lines.push(format!("{:<12}shared", "overflow"));
        }
        for (title, entries) in groups {
            let titles = std::iter::once(title).chain(std::iter::repeat(""));
            for (title, (name, text)) in titles.zip(entries) {
                lines.push(format!("{title:<12}{name:<widest$}  {text}"));
            }
        }
        lines
    }

    /// Heads and rows; T, F, and - for a condition that does not matter.
    fn table(&self, conditions: Vec<String>) -> Vec<Vec<String>> {
        let mut heads = vec!["state".to_owned()];
        heads.extend(conditions);
        heads.extend(["next", "action", "update"].map(str::to_owned));
        let mut table = vec![heads];
        for row in &self.rows {
            let mut cells = vec![self.states[row.state].name.clone()];
            for place in 0..self.conditions.len() {
                let bit = 1 << place;
                let cell = match (row.named & bit != 0, row.wanted & bit != 0) {
                    (false, _) => "-",
                    (true, true) => "T",
                    (true, false) => "F",
                };
                cells.push(cell.to_owned());
            }
            let action = match row.outcome.action {
                Action::Forward => "FORWARD",
                Action::Drop => "DROP",
            };
            cells.push(self.states[row.outcome.next].name.clone());
            cells.push(action.to_owned());
            cells.push(self.updates[row.outcome.update].name.clone());
            table.push(cells);
        }
        table
    }
}

fn widths(table: &[Vec<String>]) -> Vec<usize> {
    let columns = table.first().map_or(0, Vec::len);
    (0..columns)
        .map(|column| table.iter().map(|cells| cells[column].len()).max())
        .map(Option::unwrap_or_default)
        .collect()
}

fn width(table: &[Vec<String>]) -> usize {
    let widths = widths(table);
    widths.iter().sum::<usize>() + 3 * widths.len().saturating_sub(1)
}

/// The lines, with a rule below the heads.
fn drawn(table: &[Vec<String>]) -> Vec<String> {
    let widths = widths(table);
    let mut lines: Vec<_> = table
        .iter()
        .map(|cells| {
            let cells = cells.iter().zip(&widths);
            let padded: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            padded.join(" | ").trim_end().to_owned()
        })
        .collect();
    let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
    lines.insert(1, rule.join("-+-"));
    lines
}

/// A time in ns, as a machine's file has it: in the largest unit that leaves a number of 1 or more.
pub(super) fn as_written(nanoseconds: i64) -> String {
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    let (unit, name) = units
        .into_iter()
        .find(|(unit, _)| nanoseconds >= *unit || nanoseconds == 0)
        .unwrap_or((1_000, "us"));
    let digits = unit.ilog10() as usize;
    let number = format!("{}.{:0digits$}", nanoseconds / unit, nanoseconds % unit);
    let number = number.trim_end_matches('0').trim_end_matches('.');
    format!("{number}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_bucket() {
        let shown = Machine::tokenbucket().unwrap().to_string();
        assert_eq!(
            shown,
            "\
tokenbucket: N + 1 packets of a flow at once, then one for each new token

initial     ZERO
fresh       now - window
forget      now > register + rest
segment     regeneration
overflow    shared
times       regeneration  1s
            depth         4s
            window        5s
            rest          10s
conditions  cond1         now >= register
            cond2         now <= register + window
updates     CASE_1        register + regeneration
            CASE_2        now - depth
            CASE_3        register

state | cond1 | cond2 | next | action  | update
------+-------+-------+------+---------+-------
ZERO  | T     | T     | ONE  | FORWARD | CASE_2
ONE   | T     | F     | ONE  | FORWARD | CASE_2
ONE   | T     | T     | ONE  | FORWARD | CASE_1
ONE   | F     | T     | ONE  | DROP    | CASE_3"
        );
    }

    #[test]
    fn port_knocking_in_80_columns() {
        let shown = Machine::port_knocking().unwrap().to_string();
        assert_eq!(
            shown,
            "\
port_knocking: UDP to the ports 7000, 8000, 9000 opens TCP port 22 to the source

initial     CLOSED
fresh       now
forget      now > register
times       pause   5s
            open    30s
conditions  tcp     protocol == tcp
            udp     protocol == udp
            knock1  port == 7000
            knock2  port == 8000
            knock3  port == 9000
            ssh     port == 22
updates     wait    now + pause
            admit   now + open
            close   now
            stay    register

state  | tcp | udp | knock1 | knock2 | knock3 | ssh | next   | action  | update
-------+-----+-----+--------+--------+--------+-----+--------+---------+-------
CLOSED | -   | T   | T      | -      | -      | -   | KNOCK1 | FORWARD | wait
CLOSED | T   | -   | -      | -      | -      | T   | CLOSED | DROP    | stay
KNOCK1 | -   | T   | -      | T      | -      | -   | KNOCK2 | FORWARD | wait
KNOCK1 | -   | T   | T      | -      | -      | -   | KNOCK1 | FORWARD | wait
KNOCK1 | -   | T   | -      | -      | T      | -   | CLOSED | FORWARD | close
KNOCK1 | T   | -   | -      | -      | -      | T   | KNOCK1 | DROP    | stay
KNOCK2 | -   | T   | -      | -      | T      | -   | OPEN   | FORWARD | admit
KNOCK2 | -   | T   | T      | -      | -      | -   | KNOCK1 | FORWARD | wait
KNOCK2 | -   | T   | -      | T      | -      | -   | CLOSED | FORWARD | close
KNOCK2 | T   | -   | -      | -      | -      | T   | KNOCK2 | DROP    | stay
OPEN   | T   | -   | -      | -      | -      | T   | OPEN   | FORWARD | admit"
        );
        assert!(shown.lines().all(|line| line.len() <= COLUMNS));
    }

    #[test]
    fn long_names_become_numbers_and_figures_follow_the_knobs() {
        let text = include_str!("../machines/tokenbucket.toml")
            .replace("cond1", "the_register_has_been_reached_by_the_clock")
            .replace("cond2", "the_window_has_not_been_left_by_the_clock");
        let machine = Machine::parse("long.toml", &text).unwrap();
        let machine = machine
            .with_tokens(7, std::time::Duration::from_nanos(1_500_000))
            .unwrap();
        let shown = machine.to_string();
        let conditions = "\
times       regeneration                                  1.5ms
            depth                                         9ms
            window                                        10.5ms
            rest                                          21ms
conditions  1 the_register_has_been_reached_by_the_clock  now >= register
            2 the_window_has_not_been_left_by_the_clock   now <= register + window";
        assert!(shown.contains(conditions), "{shown}");
        let table = "\
state | 1 | 2 | next | action  | update
------+---+---+------+---------+-------
ZERO  | T | T | ONE  | FORWARD | CASE_2";
        assert!(shown.contains(table), "{shown}");
    }

    #[test]
    fn times_read_back() {
        let cases = [
            (5_000_000_000, "5s"),
            (90_061_000_000_001, "90061.000000001s"),
            (1_000_000_000, "1s"),
            (999_999_999, "999.999999ms"),
            (250_000_000, "250ms"),
            (10_000, "10us"),
            (1_001, "1.001us"),
            (1, "0.001us"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(as_written(nanoseconds), text);
            let read = crate::rate::seconds(text).unwrap().as_nanos();
            assert_eq!(read, nanoseconds as u128, "{text}");
        }
        assert_eq!(as_written(0), "0s");
    }
}

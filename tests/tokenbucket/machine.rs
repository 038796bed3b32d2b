//! Machines of the Open Packet Processor, as the tests describe them, and what one does with a packet,
//! in exact arithmetic: registers have no width here.

use std::collections::BTreeMap;

use crate::seed::Random;
use crate::times::{Tokens, of_any_size};

/// What a condition looks at; in the order of `enum subject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// now - register
    Age = 1,
    Protocol,
    Port,
    Length,
}

/// In the order of `enum comparison`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
}

#[derive(Clone, Copy, Debug)]
pub struct Condition {
    pub subject: Subject,
    pub comparison: Comparison,
    pub figure: i64,
}

impl Condition {
    pub fn new(subject: Subject, comparison: Comparison, figure: i64) -> Condition {
        Condition {
            subject,
            comparison,
            figure,
        }
    }

    fn holds(&self, age: i128, facts: &Facts) -> bool {
        let left = match self.subject {
            Subject::Age => age,
            Subject::Protocol => facts.protocol.into(),
            Subject::Port => facts.port.into(),
            Subject::Length => facts.length.into(),
        };
        let right = i128::from(self.figure);
        match self.comparison {
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
            Comparison::Equal => left == right,
            Comparison::NotEqual => left != right,
            Comparison::GreaterOrEqual => left >= right,
            Comparison::Greater => left > right,
        }
    }
}

/// How a register changes: it, or now, and a figure.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    pub from_now: bool,
    pub figure: i64,
}

/// In the order of `enum action`; what is not in the table is `NoRow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    NoRow,
    Forward,
    Discard,
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub next: u8,
    pub action: Action,
    pub update: u8,
}

/// Figures in ns.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub conditions: Vec<Condition>,
    pub updates: Vec<Update>,
    pub initial: u8,
    /// By state and by which conditions hold, from the lowest bit on.
    pub rows: BTreeMap<(u8, u8), Row>,
    pub fresh: i64,
    pub forget: i64,
    pub segment: i64,
}

/// What the conditions look at.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub now: i128,
    pub protocol: i32,
    pub port: i32,
    pub length: i32,
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub state: u8,
    pub register: i128,
}

impl Machine {
    /// The original's table. What is older than the window says no more than a new flow's.
    pub fn tokenbucket(rule: Tokens) -> Machine {
        let regeneration = rule.regeneration as i64;
        let depth = (rule.tokens as i64 - 1) * regeneration;
        let window = depth + regeneration;
        let age = |comparison, figure| Condition::new(Subject::Age, comparison, figure);
        let update = |from_now, figure| Update { from_now, figure };
        let row = |next, action, update| Row {
            next,
            action,
            update,
        };
        // Bit 0: now >= tmin, bit 1: now <= tmax.
        let (right_of_it, left_of_it, in_it) = (0b01, 0b10, 0b11);
        Machine {
            conditions: vec![
                age(Comparison::GreaterOrEqual, 0),
                age(Comparison::LessOrEqual, window),
            ],
            updates: vec![
                update(false, regeneration),
                update(true, -depth),
                update(false, 0),
            ],
            initial: 0,
            rows: BTreeMap::from([
                ((0, in_it), row(1, Action::Forward, 1)),
                ((1, right_of_it), row(1, Action::Forward, 1)),
                ((1, in_it), row(1, Action::Forward, 0)),
                ((1, left_of_it), row(1, Action::Discard, 2)),
            ]),
            fresh: -window,
            forget: window,
            segment: regeneration,
        }
    }

    /// Made at random: what it does need not make sense. Its states are numbered from `first` on.
    pub fn random(random: &mut Random, first: u8) -> Machine {
        let states = [1, 2, 5, 63][random.below(4) as usize];
        let any_state = |random: &mut Random| first + random.below(states) as u8;
        let mut machine = Machine {
            initial: any_state(random),
            fresh: some_time(random),
            forget: [1 << 20, 1 << 30, 1 << 56][random.below(3) as usize],
            ..Machine::default()
        };
        for _ in 0..random.below(9) {
            let (subject, figure) = match random.below(4) {
                0 => (Subject::Age, some_time(random)),
                1 => (
                    Subject::Protocol,
                    PROTOCOLS[random.below(3) as usize].into(),
                ),
                2 => (Subject::Port, random.below(PORTS) as i64 - 1),
                _ => (Subject::Length, random.below(LENGTHS) as i64),
            };
            let comparison = COMPARISONS[random.below(6) as usize];
            let condition = Condition::new(subject, comparison, figure);
            machine.conditions.push(condition);
        }
        for _ in 0..16 {
            machine.updates.push(Update {
                from_now: random.below(2) == 0,
                figure: some_time(random),
            });
        }
        // Mostly there is a row.
        let gap = 2 + random.below(10);
        for state in first..first + states as u8 {
            for conditions in 0..(1_u16 << machine.conditions.len()) {
                if random.below(gap) > 0 {
                    let row = Row {
                        next: any_state(random),
                        action: [Action::Forward, Action::Discard][random.below(2) as usize],
                        update: random.below(16) as u8,
                    };
                    machine.rows.insert((state, conditions as u8), row);
                }
            }
        }
        machine
    }

    pub fn looks_behind_ip(&self) -> bool {
        let mut subjects = self.conditions.iter().map(|condition| condition.subject);
        subjects.any(|subject| matches!(subject, Subject::Protocol | Subject::Port))
    }

    pub fn new_flow(&self, now: i128) -> Known {
        Known {
            state: self.initial,
            register: now + i128::from(self.fresh),
        }
    }

    /// What becomes of a packet, and what is known of its flow afterwards.
    pub fn step(&self, known: Known, facts: &Facts) -> (Action, Known) {
        let mut from = known;
        if facts.now - from.register > self.forget.into() {
            from = self.new_flow(facts.now);
        }
        let age = facts.now - from.register;
        let mut mask = 0;
        for (bit, condition) in self.conditions.iter().enumerate() {
            mask |= u8::from(condition.holds(age, facts)) << bit;
        }
        let Some(row) = self.rows.get(&(from.state, mask)) else {
            return (Action::NoRow, known);
        };
        let update = self.updates[usize::from(row.update)];
        let base = if update.from_now {
            facts.now
        } else {
            from.register
        };
        let next = Known {
            state: row.next,
            register: base + i128::from(update.figure),
        };
        (row.action, next)
    }
}

const COMPARISONS: [Comparison; 6] = [
    Comparison::Less,
    Comparison::LessOrEqual,
    Comparison::Equal,
    Comparison::NotEqual,
    Comparison::GreaterOrEqual,
    Comparison::Greater,
];

/// Machines made at random ask for these: TCP, UDP and ICMP; ports, of which -1 is none, and lengths
/// below.
pub const PROTOCOLS: [u8; 3] = [6, 17, 1];
pub const PORTS: u64 = 4;
pub const LENGTHS: u64 = 1000;

/// A figure in ns, on either side of 0 or nothing.
fn some_time(random: &mut Random) -> i64 {
    let magnitude = of_any_size(random, 1, 1 << 36) as i64;
    match random.below(3) {
        0 => -magnitude,
        1 => magnitude,
        _ => 0,
    }
}

/// Conditions that a row's number has bits for.
const MOST_CONDITIONS: u8 = 8;

/// Each skeleton has its own types for the same structs of xfsm.h.
macro_rules! into_types_of {
    ($($skeleton:ident)::+) => {
        impl From<&$crate::machine::Machine> for $($skeleton)::+::types::machine {
            fn from(machine: &$crate::machine::Machine) -> Self {
                let mut written = Self::default();
                for (place, condition) in written.conditions.iter_mut().zip(&machine.conditions) {
                    place.subject = condition.subject as u8;
                    place.comparison = condition.comparison as u8;
                }
                for (place, update) in written.updates.iter_mut().zip(&machine.updates) {
                    place.from_now = update.from_now.into();
                }
                written.initial = machine.initial;
                for (key, row) in &machine.rows {
                    let place = &mut written.rows[$crate::machine::number_of_row(*key)];
                    place.next = row.next;
                    place.action = row.action as u8;
                    place.update = row.update;
                }
                written
            }
        }

        impl From<&$crate::machine::Machine> for $($skeleton)::+::types::figures {
            fn from(machine: &$crate::machine::Machine) -> Self {
                let mut written = Self {
                    fresh: machine.fresh,
                    forget: machine.forget,
                    segment: machine.segment,
                    ..Self::default()
                };
                for (place, condition) in written.conditions.iter_mut().zip(&machine.conditions) {
                    *place = condition.figure;
                }
                for (place, update) in written.updates.iter_mut().zip(&machine.updates) {
                    *place = update.figure;
                }
                written
            }
        }
    };
}
pub(crate) use into_types_of;

pub fn number_of_row((state, conditions): (u8, u8)) -> usize {
    usize::from(state) << MOST_CONDITIONS | usize::from(conditions)
}

//! What a machine's file says in strings: conditions such as `now <= register + window`, and moments
//! such as `now - depth`.

use super::{Time, names};

/// What a condition looks at: `enum subject` of xfsm.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// now - register
    Age = 1,
    Protocol,
    Port,
    Length,
}

/// `enum comparison` of xfsm.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
}

const COMPARISONS: [(&str, Comparison); 6] = [
    ("<", Comparison::Less),
    ("<=", Comparison::LessOrEqual),
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    (">=", Comparison::GreaterOrEqual),
    (">", Comparison::Greater),
];

/// Protocols that have a name here, with IANA's numbers.
const PROTOCOLS: [(&str, i64); 5] = [
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmpv6", 58),
    ("sctp", 132),
];

/// Words that mean something by themselves, so that no time can have them for a name.
pub(super) const RESERVED: [&str; 5] = ["now", "register", "protocol", "port", "length"];

/// A number that may depend on the machine's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    Number(i64),
    /// The time of this place.
    Plus(usize),
    Minus(usize),
}

impl Figure {
    /// Times are in ns.
    pub(super) fn value(self, times: &[Time]) -> i64 {
        match self {
            Figure::Number(number) => number,
            Figure::Plus(place) => times[place].nanoseconds,
            Figure::Minus(place) => -times[place].nanoseconds,
        }
    }
}

/// What a condition asks.
#[derive(Clone, Debug)]
pub(super) struct Test {
    pub(super) text: String,
    pub(super) subject: Subject,
    pub(super) comparison: Comparison,
    pub(super) figure: Figure,
}

/// A point in time: the figure after now, or after the register.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) text: String,
    pub(super) from_now: bool,
    pub(super) figure: Figure,
}

impl Comparison {
    fn parse(text: &str) -> Result<Comparison, String> {
        let known = COMPARISONS.iter().find(|(sign, _)| *sign == text);
        known.map(|(_, comparison)| *comparison).ok_or_else(|| {
            format!("'{text}' is no comparison; comparisons are <, <=, ==, !=, >= and >")
        })
    }

    pub(super) fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
            Comparison::Equal => left == right,
            Comparison::NotEqual => left != right,
            Comparison::GreaterOrEqual => left >= right,
            Comparison::Greater => left > right,
        }
    }
}

impl Test {
    pub(super) fn parse(text: &str, times: &[Time]) -> Result<Test, String> {
        let words = words(text)?;
        let (subject, sign, figure) = match words[..] {
            ["now", sign, "register", ref rest @ ..] => {
                (Subject::Age, sign, Figure::after(rest, times)?)
            }
            ["now" | "register", ..] => {
                return Err(
                    "now is compared with the register: 'now >= register' or 'now <= register + TIME'"
                        .into(),
                );
            }
            ["protocol", sign, figure] => (Subject::Protocol, sign, protocol(figure)?),
            ["port", sign, figure] => (Subject::Port, sign, number(figure, "port", 65_535)?),
            ["length", sign, figure] => {
                let longest = i32::MAX.into();
                (Subject::Length, sign, number(figure, "length", longest)?)
            }
            _ => {
                return Err(
                    "a condition is like 'now >= register', 'now <= register + TIME', \
                     'protocol == udp', 'port == 7000' or 'length > 1000'"
                        .into(),
                );
            }
        };
        Ok(Test {
            text: words.join(" "),
            subject,
            comparison: Comparison::parse(sign)?,
            figure,
        })
    }
}

impl Moment {
    pub(super) fn parse(text: &str, times: &[Time]) -> Result<Moment, String> {
        let words = words(text)?;
        let (from_now, rest) = match words[..] {
            ["now", ref rest @ ..] => (true, rest),
            ["register", ref rest @ ..] => (false, rest),
            _ => return Err("a moment begins with now or register".into()),
        };
        Ok(Moment {
            text: words.join(" "),
            from_now,
            figure: Figure::after(rest, times)?,
        })
    }
}

impl Figure {
    /// What follows now or the register: nothing, or a time to add or to subtract.
    fn after(words: &[&str], times: &[Time]) -> Result<Figure, String> {
        match words {
            [] => Ok(Figure::Number(0)),
            ["+", name] => Ok(Figure::Plus(place_of(name, times)?)),
            ["-", name] => Ok(Figure::Minus(place_of(name, times)?)),
            _ => Err(format!(
                "'{}' is neither '+ TIME' nor '- TIME'",
                words.join(" ")
            )),
        }
    }
}

/// Where the time of this name is.
pub(super) fn place_of(name: &str, times: &[Time]) -> Result<usize, String> {
    names::find(name, "time", times.iter().map(|time| time.name.as_str()))
}

fn protocol(text: &str) -> Result<Figure, String> {
    if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| *name == text) {
        return Ok(Figure::Number(*number));
    }
    number(text, "protocol", 255).map_err(|error| {
        let names = names::list(PROTOCOLS.iter().map(|(name, _)| *name));
        format!("{error}; names are: {names}")
    })
}

fn number(text: &str, what: &str, most: i64) -> Result<Figure, String> {
    text.parse()
        .ok()
        .filter(|number| (0..=most).contains(number))
        .map(Figure::Number)
        .ok_or_else(|| format!("'{text}' is no {what}: a number from 0 to {most}"))
}

/// Names, numbers and signs; blanks between them may be left out.
fn words(text: &str) -> Result<Vec<&str>, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_sign = |c: char| "<>=!+-".contains(c);
    let mut words = Vec::new();
    let mut rest = text.trim_ascii_start();
    while let Some(first) = rest.chars().next() {
        let end = if is_word(first) {
            rest.find(|c| !is_word(c))
        } else if is_sign(first) {
            rest.find(|c| !is_sign(c))
        } else {
            return Err(format!("'{first}' has no meaning here"));
        };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        words.push(word);
        rest = after.trim_ascii_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times() -> [Time; 2] {
        [("long", 3), ("longer", 5)].map(|(name, nanoseconds)| Time {
            name: name.into(),
            nanoseconds,
        })
    }

    #[test]
    fn blanks_do_not_matter() {
        for text in ["now<=register+long", " now  <= register\t+ long\n"] {
            let test = Test::parse(text, &times()).unwrap();
            assert_eq!(test.text, "now <= register + long");
            assert_eq!(test.subject, Subject::Age);
            assert_eq!(test.comparison, Comparison::LessOrEqual);
            assert_eq!(test.figure.value(&times()), 3);
        }
        let moment = Moment::parse("register-longer", &times()).unwrap();
        assert_eq!(moment.text, "register - longer");
        assert!(!moment.from_now);
        assert_eq!(moment.figure.value(&times()), -5);
        assert!(Moment::parse("now", &[]).unwrap().from_now);
    }

    #[test]
    fn comparisons_hold_as_they_are_written() {
        // With 1, 2 and 3 on the left of 2.
        let cases = [
            ("<", [true, false, false]),
            ("<=", [true, true, false]),
            ("==", [false, true, false]),
            ("!=", [true, false, true]),
            (">=", [false, true, true]),
            (">", [false, false, true]),
        ];
        for (sign, expected) in cases {
            let test = Test::parse(&format!("port {sign} 2"), &[]).unwrap();
            let held = [1, 2, 3].map(|port| test.comparison.holds(port, test.figure.value(&[])));
            assert_eq!(held, expected, "{sign}");
        }
    }

    #[test]
    fn protocols_by_name_and_number() {
        let numbers = [
            ("tcp", 6),
            ("udp", 17),
            ("icmp", 1),
            ("icmpv6", 58),
            ("sctp", 132),
            ("47", 47),
        ];
        for (name, number) in numbers {
            let test = Test::parse(&format!("protocol == {name}"), &[]).unwrap();
            assert_eq!(
                (test.subject, test.figure.value(&[])),
                (Subject::Protocol, number)
            );
        }
    }
}

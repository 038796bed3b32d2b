//! The list of what is to be sent: a line each, every error with its line and column.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::Failure;
use crate::rate::{Rate, Size};
use crate::settings::{self, in_one_line};

/// What the original's traffic.sh sends.
pub const DEFAULT: &str = include_str!("../traffic.list");
/// How the default list is called in errors.
const DEFAULT_NAME: &str = "the default list";

/// Bytes of a file; whoever names a larger one has made a mistake.
const LARGEST: u64 = 1 << 20;
/// Entries have one or two sockets each.
const MOST: usize = 1000;
/// What every packet carries is told from other traffic by these bytes at its beginning.
pub const MARK: usize = 8;
/// A client's MTU.
const MTU: u16 = 1450;
const NS_IN_S: u64 = 1_000_000_000;
/// Thousandths of a packet a second.
const RATES: RangeInclusive<u64> = 10..=10_000_000;
const FASTEST_STREAM: u64 = 1_000_000_000;
const MOST_PACKETS: u64 = 1_000_000_000;

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The host in whose namespace it is sent.
    pub from: String,
    /// Where to.
    pub to: IpAddr,
    /// What.
    pub load: Load,
    /// Where the list says so.
    pub place: Place,
}

/// A place in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    file: String,
    line: usize,
    column: usize,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Echo requests, which the other end answers.
    Ping(Packets),
    /// Datagrams.
    Udp(Packets),
    /// One connection.
    Tcp(Stream),
}

/// Packets of one size at one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packets {
    /// Bytes that each carries behind its ICMP or UDP header.
    pub size: u16,
    /// From one to the next.
    pub every: Duration,
    /// How many; none: no end.
    pub count: Option<u64>,
}

/// A stream of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// How fast, without headers.
    pub rate: Rate,
    /// How many bytes; none: no end.
    pub total: Option<Size>,
}

/// The headers of IP and of ICMP or UDP, which are of the same size.
pub fn headers(to: IpAddr) -> u16 {
    if to.is_ipv4() { 20 + 8 } else { 40 + 8 }
}

impl Place {
    /// Not in a list, but in an option of the command line.
    pub fn of_option(name: &str) -> Place {
        Place {
            file: name.into(),
            line: 1,
            column: 1,
        }
    }

    /// What is wrong there.
    pub fn refusal(&self, problem: &str) -> Failure {
        let Place { file, line, column } = self;
        in_one_line(&format!("{file}:{line}:{column}: {problem}"))
    }
}

/// The entries of that file, or of the default list.
pub fn read(file: Option<&str>) -> Result<Vec<Entry>, Failure> {
    let Some(file) = file else {
        return parse(DEFAULT_NAME, DEFAULT);
    };
    let text = settings::read(file, "list of traffic", LARGEST)?
        .ok_or_else(|| in_one_line(&format!("there is no file {file}; --show prints a list")))?;
    parse(file, &text)
}

/// The entries of a text.
pub fn parse(file: &str, text: &str) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words = words(file, number + 1, line);
        let Some((first, rest)) = words.split_first() else {
            continue;
        };
        if entries.len() == MOST {
            return Err(first.refusal(&format!("a list has {MOST} entries at most")));
        }
        entries.push(entry(first, rest)?);
    }
    if entries.is_empty() {
        return Err(in_one_line(&format!(
            "{file} has no entries; --show prints a list"
        )));
    }
    Ok(entries)
}

/// A word, and where it stands.
struct Word<'a> {
    text: &'a str,
    place: Place,
}

/// The words before a comment. Columns count characters, from 1.
fn words<'a>(file: &str, line: usize, text: &'a str) -> Vec<Word<'a>> {
    let mut words = Vec::new();
    let mut rest = text.split('#').next().unwrap_or_default();
    let mut column = 1;
    loop {
        let trimmed = rest.trim_start();
        column += rest.chars().count() - trimmed.chars().count();
        if trimmed.is_empty() {
            return words;
        }
        let end = trimmed.find(char::is_whitespace).unwrap_or(trimmed.len());
        let (text, behind) = trimmed.split_at(end);
        words.push(Word {
            text,
            place: Place {
                file: file.into(),
                line,
                column,
            },
        });
        column += text.chars().count();
        rest = behind;
    }
}

impl Word<'_> {
    fn refusal(&self, problem: &str) -> Failure {
        self.place.refusal(problem)
    }

    /// The next word after this, or what is missing.
    fn next<'w, 'a>(
        &self,
        rest: &'w [Word<'a>],
        missing: &str,
    ) -> Result<(&'w Word<'a>, &'w [Word<'a>]), Failure> {
        let next = rest.split_first();
        next.ok_or_else(|| self.refusal(&format!("{missing} is missing after {}", self.text)))
    }
}

fn entry(from: &Word<'_>, rest: &[Word<'_>]) -> Result<Entry, Failure> {
    let (to, rest) = from.next(rest, "the address that it is sent to")?;
    let address = address(to)?;
    let (kind, options) = to.next(rest, "ping, udp or tcp")?;
    let load = match kind.text {
        "ping" => Load::Ping(packets(kind, options, address)?),
        "udp" => Load::Udp(packets(kind, options, address)?),
        "tcp" => Load::Tcp(stream(kind, options)?),
        other => {
            return Err(kind.refusal(&format!("{other} is none of ping, udp, tcp")));
        }
    };
    Ok(Entry {
        from: from.text.into(),
        to: address,
        load,
        place: from.place.clone(),
    })
}

fn address(word: &Word<'_>) -> Result<IpAddr, Failure> {
    let text = word.text;
    let address = IpAddr::from_str(text)
        .map_err(|_| word.refusal(&format!("{text} is no IPv4 or IPv6 address")))?;
    let is_one = !(address.is_multicast()
        || address.is_unspecified()
        || address == IpAddr::V4(Ipv4Addr::BROADCAST));
    if !is_one {
        return Err(word.refusal(&format!("{text} is not the address of one client or host")));
    }
    Ok(address)
}

fn packets(kind: &Word<'_>, options: &[Word<'_>], to: IpAddr) -> Result<Packets, Failure> {
    let [size, rate, count] = values(kind, options, ["size", "rate", "count"])?;
    let most = MTU - headers(to);
    let least = MARK as u16;
    let size = size.map_or(Ok(56), |(word, text)| {
        let size = text
            .parse()
            .ok()
            .filter(|size| (least..=most).contains(size));
        size.ok_or_else(|| {
            word.refusal(&format!(
                "size={text}: there are {least} to {most} bytes in a packet"
            ))
        })
    })?;
    let every = rate.map_or(Ok(Duration::from_secs(1)), |(word, text)| {
        let problem = format!("rate={text}: packets a second are 0.01 to 10000, as 2.5/s");
        period(text).ok_or_else(|| word.refusal(&problem))
    })?;
    let count = count.map(|(word, text)| {
        let count = text
            .parse()
            .ok()
            .filter(|count| (1..=MOST_PACKETS).contains(count));
        count.ok_or_else(|| {
            word.refusal(&format!(
                "count={text}: that is no number from 1 to {MOST_PACKETS}"
            ))
        })
    });
    Ok(Packets {
        size,
        every,
        count: count.transpose()?,
    })
}

fn stream<'w>(kind: &'w Word<'w>, options: &'w [Word<'w>]) -> Result<Stream, Failure> {
    let [rate, total] = values(kind, options, ["rate", "total"])?;
    let (word, text) = rate.unwrap_or((kind, "1mbit"));
    let rate: Rate = text
        .parse()
        .map_err(|error| word.refusal(&format!("rate={text}: {error}")))?;
    if rate.bits() > FASTEST_STREAM {
        return Err(word.refusal(&format!("rate={text}: a stream has 1gbit at most")));
    }
    let total = total.map(|(word, text)| {
        let total = text.parse();
        total.map_err(|error| word.refusal(&format!("total={text}: {error}")))
    });
    Ok(Stream {
        rate,
        total: total.transpose()?,
    })
}

/// The values of these options, each with the word that it is in.
fn values<'w, const N: usize>(
    kind: &Word<'_>,
    options: &'w [Word<'_>],
    names: [&str; N],
) -> Result<[Option<(&'w Word<'w>, &'w str)>; N], Failure> {
    let mut values = [None; N];
    for word in options {
        let (name, value) = word.text.split_once('=').unwrap_or((word.text, ""));
        let Some(slot) = names
            .iter()
            .position(|known| *known == name)
            .and_then(|position| values.get_mut(position))
        else {
            return Err(word.refusal(&format!(
                "{} has no {name}; there is {}",
                kind.text,
                names.map(|name| format!("{name}=")).join(", ")
            )));
        };
        if slot.is_some() {
            return Err(word.refusal(&format!("{name} is given twice")));
        }
        *slot = Some((word, value));
    }
    Ok(values)
}

/// The time between two packets at a rate like `2.5/s` or `100`, three decimals at most.
fn period(text: &str) -> Option<Duration> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || decimals.len() > 3 {
        return None;
    }
    let thousandths: u64 = format!("{decimals:0<3}").parse().ok()?;
    let rate = whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(thousandths)?;
    let every = NS_IN_S * 1000;
    RATES
        .contains(&rate)
        .then(|| Duration::from_nanos(every / rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        match parse("my.list", text) {
            Err(Failure::Usage(text)) => text,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn one(line: &str) -> Load {
        let entries = parse("my.list", line).unwrap();
        let [entry] = &entries[..] else {
            panic!("{entries:?}")
        };
        entry.load
    }

    #[test]
    fn the_default_list_is_that_of_the_original() {
        let entries = read(None).unwrap();
        let sent: Vec<String> = entries
            .iter()
            .map(|entry| {
                assert_eq!(entry.from, "host0");
                match entry.load {
                    Load::Ping(Packets {
                        size,
                        every,
                        count: None,
                    }) => {
                        assert_eq!(every, Duration::from_secs(1));
                        format!("{} -s{size}", entry.to)
                    }
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        assert_eq!(
            sent,
            [
                "192.168.0.1 -s512",
                "192.168.0.2 -s128",
                "192.168.0.3 -s1024",
                "192.168.0.4 -s128",
                "192.168.0.5 -s128",
                "192.168.0.6 -s128",
                "192.168.1.2 -s128",
                "192.168.1.4 -s768",
                "192.168.2.2 -s128",
                "192.168.2.7 -s1024",
                "192.168.2.2 -s128",
                "192.168.3.8 -s768",
                "192.168.3.9 -s768",
            ]
        );
    }

    #[test]
    fn a_line_says_who_where_what_and_how_much() {
        let packets = |size, ms, count| Packets {
            size,
            every: Duration::from_millis(ms),
            count,
        };
        let to = "host0 192.168.0.2";
        assert_eq!(
            one(&format!("{to} ping")),
            Load::Ping(packets(56, 1000, None))
        );
        assert_eq!(
            one(&format!("\t{to}\tudp count=7 rate=2.5/s size=8# and so on")),
            Load::Udp(packets(8, 400, Some(7)))
        );
        assert_eq!(
            one(&format!("{to} ping rate=10000 size=1422")),
            Load::Ping(Packets {
                every: Duration::from_micros(100),
                ..packets(1422, 0, None)
            })
        );
        let Load::Tcp(Stream { rate, total: None }) = one(&format!("{to} tcp")) else {
            panic!("no stream");
        };
        assert_eq!(rate.bits(), 1_000_000);
        let Load::Tcp(Stream { rate, total }) = one(&format!("{to} tcp total=3mb rate=1gbit"))
        else {
            panic!("no stream");
        };
        assert_eq!(
            (rate.bits(), total.unwrap().bytes()),
            (1_000_000_000, 3 << 20)
        );
        let entries = parse("my.list", "# a\n\nhost3 fd00:c0a8::9 udp size=1402\r\n").unwrap();
        assert_eq!(entries[0].from, "host3");
        assert_eq!(entries[0].to.to_string(), "fd00:c0a8::9");
        assert_eq!(
            entries[0].place.refusal("no").to_string(),
            "my.list:3:1: no"
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_column() {
        for (text, refusal) in [
            ("", "my.list has no entries; --show prints a list"),
            (
                "# host0 192.168.0.2 ping\n",
                "my.list has no entries; --show prints a list",
            ),
            (
                "host0",
                "my.list:1:1: the address that it is sent to is missing after host0",
            ),
            (
                "\n  host0  192.168.0.2\n",
                "my.list:2:10: ping, udp or tcp is missing after 192.168.0.2",
            ),
            (
                "host0 192.168.0.256 ping",
                "my.list:1:7: 192.168.0.256 is no IPv4 or IPv6 address",
            ),
            (
                "host0 host1 ping",
                "my.list:1:7: host1 is no IPv4 or IPv6 address",
            ),
            (
                "h 239.1.1.1 ping",
                "my.list:1:3: 239.1.1.1 is not the address of one client or host",
            ),
            (
                "h 255.255.255.255 udp",
                "my.list:1:3: 255.255.255.255 is not the address of one client or host",
            ),
            (
                "h :: udp",
                "my.list:1:3: :: is not the address of one client or host",
            ),
            (
                "h ff02::1 ping",
                "my.list:1:3: ff02::1 is not the address of one client or host",
            ),
            ("h ::1 Ping", "my.list:1:7: Ping is none of ping, udp, tcp"),
            (
                "h ::1 ping fast",
                "my.list:1:12: ping has no fast; there is size=, rate=, count=",
            ),
            (
                "h ::1 tcp size=4",
                "my.list:1:11: tcp has no size; there is rate=, total=",
            ),
            (
                "h ::1 ping  size=8 size=8",
                "my.list:1:20: size is given twice",
            ),
            (
                "h ::1 ping size=7",
                "my.list:1:12: size=7: there are 8 to 1402 bytes in a packet",
            ),
            (
                "h 1.1.1.1 udp size=1423",
                "my.list:1:15: size=1423: there are 8 to 1422 bytes in a packet",
            ),
            (
                "h ::1 udp size=1403",
                "my.list:1:11: size=1403: there are 8 to 1402 bytes in a packet",
            ),
            (
                "h ::1 udp size=-8",
                "my.list:1:11: size=-8: there are 8 to 1402 bytes in a packet",
            ),
            (
                "h ::1 udp size",
                "my.list:1:11: size=: there are 8 to 1402 bytes in a packet",
            ),
            (
                "h ::1 udp count=0",
                "my.list:1:11: count=0: that is no number from 1 to 1000000000",
            ),
            (
                "h ::1 tcp rate=2gbit",
                "my.list:1:11: rate=2gbit: a stream has 1gbit at most",
            ),
            (
                "h\u{301}\u{fc} ::1 x\u{7}",
                "my.list:1:9: x\\u{7} is none of ping, udp, tcp",
            ),
        ] {
            assert_eq!(refused(text), refusal);
        }
        for rate in [
            "0",
            "0.009/s",
            "10001",
            "10000.001",
            "1/m",
            ".5",
            "1.",
            "1.2345",
            "1e3",
            "-1",
            "+1",
            "99999999999999999999",
            "18446744073709551",
            "NaN",
            "inf",
            "",
        ] {
            assert_eq!(
                refused(&format!("h ::1 udp rate={rate}")),
                format!("my.list:1:11: rate={rate}: packets a second are 0.01 to 10000, as 2.5/s")
            );
        }
        for stream in [
            "rate=0",
            "rate=",
            "rate=fast",
            "total=0",
            "total=x",
            "total=99999999999999999999gb",
        ] {
            let text = refused(&format!("h ::1 tcp {stream}"));
            assert!(
                text.starts_with(&format!("my.list:1:11: {stream}: ")),
                "{text}"
            );
        }
        let long = "host0 192.168.0.2 ping\n".repeat(MOST);
        assert_eq!(parse("my.list", &long).unwrap().len(), MOST);
        assert_eq!(
            refused(&(long + "host0")),
            "my.list:1001:1: a list has 1000 entries at most"
        );
    }

    #[test]
    fn no_text_whatever_brings_the_parser_down() {
        // splitmix64, over the letters that mean something and some that are longer than a byte.
        let mut state = 7_u64;
        let mut below = |end: usize| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((mixed ^ (mixed >> 27)) % end as u64) as usize
        };
        let pieces = [
            "host0",
            " ",
            "\t",
            "\n",
            "\r",
            "#",
            "=",
            "192.168.0.2",
            "fd00::1",
            "ping",
            "udp",
            "tcp",
            "size",
            "rate",
            "count",
            "total",
            "8",
            "1422",
            "0.5",
            "/s",
            "mbit",
            "\u{0}",
            "\u{e4}",
            "\u{1f980}",
            "\u{a0}",
            "\u{2028}",
            "-",
            ".",
        ];
        for _ in 0..20_000 {
            let text: String = (0..below(24))
                .map(|_| pieces[below(pieces.len())])
                .collect();
            if let Err(error) = parse("my.list", &text) {
                let error = error.to_string();
                assert!(!error.contains(char::is_control), "{text:?}: {error:?}");
            }
        }
    }
}

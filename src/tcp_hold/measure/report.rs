//! What is said of a measurement: the original's lines, or JSON.

use std::env;
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::{Instant, SystemTime};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::counters::{Counters, Cpu};
use super::hook::Hook;
use super::plan::{Handler, Plan, Role};
use super::run::Outcome;
use super::tally::{Calls, SystemCalls, Tally};
use crate::failure::say;
use crate::notation::{counted, grouped};
use crate::output::Output;
use crate::report::skipped_reports;
use crate::tcp_hold::Events;

const SCHEMA: &str = "netbpf.tcp_hold/1";

/// Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// The arithmetic mean.
    pub mean: f64,
    /// Half are less.
    pub p50: f64,
    /// Of ten, nine are less.
    pub p90: f64,
    /// Of a hundred, 99 are less.
    pub p99: f64,
    /// Of a thousand, 999 are less.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

impl Latency {
    /// Of nanoseconds; none: there are none.
    pub fn of(histogram: &Histogram<u64>) -> Option<Latency> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        (!histogram.is_empty()).then(|| Latency {
            mean: histogram.mean() / 1e6,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e6,
        })
    }
}

/// Bytes one way.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Flow {
    /// All of them.
    pub bytes: u64,
    /// In a second.
    pub per_second: f64,
    /// The standard deviation of that, between intervals; none: there are not two.
    pub deviation: Option<f64>,
}

/// What the kernel did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tcp {
    /// Segments of these connections that this end has sent again.
    pub retransmitted: u64,
    /// Of all connections of this network namespace.
    #[serde(flatten)]
    pub counters: Counters,
}

/// How acknowledgements are held.
#[derive(Clone, Debug, Serialize)]
pub struct Holding {
    /// Where.
    pub interfaces: Vec<String>,
    /// Bytes that were acknowledged before their connection was held.
    pub exposed: u64,
    /// Acknowledgements that were lowered; none: not asked yet.
    pub lowered: Option<u64>,
    /// Acknowledgements that were sent for nothing else.
    pub announced: Option<u64>,
}

/// The figures of an interval, or of the whole but its ends.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    schema: &'static str,
    /// Seconds since 1970.
    time: f64,
    /// Seconds since the start.
    elapsed: f64,
    /// The last report of a run.
    r#final: bool,
    role: Role,
    handler: Handler,
    connections: usize,
    size: usize,
    hold: Option<Holding>,
    /// Seconds that these figures are of.
    seconds: f64,
    /// Seconds that are left out at either end.
    left_out: f64,
    messages: u64,
    messages_per_second: f64,
    latency: Option<Latency>,
    uncorrected: Option<Latency>,
    received: Flow,
    sent: Flow,
    calls: SystemCalls,
    tcp: Option<Tcp>,
    cpu: Option<Cpu>,
    /// Reports that were left out because nobody took the ones before.
    skipped_reports: u64,
}

/// Prints reports, and the lines that come before and after them.
pub struct Reporter {
    json: bool,
    output: Output,
    /// The user knows that they cannot be written.
    told: bool,
    plan: Plan,
    hold: Option<Holding>,
    started: Instant,
    /// Up to here it is reported.
    until: Instant,
    /// All intervals but those that are left out.
    sum: Tally,
    seconds: f64,
    rates: Rates,
}

/// Bytes a second, of each interval.
#[derive(Default)]
struct Rates {
    received: Vec<f64>,
    sent: Vec<f64>,
}

impl Reporter {
    /// To be made before privileges are dropped: see [`Output::open`].
    pub fn new(json: bool, plan: &Plan) -> Result<Reporter> {
        let now = Instant::now();
        Ok(Reporter {
            json,
            output: Output::open(),
            told: false,
            plan: plan.clone(),
            hold: None,
            started: now,
            until: now,
            sum: Tally::new()?,
            seconds: 0.0,
            rates: Rates::default(),
        })
    }

    /// A line that is no result.
    pub fn line(&mut self, line: &str) -> Result<()> {
        if self.json {
            say(format_args!("{line}"));
            return Ok(());
        }
        let written = self.output.line(line);
        self.settle(written)
    }

    /// The measurement begins.
    pub fn begin(&mut self, hook: Option<&Hook<'_>>, exposed: u64) {
        self.hold = hook.map(|hook| Holding {
            interfaces: hook.interfaces(),
            exposed,
            lowered: None,
            announced: None,
        });
        self.started = Instant::now();
        self.until = self.started;
    }

    /// An interval has passed.
    pub fn interval(&mut self, mut tally: Tally) -> Result<()> {
        let now = Instant::now();
        let seconds = (now - self.until).as_secs_f64();
        self.until = now;
        let figures = self.figures(&tally, seconds);
        let written = if self.json {
            self.output.line(&serde_json::to_string(&figures)?)
        } else {
            self.output.line(&figures.interval())
        };
        self.settle(written)?;
        if self.counts(now) {
            self.rates.received.push(tally.received as f64 / seconds);
            self.rates.sent.push(tally.sent as f64 / seconds);
            self.seconds += seconds;
            self.sum.absorb(&mut tally)?;
        }
        Ok(())
    }

    /// Whether the interval that ends now is none of those that are left out.
    fn counts(&self, now: Instant) -> bool {
        let interval = self.plan.interval.as_secs_f64().max(f64::MIN_POSITIVE);
        let number = ((now - self.started).as_secs_f64() / interval).round() as u32;
        let (all, left_out) = self.plan.intervals();
        number > left_out && number <= all.saturating_sub(left_out)
    }

    /// The last report.
    pub fn conclude(
        &mut self,
        outcome: &Outcome,
        counters: Counters,
        events: Option<Events>,
    ) -> Result<()> {
        if let (Some(hold), Some(events)) = (&mut self.hold, events) {
            hold.lowered = Some(events.lowered);
            hold.announced = Some(events.probes);
        }
        let mut figures = self.figures(&self.sum, self.seconds);
        figures.r#final = true;
        figures.received.deviation = deviation(&self.rates.received);
        figures.sent.deviation = deviation(&self.rates.sent);
        figures.cpu = Some(outcome.cpu);
        figures.tcp = Some(Tcp {
            retransmitted: outcome.retransmitted,
            counters,
        });
        let words = if self.json {
            serde_json::to_string(&figures)? + "\n"
        } else {
            let program = env::args().next().unwrap_or_default();
            let name = self.plan.name();
            let result = figures.result();
            format!("{figures}{program}\t{name} {result}\n")
        };
        Ok(self.output.conclude(&words)?)
    }

    fn figures(&self, tally: &Tally, seconds: f64) -> Figures {
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let per_second = |count: u64| {
            if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            }
        };
        let flow = |bytes| Flow {
            bytes,
            per_second: per_second(bytes),
            deviation: None,
        };
        let (_, left_out) = self.plan.intervals();
        Figures {
            schema: SCHEMA,
            time: time.as_secs_f64(),
            elapsed: self.started.elapsed().as_secs_f64(),
            r#final: false,
            role: self.plan.role,
            handler: self.plan.handler,
            connections: self.plan.connections,
            size: self.plan.size,
            hold: self.hold.clone(),
            seconds,
            left_out: (self.plan.interval * left_out).as_secs_f64(),
            messages: tally.messages,
            messages_per_second: per_second(tally.messages),
            latency: Latency::of(&tally.latencies),
            uncorrected: Latency::of(&tally.uncorrected),
            received: flow(tally.received),
            sent: flow(tally.sent),
            calls: tally.calls,
            tcp: None,
            cpu: None,
            skipped_reports: self.output.skipped(),
        }
    }

    /// That nobody reads any more is an error; that nothing can be written otherwise is said once.
    fn settle(&mut self, written: io::Result<()>) -> Result<()> {
        match written {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                if !std::mem::replace(&mut self.told, true) {
                    say(format_args!(
                        "reports cannot be written: {error}; the run goes on"
                    ));
                }
                Ok(())
            }
            written => Ok(written?),
        }
    }
}

/// Of these; none: there are not two.
fn deviation(rates: &[f64]) -> Option<f64> {
    let count = rates.len() as f64;
    if rates.len() < 2 {
        return None;
    }
    let mean = rates.iter().sum::<f64>() / count;
    let squares: f64 = rates.iter().map(|rate| (rate - mean).powi(2)).sum();
    Some((squares / (count - 1.0)).sqrt())
}

const KIB: f64 = 1024.0;

impl Figures {
    /// The original's line of a second.
    fn interval(&self) -> String {
        format!(
            "[{:.1}s]\t{:.1} pkts/s\tavg {:.3} ms\tin {:.3} KiB/s\tout {:.3} KiB/s",
            self.elapsed,
            self.messages_per_second,
            self.latency.map_or(0.0, |latency| latency.mean),
            self.received.per_second / KIB,
            self.sent.per_second / KIB,
        )
    }

    /// The figures of the original's last line: messages a second, the middle latency and that which one of a
    /// hundred exceeds, both ways' throughput.
    fn result(&self) -> String {
        let latency = |which: fn(Latency) -> f64| self.latency.map_or(0.0, which);
        format!(
            "{:.1} {:.3} {:.3} {:.3} {:.3}",
            self.messages_per_second,
            latency(|it| it.p50),
            latency(|it| it.p99),
            self.received.per_second / KIB,
            self.sent.per_second / KIB,
        )
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency {
            mean,
            p50,
            p90,
            p99,
            p999,
            max,
        } = self;
        write!(
            f,
            "mean {mean:.3} p50 {p50:.3} p90 {p90:.3} p99 {p99:.3} p99.9 {p999:.3} max {max:.3}"
        )
    }
}

impl Flow {
    fn line(&self, way: &str) -> String {
        let rate = self.per_second / KIB;
        match self.deviation {
            None => format!("{way} {rate:.3} KiB/s"),
            Some(deviation) => format!(
                "{way} {rate:.3} KiB/s, standard deviation {:.3}",
                deviation / KIB
            ),
        }
    }
}

impl Calls {
    fn line(&self, what: &str) -> String {
        if self.calls == 0 {
            return format!("no {what}");
        }
        let each = self.seconds * 1e6 / self.calls as f64;
        format!("{} {what} of {each:.1} us", grouped(self.calls))
    }
}

/// What the original does not say: it goes before its last lines.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.1} s measured, {:.2} s left out at either end",
            self.seconds, self.left_out
        )?;
        match (self.latency, self.uncorrected) {
            (None, _) => writeln!(f, "latency: of no message")?,
            (Some(latency), None) => writeln!(f, "latency (ms): {latency}")?,
            (Some(latency), Some(uncorrected)) => {
                writeln!(f, "latency (ms), from when a message was due: {latency}")?;
                writeln!(f, "                 from when it was sent: {uncorrected}")?;
            }
        }
        writeln!(f, "{}; {}", self.received.line("in"), self.sent.line("out"))?;
        writeln!(
            f,
            "system calls: {}, {} (waiting included), {}",
            self.calls.send.line("sends"),
            self.calls.receive.line("receives"),
            self.calls.announce.line("announcements"),
        )?;
        if let Some(tcp) = self.tcp {
            writeln!(
                f,
                "TCP: {} segments sent again, {} timeouts (RTO), {} loss probes",
                grouped(tcp.retransmitted),
                grouped(tcp.counters.timeouts),
                grouped(tcp.counters.loss_probes),
            )?;
        }
        if let Some(Cpu { user, system }) = self.cpu {
            writeln!(
                f,
                "CPU: {user:.2} s in the program, {system:.2} s in the kernel"
            )?;
        }
        if let Some(hold) = &self.hold {
            let lowered = grouped(hold.lowered.unwrap_or_default());
            let announced = grouped(hold.announced.unwrap_or_default());
            writeln!(
                f,
                "held at {}: {lowered} acknowledgements lowered, {announced} sent for nothing else",
                hold.interfaces.join(" ")
            )?;
            if hold.exposed > 0 {
                let exposed = counted(hold.exposed as usize, "byte");
                writeln!(f, "{exposed} were acknowledged before they could be held")?;
            }
        }
        f.write_str(&skipped_reports(self.skipped_reports))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn reporter() -> Reporter {
        let plan = Plan {
            role: Role::Client,
            handler: Handler::Echo,
            connections: 32,
            size: 16,
            pause: Duration::ZERO,
            every: None,
            duration: Duration::from_secs(20),
            interval: Duration::from_secs(1),
        };
        Reporter::new(false, &plan).unwrap()
    }

    #[test]
    fn the_lines_are_those_of_the_original() {
        let reporter = reporter();
        let mut tally = Tally::new().unwrap();
        for _ in 0..853 {
            tally.record(Duration::from_micros(37_100));
        }
        (tally.received, tally.sent) = (13_624, 13_648);
        let mut figures = reporter.figures(&tally, 1.0);
        figures.elapsed = 12.0;
        assert_eq!(
            figures.interval(),
            "[12.0s]\t853.0 pkts/s\tavg 37.110 ms\tin 13.305 KiB/s\tout 13.328 KiB/s"
        );
        let result = figures.result();
        let words: Vec<&str> = result.split(' ').collect();
        assert_eq!(words.len(), 5, "{result}");
        assert_eq!((words[0], words[3]), ("853.0", "13.305"));
        assert!(words[1].starts_with("37.1"), "{result}");
        // Nothing is as good as any number.
        let nothing = reporter.figures(&Tally::new().unwrap(), 0.0);
        assert_eq!(nothing.result(), "0.0 0.000 0.000 0.000 0.000");
    }

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        assert_eq!(deviation(&[5.0]), None);
        assert_eq!(deviation(&[2.0, 4.0, 4.0, 4.0, 6.0]), Some(2.0_f64.sqrt()));
    }

    #[test]
    fn intervals_at_the_ends_do_not_count() {
        let reporter = reporter();
        let at =
            |seconds: f64| reporter.counts(reporter.started + Duration::from_secs_f64(seconds));
        assert!([5.0, 5.3].iter().all(|end| !at(*end)));
        assert!([5.9, 6.0, 15.0, 15.4].iter().all(|end| at(*end)));
        assert!([15.6, 16.0, 20.0].iter().all(|end| !at(*end)));
    }
}

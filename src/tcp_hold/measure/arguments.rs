//! The command line of either end.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::plan::{Handler, MOST_CONNECTIONS, Plan, Role, SIZES};
use crate::Failure;
use crate::options::Attach;
use crate::rate;
use crate::session;

/// How long a run takes, and how often figures are taken, as in the original.
const DURATION: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_secs(1);

/// One end of a measurement.
#[derive(Args, Clone, Debug)]
pub struct MeasureArguments {
    /// Connections, with a thread each
    #[arg(value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=MOST_CONNECTIONS))]
    pub connections: u64,

    /// What is done with each
    #[arg(value_enum, value_name = "HANDLER")]
    pub handler: Handler,

    /// Bytes of a message, 16 or more: {u64 size, u64 microseconds since 1970, padding}
    #[arg(value_name = "SIZE",
          value_parser = clap::value_parser!(u64).range(*SIZES.start()..=*SIZES.end()))]
    pub size: u64,

    /// Where the server listens; IPv6 as [::1]:23324
    #[arg(value_name = "ADDR:PORT")]
    pub address: SocketAddr,

    /// How long to sleep for each message, in milliseconds [default: 10 for push, 0 otherwise]
    #[arg(value_name = "SLEEP_MS", conflicts_with = "rate",
          value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub sleep_ms: Option<u64>,

    /// Acknowledge to the peer only what the handler is done with
    #[arg(long)]
    pub hold: bool,

    /// The interfaces that held connections leave by [default: those of the routes to the peers]
    #[arg(long, value_name = "IF", num_args = 1..)]
    pub iface: Vec<String>,

    /// Send so many messages a second, all connections together, whether answers come or not (ping and
    /// push); latencies count from when a message was due
    #[arg(long, value_name = "N", value_parser = per_second)]
    pub rate: Option<f64>,

    /// How long it takes, e.g. 60 or 500ms [default: COUNT of the environment, or 20]
    #[arg(long, value_name = "TIME", value_parser = rate::seconds)]
    pub duration: Option<Duration>,

    /// Report this often; a quarter of the time at most [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = rate::seconds)]
    pub interval: Option<Duration>,

    /// Write one JSON object a line instead of text (schema: docs/)
    #[arg(long)]
    pub json: bool,

    /// Write the latencies of each interval into this file, as an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    pub hdr_log: Option<PathBuf>,

    /// How to attach the program
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Attach::Auto)]
    pub attach: Attach,

    /// Say on stderr what is done
    #[arg(short, long)]
    pub verbose: bool,
}

/// Messages a second.
fn per_second(text: &str) -> Result<f64, String> {
    let rate: f64 = text
        .trim_end_matches("/s")
        .parse()
        .map_err(|_| "give messages a second, as in 1000 or 0.5".to_owned())?;
    if (0.001..=10_000_000.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("it is between 0.001 and 10000000 a second".into())
    }
}

/// The number that a variable of the environment begins with, as the original takes it: "on" is 0.
fn variable(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    let digits = value.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit());
    let digits = &digits[..end.unwrap_or(digits.len())];
    Some(digits.parse().unwrap_or(0))
}

impl MeasureArguments {
    /// Whether acknowledgements are held.
    pub fn is_held(&self) -> bool {
        self.hold || variable("HOOK").is_some_and(|hook| hook != 0)
    }

    fn duration(&self) -> Result<Duration> {
        if let Some(duration) = self.duration {
            return Ok(duration);
        }
        match variable("COUNT") {
            None => Ok(DURATION),
            Some(seconds @ 1..=31_536_000) => Ok(Duration::from_secs(seconds)),
            Some(_) => {
                let text = "COUNT in the environment is the time to run, in seconds: 1 to 31536000";
                Err(Failure::Usage(text.into()).into())
            }
        }
    }

    fn interval(&self, duration: Duration) -> Duration {
        self.interval.unwrap_or(INTERVAL).min(duration / 4)
    }

    /// What ends the session, and how often it wakes.
    pub fn session(&self) -> Result<session::Options> {
        let duration = self.duration()?;
        Ok(session::Options {
            duration: Some(duration),
            interval: Some(self.interval(duration)),
            ..session::Options::default()
        })
    }

    /// What is measured. Refuses what cannot be meant, before anything is changed.
    pub fn plan(&self, role: Role) -> Result<Plan> {
        let refuse = |text: &str| Err(Failure::Usage(text.into()).into());
        let sends_by_the_clock = matches!(self.handler, Handler::Ping | Handler::Push);
        if self.rate.is_some() && !sends_by_the_clock {
            return refuse("--rate is for ping and push: the others send nothing by themselves");
        }
        if !self.iface.is_empty() && !self.is_held() {
            return refuse(
                "--iface is where acknowledgements are held; without --hold there are none",
            );
        }
        if role == Role::Client && self.address.port() == 0 {
            return refuse("a client needs the port that the server listens at");
        }
        let connections = usize::try_from(self.connections)?;
        let every = self
            .rate
            .map(|rate| Duration::from_secs_f64(self.connections as f64 / rate));
        let pause = self.sleep_ms.map(Duration::from_millis);
        let duration = self.duration()?;
        Ok(Plan {
            role,
            handler: self.handler,
            connections,
            size: usize::try_from(self.size)?,
            pause: pause.unwrap_or_else(|| self.handler.pause()),
            every,
            duration,
            interval: self.interval(duration),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp_hold::{Arguments, Command};
    use clap::Parser;

    fn server(words: &str) -> Result<MeasureArguments, clap::Error> {
        let words = format!("tcp_hold server {words}");
        match Arguments::try_parse_from(words.split(' '))?.command {
            Some(Command::Server(arguments)) => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_original_command_line_is_understood() {
        let arguments = server("32 ping 16 0.0.0.0:23324").unwrap();
        let plan = arguments.plan(Role::Server).unwrap();
        assert_eq!(plan.name(), "server-ping-t32-sz16");
        assert_eq!(plan.pause, Duration::ZERO);
        let arguments = server("1 push 1024 [::]:1 --duration 2").unwrap();
        let plan = arguments.plan(Role::Server).unwrap();
        assert_eq!(plan.pause, Duration::from_millis(10));
        assert_eq!(plan.interval, Duration::from_millis(500));
        let arguments = server("1 push 1024 [::]:1 25").unwrap();
        let plan = arguments.plan(Role::Server).unwrap();
        assert_eq!(plan.pause, Duration::from_millis(25));
    }

    #[test]
    fn a_rate_is_for_all_connections_together() {
        let arguments = server("8 ping 16 127.0.0.1:1 --rate 1000/s").unwrap();
        let plan = arguments.plan(Role::Server).unwrap();
        assert_eq!(plan.every, Some(Duration::from_millis(8)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for words in [
            "0 ping 16 127.0.0.1:1",
            "1 ping 15 127.0.0.1:1",
            "1 ping 16777217 127.0.0.1:1",
            "1 pong 16 127.0.0.1:1",
            "1 ping 16 127.0.0.1",
            "1 ping 16 127.0.0.1:1 5 --rate 7",
            "1 ping 16 127.0.0.1:1 --rate 0",
            "1 ping 16 127.0.0.1:1 --rate nan",
        ] {
            assert!(server(words).is_err(), "{words}");
        }
        for words in [
            "1 echo 16 127.0.0.1:1 --rate 7",
            "1 echo 16 127.0.0.1:1 --iface lo",
        ] {
            let arguments = server(words).unwrap();
            assert!(arguments.plan(Role::Server).is_err(), "{words}");
        }
        let arguments = server("1 echo 16 127.0.0.1:0").unwrap();
        assert!(arguments.plan(Role::Client).is_err());
        assert!(arguments.plan(Role::Server).is_ok());
    }
}

//! tcp_hold without arguments: the original's network, and on it every size and number of connections, on a
//! fast line and on a slow one, held and not.

mod report;

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, ValueEnum};
use netsetup::namespace;
use netsetup::queue::Limit;
use netsetup::topology::tcp_hold::{self, Network, Plan as NetworkPlan};
use serde::Serialize;

use super::measure::{
    Counters, Handler, Hook, Outcome, Plan, Role, Run, Tally, accept, connect, listen,
};
use crate::options::Attach;
use crate::preflight;
use crate::privilege::{self, Cap};
use crate::progress::Progress;
use crate::rate;
use crate::session::{self, Ended, Event, Session};
use report::Reporter;

/// The original's port.
const PORT: u16 = 23324;
/// The line on which the original hangs.
const SLOW: Limit = Limit {
    rate: "5500kbit",
    burst: "40kb",
    latency: "300ms",
};
const NEEDED: [Cap; 4] = [Cap::Bpf, Cap::Perfmon, Cap::NetAdmin, Cap::SysAdmin];
/// How often it is looked whether the run is to end.
const LOOK: Duration = Duration::from_millis(50);

/// What the experiment is about, where no other command is given.
#[derive(Args, Clone, Debug)]
pub struct ExperimentArguments {
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "16,1024,4096,65536",
          value_parser = clap::value_parser!(u64).range(16..=1 << 20))]
    pub sizes: Vec<u64>,

    /// Connections
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,8,64",
          value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub connections: Vec<u64>,

    /// Lines between the two ends
    #[arg(
        long,
        value_enum,
        value_name = "LINE",
        value_delimiter = ',',
        default_value = "plain,limited"
    )]
    pub lines: Vec<Line>,

    /// Measure each for so long
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = rate::seconds)]
    pub duration: Duration,

    /// Write one JSON object a line instead of text (schema: docs/)
    #[arg(long)]
    pub json: bool,

    /// How to attach the program
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Attach::Auto)]
    pub attach: Attach,

    /// Say on stderr what is done
    #[arg(short, long)]
    pub verbose: bool,
}

/// What is between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A veth pair and a bridge
    Plain,
    /// The same at 5.5 Mbit/s (tbf)
    Limited,
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Trial {
    line: Line,
    connections: usize,
    size: usize,
    is_held: bool,
}

/// What came of it.
struct Measured {
    /// Of the end that is held, or would be.
    tally: Tally,
    /// Of its peer, who asks.
    peer: Tally,
    /// Seconds that these are of.
    seconds: f64,
    /// From the first message to the last one.
    whole_seconds: f64,
    /// Both ends: that which is held or would be, and its peer.
    outcomes: [Outcome; 2],
    /// Of the peer's network namespace: it is he who misses acknowledgements.
    counters: Counters,
}

/// Runs all of it, and says what holding costs.
pub fn run(arguments: &ExperimentArguments) -> Result<()> {
    let mut session = Session::start(session::Options {
        interval: Some(LOOK),
        ..session::Options::default()
    })?;
    if !arguments.verbose {
        libbpf_rs::set_print(None);
    }
    privilege::require(&NEEDED)?;
    preflight::kernel_floor()?;
    let mut reporter = Reporter::new(arguments.json);
    let mut progress = Progress::new(arguments.verbose);
    let network = tcp_hold::build(&NetworkPlan::default(), &mut |step| {
        progress.step(step);
        session.check()
    });
    drop(progress);
    let network = network.map_err(|error| session.cause(error))?;
    let done = run_all(arguments, &network, &mut session, &mut reporter);
    done.and(network.close())
}

fn run_all(
    arguments: &ExperimentArguments,
    network: &Network,
    session: &mut Session,
    reporter: &mut Reporter,
) -> Result<()> {
    reporter.begin()?;
    for line in &arguments.lines {
        if *line == Line::Limited {
            network.limit(&SLOW)?;
        }
        let of_line = run_line(arguments, *line, network, session, reporter);
        if *line == Line::Limited {
            network.unlimit()?;
        }
        of_line?;
    }
    reporter.conclude()
}

fn run_line(
    arguments: &ExperimentArguments,
    line: Line,
    network: &Network,
    session: &mut Session,
    reporter: &mut Reporter,
) -> Result<()> {
    for connections in &arguments.connections {
        for size in &arguments.sizes {
            for is_held in [false, true] {
                let trial = Trial {
                    line,
                    connections: usize::try_from(*connections)?,
                    size: usize::try_from(*size)?,
                    is_held,
                };
                let measured = measure(arguments, trial, network, session)?;
                reporter.trial(trial, &measured)?;
            }
        }
    }
    Ok(())
}

/// As in the original's document: the server on the host asks, the client in the namespace answers and is held.
fn measure(
    arguments: &ExperimentArguments,
    trial: Trial,
    network: &Network,
    session: &mut Session,
) -> Result<Measured> {
    let plan = |role, handler| Plan {
        role,
        handler,
        connections: trial.connections,
        size: trial.size,
        pause: Duration::ZERO,
        every: None,
        duration: arguments.duration,
        interval: arguments.duration,
    };
    let (asks, answers) = (
        plan(Role::Server, Handler::Ping),
        plan(Role::Client, Handler::Echo),
    );
    let (host, _) = network.host();
    let address = SocketAddr::from((host, PORT));
    let count = trial.connections;
    let mut object = MaybeUninit::uninit();
    let mut on_line = |_: &str| Ok(());
    let mut check = || session.check();

    let listener = listen(address, count)?;
    let inside = namespace::enter(&namespace::open(network.namespace())?)?;
    let mut hook = match trial.is_held {
        true => Some(Hook::load(arguments.attach.method(), count, &mut object)?),
        false => None,
    };
    let client = connect(address, count, hook.as_mut(), &mut on_line, &mut check)?;
    drop(inside);
    let server = accept(&listener, count, None, &mut on_line, &mut check)?;

    let before = Counters::read()?;
    let started = Instant::now();
    let client = Run::start(&answers, client)?;
    let server = Run::start(&asks, server)?;
    // Windows and buffers find their size first.
    pass(session, arguments.duration / 4)?;
    client.take()?;
    server.take()?;
    let began = Instant::now();
    pass(session, arguments.duration)?;
    let (tally, peer) = (client.take()?, server.take()?);
    let seconds = began.elapsed().as_secs_f64();
    let counters = Counters::read()?.since(&before);
    let outcomes = [client.finish()?, server.finish()?];
    let whole_seconds = started.elapsed().as_secs_f64();
    drop(hook);
    Ok(Measured {
        tally,
        peer,
        seconds,
        whole_seconds,
        outcomes,
        counters,
    })
}

/// Lets so much time pass.
fn pass(session: &mut Session, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if let Event::End(reason) = session.wait(None)? {
            return Err(Ended(reason).into());
        }
    }
    Ok(())
}

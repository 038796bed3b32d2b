//! `tcp_hold client` and `tcp_hold server`: connections that carry messages, held or not, and what that
//! costs.

mod arguments;
mod counters;
mod endpoint;
mod handlers;
mod hook;
mod log;
mod message;
mod plan;
mod report;
mod run;
mod socket;
mod stream;
mod tally;

use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Result, bail};
use libbpf_rs::OpenObject;
use nix::sys::signal::Signal;

use crate::failure::say;
use crate::preflight;
use crate::privilege::{self, Cap, Scope};
use crate::session::{Ended, Event, Reason, Session};
pub use arguments::MeasureArguments;
pub use counters::{Counters, Cpu};
pub use endpoint::{accept, connect, listen};
pub use hook::Hook;
pub use plan::{Handler, Plan, Role};
pub use report::{Figures, Latency};
pub use run::{Outcome, Run};
pub use socket::Socket;
pub use tally::{Calls, Tally};

use log::HistogramLog;
use report::Reporter;

/// What it takes to hold: to load, to attach, and to have the kernel send an acknowledgement.
const NEEDED: [Cap; 3] = [Cap::Bpf, Cap::Perfmon, Cap::NetAdmin];

/// Measures until the time is over. The session is to be started with [`MeasureArguments::session`].
pub fn run(arguments: &MeasureArguments, plan: &Plan, session: &mut Session) -> Result<()> {
    if !arguments.verbose {
        libbpf_rs::set_print(None);
    }
    let mut reporter = Reporter::new(arguments.json, plan)?;
    let measured = measure(arguments, plan, session, &mut reporter);
    if let Err(error) = &measured
        && let Some(Ended(Reason::Signal(name))) = error.downcast_ref()
        && let Ok(signal) = Signal::from_str(name)
    {
        // The original's last words.
        reporter.line(&format!("Received signal={}", signal as i32))?;
    }
    measured
}

fn measure(
    arguments: &MeasureArguments,
    plan: &Plan,
    session: &mut Session,
    reporter: &mut Reporter,
) -> Result<()> {
    let mut object = MaybeUninit::uninit();
    let mut hook = match arguments.is_held() {
        true => Some(open_hook(arguments, plan, &mut object)?),
        false => None,
    };
    let log = arguments.hdr_log.as_deref().map(HistogramLog::create);
    let mut log = log.transpose()?;
    let listener = match plan.role {
        Role::Client => None,
        Role::Server => Some(listen(arguments.address, plan.connections)?),
    };
    match &hook {
        None => privilege::drop_all(Scope::Process)?,
        // To have the kernel send an acknowledgement, which each connection's thread does; and for the guard,
        // who asks which sockets are held.
        Some(_) => privilege::keep_only(&[Cap::Bpf, Cap::NetAdmin], Scope::Process)?,
    }
    let sockets = meet(arguments, plan, hook.as_mut(), listener, session, reporter)?;

    let exposed = sockets.iter().map(Socket::exposed).sum();
    let before = Counters::read()?;
    reporter.line("Benchmark started")?;
    reporter.begin(hook.as_ref(), exposed);
    let began = Instant::now();
    let run = Run::start(plan, sockets)?;
    let reason = attend(session, &run, reporter, log.as_mut())?;
    if let Reason::Signal(_) = reason {
        return Err(Ended(reason).into());
    }
    let end = match reason {
        Reason::Duration => began + plan.duration,
        _ => Instant::now(),
    };
    let outcome = run.finish()?;
    let counters = Counters::read()?.since(&before);
    let events = hook.as_ref().map(Hook::events).transpose()?;
    reporter.conclude(&outcome, counters, events)?;
    reporter.line("Benchmark stopped")?;
    if let Some(log) = log {
        log.finish()?;
    }
    judge(plan, &outcome, end)
}

/// The program, loaded, and attached where the command line says so.
fn open_hook<'obj>(
    arguments: &MeasureArguments,
    plan: &Plan,
    object: &'obj mut MaybeUninit<OpenObject>,
) -> Result<Hook<'obj>> {
    privilege::require(&NEEDED)?;
    preflight::kernel_floor()?;
    let mut hook = Hook::load(arguments.attach.method(), plan.connections, object)?;
    for interface in &arguments.iface {
        hook.attach_to(interface)?;
    }
    if arguments.verbose {
        say(format_args!("attached by {}", hook.method()));
    }
    Ok(hook)
}

/// All connections, before anything is sent by any.
fn meet(
    arguments: &MeasureArguments,
    plan: &Plan,
    hook: Option<&mut Hook<'_>>,
    listener: Option<TcpListener>,
    session: &mut Session,
    reporter: &mut Reporter,
) -> Result<Vec<Socket>> {
    let mut check = || session.check();
    match listener {
        Some(listener) => {
            // Where all interfaces are known, nothing comes past: not even before a connection is accepted.
            if let Some(hook) = &hook
                && !arguments.iface.is_empty()
            {
                hook.hold_accepted(&listener)?;
            }
            reporter.line("Ready to accept connections")?;
            let mut on_line = |line: &str| reporter.line(line);
            accept(&listener, plan.connections, hook, &mut on_line, &mut check)
        }
        None => {
            let mut on_line = |line: &str| reporter.line(line);
            let (address, count) = (arguments.address, plan.connections);
            connect(address, count, hook, &mut on_line, &mut check)
        }
    }
}

/// Reports until the end is asked for, the time is over, or all connections are gone.
fn attend(
    session: &mut Session,
    run: &Run,
    reporter: &mut Reporter,
    mut log: Option<&mut HistogramLog>,
) -> Result<Reason> {
    if let Some(log) = &mut log {
        log.begin();
    }
    let mut interval = || -> Result<()> {
        let tally = run.take()?;
        if let Some(log) = &mut log {
            log.write(&tally)?;
        }
        reporter.interval(tally)
    };
    loop {
        match session.wait(None)? {
            Event::Tick => {
                interval()?;
                if run.is_over() {
                    return Ok(Reason::Duration);
                }
            }
            Event::End(Reason::Duration) => {
                interval()?;
                return Ok(Reason::Duration);
            }
            Event::End(reason) => return Ok(reason),
            _ => {}
        }
    }
}

/// The peer may end a little earlier, because it began a little earlier.
fn judge(plan: &Plan, outcome: &Outcome, end: Instant) -> Result<()> {
    if let Some(problem) = &outcome.problem {
        bail!("{problem}");
    }
    let early = outcome.closed_before(end, plan.duration);
    if early == plan.connections {
        bail!("the peer closed all connections before the time was over");
    }
    if early > 0 {
        let all = plan.connections;
        say(format_args!(
            "the peer closed {early} of {all} connections before the time was over"
        ));
    }
    Ok(())
}

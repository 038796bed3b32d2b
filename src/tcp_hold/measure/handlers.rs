//! What is done with a connection, until it is closed or the time is over.

use std::convert::Infallible;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::counters::Cpu;
use super::message::Clock;
use super::plan::{Handler, Plan};
use super::stream::{Receiver, Sender, Shared, Stop};

/// Never without a reason to stop.
type Served = Result<Infallible, Stop>;

/// Serves a connection; `first` is when its first message is due, where they are sent by the clock. The CPU
/// time is that of other threads which this has taken.
pub fn serve(plan: &Plan, shared: Shared<'_>, first: Instant) -> (Stop, Cpu) {
    let mut others = Cpu::default();
    let served = match plan.handler {
        Handler::Ping => ping(plan, shared, first),
        Handler::Echo => echo(plan, shared),
        Handler::Push => push(plan, shared, first, &mut others),
        Handler::Pull => pull(shared),
    };
    let Err(stop) = served;
    (stop, others)
}

/// Random bytes, so that nothing on the way can make less of them.
fn padding(plan: &Plan) -> Result<Vec<u8>> {
    let seed: [u8; 8] = netsetup::random::bytes()?;
    let mut state = u64::from_ne_bytes(seed) | 1;
    let next = || {
        // xorshift (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    Ok(std::iter::repeat_with(next).take(plan.size).collect())
}

fn ping(plan: &Plan, shared: Shared<'_>, first: Instant) -> Served {
    let clock = Clock::new();
    let mut sender = Sender::new(shared, padding(plan)?);
    let mut receiver = Receiver::new(shared);
    let mut due = first;
    loop {
        if plan.every.is_some() {
            receiver.tell()?;
            shared.sleep_until(due)?;
        }
        let sent = Instant::now();
        sender.send(clock.stamp(sent))?;
        receiver.message()?;
        let came = Instant::now();
        receiver.done()?;
        match plan.every {
            None => shared.tally().record(came - sent),
            Some(every) => {
                // From when it was due, not from when the answer before it let it go: else an answer that
                // takes long would hide how long all those behind it have waited.
                shared.tally().record_paced(came - due, came - sent);
                due += every;
            }
        }
        if !plan.pause.is_zero() {
            receiver.tell()?;
            shared.sleep_until(came + plan.pause)?;
        }
    }
}

/// What is recorded is the time from one answer to the next, as the original does.
fn echo(plan: &Plan, shared: Shared<'_>) -> Served {
    let mut sender = Sender::new(shared, padding(plan)?);
    let mut receiver = Receiver::new(shared);
    loop {
        let began = Instant::now();
        let message = receiver.message()?;
        if !plan.pause.is_zero() {
            shared.sleep_until(Instant::now() + plan.pause)?;
        }
        // Now, so that the answer carries the acknowledgement.
        receiver.done()?;
        sender.send(message.stamp)?;
        shared.tally().record(began.elapsed());
    }
}

fn push(plan: &Plan, shared: Shared<'_>, first: Instant, reader: &mut Cpu) -> Served {
    let clock = Clock::new();
    thread::scope(|scope| {
        let reading = thread::Builder::new().name("push-reader".into());
        let reading = reading.spawn_scoped(scope, || {
            let served = take(shared, |stamp, now| clock.age(stamp, now));
            (served, Cpu::of_this_thread())
        });
        let reading = reading.context("start a thread")?;
        let written = write(plan, shared, first, &clock);
        // It ends for the same reason; where it does not, that is the one to name.
        let (read, cpu) = reading
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        *reader = cpu?;
        match read {
            Err(stop @ Stop::Failed(_)) => Err(stop),
            _ => written,
        }
    })
}

fn write(plan: &Plan, shared: Shared<'_>, first: Instant, clock: &Clock) -> Served {
    let mut sender = Sender::new(shared, padding(plan)?);
    let mut due = first;
    loop {
        let stamped = match plan.every {
            None => Instant::now(),
            Some(every) => {
                shared.sleep_until(due)?;
                let stamped = due;
                due += every;
                stamped
            }
        };
        sender.send(clock.stamp(stamped))?;
        if plan.every.is_none() && !plan.pause.is_zero() {
            shared.sleep_until(Instant::now() + plan.pause)?;
        }
    }
}

fn pull(shared: Shared<'_>) -> Served {
    take(shared, |_, _| Duration::ZERO)
}

fn take(shared: Shared<'_>, latency: impl Fn(u64, Instant) -> Duration) -> Served {
    let mut receiver = Receiver::new(shared);
    loop {
        let message = receiver.message()?;
        let now = Instant::now();
        receiver.done()?;
        shared.tally().record(latency(message.stamp, now));
    }
}

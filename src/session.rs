//! What ends a run, and what happens during it: one poll loop, no threads.
//!
//! [`Session::start`] is the first thing in `main`: from then on SIGINT, SIGTERM, SIGHUP and
//! SIGUSR1 interrupt nothing. During start-up [`Session::check`] between the steps notices them;
//! afterwards [`Session::wait`] does. That lasts to the end of the process, so that a second
//! Ctrl-C cannot cut clean-up short. Programs run by `std::process::Command` are not touched by
//! it: in them, these signals do what they do by default.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::failure::{Failure, say};
use crate::netlink::{LinkChange, LinkEvent, LinkWatch};

mod signals;
mod stdin;

pub use signals::Waker;
use signals::{Arrival, Signals, ignored};
use stdin::{Line, Stdin};

/// How often a job in the background looks whether it is in the foreground again, and may read
/// its terminal. The shell tells a running job nothing.
const FOREGROUND_CHECK: Duration = Duration::from_secs(1);

/// How a run goes on and when it ends by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// End after this long, counted from the first [`Session::wait`].
    pub duration: Option<Duration>,
    /// Yield [`Event::Tick`] this often.
    pub interval: Option<Duration>,
    /// Yield [`Event::Second`] every second: for what has to be tended while it runs.
    pub seconds: bool,
    /// End unless confirmed within this time, counted from the first [`Session::wait`].
    pub confirm: Option<Duration>,
    /// SIGHUP asks for a reload instead of the end.
    pub reload: bool,
    /// Stdin is a terminal that somebody else reads key by key: yield [`Event::Keys`] and
    /// [`Event::Resized`], and leave Enter alone. Not together with `confirm`, which asks for it.
    pub keys: bool,
}

/// What [`Session::wait`] waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The interval has passed. Ticks that were missed are skipped.
    Tick,
    /// A second has passed. Comes before a tick of the same moment; seconds missed are skipped.
    Second,
    /// A link changed.
    Link(LinkEvent),
    /// SIGHUP came and [`Options::reload`] is set.
    Reload,
    /// There is something to read on stdin, be it its end, and [`Options::keys`] is set.
    Keys,
    /// The terminal has another size, and [`Options::keys`] is set.
    Resized,
    /// Another thread called: see [`Session::waker`].
    Woken,
    /// A confirmation is awaited: show this line to the user. Comes first, and once more if
    /// stdin ends before the answer.
    Question(String),
    /// The run was confirmed; from now on Enter ends it.
    Confirmed,
    /// The run is to end.
    End(Reason),
}

/// Why a run is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Enter was pressed, or a line came on stdin.
    Enter,
    /// This signal came.
    Signal(&'static str),
    /// [`Options::duration`] is over.
    Duration,
    /// Nobody reads stdout any more.
    OutputClosed,
    /// The confirmation did not come within this time.
    NotConfirmed(Duration),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Enter => f.write_str("Enter"),
            Reason::Signal(name) => f.write_str(name),
            Reason::Duration => f.write_str("the duration is over"),
            Reason::OutputClosed => f.write_str("the output was closed"),
            Reason::NotConfirmed(window) => {
                write!(f, "not confirmed within {} s", window.as_secs_f64())
            }
        }
    }
}

/// The error that takes a run from anywhere in start-up to its end as asked for: no failure. See
/// [`settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended(pub Reason);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended: {}", self.0)
    }
}

impl std::error::Error for Ended {}

/// Turns the ends that are no failures, [`Ended`] and a closed stdout, into success.
pub fn settle(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.chain().any(|cause| cause.is::<Ended>()) => Ok(()),
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

/// Whether an error comes from writing to a pipe that nobody reads. Print with `writeln!` and
/// hand the error up: `println!` panics instead.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let kind = cause
            .downcast_ref::<io::Error>()
            .map(io::Error::kind)
            // Hides its io::Error from the chain.
            .or_else(|| cause.downcast_ref::<serde_json::Error>()?.io_error_kind());
        kind == Some(io::ErrorKind::BrokenPipe)
            || cause.downcast_ref::<Errno>() == Some(&Errno::EPIPE)
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confirmation {
    /// None is needed, or it was given.
    Settled,
    /// To be asked for at the first wait.
    Due(Duration),
    Awaited {
        window: Duration,
        /// `None`: farther away than the clock reaches.
        until: Option<Instant>,
    },
}

/// The end of a run, and its events. One per process, made and used by its main thread.
#[derive(Debug)]
pub struct Session {
    signals: Signals,
    stdin: Stdin,
    options: Options,
    reload_asked: bool,
    confirmation: Confirmation,
    running: bool,
    end: Option<Instant>,
    tick: Beat,
    second: Beat,
}

impl Session {
    /// Takes over the signals.
    pub fn start(options: Options) -> Result<Self> {
        for (name, span) in [
            ("interval", options.interval),
            ("confirm", options.confirm),
            ("duration", options.duration),
        ] {
            if span.is_some_and(|span| span.is_zero()) {
                return Err(Failure::Usage(format!("--{name} must be more than 0")).into());
            }
        }
        let mut watched = vec![Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1];
        // Under nohup(1) the hang-up of the terminal is to be survived.
        if options.reload || !ignored(Signal::SIGHUP) {
            watched.push(Signal::SIGHUP);
        }
        if options.keys {
            watched.push(Signal::SIGWINCH);
        }
        let confirmation = match options.confirm {
            Some(window) => Confirmation::Due(window),
            None => Confirmation::Settled,
        };
        Ok(Session {
            signals: Signals::take_over(&watched)?,
            stdin: Stdin::new(),
            options,
            reload_asked: false,
            confirmation,
            running: false,
            end: None,
            tick: Beat::default(),
            second: Beat::default(),
        })
    }

    /// For other threads that have something for this one.
    pub fn waker(&self) -> Waker {
        self.signals.waker()
    }

    /// Between two steps of start-up: [`Ended`] if a signal asked for the end meanwhile.
    pub fn check(&mut self) -> Result<()> {
        while let Some(arrival) = self.signals.next()? {
            let Arrival::Signal(signal) = arrival else {
                continue;
            };
            match signal {
                // A confirmation counts only after the question, and a size is asked for anyway.
                Signal::SIGUSR1 | Signal::SIGWINCH => {}
                Signal::SIGHUP if self.options.reload => self.reload_asked = true,
                signal => return Err(Ended(Reason::Signal(signal.as_str())).into()),
            }
        }
        Ok(())
    }

    /// The error to report when a step of start-up failed: if a signal came, [`Ended`] in its
    /// place. Ctrl-C reaches the commands that a step runs as well, and makes them fail.
    pub fn cause(&mut self, error: anyhow::Error) -> anyhow::Error {
        match self.check() {
            Err(ended) => ended,
            Ok(()) => error,
        }
    }

    /// Waits until the run ends, by itself or because one of these interfaces is gone. What happens
    /// meanwhile is said on stderr; seconds, ticks and reloads are `tend`'s.
    pub fn attend(
        &mut self,
        links: &mut LinkWatch,
        mut tend: impl FnMut(&Event) -> Result<()>,
    ) -> Result<Reason> {
        self.attend_all(links, |event| {
            let Event::Link(link) = event else {
                return tend(event);
            };
            match link.change {
                LinkChange::Deleted | LinkChange::Moved | LinkChange::Renamed { .. } => {
                    bail!("{link}; start again with the interfaces that are there now")
                }
                LinkChange::Up | LinkChange::Down | LinkChange::New => {
                    say(format_args!("{link}"));
                    Ok(())
                }
            }
        })
    }

    /// As [`Session::attend`], but what happens to interfaces is `tend`'s too.
    pub fn attend_all(
        &mut self,
        links: &mut LinkWatch,
        mut tend: impl FnMut(&Event) -> Result<()>,
    ) -> Result<Reason> {
        loop {
            let event = self.wait(Some(links))?;
            match &event {
                Event::Question(question) => say(format_args!("{question}")),
                Event::Confirmed => say(format_args!("confirmed")),
                Event::End(Reason::NotConfirmed(window)) => bail!(
                    "not confirmed within {} s: everything is undone",
                    window.as_secs()
                ),
                Event::End(reason) => return Ok(*reason),
                Event::Second
                | Event::Tick
                | Event::Reload
                | Event::Keys
                | Event::Resized
                | Event::Woken
                | Event::Link(_) => tend(&event)?,
            }
        }
    }

    /// Waits for the next event. The first call starts the clocks of duration, ticks and
    /// confirmation.
    pub fn wait(&mut self, mut watch: Option<&mut LinkWatch>) -> Result<Event> {
        if !self.running {
            self.run_from(Instant::now());
        }
        // The first round only looks: what is there already goes before sleep.
        let mut patience = Some(Duration::ZERO);
        loop {
            let ready = self.poll(watch.as_deref(), patience)?;
            if let Some(event) = self.signal_event()? {
                return Ok(event);
            }
            if let Confirmation::Due(window) = self.confirmation {
                return Ok(self.ask(window, Instant::now()));
            }
            if self.options.keys && ready.stdin {
                return Ok(Event::Keys);
            }
            if !self.options.keys
                && let Some(event) = self.stdin_event(ready.stdin)
            {
                return Ok(event);
            }
            if ready.output_closed {
                return Ok(Event::End(Reason::OutputClosed));
            }
            let now = Instant::now();
            if let Some(reason) = self.over(now) {
                return Ok(Event::End(reason));
            }
            if let Some(watch) = watch.as_deref_mut()
                && let Some(event) = watch.next()?
            {
                return Ok(Event::Link(event));
            }
            if self.second.struck(now) {
                return Ok(Event::Second);
            }
            if self.tick.struck(now) {
                return Ok(Event::Tick);
            }
            patience = self.patience(now);
        }
    }

    fn run_from(&mut self, now: Instant) {
        self.running = true;
        // A span that the clock cannot reach never ends.
        self.end = self.options.duration.and_then(|span| now.checked_add(span));
        self.tick = Beat::from(now, self.options.interval);
        let second = self.options.seconds.then_some(Duration::from_secs(1));
        self.second = Beat::from(now, second);
    }

    fn signal_event(&mut self) -> Result<Option<Event>> {
        while let Some(arrival) = self.signals.next()? {
            let Arrival::Signal(signal) = arrival else {
                return Ok(Some(Event::Woken));
            };
            match signal {
                Signal::SIGWINCH => return Ok(Some(Event::Resized)),
                Signal::SIGUSR1 => {
                    if matches!(self.confirmation, Confirmation::Awaited { .. }) {
                        self.confirmation = Confirmation::Settled;
                        return Ok(Some(Event::Confirmed));
                    }
                }
                Signal::SIGHUP if self.options.reload => self.reload_asked = true,
                signal => return Ok(Some(Event::End(Reason::Signal(signal.as_str())))),
            }
        }
        Ok(std::mem::take(&mut self.reload_asked).then_some(Event::Reload))
    }

    /// Puts the question. What was typed on a terminal before it is no answer to it.
    fn ask(&mut self, window: Duration, now: Instant) -> Event {
        self.stdin.forget_typed();
        self.confirmation = Confirmation::Awaited {
            window,
            until: now.checked_add(window),
        };
        self.stdin.look();
        self.question(window)
    }

    fn question(&self, left: Duration) -> Event {
        let pid = std::process::id();
        let left = left.as_secs_f64();
        let how = if self.stdin.is_open() {
            format!("Enter is pressed here (or: kill -USR1 {pid})")
        } else {
            format!("confirmed by: kill -USR1 {pid} (stdin is closed)")
        };
        Event::Question(format!("everything is undone in {left:.0} s unless {how}"))
    }

    fn stdin_event(&mut self, readable: bool) -> Option<Event> {
        let line = self.stdin.line(readable);
        match (line, self.confirmation) {
            (Line::None, _) | (Line::Closed, Confirmation::Settled | Confirmation::Due(_)) => None,
            (Line::Closed, Confirmation::Awaited { window, until }) => {
                let now = Instant::now();
                Some(
                    self.question(
                        until.map_or(window, |until| until.saturating_duration_since(now)),
                    ),
                )
            }
            (Line::Read, Confirmation::Awaited { .. }) => {
                self.confirmation = Confirmation::Settled;
                Some(Event::Confirmed)
            }
            (Line::Read, _) => Some(Event::End(Reason::Enter)),
        }
    }

    fn over(&self, now: Instant) -> Option<Reason> {
        if let Confirmation::Awaited { window, until } = self.confirmation
            && until.is_some_and(|until| until <= now)
        {
            return Some(Reason::NotConfirmed(window));
        }
        let over = self.end.is_some_and(|end| end <= now);
        over.then_some(Reason::Duration)
    }

    /// How long nothing can happen without a descriptor becoming ready; `None` is for ever.
    fn patience(&self, now: Instant) -> Option<Duration> {
        let confirm = match self.confirmation {
            Confirmation::Awaited { until, .. } => until,
            Confirmation::Settled | Confirmation::Due(_) => None,
        };
        let next = [self.end, self.tick.next, self.second.next, confirm]
            .into_iter()
            .flatten()
            .min();
        let next = next.map(|next| next.saturating_duration_since(now));
        if self.stdin.in_background() {
            return Some(next.map_or(FOREGROUND_CHECK, |next| next.min(FOREGROUND_CHECK)));
        }
        next
    }

    fn poll(&self, watch: Option<&LinkWatch>, patience: Option<Duration>) -> Result<Ready> {
        let stdin = io::stdin();
        let stdout = io::stdout();
        // Nothing is asked of stdout: that nobody reads it is reported all the same.
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdout.as_fd(), PollFlags::empty()),
        ];
        fds.extend(watch.map(|watch| PollFd::new(watch.as_fd(), PollFlags::POLLIN)));
        let reads_stdin = self.stdin.is_open() && !self.stdin.in_background();
        if reads_stdin {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout(patience)) {
            // A stop and a continue, for example: look again.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for events"),
        }
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
        Ok(Ready {
            stdin: reads_stdin && fds.last().and_then(PollFd::any) == Some(true),
            output_closed: fds[1].revents().is_some_and(|set| set.intersects(gone)),
        })
    }
}

struct Ready {
    stdin: bool,
    output_closed: bool,
}

/// In whole milliseconds, rounded up: to wake too early would be to spin until the time comes.
fn timeout(patience: Option<Duration>) -> PollTimeout {
    let Some(patience) = patience else {
        return PollTimeout::NONE;
    };
    let milliseconds = patience.as_nanos().div_ceil(1_000_000);
    let longest = i32::MAX.unsigned_abs();
    let milliseconds = u32::try_from(milliseconds).unwrap_or(longest).min(longest);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}

/// A time that comes again and again.
#[derive(Debug, Default)]
struct Beat {
    every: Duration,
    /// `None`: never, or farther away than the clock reaches.
    next: Option<Instant>,
}

impl Beat {
    fn from(now: Instant, every: Option<Duration>) -> Beat {
        let next = every.and_then(|every| now.checked_add(every));
        let every = every.unwrap_or_default();
        Beat { every, next }
    }

    /// Whether it has come; the next one then lies ahead.
    fn struck(&mut self, now: Instant) -> bool {
        let Some(due) = self.next.filter(|due| *due <= now) else {
            return false;
        };
        self.next = next_tick(due, self.every, now);
        true
    }
}

/// The first tick after `now` of those that are `interval` apart.
fn next_tick(tick: Instant, interval: Duration, now: Instant) -> Option<Instant> {
    let interval_nanos = interval.as_nanos().max(1);
    let late = now.saturating_duration_since(tick).as_nanos();
    let wait = interval_nanos - late % interval_nanos;
    now.checked_add(Duration::from_nanos(u64::try_from(wait).ok()?))
}

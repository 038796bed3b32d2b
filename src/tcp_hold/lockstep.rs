//! `tcp_hold lockstep`: what leaves an interface is held, and let go an epoch later. `tcp_hold plug` does the
//! same in single steps.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::plug::Plug;
use crate::Failure;
use crate::failure::say;
use crate::netlink::{LinkWatch, Netlink};
use crate::port::{self, Port};
use crate::privilege::{self, Cap, Scope};
use crate::rate;
use crate::session::{self, Event, Session};

/// Who holds the lock of an interface: see [`port::claim`].
const NAME: &str = "tcp_hold lockstep";

/// Hold what leaves an interface, and let it go in epochs, until Enter
#[derive(Args, Clone, Debug)]
pub struct Lockstep {
    /// How long an epoch is, in milliseconds
    #[arg(value_name = "INTERVAL_MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub interval: u32,

    /// The interface
    #[arg(long, value_name = "IF", default_value = "inner0")]
    pub iface: String,

    /// End by itself after this time
    #[arg(long, value_name = "TIME", value_parser = rate::seconds)]
    pub duration: Option<Duration>,

    /// Undo everything unless confirmed (Enter or SIGUSR1) within so many seconds
    #[arg(long, value_name = "SECS", value_parser = rate::seconds)]
    pub confirm: Option<Duration>,
}

impl Lockstep {
    /// What ends the session; an epoch is its interval.
    pub fn session(&self) -> session::Options {
        session::Options {
            interval: Some(Duration::from_millis(self.interval.into())),
            duration: self.duration,
            confirm: self.confirm,
            ..session::Options::default()
        }
    }

    /// Puts the plug in, begins an epoch after the other, and lets everything go at the end.
    pub fn run(&self, session: &mut Session) -> Result<()> {
        privilege::require(&[Cap::NetAdmin])?;
        let mut netlink = Netlink::open()?;
        let port = Port::find(&mut netlink, &self.iface)?;
        let _lock = port::claim(NAME, [&port])?;
        port::warn([&port])?;
        let mut links = LinkWatch::over(&Vec::from_iter(port.link(&mut netlink)?))?;
        session.check()?;
        let mut plug = Plug::put_in(&self.iface)?;
        privilege::keep_only(&[Cap::NetAdmin], Scope::Process)?;
        let watched = writeln!(io::stdout(), "Qdisc plug has been set up")
            .map_err(anyhow::Error::from)
            .and_then(|()| {
                session.attend(&mut links, |event| match event {
                    Event::Tick => plug.next_epoch(),
                    _ => Ok(()),
                })
            });
        // The reader of stdout may be gone; the plug has to go all the same.
        let said = writeln!(io::stdout(), "Exiting...");
        let removed = take_out(plug);
        watched.map(drop).and(removed).and(Ok(said?))
    }
}

fn take_out(plug: Plug) -> Result<()> {
    let dropped = plug.remove()?;
    if dropped > 0 {
        say(format_args!("{dropped} packets found no room in the plug"));
    }
    Ok(())
}

/// Hold what leaves an interface, and let it go step by step
#[derive(Args, Clone, Debug)]
pub struct Step {
    /// What to do
    #[command(subcommand)]
    pub what: What,

    /// The interface
    #[arg(long, value_name = "IF", default_value = "inner0", global = true)]
    pub iface: String,
}

/// The single steps.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum What {
    /// Hold from now on
    Up,
    /// Begin the next epoch, and let the one before go
    Next,
    /// Let everything go, and hold no more
    Down,
}

impl Step {
    /// One step. What is held stays held when this has ended.
    pub fn run(&self) -> Result<()> {
        privilege::require(&[Cap::NetAdmin])?;
        let port = Port::find(&mut Netlink::open()?, &self.iface)?;
        // Steps in the middle of a lockstep would let go what it holds.
        let _lock = port::claim(NAME, [&port])?;
        match self.what {
            What::Up => {
                if Plug::find(&self.iface).is_ok() {
                    let text = format!("{} has a plug already", self.iface);
                    return Err(Failure::Conflict(text).into());
                }
                Plug::put_in(&self.iface).map(drop)
            }
            What::Next => Plug::find(&self.iface)?.next_epoch(),
            What::Down => take_out(Plug::find(&self.iface)?),
        }
    }
}

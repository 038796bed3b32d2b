//! `tunnel_monitor top`: who talks to whom through the tunnels, live on a terminal.
//!
//! Figures come from a monitor that runs elsewhere, by its `/events`, or from samples that this process
//! takes. They, keys and the clock change a [`model`], which knows of no terminal; a [`view`] draws it.
//! What changes it arrives by [`Session`], so there is one loop here as in every tool, and between events
//! it sleeps.

mod client;
mod events;
#[cfg(test)]
mod examples;
mod figures;
mod filter;
mod keys;
mod model;
mod picture;
mod screen;
mod view;

use std::io;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

pub use client::MonitorUrl;
use client::{Client, News};
use events::Events;
use keys::Keys;
use model::{Model, Wish};
use screen::Screen;
use view::Look;

use super::arguments::{Arguments, Monitoring, WINDOW};
use super::keeper::Keeper;
use super::monitor::Monitor;
use super::sample::Sample;
use super::sampler::Sampler;
use crate::Failure;
use crate::netlink::{LinkWatch, Netlink};
use crate::options::Attaching;
use crate::port::Port;
use crate::preflight;
use crate::privilege::{self, Scope};
use crate::rate;
use crate::session::{self, Ended, Event, Reason, Session};

/// Where a monitor is asked unless said otherwise: here, at the original's port.
const HERE: &str = "http://127.0.0.1:8080";

/// Shows host pairs, virtual networks and inner pairs with their rates on this terminal: of a monitor that
/// runs (--connect), or of interfaces (--iface)
#[derive(Args, Clone, Debug)]
pub struct TopArguments {
    /// A running monitor's HTTP address [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", conflicts_with = "iface")]
    pub connect: Option<MonitorUrl>,

    /// What is monitored, where it is not another process that does.
    #[command(flatten)]
    pub monitoring: Monitoring,

    /// End by itself after this time
    #[arg(long, value_name = "TIME", value_parser = rate::seconds)]
    pub duration: Option<Duration>,
}

impl TopArguments {
    /// What ends the session, and what wakes it.
    pub fn session(&self) -> session::Options {
        session::Options {
            duration: self.duration,
            seconds: true,
            keys: true,
            ..session::Options::default()
        }
    }

    /// Refuses what cannot be meant, before anything is changed.
    fn check(&self) -> Result<(), Failure> {
        self.monitoring.check(WINDOW)
    }

    /// Takes the samples of this process, from now on.
    fn sampler(&self, interfaces: Vec<String>) -> Sampler {
        let first = Sample::empty(interfaces, self.monitoring.max_entries);
        Sampler::new(first, WINDOW, self.monitoring.forget_after)
    }

    /// Whether the figures are those of another process.
    fn connects(&self) -> bool {
        self.monitoring.iface.is_empty()
    }
}

/// Shows what there is until the user has seen enough. The session is to be started with
/// [`TopArguments::session`].
pub fn run(arguments: &TopArguments, session: &mut Session) -> Result<()> {
    if arguments.connects() {
        listen(arguments, session)
    } else {
        watch(arguments, session)
    }
}

/// What a terminal of this width and height shows after these events, for fuzzing. The user presses one key behind
/// each event, and the rest when there are no more.
#[doc(hidden)]
pub fn drawn(events: &[u8], keys: &[u8], (width, height): (u16, u16)) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    let mut model = Model::new(HERE.into());
    let mut events = Events::new(events);
    let mut keys = Keys::default().take(keys).into_iter();
    loop {
        // Where the stream is not as it should be, nobody reads on.
        let update = events.next().ok().flatten();
        let key = keys.next();
        if update.is_none() && key.is_none() {
            return buffer;
        }
        if let Some(update) = update {
            model.update(update);
        } else {
            events = Events::new(&[][..]);
        }
        if let Some(key) = key {
            model.key(key);
        }
        model.set_room(view::room(&model, area));
        buffer.reset();
        view::render(&model, Look::of(|_| None), area, &mut buffer);
    }
}

/// What a running monitor says.
fn listen(arguments: &TopArguments, session: &mut Session) -> Result<()> {
    let url = match &arguments.connect {
        Some(url) => url.clone(),
        None => HERE.parse().map_err(anyhow::Error::msg)?,
    };
    // Nothing here needs any, and there are strangers to be listened to.
    privilege::drop_all(Scope::Process)?;
    let mut top = Top::open(url.to_string())?;
    session.check()?;
    let client = Client::start(&url, session.waker())?;
    loop {
        match session.wait(None)? {
            Event::End(_) => return Ok(()),
            Event::Woken => {
                while let Some(news) = client.next()? {
                    top.hear(news);
                }
                top.draw()?;
            }
            event => top.tend(&event)?,
        }
    }
}

/// What passes interfaces here.
fn watch(arguments: &TopArguments, session: &mut Session) -> Result<()> {
    arguments.check()?;
    let monitoring = &arguments.monitoring;
    libbpf_rs::set_print(None);
    privilege::require(Arguments::NEEDED_ON_INTERFACES)?;
    preflight::kernel_floor()?;
    let mut keeper = Keeper::new(&monitoring.iface)?;
    let mut object = MaybeUninit::uninit();
    let mut monitor = Monitor::load(&monitoring.setup(), &mut object)?;
    session.check()?;
    let mut links = LinkWatch::all(&Netlink::open()?.links()?)?;
    let ports: Vec<Port> = keeper.ports().cloned().collect();
    let method = monitor.attach(&Attaching::default(), &ports)?;
    let mut sampler = arguments.sampler(keeper.names());
    privilege::drop_after_attach(method, Scope::Process)?;
    let mut top = Top::open(monitoring.iface.join(" "))?;
    let watched = session.attend_all(&mut links, |event| {
        let changed = match event {
            Event::Second => {
                let sample = sampler.take(&mut monitor)?;
                top.show(&sample)?;
                keeper.tend(&mut monitor)?
            }
            Event::Link(link) => keeper.follow(link, &mut monitor)?,
            event => {
                top.tend(event)?;
                false
            }
        };
        if changed {
            sampler.set_interfaces(keeper.names());
        }
        Ok(())
    });
    monitor.detach();
    watched.map(drop)
}

/// The terminal and what is on it. Dropped, it gives the terminal back.
struct Top {
    screen: Screen,
    model: Model,
    /// When the last figures came.
    heard: Instant,
}

impl Top {
    /// Takes the terminal over; `source` says where the figures come from.
    fn open(source: String) -> Result<Top> {
        let mut top = Top {
            screen: Screen::take()?,
            model: Model::new(source),
            heard: Instant::now(),
        };
        top.draw()?;
        Ok(top)
    }

    /// Shows a sample of this process.
    fn show(&mut self, sample: &Sample) -> Result<()> {
        self.heard = Instant::now();
        self.model.sample(sample);
        self.draw()
    }

    /// What the session's event means for the screen. That the user has seen enough is [`Ended`].
    fn tend(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Keys => {
                let Some(keys) = self.screen.keys()? else {
                    return Err(Ended(Reason::OutputClosed).into());
                };
                for key in keys {
                    self.key(key)?;
                }
                self.draw()
            }
            // What an emulator made of the old picture in the new size is of no use.
            Event::Resized => shown(self.screen.draw_anew(&mut self.model)),
            Event::Second => self.draw(),
            _ => Ok(()),
        }
    }

    fn key(&mut self, key: keys::Key) -> Result<()> {
        match self.model.key(key) {
            Wish::Nothing => Ok(()),
            Wish::Quit => Err(Ended(Reason::Enter).into()),
            Wish::Suspend => self.screen.suspend(),
            Wish::Redraw => shown(self.screen.draw_anew(&mut self.model)),
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Update(update) => {
                self.heard = Instant::now();
                self.model.update(*update);
            }
            News::Lost(reason) => self.model.lost(reason),
        }
    }

    fn draw(&mut self) -> Result<()> {
        self.model.age = self.heard.elapsed();
        shown(self.screen.draw(&mut self.model))
    }
}

/// A terminal that is gone is an end like any other.
fn shown(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => {
            Err(Ended(Reason::OutputClosed).into())
        }
        result => result.context("draw on the terminal"),
    }
}

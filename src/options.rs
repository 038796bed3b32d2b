//! The options that every tool has.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::cidr::Cidr;
use crate::failure::{Failure, say};
use crate::metrics::Address;
use crate::rate;
use crate::session;
use crate::tc::{Attacher, Method, Other, Place};

/// Options common to all tools.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Write one JSON object a line instead of text (schema: docs/)
    #[arg(long)]
    pub json: bool,

    /// Report this often, e.g. 2s or 500ms [default: only at the end]
    #[arg(long, value_name = "TIME", value_parser = rate::seconds)]
    pub interval: Option<Duration>,

    /// End by itself after this time
    #[arg(long, value_name = "TIME", value_parser = rate::seconds)]
    pub duration: Option<Duration>,

    /// Count what would be dropped, drop nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Undo everything unless confirmed (Enter or SIGUSR1) within so many seconds
    #[arg(long, value_name = "SECS", value_parser = rate::seconds)]
    pub confirm: Option<Duration>,

    /// Never limit traffic from or to these networks
    #[arg(long, value_name = "CIDR", num_args = 1..)]
    pub exempt: Vec<Cidr>,

    /// How to attach programs
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Attach::Auto)]
    pub attach: Attach,

    /// Stand before this program at the interfaces, by its name or number [default: before all others]
    #[arg(long, value_name = "PROGRAM", conflicts_with = "after")]
    pub before: Option<Other>,

    /// Stand behind this program at the interfaces; where it answers for good, ours is not asked
    #[arg(long, value_name = "PROGRAM")]
    pub after: Option<Other>,

    /// Serve metrics to Prometheus (OpenMetrics) at this address, e.g. 127.0.0.1:9101 or [::1]:9101;
    /// without a host it is 127.0.0.1 [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<Address>,

    /// Say on stderr what is done
    #[arg(short, long)]
    pub verbose: bool,
}

/// The ways to attach, as an option.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// TCX where the kernel has it (6.6), clsact elsewhere
    Auto,
    /// TCX links
    Tcx,
    /// Filters on a clsact qdisc
    Clsact,
}

/// How the user wants programs attached.
#[derive(Clone, Debug, Default)]
pub struct Attaching {
    /// None: the best that the kernel can.
    pub method: Option<Method>,
    /// Among the programs of others.
    pub place: Place,
}

impl Attaching {
    /// Attaches that way; `program` is any loaded tc program.
    pub fn attacher(&self, program: BorrowedFd<'_>) -> Result<Attacher> {
        let method = self.method.unwrap_or_else(|| Method::best(program));
        if method == Method::Clsact && self.place != Place::First {
            let text = "--before and --after need TCX links (Linux 6.6): clsact filters have no such order";
            return Err(Failure::Kernel(text.into()).into());
        }
        Ok(Attacher::new(method).at(self.place.clone()))
    }

    /// Once it has attached everywhere: somewhere the neighbour has to be.
    pub fn ensure_met(&self, attacher: &Attacher) -> Result<()> {
        match self.place.neighbour() {
            Some(other) if !attacher.has_met() => Err(Failure::Usage(format!(
                "there is no program {other} at these interfaces: `bpftool net` lists those that are"
            ))
            .into()),
            _ => Ok(()),
        }
    }
}

impl Attach {
    /// The way to attach; none: the best that the kernel can.
    pub fn method(self) -> Option<Method> {
        match self {
            Attach::Auto => None,
            Attach::Tcx => Some(Method::Tcx),
            Attach::Clsact => Some(Method::Clsact),
        }
    }
}

impl Common {
    /// What ends the session, and how often it wakes.
    pub fn session(&self) -> session::Options {
        session::Options {
            duration: self.duration,
            interval: self.interval,
            confirm: self.confirm,
            reload: false,
            keys: false,
            // Metrics are published each second.
            seconds: self.metrics.is_some(),
        }
    }

    /// How to attach.
    pub fn attaching(&self) -> Attaching {
        let before = self.before.clone().map(Place::Before);
        let after = self.after.clone().map(Place::After);
        Attaching {
            method: self.attach.method(),
            place: before.or(after).unwrap_or_default(),
        }
    }

    /// Without `-v`, keeps what libbpf says of an error off stderr: it says dozens of lines.
    pub fn quieten_libbpf(&self) {
        if !self.verbose {
            libbpf_rs::set_print(None);
        }
    }

    /// A line on stderr where `-v` was given.
    pub fn say(&self, line: std::fmt::Arguments<'_>) {
        if self.verbose {
            say(format_args!("{line}"));
        }
    }
}

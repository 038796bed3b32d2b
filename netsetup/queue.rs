//! The `tc` command of iproute2: a queue that makes a line slow.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::child;
use crate::failure::Failure;

/// How fast a line is, and what it takes at once and keeps, as tc writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// As in `5500kbit`.
    pub rate: &'static str,
    /// As in `40kb`: what passes at once after a pause.
    pub burst: &'static str,
    /// As in `300ms`: what would wait longer is dropped.
    pub latency: &'static str,
}

/// Where the queue is: the link, and its namespace.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) link: &'a str,
    pub(crate) namespace: Option<&'a File>,
    pub(crate) lock: BorrowedFd<'a>,
}

/// Limits what leaves by a link, by a token bucket filter (tbf). It goes with the link.
pub(crate) fn limit(limit: &Limit, place: Place<'_>) -> Result<()> {
    let Limit {
        rate,
        burst,
        latency,
    } = limit;
    let link = place.link;
    tc(
        &format!("qdisc add dev {link} root tbf rate {rate} burst {burst} latency {latency}"),
        place,
    )
}

/// Takes the limit away.
pub(crate) fn unlimit(place: Place<'_>) -> Result<()> {
    tc(&format!("qdisc delete dev {} root", place.link), place)
}

fn tc(words: &str, place: Place<'_>) -> Result<()> {
    let mut command = Command::new("tc");
    command.args(words.split(' ')).env("LC_ALL", "C");
    child::tie_to_this_thread(&mut command);
    child::hand_over(&mut command, place.lock);
    if let Some(namespace) = place.namespace {
        child::put_into(&mut command, namespace)?;
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(anyhow!("the command `tc` is not in PATH; install iproute2"));
        }
        Err(error) => return Err(error).with_context(|| format!("run tc {words}")),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.split_whitespace().collect();
    let said = said.join(" ");
    if said.contains("qdisc kind is unknown") {
        let text = format!("this kernel has no token bucket filter (CONFIG_NET_SCH_TBF): {said}");
        return Err(Failure::Kernel(text).into());
    }
    Err(anyhow!("tc {words}: {said}"))
}

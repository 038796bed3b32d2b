//! Output in epochs: a plug at the root of a link holds what would leave, and lets it go an epoch at a time.
//!
//! This is buffer-and-release, the other half of holding acknowledgements back: what a machine has sent since
//! its last checkpoint leaves when the next one is safe.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::Failure;
use crate::netlink::{Change, Link, Netlink, PlugOrder, Qdisc, Refusal};
use crate::preflight;

/// What a plug holds, in bytes: the original's 32 MiB. What comes beyond is dropped.
pub const LIMIT: u32 = 32 << 20;
/// How long a plug that is removed may take to send what it held.
const EMPTIES_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const KIND: &str = "plug";

/// The plug of a link. It stays in the kernel until [`Plug::remove`], whoever made it and whatever becomes of
/// him: a checkpoint that was not reached must not let its output go.
#[derive(Debug)]
pub struct Plug {
    netlink: Netlink,
    link: Link,
}

impl Plug {
    /// Puts one in, which holds from now on. One that is there already is taken over, with what it holds.
    /// [`Failure::Conflict`] where somebody's qdisc is in its place, [`Failure::Kernel`] where the kernel has
    /// none.
    pub fn put_in(interface: &str) -> Result<Plug> {
        let mut plug = Plug::at(interface)?;
        let make = Change::MakePlug {
            ifindex: plug.link.ifindex,
            limit: LIMIT,
        };
        let [made] = plug.netlink.change([make])?;
        match made {
            Ok(()) => Ok(plug),
            Err(refusal) if refusal.errno == Errno::EEXIST => plug.check(),
            Err(refusal) if refusal.errno == Errno::ENOENT => Err(Failure::Kernel(
                "this kernel has no plug qdisc (sch_plug, CONFIG_NET_SCH_PLUG)".into(),
            )
            .into()),
            Err(refusal) => Err(plug.failed(refusal, "put a plug in")),
        }
    }

    /// The one that is there.
    pub fn find(interface: &str) -> Result<Plug> {
        Plug::at(interface)?.check()
    }

    fn at(interface: &str) -> Result<Plug> {
        let mut netlink = Netlink::open()?;
        let link = preflight::find_interface(&mut netlink, interface)?;
        Ok(Plug { netlink, link })
    }

    fn check(mut self) -> Result<Plug> {
        let root = self.root()?;
        let name = &self.link.name;
        let problem = match root {
            Some(qdisc) if qdisc.kind == KIND => return Ok(self),
            Some(qdisc) if !qdisc.is_default() => Failure::Conflict(format!(
                "{name} has a qdisc of somebody's at its root, {}; a plug would take its place",
                qdisc.kind
            )),
            _ => Failure::Usage(format!("{name} has no plug; 'plug up' puts one in")),
        };
        Err(problem.into())
    }

    fn root(&mut self) -> Result<Option<Qdisc>> {
        let qdiscs = self.netlink.qdiscs(self.link.ifindex)?;
        Ok(qdiscs.into_iter().find(Qdisc::is_root))
    }

    /// What comes from now on is the next epoch's; that of the one before goes. Both at one moment, as far as
    /// a signal is concerned, so that no epoch is left behind.
    pub fn next_epoch(&mut self) -> Result<()> {
        let tell = |order| Change::TellPlug {
            ifindex: self.link.ifindex,
            order,
        };
        let orders = [tell(PlugOrder::Buffer), tell(PlugOrder::ReleaseOne)];
        for outcome in self.netlink.change(orders)? {
            outcome.map_err(|refusal| self.failed(refusal, "begin an epoch"))?;
        }
        Ok(())
    }

    /// How many packets it holds, and how many it had no room for.
    pub fn holds(&mut self) -> Result<(u32, u32)> {
        let qdisc = self.root()?.filter(|qdisc| qdisc.kind == KIND);
        let qdisc = qdisc.with_context(|| format!("the plug of {} is gone", self.link.name))?;
        Ok((qdisc.waiting, qdisc.dropped))
    }

    /// Lets all of it go, and takes it out. Says how many packets it had no room for.
    pub fn remove(mut self) -> Result<u32> {
        let ifindex = self.link.ifindex;
        let order = PlugOrder::ReleaseAll;
        let [told] = self.netlink.change([Change::TellPlug { ifindex, order }])?;
        told.map_err(|refusal| self.failed(refusal, "open the plug"))?;
        // The kernel sends by and by; what still waits when the plug goes is lost.
        let deadline = Instant::now() + EMPTIES_WITHIN;
        let dropped = loop {
            let (waiting, dropped) = self.holds()?;
            if waiting == 0 || Instant::now() >= deadline {
                break dropped + waiting;
            }
            sleep(LOOK_AGAIN);
        };
        let [removed] = self.netlink.change([Change::RemovePlug { ifindex }])?;
        removed.map_err(|refusal| self.failed(refusal, "take the plug out"))?;
        Ok(dropped)
    }

    fn failed(&self, refusal: Refusal, what: &str) -> anyhow::Error {
        anyhow::Error::new(refusal).context(format!("{what} at {}", self.link.name))
    }
}

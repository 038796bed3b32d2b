//! Keeps the table true while interfaces come and go and its file changes.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use netsetup::instance::Instance;

use super::arguments::{Arguments, Table};
use super::demux::{Demux, Verdict};
use super::interfaces::Placed;
use super::mapping::Mapping;
use crate::failure::say;
use crate::netlink::{LinkChange, LinkEvent, Netlink};
use crate::notation::counted;
use crate::port::{self, Port};

/// The name of the tool in its locks.
const NAME: &str = "vlan_learning";

/// The table in use, and the locks on its interfaces.
#[derive(Debug)]
pub struct Keeper<'a> {
    arguments: &'a Arguments,
    table: Table,
    locked: BTreeSet<String>,
    locks: Vec<Instance>,
}

impl<'a> Keeper<'a> {
    /// Locks the interfaces of the table: what one instance does there, another one would undo.
    pub fn new(arguments: &'a Arguments, table: Table) -> Result<Keeper<'a>> {
        let mut keeper = Keeper {
            arguments,
            locked: BTreeSet::new(),
            locks: Vec::new(),
            table,
        };
        let ports: Vec<Port> = keeper.ports().cloned().collect();
        keeper.lock(&ports)?;
        Ok(keeper)
    }

    /// All interfaces that are attached to.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        let workers = self.table.placed.workers.values().map(|it| &it.port);
        [&self.table.trunk].into_iter().chain(workers)
    }

    fn lock(&mut self, ports: &[Port]) -> Result<()> {
        for port in ports {
            if !self.locked.contains(&port.name) {
                self.locks.extend(port::claim(NAME, [port])?);
                self.locked.insert(port.name.clone());
            }
        }
        Ok(())
    }

    /// Says whose connections may be cut.
    pub fn warn(&self) -> Result<()> {
        let policy = &self.table.policy;
        let drops = [&policy.unknown, &policy.untagged].contains(&&Verdict::Drop);
        // Else all that is not a client's goes on as before.
        port::warn(drops.then_some(&self.table.trunk))
    }

    /// The table in use.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Who belongs where.
    pub fn mapping(&self) -> &Mapping {
        &self.table.mapping
    }

    /// Reads the file again. Where it cannot be used, the table stays as it is.
    pub fn reload(&mut self, demux: &mut Demux<'_>) -> Result<()> {
        if let Err(error) = self.try_reload(demux) {
            say(format_args!(
                "not reloaded, the table stays as it was: {error:#}"
            ));
        }
        Ok(())
    }

    fn try_reload(&mut self, demux: &mut Demux<'_>) -> Result<()> {
        let mut table = self.arguments.table()?;
        if table.trunk.ifindex != self.table.trunk.ifindex {
            bail!(
                "the trunk is {} and cannot become {} while it runs",
                self.table.trunk.name,
                table.trunk.name
            );
        }
        table.placed = table.placed.complete()?;
        let ports: Vec<Port> = table
            .placed
            .workers
            .values()
            .map(|it| it.port.clone())
            .collect();
        self.lock(&ports)?;
        let changes = demux.change_to(&table.placed)?;
        demux.set_policy(table.policy.clone())?;
        self.table = table;
        say(format_args!("reloaded: {changes}"));
        Ok(())
    }

    /// A link has changed. An error where the run cannot go on.
    pub fn follow(&mut self, event: &LinkEvent, demux: &mut Demux<'_>) -> Result<()> {
        let is_trunk = event.ifindex == self.table.trunk.ifindex;
        match &event.change {
            LinkChange::Deleted | LinkChange::Moved => {
                if is_trunk {
                    bail!("{event}; start again with the interfaces that are there now");
                }
                self.lose(event, demux)
            }
            LinkChange::Renamed { to } if is_trunk => {
                say(format_args!("{event}, which goes on as the trunk"));
                to.clone_into(&mut self.table.trunk.name);
                Ok(())
            }
            LinkChange::New | LinkChange::Renamed { .. } => self.find_again(event, demux),
            LinkChange::Up | LinkChange::Down => {
                if is_trunk || self.table.placed.workers.contains_key(&event.ifindex) {
                    say(format_args!("{event}"));
                }
                Ok(())
            }
        }
    }

    /// The interface's number may be a stranger's at any time, so this comes before everything else.
    fn lose(&mut self, event: &LinkEvent, demux: &mut Demux<'_>) -> Result<()> {
        let ifindex = event.ifindex;
        if self.table.placed.workers.remove(&ifindex).is_some() {
            let lost = demux.lose(&BTreeSet::from([ifindex]))?;
            self.table.placed.clients.retain(|_, port| *port != ifindex);
            say(format_args!(
                "{event}: {} out of reach until it is back",
                counted(lost, "client")
            ));
        }
        if matches!(&demux.policy().unknown, Verdict::Redirect(port) if port.ifindex == ifindex) {
            let mut policy = demux.policy().clone();
            policy.unknown = Verdict::Drop;
            demux.set_policy(policy)?;
            say(format_args!(
                "{event}: unknown frames are dropped until it is back"
            ));
        }
        Ok(())
    }

    /// A name is there that was not, or the other way round.
    fn find_again(&mut self, event: &LinkEvent, demux: &mut Demux<'_>) -> Result<()> {
        let LinkEvent { name, change, .. } = event;
        let new_name = match change {
            LinkChange::Renamed { to } => to,
            _ => name,
        };
        let names = [name, new_name];
        let is_ours = |known: &str| names.iter().any(|name| *name == known);
        if let Verdict::Redirect(port) = &self.table.policy.unknown
            && port.name == *new_name
        {
            let mut policy = self.table.policy.clone();
            let ifindex = event.ifindex;
            policy.unknown = Verdict::Redirect(Port {
                ifindex,
                ..port.clone()
            });
            self.table.policy = policy.clone();
            demux.set_policy(policy)?;
            say(format_args!("{event}: unknown frames go there again"));
        }
        if !self.table.mapping.workers().any(is_ours) {
            return Ok(());
        }
        let all = Netlink::open()?.links()?;
        let placed = Placed::find(&self.table.mapping, &self.table.trunk, &all)
            .and_then(|placed| self.take(placed, demux));
        // What somebody makes under a known name must not end what runs.
        match placed {
            Ok(clients) => say(format_args!("{event}: {} now", counted(clients, "client"))),
            Err(error) => say(format_args!("{event}, but it cannot be used: {error:#}")),
        }
        Ok(())
    }

    fn take(&mut self, placed: Placed, demux: &mut Demux<'_>) -> Result<usize> {
        let ports: Vec<Port> = placed.workers.values().map(|it| it.port.clone()).collect();
        self.lock(&ports)?;
        demux.change_to(&placed)?;
        self.table.placed = placed;
        Ok(self.table.placed.clients.len())
    }
}

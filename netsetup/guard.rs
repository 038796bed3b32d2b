//! The guard of a network: everything is made through it, and it removes what was made.
//!
//! Order of a start: the instance lock, then the ledger's directory; what a dead owner left is
//! removed; what is in the way is refused before anything is changed; then the ledger is begun.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::failure::Failure;
use crate::instance::Instance;
use crate::ip::{self, Place};
use crate::ledger::{self, Directory, Object, Owner, Record};
use crate::link::{Identities, Link};
use crate::namespace;
use crate::nat::{self, Nat};
use crate::privilege::{self, Cap};
use crate::queue::{self, Limit};
use crate::removal::{complain, remove};
use crate::server::{self, OnLine, Server};

/// What making links and namespaces takes.
const NEEDED: [Cap; 2] = [Cap::NetAdmin, Cap::SysAdmin];
/// How long links may take to come up; they take milliseconds.
const LINKS_COME_UP: Duration = Duration::from_secs(5);

/// Owner of a network. Dropping it removes exactly what was made through it, and reports on
/// stderr what could not be removed.
#[derive(Debug)]
pub struct Guard {
    /// Killed before anything else goes.
    servers: Vec<Server>,
    record: Record,
    identities: Identities,
    /// Whether objects are still to be removed.
    armed: bool,
    /// Freed last: until then nobody else may start.
    instance: Instance,
}

impl Guard {
    /// Becomes the owner of the network `name`, which will consist of these namespaces and
    /// links. What a killed owner left is removed. [`Failure::Conflict`] if the network is up,
    /// or if something of the same name is there that is not ours.
    pub fn claim(name: &str, namespaces: &[&str], links: &[Link]) -> Result<Guard> {
        privilege::require(&NEEDED)?;
        let instance = Instance::claim(name)?;
        let _directory = Directory::lock()?;
        if let Some(left_over) = Record::load(name)? {
            refuse_if_alive(&left_over)?;
            refuse_if_kept(&left_over)?;
            remove(left_over, instance.as_fd())
                .with_context(|| format!("remove what a killed {name} left"))?;
        }
        let present = ip::links()?;
        refuse_strangers(namespaces, links, &present)?;
        let identities = Identities::choose(&present)?;
        let record = Record::begin(name)?;
        record.store()?;
        Ok(Guard {
            servers: Vec::new(),
            record,
            identities,
            armed: true,
            instance,
        })
    }

    /// Makes a namespace with its loopback device down and nothing else in it.
    pub fn make_namespace(&mut self, name: &str) -> Result<()> {
        let _directory = Directory::lock()?;
        let record = &mut self.record;
        namespace::prepare_directory(|made| {
            record.objects.push(Object::NamespaceDirectory { made });
            record.store()
        })?;
        let token = record.token.clone();
        namespace::create(name, &token, |identity| {
            let name = name.into();
            record.objects.push(Object::Namespace { name, identity });
            record.store()
        })
    }

    /// Makes links on the host, sets them up and puts them on their bridges, in one batch.
    pub fn make_links(&mut self, links: &[Link]) -> Result<()> {
        let silent = namespace::has_ipv6();
        let mut lines = Vec::with_capacity(2 * links.len());
        for link in links {
            let identity = self.identities.next();
            lines.push(link.add_line(Some(&identity)));
            self.record.objects.push(Object::Link {
                name: link.name.clone(),
                identity,
            });
        }
        lines.extend(links.iter().flat_map(|link| link.up_lines(silent)));
        self.record.store()?;
        ip::batch(&lines, self.place(None)).map_err(|error| name_missing_kind(error, links, &lines))
    }

    /// Makes links that are in our namespaces from their first moment on, down, in one batch. They go
    /// with their namespace, or with the link of the host that they stand on, so the ledger has no need
    /// of them.
    pub fn make_links_inside(&self, links: &[Link]) -> Result<()> {
        let lines: Vec<String> = links.iter().map(|link| link.add_line(None)).collect();
        ip::batch(&lines, self.place(None)).map_err(|error| name_missing_kind(error, links, &lines))
    }

    /// Makes links in one of our namespaces, sets them up and puts them on their bridges there, in one batch.
    /// They go with the namespace. They have no link-local addresses, so they send nothing of their own.
    pub fn make_links_of(&self, namespace: &str, links: &[Link]) -> Result<()> {
        let silent = namespace::has_ipv6();
        let added = links.iter().map(|link| link.add_line(None));
        let up = links.iter().flat_map(|link| link.up_lines(silent));
        let lines: Vec<String> = added.chain(up).collect();
        self.configure(namespace, &lines)
            .map_err(|error| name_missing_kind(error, links, &lines))
    }

    /// Runs lines of `ip` in a namespace, in one batch. What they make goes with the namespace.
    pub fn configure(&self, namespace: &str, lines: &[String]) -> Result<()> {
        let file = namespace::open(namespace)?;
        ip::batch(lines, self.place(Some((namespace, &file))))
    }

    /// Runs lines of `ip` on the host, in one batch. What they make is to go with our links.
    pub fn configure_host(&self, lines: &[String]) -> Result<()> {
        ip::batch(lines, self.place(None))
    }

    /// Writes a value below /proc/sys of a namespace, which goes with it.
    pub fn write_sysctl(&self, namespace: &str, name: &str, value: &str) -> Result<()> {
        let file = namespace::open(namespace)?;
        let path = format!("/proc/sys/{name}");
        namespace::inside(&file, || {
            fs::write(&path, value).with_context(|| format!("write {path} in {namespace}"))
        })
    }

    /// Limits what leaves by one of our links, until it is taken away again or goes with the link. Without a
    /// namespace, the link is one of the host.
    pub fn limit(&self, namespace: Option<&str>, link: &str, limit: Option<&Limit>) -> Result<()> {
        let file = namespace.map(namespace::open).transpose()?;
        let place = queue::Place {
            link,
            namespace: file.as_ref(),
            lock: self.instance.as_fd(),
        };
        match limit {
            Some(limit) => queue::limit(limit, place),
            None => queue::unlimit(place),
        }
    }

    /// Lets the network out through an interface of the host.
    pub fn open_way_out(&mut self, nat: Nat) -> Result<()> {
        self.record.objects.push(Object::Nat(nat.clone()));
        self.record.store()?;
        nat.make(&self.record.token, self.instance.as_fd())?;
        if nat::is_forwarding()? {
            return Ok(());
        }
        self.record.objects.push(Object::Forwarding);
        self.record.store()?;
        nat::forward(true)
    }

    /// Waits until packets pass through these links of the host.
    pub fn wait_until_up(&self, names: &[&str]) -> Result<()> {
        wait_until_up(names)
    }

    /// Waits until packets pass through these links of a namespace.
    pub fn wait_until_up_in(&self, namespace: &str, names: &[&str]) -> Result<()> {
        let file = namespace::open(namespace)?;
        namespace::inside(&file, || wait_until_up(names))
            .with_context(|| format!("wait for the links of {namespace}"))
    }

    /// Starts a server in each namespace and returns when all of them listen. They end with the
    /// guard, and at the latest with the thread that calls this.
    pub fn start_servers(
        &mut self,
        kind: server::Kind,
        namespaces: &[&str],
        on_line: &mut OnLine<'_>,
    ) -> Result<()> {
        for name in namespaces {
            let file = namespace::open(name)?;
            self.servers.push(Server::start(kind, name, &file)?);
        }
        self.servers
            .iter_mut()
            .try_for_each(|server| server.wait_until_listening(on_line))
    }

    /// Leaves the network up after the end of this process, until [`take_down`]. Servers end.
    pub fn keep(mut self) -> Result<()> {
        self.record.owner = Owner::Kept;
        self.record.store()?;
        self.armed = false;
        Ok(())
    }

    /// Removes the network, and says what could not be removed.
    pub fn close(mut self) -> Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.armed) {
            return Ok(());
        }
        self.servers.clear();
        let _directory = Directory::lock()?;
        remove(self.record.clone(), self.instance.as_fd())
    }

    fn place<'a>(&'a self, namespace: Option<(&'a str, &'a File)>) -> Place<'a> {
        Place {
            namespace,
            lock: self.instance.as_fd(),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            complain(&self.record.name, &format!("clean-up: {error:#}"));
        }
    }
}

/// In the network namespace of the calling thread.
fn wait_until_up(names: &[&str]) -> Result<()> {
    let deadline = Instant::now() + LINKS_COME_UP;
    loop {
        let links = ip::links()?;
        let down: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| {
                !links
                    .iter()
                    .any(|link| link.ifname == *name && link.carries_packets())
            })
            .collect();
        if down.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} did not come up", down.join(", "));
        }
        sleep(Duration::from_millis(1));
    }
}

/// Removes a network that was kept, or that a killed owner left. `false` if there is none,
/// [`Failure::Conflict`] if its owner lives.
pub fn take_down(name: &str) -> Result<bool> {
    privilege::require(&NEEDED)?;
    let instance = Instance::claim(name)?;
    let _directory = Directory::lock()?;
    let Some(record) = Record::load(name)? else {
        ledger::forget_draft(name)?;
        return Ok(false);
    };
    refuse_if_alive(&record)?;
    remove(record, instance.as_fd())?;
    Ok(true)
}

/// In this network namespace the instance lock says who lives, and we hold it. The ledger, which
/// is shared by all network namespaces that have the same /run, says so for the others.
fn refuse_if_alive(record: &Record) -> Result<()> {
    match record.owner {
        Owner::Process(owner)
            if owner.is_alive() && record.network_namespace != namespace::current()? =>
        {
            Err(Failure::Conflict(format!(
                "{} is already running as pid {} in another network namespace; stop it first",
                record.name, owner.pid
            ))
            .into())
        }
        Owner::Process(_) | Owner::Kept => Ok(()),
    }
}

fn refuse_if_kept(Record { name, owner, .. }: &Record) -> Result<()> {
    match owner {
        Owner::Process(_) => Ok(()),
        Owner::Kept => Err(Failure::Conflict(format!(
            "{name} is kept up by `netsetup up`; take it down with `netsetup down {name}` first"
        ))
        .into()),
    }
}

fn refuse_strangers(namespaces: &[&str], links: &[Link], present: &[ip::LinkState]) -> Result<()> {
    let mut strangers = Vec::new();
    for name in namespaces.iter().filter(|name| namespace::exists(name)) {
        strangers.push(format!("namespace {name} (ip netns delete {name})"));
    }
    for name in links.iter().flat_map(Link::names) {
        if present
            .iter()
            .any(|link| link.ifname == name || link.altnames.iter().any(|other| other == name))
        {
            strangers.push(format!("interface {name} (ip link delete {name})"));
        }
    }
    if strangers.is_empty() {
        return Ok(());
    }
    Err(Failure::Conflict(format!(
        "in the way and not ours: {}; rename or delete what you do not need",
        strangers.join(", ")
    ))
    .into())
}

/// A kind of link that this kernel lacks is a missing feature, not a failed command.
fn name_missing_kind(error: anyhow::Error, links: &[Link], lines: &[String]) -> anyhow::Error {
    let Some(refused) = error.downcast_ref::<ip::Refused>() else {
        return error;
    };
    let missing = ["Unknown device type", "Operation not supported"]
        .iter()
        .any(|text| refused.stderr.contains(text));
    let failed = lines.iter().position(|line| *line == refused.command);
    match failed.and_then(|position| links.get(position)) {
        Some(link) if missing => Failure::Kernel(format!(
            "this kernel cannot make the link {} ({} is missing): {refused}",
            link.name,
            link.kernel_option()
        ))
        .into(),
        _ => error,
    }
}

//! Network namespaces to act in, and cables between them.

use crate::packet::Mac;
use crate::step;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use std::fmt;
use std::fs::File;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long the kernel may take to see a carrier or to check an address.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// A network namespace to act in, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `None` is where the caller is.
    name: Option<String>,
}

impl Place {
    /// The network namespace of the sandbox itself.
    pub fn here() -> Place {
        Place { name: None }
    }

    /// The namespace of that name in /run/netns.
    pub fn named(name: impl Into<String>) -> Place {
        Place {
            name: Some(name.into()),
        }
    }

    /// Every place of this sandbox: here, and what /run/netns has.
    pub fn all() -> Vec<Place> {
        // A plain file is a namespace half made: there is nothing to enter.
        let is_namespace =
            |path: &Path| statfs(path).is_ok_and(|info| info.filesystem_type() == NSFS_MAGIC);
        let entries = std::fs::read_dir("/run/netns").into_iter().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| step("read /run/netns", entry))
            .filter(|entry| is_namespace(&entry.path()))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        std::iter::once(Place::here())
            .chain(names.into_iter().map(Place::named))
            .collect()
    }

    /// Runs `body` in this namespace, in a thread that ends with it.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                body()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into this namespace, for good.
    pub fn enter(&self) {
        if let Some(fd) = self.open() {
            step(format!("enter {self}"), setns(fd, CloneFlags::CLONE_NEWNET));
        }
    }

    /// A command that will run in this namespace. /sys stays that of the machine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(fd) = self.open() {
            // SAFETY: setns is a system call on an open descriptor; it takes no lock and no memory.
            unsafe {
                command.pre_exec(move || Ok(setns(&fd, CloneFlags::CLONE_NEWNET)?));
            }
        }
        command
    }

    /// Runs `ip` here with these words, and returns what it prints.
    pub fn ip(&self, words: &str) -> String {
        self.tool("ip", words)
    }

    /// Runs `tc` here with these words, and returns what it prints.
    pub fn tc(&self, words: &str) -> String {
        self.tool("tc", words)
    }

    /// The hardware address of an interface here.
    pub fn mac(&self, interface: &str) -> Mac {
        let link = self.ip(&format!("-o link show dev {interface}"));
        let text = link
            .split_once("link/ether ")
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .unwrap_or_else(|| panic!("no hardware address in {link}"));
        let mut mac = [0; 6];
        for (byte, digits) in mac.iter_mut().zip(text.split(':')) {
            *byte = step(text, u8::from_str_radix(digits, 16));
        }
        mac
    }

    fn tool(&self, program: &str, words: &str) -> String {
        let what = format!("{program} {words} ({self})");
        let output = step(
            &what,
            self.command(program)
                .args(words.split_whitespace())
                .output(),
        );
        assert!(
            output.status.success(),
            "{what}: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn path(&self) -> Option<PathBuf> {
        self.name
            .as_ref()
            .map(|name| PathBuf::from("/run/netns").join(name))
    }

    fn open(&self) -> Option<OwnedFd> {
        self.path()
            .map(|path| step(format!("open {}", path.display()), File::open(&path)).into())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or("sandbox"))
    }
}

/// A named namespace of the test's own; goes when dropped.
#[derive(Debug)]
pub struct Namespace {
    place: Place,
    name: String,
}

impl Namespace {
    /// A new namespace, its loopback up, its IPv6 addresses usable at once.
    pub fn new(name: &str) -> Namespace {
        Place::here().ip(&format!("netns add {name}"));
        let namespace = Namespace {
            place: Place::named(name),
            name: name.into(),
        };
        namespace.run(make_usable);
        namespace
    }
}

impl Deref for Namespace {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&Place::here(), &format!("netns delete {}", self.name));
    }
}

/// Two interfaces joined by a cable; go when dropped.
#[derive(Debug)]
pub struct Veth {
    at: Place,
    interface: String,
}

impl Veth {
    /// `Veth::new((&here, "wan0"), (&router, "eth0"))`: both ends up, with carrier and, where
    /// there is IPv6, a link-local address.
    pub fn new(one: (&Place, &str), other: (&Place, &str)) -> Veth {
        let end = |(place, interface): (&Place, &str)| match &place.name {
            Some(name) => format!("name {interface} netns {name}"),
            None => format!("name {interface}"),
        };
        Place::here().ip(&format!(
            "link add {} type veth peer {}",
            end(one),
            end(other)
        ));
        let veth = Veth {
            at: one.0.clone(),
            interface: one.1.into(),
        };
        for (place, interface) in [one, other] {
            place.ip(&format!("link set {interface} up"));
        }
        for (place, interface) in [one, other] {
            place.run(|| wait_until_usable(interface));
        }
        veth
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        remove(&self.at, &format!("link delete {}", self.interface));
    }
}

/// Whether the kernel makes VLAN devices (8021q).
pub fn has_vlan_devices() -> bool {
    let lower = Place::here();
    lower.ip("link add below0 type bridge");
    let mut ip = lower.command("ip");
    ip.args("link add link below0 name vlan7 type vlan id 7".split(' '));
    let made = step("run ip", ip.output()).status.success();
    // What stands on it goes with it.
    lower.ip("link delete below0");
    made
}

/// Loopback up; no duplicate address detection, which keeps an address unusable for a second.
pub(crate) fn make_usable() {
    Place::here().ip("link set lo up");
    for conf in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{conf}/accept_dad");
        // A kernel without IPv6 has no such file, and nothing to detect.
        if std::path::Path::new(&path).exists() {
            step(&path, std::fs::write(&path, "0"));
        }
    }
}

/// The kernel notices a carrier, and gives an address for it, in its own time.
fn wait_until_usable(interface: &str) {
    let ipv6_off = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    let has_ipv6 = std::fs::read_to_string(ipv6_off).is_ok_and(|off| off.trim() == "0");
    let here = Place::here();
    let deadline = Instant::now() + SETTLES_WITHIN;
    loop {
        let link = here.ip(&format!("-o link show dev {interface}"));
        let addresses = here.ip(&format!("-6 -o address show dev {interface} scope link"));
        let addressed = addresses.contains("fe80:") && !addresses.contains("tentative");
        if link.contains("state UP") && (addressed || !has_ipv6) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not usable in time: {link}{addresses}"
        );
        sleep(Duration::from_millis(2));
    }
}

/// Waits until no address of the caller's namespace is being checked for duplicates: its routes
/// come when that is done. One whose check has failed stays as it is.
pub(crate) fn wait_for_addresses() {
    let deadline = Instant::now() + SETTLES_WITHIN;
    while Instant::now() < deadline {
        let tentative = Place::here().ip("-6 -o address show tentative");
        if tentative
            .lines()
            .all(|address| address.contains("dadfailed"))
        {
            return;
        }
        sleep(Duration::from_millis(2));
    }
}

/// Undoes with `ip`. What is gone already (the tool under test may have taken it along) is no
/// failure; the comparison at the end of the sandbox finds what stays.
fn remove(at: &Place, words: &str) {
    if at.path().is_some_and(|path| !path.exists()) {
        return;
    }
    let _ = at.command("ip").args(words.split_whitespace()).output();
}

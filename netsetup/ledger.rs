//! The ledger: what a network consists of, written before each object is made, so that it can be
//! removed exactly, also after a kill -9 at any moment.
//!
//! One JSON file per network, `/run/netbpf/NAME.json`, replaced by rename: it is always whole. It
//! is not synced to a disk, because it describes objects that do not survive the kernel either.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::nat::Nat;
use crate::process::Process;
use crate::{link, namespace, random};

/// Where ledgers are kept.
pub const DIRECTORY: &str = "/run/netbpf";

/// Format of the file; another one is not understood.
const VERSION: u32 = 1;

/// How long another start or stop may hold the directory.
const DIRECTORY_IS_FREED: Duration = Duration::from_secs(5);

/// One network as it is, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// Name of the topology.
    pub name: String,
    /// Random text that marks files of this network.
    pub token: String,
    boot_id: String,
    /// Where its host-side links are.
    pub network_namespace: namespace::Identity,
    /// Who answers for it.
    pub owner: Owner,
    /// When it was begun, in seconds since 1970.
    pub since: u64,
    /// Everything that was made or is about to be, in this order.
    pub objects: Vec<Object>,
}

/// Who answers for a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// A process; when it is dead, the network is left over.
    Process(Process),
    /// Nobody: it was put up to stay, and is taken down by name.
    Kept,
}

/// One object that exists outside of our process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Object {
    /// `/run/netns` as a mount of itself.
    NamespaceDirectory {
        /// Whether the directory was missing as well.
        made: bool,
    },
    /// A network namespace with a name.
    Namespace {
        /// Its name.
        name: String,
        /// What proves it ours once it is mounted; before that, the token in its file does.
        #[serde(flatten)]
        identity: namespace::Identity,
    },
    /// A link in the network namespace of the record. Links inside our namespaces go with them.
    Link {
        /// The name that it was given.
        name: String,
        /// What proves it ours.
        #[serde(flatten)]
        identity: link::Identity,
    },
    /// That the host forwards IPv4 packets, which it did not before.
    Forwarding,
    /// Rules of a firewall; the token marks them.
    Nat(Nat),
}

impl Record {
    /// A network of this process, without any object so far.
    pub(crate) fn begin(name: &str) -> Result<Record> {
        let token: [u8; 8] = random::bytes()?;
        Ok(Record {
            version: VERSION,
            name: name.into(),
            token: format!("{:016x}", u64::from_be_bytes(token)),
            boot_id: boot_id()?,
            network_namespace: namespace::current()?,
            owner: Owner::Process(Process::current()?),
            since: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .context("the clock is before 1970")?
                .as_secs(),
            objects: Vec::new(),
        })
    }

    /// The network of that name, if there is one. Nothing of an earlier boot exists any more.
    pub fn load(name: &str) -> Result<Option<Record>> {
        let path = path(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        match serde_json::from_slice::<Record>(&text) {
            Ok(record) if record.version == VERSION && record.name == name => {
                Ok((record.boot_id == boot_id()?).then_some(record))
            }
            Ok(record) => Err(unreadable(
                &path,
                format!("it holds {} in version {}", record.name, record.version),
            )),
            Err(error) => Err(unreadable(&path, error)),
        }
    }

    /// Writes it, so that no death of ours loses it.
    pub(crate) fn store(&self) -> Result<()> {
        let path = path(&self.name);
        let draft = draft_path(&self.name);
        let text = serde_json::to_vec_pretty(self).context("write the ledger as JSON")?;
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path));
        if written.is_err() {
            // Of a full disk, for one; what matters is the error above.
            let _ = fs::remove_file(&draft);
        }
        written.with_context(|| format!("write {}", path.display()))
    }

    /// Removes the file.
    pub(crate) fn forget(&self) -> Result<()> {
        remove_if_there(&path(&self.name))?;
        forget_draft(&self.name)
    }
}

/// Removes what a writer left that was killed before its ledger was whole: before it had made
/// anything.
pub(crate) fn forget_draft(name: &str) -> Result<()> {
    remove_if_there(&draft_path(name))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{name}.json"))
}

fn draft_path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!(".{name}.json.new"))
}

fn unreadable(path: &Path, reason: impl std::fmt::Display) -> anyhow::Error {
    Failure::Conflict(format!(
        "the ledger {} cannot be understood ({reason}), so what it lists cannot be removed; look \
         for left-over namespaces and interfaces (ip netns, ip link), then delete the file",
        path.display()
    ))
    .into()
}

fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path)
        .with_context(|| format!("read {path}"))?
        .trim()
        .to_string())
}

/// The directory of ledgers, for one start or stop at a time, also among network namespaces that
/// share it. It also serialises `/run/netns`, which several networks use. When the last network
/// is gone, so is the directory.
pub(crate) struct Directory {
    lock: Flock<File>,
}

impl Directory {
    pub(crate) fn lock() -> Result<Directory> {
        let deadline = Instant::now() + DIRECTORY_IS_FREED;
        loop {
            if let Some(lock) = Directory::try_lock()? {
                return Ok(Directory { lock });
            }
            if Instant::now() > deadline {
                return Err(Failure::Conflict(format!(
                    "another start or stop holds {DIRECTORY} (fuser {DIRECTORY} shows it); wait \
                     for it or end it"
                ))
                .into());
            }
            sleep(Duration::from_millis(1));
        }
    }

    fn try_lock() -> Result<Option<Flock<File>>> {
        fs::create_dir_all(DIRECTORY).with_context(|| format!("make {DIRECTORY}"))?;
        let directory = match File::open(DIRECTORY) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("open {DIRECTORY}")),
        };
        let lock = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno).with_context(|| format!("lock {DIRECTORY}")),
        };
        // Whoever held the lock before us may have removed the directory.
        Ok(is_at_its_path(&lock).then_some(lock))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if is_at_its_path(&self.lock) {
            // Fails while there are ledgers, which is as it should be.
            let _ = fs::remove_dir(DIRECTORY);
        }
    }
}

fn is_at_its_path(directory: &File) -> bool {
    match (directory.metadata(), fs::metadata(DIRECTORY)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            version: VERSION,
            name: "example".into(),
            token: "0123456789abcdef".into(),
            boot_id: "e0a7".into(),
            network_namespace: namespace::Identity {
                inode: 4_026_531_840,
                cookie: 1,
            },
            owner: Owner::Process(Process {
                pid: 7,
                start_time: 4711,
            }),
            since: 1_700_000_000,
            objects: vec![
                Object::NamespaceDirectory { made: true },
                Object::Namespace {
                    name: "wan0".into(),
                    identity: namespace::Identity {
                        inode: 4_026_532_000,
                        cookie: u64::MAX,
                    },
                },
                Object::Link {
                    name: "br100".into(),
                    identity: link::Identity {
                        index: 1_048_577,
                        mac: "02:00:00:00:00:01".into(),
                    },
                },
            ],
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        for owner in [record().owner, Owner::Kept] {
            let record = Record { owner, ..record() };
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        }
    }

    #[test]
    fn an_object_of_a_later_version_is_not_passed_over() {
        let text = serde_json::to_string(&record()).unwrap();
        let later = text.replace("\"kind\":\"link\"", "\"kind\":\"hologram\"");
        assert_ne!(text, later);
        assert!(serde_json::from_str::<Record>(&later).is_err());
    }
}

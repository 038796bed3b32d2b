//! What keeps a token bucket in the kernel when its process has ended: files in the BPF file system.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use libbpf_rs::query::LinkTypeInfo;
use libbpf_rs::{Link, MapCore, MapHandle};
use netsetup::namespace;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::geteuid;

use super::maps::{INHERITED, Maps, RODATA, RULEBOOK};
use crate::Failure;
use crate::netlink::Netlink;
use crate::port::Port;
use crate::tc::{self, Attachment, Direction};

const ROOT: &str = "/sys/fs/bpf";
/// Below the root, and below that a folder for each interface.
const FOLDER_OF_ALL: &str = "netbpf";
const FOLDER: &str = "netbpf/tokenbucket";
/// Where tc pinned the original's maps.
const LEGACY_FOLDER: &str = "tc/globals";
/// The original's names, and the maps that are called so now.
const LEGACY_NAMES: [(&str, &str); 2] = [("state_table", "state_table"), ("xfsm_table", RODATA)];

/// The pins of the instance at an interface.
#[derive(Debug)]
pub struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// Those of an instance at this interface, whether they are there or not. Names would not do: they
    /// change, and every network namespace has an eth0.
    pub fn of(port: &Port) -> Result<Pins> {
        let name = format!("{}{}", prefix()?, port.ifindex);
        Ok(Pins {
            folder: Path::new(ROOT).join(FOLDER).join(name),
        })
    }

    /// Those of interfaces of this network namespace that exist no more.
    pub fn of_the_dead() -> Result<Vec<Pins>> {
        let prefix = prefix()?;
        let mut netlink = Netlink::open()?;
        let mut dead = Vec::new();
        let Ok(folders) = fs::read_dir(Path::new(ROOT).join(FOLDER)) else {
            return Ok(dead); // there are none
        };
        for folder in folders {
            let folder = folder.context("list the pins")?;
            let name = folder.file_name().to_string_lossy().into_owned();
            let index = name.strip_prefix(&prefix);
            let Some(index) = index.and_then(|index| index.parse().ok()) else {
                continue;
            };
            let pins = Pins {
                folder: folder.path(),
            };
            if netlink.link(index)?.is_none() && !pins.limit_something() {
                dead.push(pins);
            }
        }
        Ok(dead)
    }

    /// Whether a link among them is still attached, perhaps to an interface that has moved to another
    /// network namespace.
    fn limit_something(&self) -> bool {
        [Direction::Ingress, Direction::Egress]
            .into_iter()
            .filter_map(|direction| Link::open(self.link(direction)).ok()?.info().ok())
            .any(|info| matches!(info.info, LinkTypeInfo::Tcx(link) if link.ifindex != 0))
    }

    /// Whether this is one of their maps.
    pub fn hold(&self, map: &MapHandle, name: &str) -> bool {
        is_pin_of(&self.folder.join(file_of(name)), map)
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether any are there.
    pub fn are_there(&self) -> bool {
        self.folder.exists()
    }

    /// Where the link of this side is pinned.
    fn link(&self, direction: Direction) -> PathBuf {
        self.folder.join(format!("link_{direction}"))
    }

    /// The link of this side; none where filters are what is attached.
    pub fn open_link(&self, direction: Direction) -> Result<Option<OwnedFd>> {
        let path = self.link(direction);
        if !path.exists() {
            return Ok(None);
        }
        let link = tc::open_pinned(&path);
        link.map(Some)
            .with_context(|| format!("open {}", path.display()))
    }

    /// Pins the maps, in the place of those of a program that this one takes over from. To be done
    /// before anything is attached to stay.
    pub fn keep_maps(&self, maps: &Maps, legacy: bool) -> Result<()> {
        check_file_system()?;
        self.remove_legacy()?;
        for folder in [FOLDER_OF_ALL, FOLDER] {
            make_own_folder(&Path::new(ROOT).join(folder))?;
        }
        make_own_folder(&self.folder)?;
        for name in INHERITED.into_iter().chain([RODATA, RULEBOOK]) {
            let map = maps.map(name)?;
            // What is taken over stays pinned all the time: killed in between, we would leave a program
            // that nobody knows for ours.
            if !self.hold(map, name) {
                let path = self.folder.join(file_of(name));
                remove_if_there(&path)?;
                pin(map.as_fd(), &path)?;
            }
        }
        if legacy {
            keep_legacy(maps)?;
        }
        Ok(())
    }

    /// Removes the pins under the original's names, if they are those of this instance, and then the
    /// folders that nothing else is in.
    fn remove_legacy(&self) -> Result<()> {
        let mut folder = None;
        for (name, map) in LEGACY_NAMES {
            let path = Path::new(ROOT).join(LEGACY_FOLDER).join(name);
            let ours = MapHandle::from_pinned_path(self.folder.join(file_of(map)));
            if ours.is_ok_and(|map| is_pin_of(&path, &map)) {
                remove_if_there(&path)?;
                folder = path.parent().map(Path::to_owned);
            }
        }
        // Those that somebody else made are not ours to remove, however empty.
        if let Some(folder) = folder {
            remove_empty(&folder);
        }
        Ok(())
    }

    /// Lets an attachment stay.
    pub fn keep(&self, attachment: Attachment, direction: Direction) -> Result<()> {
        let path = self.link(direction);
        let kept = attachment.keep(&path);
        kept.with_context(|| format!("pin {}", path.display()))
    }

    /// Removes them, and the folders that nothing else is in. Links go first: nothing is limited by a
    /// program that is half gone.
    pub fn remove(&self) -> Result<()> {
        for direction in [Direction::Ingress, Direction::Egress] {
            remove_if_there(&self.link(direction))?;
        }
        self.remove_legacy()?;
        for name in INHERITED.into_iter().chain([RODATA, RULEBOOK]) {
            remove_if_there(&self.folder.join(file_of(name)))?;
        }
        remove_empty(&self.folder);
        Ok(())
    }
}

/// Removes a folder and those that it is in, as far as nothing else is in them.
fn remove_empty(folder: &Path) {
    let below_root = folder
        .ancestors()
        .take_while(|path| *path != Path::new(ROOT));
    // Fails where something else is in it, which is as it should be.
    below_root
        .map(fs::remove_dir)
        .take_while(Result::is_ok)
        .for_each(drop);
}

/// Pins the maps that the original had under its names. Whoever else has them there keeps them.
fn keep_legacy(maps: &Maps) -> Result<()> {
    let folder = Path::new(ROOT).join(LEGACY_FOLDER);
    let mut pins = Vec::new();
    for (name, map) in LEGACY_NAMES {
        let path = folder.join(name);
        if path.exists() {
            let text = format!(
                "{} is there already and is another map; remove it, or use --pin",
                path.display()
            );
            return Err(Failure::Conflict(text).into());
        }
        pins.push((path, maps.map(map)?));
    }
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    pins.iter()
        .try_for_each(|(path, map)| pin(map.as_fd(), path))
}

/// The folders of this network namespace's interfaces begin so.
fn prefix() -> Result<String> {
    Ok(format!("netns{}_if", namespace::current()?.cookie))
}

/// A folder in which nobody else can remove or replace anything.
fn make_own_folder(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("make {}", path.display()));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(path);
    let found = found.with_context(|| format!("look at {}", path.display()))?;
    if found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    let text = format!(
        "{} is not a folder that only this user can write to; whoever made it could end the limit: \
         remove it, and mount the BPF file system with mode=0700",
        path.display()
    );
    Err(Failure::Conflict(text).into())
}

/// File names for maps of global data: the BPF file system has no names with dots.
fn file_of(map: &str) -> &str {
    match map {
        RODATA => "xfsm_table",
        RULEBOOK => "rulebook",
        name => name,
    }
}

fn check_file_system() -> Result<()> {
    let kind = statfs(ROOT).map(|stat| stat.filesystem_type());
    if kind == Ok(BPF_FS_MAGIC) {
        return Ok(());
    }
    let text = format!("pins need the BPF file system: mount -t bpf -o mode=0700 bpf {ROOT}");
    Err(Failure::Kernel(text).into())
}

fn pin(object: BorrowedFd<'_>, path: &Path) -> Result<()> {
    tc::pin(object, path).with_context(|| format!("pin {}", path.display()))
}

fn is_pin_of(path: &Path, map: &MapHandle) -> bool {
    let id = |map: &MapHandle| map.info().map(|info| info.info.id).ok();
    MapHandle::from_pinned_path(path).is_ok_and(|pinned| id(&pinned) == id(map))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

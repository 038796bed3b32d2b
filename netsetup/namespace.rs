//! Network namespaces with a name, as `ip netns` knows them: files of `/run/netns` on which the
//! namespace is mounted.
//!
//! `ip netns add` leaves an empty file when it is killed between making the file and mounting on
//! it, and nobody can say whose file that is. So namespaces are made here, in an order in which
//! every death leaves something that proves itself ours: the cookie of the namespace is in the
//! ledger first, then the file appears together with its content (a token of the ledger), then
//! the namespace is mounted. The result is what `ip netns add` makes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use nix::unistd::linkat;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::removal::complain;

/// Where `ip netns` keeps its namespaces.
pub const DIRECTORY: &str = "/run/netns";

/// How long the last user of [`DIRECTORY`] may take: another thread that is starting a child has
/// copies of our descriptors until exec.
const DIRECTORY_IS_FREED: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_millis(1);

/// What tells a network namespace from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Inode of its nsfs file, as `ls -i` and `lsns` show it. The kernel uses it again.
    pub inode: u64,
    /// Its cookie, which is not used again until the next boot.
    pub cookie: u64,
}

/// The identity of the calling thread's network namespace.
pub fn current() -> Result<Identity> {
    let path = "/proc/thread-self/ns/net";
    let inode = fs::metadata(path)
        .with_context(|| format!("look at {path}"))?
        .ino();
    let any = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context("open a socket")?;
    let cookie = cookie(&any).map_err(|errno| match errno {
        Errno::ENOPROTOOPT => anyhow!(Failure::Kernel(
            "this kernel has no network namespace cookies (SO_NETNS_COOKIE); Linux 5.15 is needed"
                .into()
        )),
        other => anyhow!(other).context("read the network namespace cookie"),
    })?;
    Ok(Identity { inode, cookie })
}

/// What the calling thread's network namespace is called; `None`: it has no name, as the machine's own.
pub fn name_of_current() -> Result<Option<String>> {
    let path = "/proc/thread-self/ns/net";
    let own = fs::metadata(path).with_context(|| format!("look at {path}"))?;
    let Ok(files) = fs::read_dir(DIRECTORY) else {
        // Nobody has ever named one here.
        return Ok(None);
    };
    let is_own = |file: &fs::DirEntry| {
        // Of another file system where nothing is mounted on it; it may go at any time.
        let found = fs::metadata(file.path());
        found.is_ok_and(|found| (found.dev(), found.ino()) == (own.dev(), own.ino()))
    };
    let files = files.flatten().filter(is_own);
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    // One that has several is called by the first, whatever the order of the folder.
    Ok(names.min())
}

/// `SO_NETNS_COOKIE` (Linux 5.14): the number of the socket's network namespace.
fn cookie(socket: &OwnedFd) -> nix::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which has that many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(cookie)
}

/// The file of a namespace.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Opens a namespace, to enter it or to start something in it.
pub fn open(name: &str) -> Result<File> {
    let path = path(name);
    File::open(&path).with_context(|| format!("open {}", path.display()))
}

/// Whether anything of that name is there.
pub fn exists(name: &str) -> bool {
    path(name).symlink_metadata().is_ok()
}

/// Runs `action` in a network namespace, on a thread of its own.
pub fn inside<T: Send>(namespace: &File, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_a_thread(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
        action()
    })
}

/// The calling thread is in another network namespace until this is dropped.
#[derive(Debug)]
pub struct Entered {
    before: File,
}

/// Takes the calling thread into a network namespace: for those who stay there, as a thread of its own
/// ([`inside`]) would be one too many.
pub fn enter(namespace: &File) -> Result<Entered> {
    let path = "/proc/thread-self/ns/net";
    let before = File::open(path).with_context(|| format!("open {path}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
    Ok(Entered { before })
}

impl Drop for Entered {
    fn drop(&mut self) {
        // It came from there with the same privileges, so this fails only if those were given up since.
        if let Err(errno) = setns(&self.before, CloneFlags::CLONE_NEWNET) {
            complain("network namespace", &format!("it cannot be left: {errno}"));
        }
    }
}

/// Whether this kernel speaks IPv6.
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Makes the namespace `name`, proved ours by `token`. `record` is given its identity before
/// anything of it can be seen.
pub(crate) fn create(
    name: &str,
    token: &str,
    record: impl FnOnce(Identity) -> Result<()> + Send,
) -> Result<()> {
    let path = path(name);
    on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
        prepare_ipv6()?;
        record(current()?)?;
        link_marked_file(&path, token)?;
        mount(
            Some("/proc/thread-self/ns/net"),
            &path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .with_context(|| format!("mount a network namespace on {}", path.display()))
    })
    .with_context(|| format!("make the namespace {name}"))
}

/// Removes the namespace `name` as far as it is the one of that identity and token.
pub(crate) fn remove(name: &str, identity: Identity, token: &str) -> Result<()> {
    let path = path(name);
    // Twice in all: the mount, then the file below it. More only if somebody mounts again.
    for _ in 0..8 {
        match find(&path, identity, token)? {
            Found::NotOurs => return Ok(()),
            Found::Mounted => umount2(&path, MntFlags::MNT_DETACH)
                .with_context(|| format!("unmount {}", path.display()))?,
            Found::File => {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
    }
    bail!("{} comes back whenever it is unmounted", path.display())
}

enum Found {
    /// Nothing is there, or something that the ledger does not prove ours.
    NotOurs,
    Mounted,
    File,
}

fn find(path: &Path, identity: Identity, token: &str) -> Result<Found> {
    let look = || format!("look at {}", path.display());
    // Not blocking and no symbolic links: whatever it is, it may be a stranger's.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits())
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if means_not_ours(&error) => return Ok(Found::NotOurs),
        Err(error) => return Err(error).with_context(look),
    };
    if fstatfs(&file).with_context(look)?.filesystem_type() == NSFS_MAGIC {
        let same_inode = file.metadata().with_context(look)?.ino() == identity.inode;
        let ours = same_inode && inside(&file, current).with_context(look)? == identity;
        return Ok(if ours { Found::Mounted } else { Found::NotOurs });
    }
    if !file.metadata().with_context(look)?.is_file() {
        return Ok(Found::NotOurs);
    }
    let expected = mark(token);
    let mut content = Vec::new();
    (&mut file)
        .take(expected.len() as u64 + 1)
        .read_to_end(&mut content)
        .with_context(look)?;
    Ok(if content == expected.as_bytes() {
        Found::File
    } else {
        Found::NotOurs
    })
}

/// Nothing is there, a symbolic link, or a socket: we have made none of these.
fn means_not_ours(error: &io::Error) -> bool {
    let errnos = [Errno::ENOENT, Errno::ELOOP, Errno::ENXIO];
    errnos
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

fn mark(token: &str) -> String {
    format!("netbpf {token}\n")
}

/// Makes the file with its content in one step, and only if nothing of that name is there.
fn link_marked_file(path: &Path, token: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .mode(0o444)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .open(DIRECTORY)
        .with_context(|| format!("make an unnamed file in {DIRECTORY}"))?;
    file.write_all(mark(token).as_bytes())
        .with_context(|| format!("write an unnamed file in {DIRECTORY}"))?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    match linkat(
        AT_FDCWD,
        unnamed.as_str(),
        AT_FDCWD,
        path,
        AtFlags::AT_SYMLINK_FOLLOW,
    ) {
        Err(Errno::EEXIST) => Err(Failure::Conflict(format!(
            "{} has just been made by somebody else",
            path.display()
        ))
        .into()),
        result => result.with_context(|| format!("make {}", path.display())),
    }
}

/// What the interfaces of this namespace will start with: IPv6, also where the host has switched
/// it off for itself, and no duplicate address detection, which would hold link-local addresses
/// back for a second (RFC 4862, 5.4).
fn prepare_ipv6() -> Result<()> {
    if !has_ipv6() {
        return Ok(());
    }
    for name in ["disable_ipv6", "accept_dad"] {
        let path = format!("/proc/sys/net/ipv6/conf/default/{name}");
        fs::write(&path, "0").with_context(|| format!("write {path}"))?;
    }
    Ok(())
}

/// Makes `/run/netns` as `ip netns add` does: a shared mount of itself, so that namespaces come
/// and go in other mount namespaces as well. `record` is called before anything is made, and told
/// whether the directory itself is missing; it is not called when all is there.
pub(crate) fn prepare_directory(record: impl FnOnce(bool) -> Result<()>) -> Result<()> {
    let missing = !Path::new(DIRECTORY).exists();
    if !missing && share_directory().is_ok() {
        return Ok(());
    }
    record(missing)?;
    if missing {
        fs::create_dir_all(DIRECTORY).with_context(|| format!("make {DIRECTORY}"))?;
    }
    mount(
        Some(DIRECTORY),
        DIRECTORY,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .with_context(|| format!("mount {DIRECTORY} on itself"))?;
    share_directory().with_context(|| format!("share the mount {DIRECTORY}"))
}

fn share_directory() -> nix::Result<()> {
    mount(
        None::<&str>,
        DIRECTORY,
        None::<&str>,
        MsFlags::MS_SHARED | MsFlags::MS_REC,
        None::<&str>,
    )
}

/// Undoes [`prepare_directory`], unless others use the directory by now: then it is theirs. What
/// is removed carries no state; `ip netns add` makes it again.
pub(crate) fn remove_directory(made: bool) -> Result<()> {
    let empty = match fs::read_dir(DIRECTORY) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read {DIRECTORY}")),
    };
    if !empty {
        return Ok(());
    }
    // Not detached: that would hide a namespace which somebody mounts there at this moment.
    let deadline = Instant::now() + DIRECTORY_IS_FREED;
    let unmounted = loop {
        match umount2(DIRECTORY, MntFlags::empty()) {
            Err(Errno::EBUSY) if Instant::now() < deadline => thread::sleep(RETRY),
            result => break result,
        }
    };
    match unmounted {
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(Errno::EBUSY) => return Ok(()),
        Err(errno) => return Err(errno).with_context(|| format!("unmount {DIRECTORY}")),
    }
    if !made {
        return Ok(());
    }
    match fs::remove_dir(DIRECTORY) {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::ResourceBusy
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("remove {DIRECTORY}")),
    }
}

/// A network namespace is a property of a thread; what changes it happens on one that ends.
fn on_a_thread<T: Send>(action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .spawn_scoped(scope, action)
            .context("start a thread")?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

//! A stand-in for netserver, which Debian has outside of main only. Like the real one (2.7.0), it stays
//! in the foreground when called with -D, says its line on standard output after it has begun to
//! listen, and has processes that stay when it alone is killed: there, one for each connection.

use crate::step;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What netserver says.
pub const LINE: &str =
    "Starting netserver with host 'IN(6)ADDR_ANY' port '12865' and family AF_UNSPEC";

const FOLDER: &str = "/run/stand-in";

/// A program of that name in the sandbox; goes when dropped.
#[derive(Debug)]
pub struct Netserver {
    folder: PathBuf,
}

impl Netserver {
    /// Listens with iperf3, which has to be installed; the client netperf does not understand it.
    pub fn listening() -> Netserver {
        Netserver::running(&format!(
            "[ \"$*\" = -D ] || exit 1\n\
             sleep 60 </dev/null >/dev/null 2>&1 &\n\
             setsid sleep 60 </dev/null >/dev/null 2>&1 &\n\
             iperf3 -s -p 12865 </dev/null >/dev/null 2>&1 &\n\
             sleep 0.1\n\
             echo \"{LINE}\"\n\
             wait\n"
        ))
    }

    /// Does what a shell script says.
    pub fn running(script: &str) -> Netserver {
        let netserver = Netserver {
            folder: FOLDER.into(),
        };
        step("make a folder", fs::create_dir(&netserver.folder));
        let source = netserver.folder.join("script");
        step("write", fs::write(&source, format!("#!/bin/sh\n{script}")));
        // A process of its own writes the program: a thread of ours that is starting a child would pass
        // the open file on, and what is open for writing cannot be run.
        let mut install = Command::new("install");
        install.args(["-m", "755"]).arg(source);
        install.arg(netserver.folder.join("netserver"));
        assert!(step("run install", install.status()).success());
        netserver
    }

    /// Has `command` find it, before any real one.
    pub fn in_path_of(&self, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path);
        let folders = std::iter::once(self.folder.clone()).chain(folders);
        let path = step("join PATH", std::env::join_paths(folders));
        command.env("PATH", path);
    }
}

impl Drop for Netserver {
    fn drop(&mut self) {
        // What stays, the comparison at the end of the sandbox finds.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

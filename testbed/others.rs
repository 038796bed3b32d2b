//! tc programs of somebody else, on the interfaces that the tool under test uses.

use crate::namespace::Place;
use crate::step;
use libbpf_sys::bpf_insn;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What such a program answers (linux/pkt_cls.h, TCX likewise): the next one is asked.
pub const GOES_ON: i32 = -1;
/// The packet is lost.
pub const DROPS: i32 = 2;

/// A program on an interface; comes off when dropped.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Drop for Link {
    fn drop(&mut self) {
        // To close it is not enough: a child that another thread is starting has it, too, for a moment.
        // SAFETY: an open descriptor.
        let _ = unsafe { libbpf_sys::bpf_link_detach(self.0.as_raw_fd()) };
    }
}

/// A loaded tc program.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Answers always the same.
    pub fn answering(name: &str, answer: i32) -> Program {
        Program::load(name, &[set_answer(answer), exit()])
    }

    /// Drops packets of that length (from the link header on), lets all others go on.
    pub fn dropping(name: &str, length: i32) -> Program {
        // r2 = skb->len
        let mut load_length = bpf_insn {
            code: 0x61,
            off: 0,
            ..Default::default()
        };
        load_length.set_dst_reg(2);
        load_length.set_src_reg(1);
        // if r2 != length, the next instruction is left out
        let mut skip = bpf_insn {
            code: 0x55,
            off: 1,
            imm: length,
            ..Default::default()
        };
        skip.set_dst_reg(2);
        let goes_on = set_answer(GOES_ON);
        Program::load(
            name,
            &[goes_on, load_length, skip, set_answer(DROPS), exit()],
        )
    }

    fn load(name: &str, instructions: &[bpf_insn]) -> Program {
        let name = step("a name", CString::new(name));
        // SAFETY: the strings end in NUL, the instructions are as many as is said, no options.
        let answer = unsafe {
            libbpf_sys::bpf_prog_load(
                libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
                name.as_ptr(),
                c"Dual BSD/GPL".as_ptr(),
                instructions.as_ptr(),
                instructions.len() as libbpf_sys::size_t,
                std::ptr::null_mut(),
            )
        };
        Program(descriptor(answer))
    }

    /// Gives it a name in the BPF file system.
    pub fn pin(&self, path: &str) {
        let pin = step("a path", CString::new(path));
        // SAFETY: an open descriptor and a string that ends in NUL.
        let answer = unsafe { libbpf_sys::bpf_obj_pin(self.0.as_raw_fd(), pin.as_ptr()) };
        assert_eq!(answer, 0, "pin {path}");
    }

    /// Attaches it where packets come in, by a TCX link.
    pub fn attach(&self, interface: &str) -> Link {
        let index = step(interface, if_nametoindex(interface)) as i32;
        Link(descriptor(self.link(index)))
    }

    /// Whether there are TCX links here: of an interface that cannot be, a kernel that knows them says
    /// that it is not there, another one that it does not know what is meant.
    pub(crate) fn can_be_linked(&self) -> bool {
        self.link(i32::MAX) == -(Errno::ENODEV as i32)
    }

    /// What libbpf answers.
    fn link(&self, index: i32) -> i32 {
        let ingress = libbpf_sys::BPF_TCX_INGRESS;
        // SAFETY: an open descriptor, no options.
        unsafe { libbpf_sys::bpf_link_create(self.0.as_raw_fd(), index, ingress, std::ptr::null()) }
    }

    /// Attaches it where packets come in, as a filter, by `tc`, on a clsact qdisc that is there.
    pub fn filter(&self, interface: &str, priority: u32) {
        let path = "/sys/fs/bpf/others";
        self.pin(path);
        Place::here().tc(&format!(
            "filter add dev {interface} ingress pref {priority} bpf direct-action pinned {path}"
        ));
        step("take the pin away", std::fs::remove_file(path));
    }
}

/// r0 = answer
fn set_answer(answer: i32) -> bpf_insn {
    bpf_insn {
        code: 0xb7,
        imm: answer,
        ..Default::default()
    }
}

fn exit() -> bpf_insn {
    bpf_insn {
        code: 0x95,
        ..Default::default()
    }
}

/// What libbpf answers, as a descriptor.
fn descriptor(answer: i32) -> OwnedFd {
    assert!(answer >= 0, "libbpf: error {answer}");
    // SAFETY: libbpf has just made it, for the caller to own.
    unsafe { OwnedFd::from_raw_fd(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::{Namespace, Veth};
    use crate::sandbox;
    use crate::traffic::reaches;
    use std::net::{IpAddr, Ipv4Addr};
    use std::process::Command;

    #[test]
    fn a_program_drops_what_it_says() {
        sandbox::run("a_program_drops_what_it_says", |_| {
            let here = Place::here();
            let far = Namespace::new("far");
            let _cable = Veth::new((&here, "wan0"), (&far, "eth0"));
            here.ip("address add 192.0.2.1/24 dev wan0");
            far.ip("address add 192.0.2.2/24 dev eth0");
            let address: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
            let answered = |bytes: &str| {
                let mut ping: Command = far.command("ping");
                ping.args(["-n", "-c", "1", "-W", "1", "-s", bytes, "192.0.2.1"]);
                step("run ping", ping.output()).status.success()
            };
            assert!(reaches(&far, address));
            // Ethernet, IPv4 and ICMP headers are 42 bytes.
            let link = Program::dropping("others", 142).attach("wan0");
            assert!(!answered("100"));
            assert!(answered("101"));
            drop(link);
            here.tc("qdisc add dev wan0 clsact");
            Program::answering("others", GOES_ON).filter("wan0", 1);
            assert!(reaches(&far, address));
            Program::answering("others", DROPS).filter("wan0", 2);
            assert!(!reaches(&far, address));
        });
    }
}

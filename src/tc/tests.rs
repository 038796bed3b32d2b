//! Filters on clsact qdiscs, as `tc` shows them: ours come and go, others' stay. Links are tested
//! with the tools.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::rc::Rc;
use std::thread::sleep;
use std::time::Instant;

use libbpf_sys as sys;
use nix::net::if_::if_nametoindex;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use testbed::namespace::{Place, Veth};
use testbed::sandbox::{self, Sandbox};
use testbed::{long, step};

use super::clsact::{Filter, Owner};
use super::{Attacher, Attachment, Direction, Method, remove_leftovers};
use crate::Failure;
use crate::netlink::Netlink;

use Direction::{Egress, Ingress};

/// A loaded program that lets everything go on.
fn program() -> OwnedFd {
    let code = |code: u8, imm: i32| sys::bpf_insn {
        code,
        imm,
        ..Default::default()
    };
    // r0 = -1; exit
    let instructions = [code(0xb7, -1), code(0x95, 0)];
    // SAFETY: the strings end in NUL, the instructions are as many as is said, no options.
    let fd = unsafe {
        sys::bpf_prog_load(
            sys::BPF_PROG_TYPE_SCHED_CLS,
            c"goes_on".as_ptr(),
            c"Dual BSD/GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as sys::size_t,
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "load a program: error {fd}");
    // SAFETY: libbpf has just made it, for the caller to own.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A body that gets the number of wan0, which has no qdisc but its own; at its end it has none again.
fn with_wan0(name: &str, body: impl FnOnce(&Sandbox, u32) + Send) {
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let _wan0 = Veth::new((&here, "wan0"), (&here, "far0"));
        let before = sandbox.snapshot();
        body(sandbox, ifindex());
        before.assert_same(&sandbox.snapshot(), "at the end");
    });
}

fn ifindex() -> u32 {
    step("look up wan0", if_nametoindex("wan0"))
}

fn tc(words: &str) -> String {
    Place::here().tc(words)
}

fn filters(side: &str) -> String {
    tc(&format!("filter show dev wan0 {side}"))
}

fn has_clsact() -> bool {
    tc("qdisc show dev wan0").contains("clsact")
}

/// Somebody else's filter: a classic BPF program that lets everything go on.
fn add_others_filter(words: &str) {
    let mut command = Command::new("tc");
    command.args("filter add dev wan0".split(' '));
    command.args(words.split(' '));
    command.args(["bytecode", "1,6 0 0 4294967295"]);
    assert!(step("run tc", command.status()).success(), "{words}");
}

fn attach(attacher: &Attacher, label: &str, direction: Direction) -> Attachment {
    let attachment = attacher.attach(program().as_fd(), label, ifindex(), direction);
    step(format!("attach {label}"), attachment)
}

/// As if killed: the kernel keeps what is attached.
fn kill_9(attachment: Attachment) {
    std::mem::forget(attachment);
}

fn remove_left(labels: &[&str]) -> bool {
    let labels: Vec<String> = labels.iter().map(|label| (*label).into()).collect();
    let mut netlink = step("open netlink", Netlink::open());
    step(
        "remove what was left",
        remove_leftovers(&mut netlink, ifindex(), &labels),
    )
}

#[test]
fn the_qdisc_comes_with_the_first_filter_and_goes_with_the_last() {
    let name = "the_qdisc_comes_with_the_first_filter_and_goes_with_the_last";
    with_wan0(name, |sandbox, _| {
        let before = sandbox.snapshot();
        let attacher = Attacher::new(Method::Clsact);
        for _ in 0..2 {
            let first = attach(&attacher, "tool/first", Ingress);
            let second = attach(&attacher, "tool/second", Egress);
            let third = attach(&attacher, "tool/third", Ingress);
            for (side, label) in [
                ("ingress", "tool/first"),
                ("egress", "tool/second"),
                ("ingress", "tool/third"),
            ] {
                let filters = filters(side);
                let line = filters.lines().find(|line| line.contains(label));
                let line = line.unwrap_or_else(|| panic!("no {label} in {filters}"));
                for words in ["protocol all", "pref 7", "direct-action", "name goes_on"] {
                    assert!(line.contains(words), "{line}");
                }
            }
            for gone in [second, first] {
                drop(gone);
                assert!(has_clsact());
            }
            assert_eq!(filters("egress"), "");
            drop(third);
            before.assert_same(&sandbox.snapshot(), "without filters");
        }
    });
}

#[test]
fn on_somebodys_qdisc_only_our_filters_come_and_go() {
    let name = "on_somebodys_qdisc_only_our_filters_come_and_go";
    with_wan0(name, |sandbox, _| {
        tc("qdisc add dev wan0 clsact");
        add_others_filter("egress protocol all pref 8 handle 1 bpf");
        let before = sandbox.snapshot();
        let attacher = Attacher::new(Method::Clsact);
        let attachments = [Ingress, Egress].map(|side| attach(&attacher, "tool/program", side));
        for side in ["ingress", "egress"] {
            assert!(filters(side).contains("pref 8 bpf chain 0 handle 0x"));
            assert!(filters(side).contains("tool/program direct-action"));
        }
        drop(attachments);
        before.assert_same(&sandbox.snapshot(), "without our filters");
        tc("qdisc delete dev wan0 clsact");
    });
}

#[test]
fn somebodys_filter_in_our_qdisc_keeps_it() {
    with_wan0("somebodys_filter_in_our_qdisc_keeps_it", |_, _| {
        for theirs in [
            "ingress protocol all pref 7 handle 1 bpf",
            "egress protocol ip pref 7 handle 1 bpf",
            "ingress protocol all pref 100 chain 5 bpf",
        ] {
            let ours = attach(&Attacher::new(Method::Clsact), "tool/program", Ingress);
            add_others_filter(theirs);
            drop(ours);
            let left = filters("ingress") + &filters("egress");
            assert!(
                left.contains("bytecode") && !left.contains("tool/"),
                "{left}"
            );
            tc("qdisc delete dev wan0 clsact");
        }
    });
}

/// Between our look and our step: the step finds a qdisc that the look did not see.
#[test]
fn whoever_makes_a_qdisc_faster_keeps_it() {
    with_wan0(
        "whoever_makes_a_qdisc_faster_keeps_it",
        |sandbox, ifindex| {
            let mut netlink = step("open netlink", Netlink::open());
            for kind in ["clsact", "ingress"] {
                for direction in [Ingress, Egress] {
                    tc(&format!("qdisc add dev wan0 {kind}"));
                    let before = sandbox.snapshot();
                    let ours = Filter::new(ifindex, direction, "tool/program", Rc::new(Owner::Us));
                    let ours = ours.attach_with_qdisc(&mut netlink, program().as_fd());
                    assert!(step("attach", ours).is_none(), "{kind}");
                    before.assert_same(&sandbox.snapshot(), "after the failed step");
                    tc(&format!("qdisc delete dev wan0 {kind}"));
                }
            }
        },
    );
}

#[track_caller]
fn assert_conflict(label: &str, words: &str) {
    let refused =
        Attacher::new(Method::Clsact).attach(program().as_fd(), label, ifindex(), Ingress);
    let error = refused.unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(Failure::Conflict(_))),
        "{error:#}"
    );
    assert!(error.to_string().contains(words), "{error:#}");
}

#[test]
fn what_is_in_the_way_is_named_and_stays() {
    with_wan0("what_is_in_the_way_is_named_and_stays", |sandbox, _| {
        tc("qdisc add dev wan0 ingress");
        let before = sandbox.snapshot();
        assert_conflict("tool/program", "an ingress qdisc");
        before.assert_same(&sandbox.snapshot(), "after the refusal");
        tc("qdisc delete dev wan0 ingress");

        tc("qdisc add dev wan0 clsact");
        for theirs in ["protocol ip pref 8 bpf", "protocol all pref 8 u32"] {
            match theirs.strip_suffix("u32") {
                Some(_) => drop(tc(&format!(
                    "filter add dev wan0 ingress {theirs} match u8 0 0"
                ))),
                None => add_others_filter(&format!("ingress {theirs}")),
            }
            let before = sandbox.snapshot();
            assert_conflict("tool/program", "has priority 8 there");
            before.assert_same(&sandbox.snapshot(), "after the refusal");
            tc("filter delete dev wan0 ingress");
        }
        tc("qdisc delete dev wan0 clsact");
    });
}

#[test]
fn a_filter_that_is_refused_leaves_no_qdisc() {
    with_wan0(
        "a_filter_that_is_refused_leaves_no_qdisc",
        |sandbox, ifindex| {
            let before = sandbox.snapshot();
            let no_program = step("open /dev/null", File::open("/dev/null"));
            let attacher = Attacher::new(Method::Clsact);
            let try_attach = |fd: BorrowedFd<'_>, ifindex| {
                let refused = attacher.attach(fd, "tool/program", ifindex, Ingress);
                format!("{:#}", refused.unwrap_err())
            };
            let error = try_attach(no_program.as_fd(), ifindex);
            assert!(error.contains("Invalid argument"), "{error}");
            before.assert_same(&sandbox.snapshot(), "after the refusal");
            // What is attached afterwards is on a new qdisc of ours; a refusal there takes nothing along.
            let attached = attach(&attacher, "tool/other", Ingress);
            try_attach(no_program.as_fd(), ifindex);
            assert!(filters("ingress").contains("tool/other"));
            drop(attached);

            let error = try_attach(program().as_fd(), 99_999);
            assert!(error.contains("No such device"), "{error}");
        },
    );
}

#[test]
fn what_others_have_removed_is_not_missed_and_what_they_made_stays() {
    let name = "what_others_have_removed_is_not_missed_and_what_they_made_stays";
    with_wan0(name, |sandbox, _| {
        let attacher = Attacher::new(Method::Clsact);
        for (done, left) in [
            ("qdisc delete dev wan0 clsact", false),
            ("qdisc replace dev wan0 clsact", false),
            // Without a filter of ours nothing says that the qdisc is ours.
            ("filter delete dev wan0 ingress", true),
        ] {
            let attachment = attach(&attacher, "tool/program", Ingress);
            tc(done);
            drop(attachment);
            assert_eq!(has_clsact(), left, "{done}");
            if left {
                tc("qdisc delete dev wan0 clsact");
            }
        }
        let attachment = attach(&attacher, "tool/program", Ingress);
        tc("qdisc delete dev wan0 clsact");
        tc("qdisc add dev wan0 clsact");
        let before = sandbox.snapshot();
        drop(attachment);
        before.assert_same(&sandbox.snapshot(), "with a qdisc of somebody else");
        tc("qdisc delete dev wan0 clsact");
    });
}

#[test]
fn an_interface_that_is_gone_takes_its_filters_along() {
    let name = "an_interface_that_is_gone_takes_its_filters_along";
    sandbox::run(name, |_| {
        let here = Place::here();
        here.ip("link add wan0 type veth peer far0");
        let attachment = attach(&Attacher::new(Method::Clsact), "tool/program", Egress);
        here.ip("link delete wan0");
        drop(attachment);
    });
}

#[test]
fn leftovers_are_found_by_their_labels() {
    with_wan0("leftovers_are_found_by_their_labels", |sandbox, _| {
        let labels = ["tool/one", "tool/two"];
        let attacher = || Attacher::new(Method::Clsact);
        assert!(!remove_left(&labels));

        // On a qdisc of ours: it goes, too.
        let killed = attacher();
        kill_9(attach(&killed, "tool/one", Ingress));
        kill_9(attach(&killed, "tool/two", Egress));
        kill_9(attach(&killed, "tool/two", Ingress));
        assert!(!remove_left(&["tool/three"]));
        assert!(remove_left(&labels));
        assert!(!has_clsact());
        assert!(!remove_left(&labels));

        // With somebody's filter in it: it stays, as it does on his qdisc.
        kill_9(attach(&attacher(), "tool/one", Ingress));
        add_others_filter("ingress protocol all pref 7 handle 1 bpf");
        assert!(remove_left(&labels));
        let before = sandbox.snapshot();
        kill_9(attach(&attacher(), "tool/two", Ingress));
        assert!(remove_left(&labels));
        before.assert_same(&sandbox.snapshot(), "without our filters");
        tc("filter delete dev wan0 ingress");
        kill_9(attach(&attacher(), "tool/two", Ingress));
        assert!(remove_left(&labels));
        assert!(has_clsact());
        tc("qdisc delete dev wan0 clsact");
    });
}

#[test]
fn under_one_label_there_is_one_filter() {
    with_wan0("under_one_label_there_is_one_filter", |_, _| {
        let attacher = Attacher::new(Method::Clsact);
        let first = attach(&attacher, "tool/program", Ingress);
        kill_9(attach(&attacher, "tool/program", Ingress));
        let filters = filters("ingress");
        assert_eq!(filters.matches("tool/program").count(), 1, "{filters}");
        drop(first);
    });
}

/// As when a pinned program is taken over: the next process knows of no filter of ours.
#[test]
fn the_next_process_replaces_the_filter_whoever_made_the_qdisc() {
    let name = "the_next_process_replaces_the_filter_whoever_made_the_qdisc";
    with_wan0(name, |sandbox, ifindex| {
        let attacher = || Attacher::new(Method::Clsact);
        for (whose, priority) in [("ours", "pref 7"), ("somebody's", "pref 8")] {
            if whose == "somebody's" {
                tc("qdisc add dev wan0 clsact");
            }
            let without = sandbox.snapshot();
            kill_9(attach(&attacher(), "tool/program", Ingress));
            let other_side = attach(&attacher(), "tool/program", Egress);
            let before = filters("ingress");
            let next = attach(&attacher(), "tool/program", Ingress);
            let after = filters("ingress");
            assert_eq!(after.matches("tool/program").count(), 1, "{whose}: {after}");
            assert!(after.contains(priority), "{whose}: {after}");
            assert_ne!(before, after, "the program is another one");

            // What is refused leaves it as it is.
            let before = sandbox.snapshot();
            let no_program = step("open /dev/null", File::open("/dev/null"));
            let refused = attacher().attach(no_program.as_fd(), "tool/program", ifindex, Ingress);
            assert!(refused.is_err(), "attached a file");
            before.assert_same(&sandbox.snapshot(), "after the refusal");

            drop(other_side);
            drop(next);
            without.assert_same(&sandbox.snapshot(), whose);
        }
        tc("qdisc delete dev wan0 clsact");
    });
}

/// Killed in the middle of attaching or detaching, which take one system call each.
#[test]
fn a_qdisc_of_ours_is_never_without_filter() {
    let name = "a_qdisc_of_ours_is_never_without_filter";
    with_wan0(name, |_, ifindex| {
        let times = if long(name, "200 kills, not 5000") {
            5000
        } else {
            200
        };
        let program = program();
        let began = Instant::now();
        drop(attach(
            &Attacher::new(Method::Clsact),
            "tool/program",
            Ingress,
        ));
        let round = began.elapsed();
        let mut found = 0;
        for time in 0..times {
            // SAFETY: the child uses nothing that another thread may have had locked, the heap
            // excepted, which the C library makes usable in it.
            let child = match step("fork", unsafe { fork() }) {
                ForkResult::Parent { child } => child,
                ForkResult::Child => attach_for_ever(program.as_fd(), ifindex),
            };
            // Somewhere in its second round.
            sleep(round + round * (time * 37 % 100) / 100);
            step("kill it", kill(child, Signal::SIGKILL));
            step("wait for it", waitpid(child, None));
            let attached = filters("ingress").contains("tool/program");
            assert_eq!(has_clsact(), attached, "after kill {time}");
            assert_eq!(remove_left(&["tool/program"]), attached);
            found += u32::from(attached);
        }
        println!("{found} of {times} kills found a filter, and its qdisc");
    });
}

fn attach_for_ever(program: BorrowedFd<'_>, ifindex: u32) -> ! {
    let attacher = Attacher::new(Method::Clsact);
    loop {
        let attachment = attacher.attach(program, "tool/program", ifindex, Ingress);
        drop(attachment);
    }
}

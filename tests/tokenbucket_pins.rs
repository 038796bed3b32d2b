//! A token bucket that stays in the kernel, and what is done with one that is there: `--pin`, status,
//! set, detach, and a new start that takes over.

mod limiting;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use limiting::{BURST, Bucket, DEFAULT, LEFT, TOOL, burst, ipv4, limit, number};
use nix::mount::{MsFlags, mount, umount};
use serde_json::Value;
use testbed::attaching;
use testbed::bpf::remove_folders_of_tc;
use testbed::job::moments;
use testbed::line::{Line, datagram, of};
use testbed::namespace::{Place, Veth};
use testbed::process::Ended;
use testbed::sandbox::{self, Sandbox};
use testbed::schema::Schema;
use testbed::tool::{ENDS_WITHIN, READY_WITHIN};
use testbed::traffic::{Paced, pace};
use testbed::{joined, side_by_side, step};

const PINS: &str = "/sys/fs/bpf";

/// Runs it, for what it says.
fn ask(sandbox: &Sandbox, arguments: &str) -> Ended {
    sandbox.start(TOOL.command(arguments)).finish(ENDS_WITHIN)
}

#[track_caller]
fn status(sandbox: &Sandbox) -> Value {
    let ended = ask(sandbox, "status --iface wan0 --json");
    ended.assert_code(0);
    let lines = Schema::read("docs/tokenbucket.schema.json").fitting(&ended.stdout);
    assert_eq!(lines.len(), 1, "{}", ended.stdout);
    lines[0].clone()
}

/// Changes the rule; what it says of that.
#[track_caller]
fn set(sandbox: &Sandbox, change: &str) -> String {
    let ended = ask(sandbox, &format!("set --iface wan0 {change}"));
    ended.assert_code(0);
    assert_eq!(ended.stderr, "", "{change}");
    ended.stdout
}

#[track_caller]
fn detach(sandbox: &Sandbox) -> String {
    let ended = ask(sandbox, "detach --iface wan0");
    ended.assert_code(0);
    assert_eq!(ended.stderr, "");
    ended.stdout
}

/// How many of a burst of this source arrive.
fn passes(line: &Line, source: IpAddr) -> u64 {
    let arrivals = line.arrivals();
    burst(line, &[datagram(line.frame(), source)]);
    of(&arrivals.finish().0, source)
}

/// Names of the files below a folder of the BPF file system.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in step(folder.display(), fs::read_dir(folder)) {
        let path = step(folder.display(), entry).path();
        if path.is_dir() {
            names.extend(files(&path));
        } else {
            let name = path.file_name().unwrap_or_default();
            names.insert(name.to_string_lossy().into_owned());
        }
    }
    names
}

#[track_caller]
fn assert_stays(name: &str, attach: &str) {
    sandbox::run(name, |sandbox| {
        let line = Line::new();
        let before = sandbox.snapshot();
        let sides = "--ingress --egress";
        let limiting = limit(sandbox, &format!("--pin {sides} --attach {attach}"));
        assert_eq!(passes(&line, ipv4(1)), LEFT);
        limiting.finish();
        assert_eq!(passes(&line, ipv4(1)), 0, "its tokens are used up");
        assert_eq!(passes(&line, ipv4(2)), LEFT, "a new one");

        let mut expected = BTreeSet::from([
            "cells",
            "cells_taken",
            "events",
            "free_cells",
            "rulebook",
            "state_table",
            "wide_state_table",
            "xfsm_table",
        ]);
        if attach == "tcx" {
            expected.extend(["link_ingress", "link_egress"]);
        }
        let pins = Path::new(PINS).join("netbpf/tokenbucket");
        assert_eq!(
            files(&pins),
            expected.iter().map(|name| (*name).to_owned()).collect()
        );

        let report = status(sandbox);
        assert_eq!(number(&report, "/passed/packets"), 2 * LEFT, "{report}");
        assert_eq!(
            number(&report, "/dropped/packets"),
            3 * BURST - 2 * LEFT,
            "{report}"
        );
        assert_eq!(number(&report, "/flows"), 2, "{report}");
        assert_eq!(report["final"], false, "{report}");
        for unknown in ["/elapsed", "/interval", "/passed/rate"] {
            assert_eq!(report.pointer(unknown), Some(&Value::Null), "{report}");
        }
        let text = ask(sandbox, "status --iface wan0");
        text.assert_code(0);
        assert_eq!(text.stderr.lines().count(), 1, "{}", text.stderr);
        assert!(
            text.stderr
                .starts_with("wan0: pinned in /sys/fs/bpf/netbpf/"),
            "{}",
            text.stderr
        );
        for words in [
            "5 tokens, 1 a second",
            "flows 2 of 65,536",
            "  198.51.100.1\n",
        ] {
            assert!(text.stdout.contains(words), "{words}: {}", text.stdout);
        }

        let said = detach(sandbox);
        assert!(
            said.starts_with("wan0: detached (it was pinned in "),
            "{said}"
        );
        before.assert_same(&sandbox.snapshot(), "after detach");
        assert_eq!(passes(&line, ipv4(1)), BURST);
        for command in ["detach", "status", "set --tokens 9"] {
            let command = format!("{command} --iface wan0");
            TOOL.assert_refused(sandbox, &command, 2, "no tokenbucket is attached to wan0");
        }
    });
}

#[test]
fn a_pinned_one_stays_until_it_is_detached() {
    let name = "a_pinned_one_stays_until_it_is_detached";
    attaching::by_each_way(|attach| assert_stays(name, attach));
}

/// The original's maps were called `tc/globals/state_table` and `tc/globals/xfsm_table`.
#[test]
fn maps_have_the_originals_names_if_that_is_asked_for() {
    let name = "maps_have_the_originals_names_if_that_is_asked_for";
    sandbox::run(name, |sandbox| {
        let line = Line::new();
        let globals = Path::new(PINS).join("tc/globals");
        // A folder of the user, as tc makes it: it stays, and what is in it.
        for theirs in [false, true] {
            if theirs {
                step("make tc/globals", fs::create_dir_all(&globals));
                step(
                    "and something in it",
                    fs::create_dir(globals.join("others")),
                );
            }
            let before = sandbox.snapshot();
            limit(sandbox, "--pin-legacy").finish();
            let names = ["state_table", "xfsm_table"].map(str::to_owned);
            assert_eq!(files(&globals), BTreeSet::from(names));
            // The flow's entry is in it.
            assert_eq!(passes(&line, ipv4(1)), LEFT);
            let mut bpftool = Command::new("bpftool");
            bpftool
                .args(["-j", "map", "dump", "pinned"])
                .arg(globals.join("state_table"));
            if testbed::is_installed("bpftool") {
                let output = step("run bpftool", bpftool.output());
                let entries: Value = step("its JSON", serde_json::from_slice(&output.stdout));
                assert_eq!(entries.as_array().map(Vec::len), Some(1), "{entries}");
            }
            // Taken over without these names, they go.
            limit(sandbox, "--pin").finish();
            assert_eq!(globals.exists(), theirs);
            assert!(!globals.join("state_table").exists());
            limit(sandbox, "--pin-legacy").finish();
            assert_eq!(files(&globals).len(), 2);
            detach(sandbox);
            before.assert_same(&sandbox.snapshot(), "after detach");
        }
        // A map of somebody else under such a name.
        let other = TOOL.command("--iface lan0 --pin-legacy --duration 0.1");
        sandbox.start(other).finish(ENDS_WITHIN).assert_code(0);
        let before = sandbox.snapshot();
        let ended = ask(sandbox, "--iface wan0 --pin-legacy --duration 0.1");
        ended.assert_code(5);
        assert!(
            ended.stderr.contains("state_table is there already"),
            "{ended:?}"
        );
        before.assert_same(&sandbox.snapshot(), "after the refusal");
        ask(sandbox, "detach --iface lan0").assert_code(0);
        step("remove the folder", fs::remove_dir(globals.join("others")));
        step("remove the folder", fs::remove_dir(&globals));
        step(
            "remove the folder",
            fs::remove_dir(Path::new(PINS).join("tc")),
        );
    });
}

/// Somebody's empty folder is not ours to remove.
#[test]
fn an_empty_folder_of_tc_stays() {
    sandbox::run("an_empty_folder_of_tc_stays", |sandbox| {
        let here = Place::here();
        let _cable = Veth::new((&here, "wan0"), (&here, "far0"));
        let globals = Path::new(PINS).join("tc/globals");
        step("make tc/globals", fs::create_dir_all(&globals));
        let before = sandbox.snapshot();
        limit(sandbox, "--pin").finish();
        detach(sandbox);
        before.assert_same(&sandbox.snapshot(), "after detach");
        step("remove the folder", fs::remove_dir(&globals));
        step(
            "remove the folder",
            fs::remove_dir(Path::new(PINS).join("tc")),
        );
    });
}

#[test]
fn without_the_bpf_file_system_nothing_is_pinned() {
    sandbox::run("without_the_bpf_file_system_nothing_is_pinned", |sandbox| {
        let here = Place::here();
        let _cable = Veth::new((&here, "wan0"), (&here, "far0"));
        let no_flags = MsFlags::empty();
        step(
            "hide it",
            mount(Some("tmpfs"), PINS, Some("tmpfs"), no_flags, None::<&str>),
        );
        let before = sandbox.snapshot();
        for attach in attaching::ways() {
            let ended = ask(sandbox, &format!("--iface wan0 --pin --attach {attach}"));
            ended.assert_code(4);
            assert!(ended.stderr.contains("mount -t bpf"), "{}", ended.stderr);
            before.assert_same(&sandbox.snapshot(), attach);
        }
        step("show it again", umount(PINS));
    });
}

const SOURCE: u8 = 77;

/// What is sent by a source at its pace, while something happens.
#[track_caller]
fn while_it_sends<T>(line: &Line, source: IpAddr, body: impl FnOnce() -> T) -> (Paced, T) {
    let frames = [datagram(line.frame(), source).build()];
    let over = AtomicBool::new(false);
    scope(|scope| {
        let sending = scope.spawn(|| {
            let goes_on = |_| !over.load(Ordering::Acquire);
            pace(&line.sender, "eth0", &frames, 200.0, goes_on)
        });
        let done = body();
        over.store(true, Ordering::Release);
        (joined(sending), done)
    })
}

/// A source that sends has no full bucket of so many, and when an hour is what a token takes, soon none at
/// all: a sender that had to wait for a CPU has left some.
#[track_caller]
fn assert_used_up(line: &Line, source: IpAddr, full: u64, what: &str) {
    let left = passes(line, source);
    assert!(left < full, "{what}: {left} were left");
    assert_eq!(passes(line, source), 0, "{what}: its tokens are used up");
}

/// Newer programs take over, one after the other: nothing passes unmetered, nobody gets new tokens for
/// it, and everything is counted.
#[track_caller]
fn assert_takes_over(name: &str, attach: &str) {
    let ways = [&["auto"], attaching::ways()].concat();
    sandbox::run(name, |sandbox| {
        let line = Line::new();
        for theirs in [false, true] {
            if theirs {
                Place::here().tc("qdisc add dev wan0 clsact");
            }
            let before = sandbox.snapshot();
            limit(sandbox, &format!("--pin --attach {attach}")).finish();
            let arrivals = line.arrivals();
            let (sent, report) = while_it_sends(&line, ipv4(SOURCE), || {
                for time in 0..5 {
                    // However it is attached, a new one comes in its place.
                    let attach = ways[time % ways.len()];
                    limit(sandbox, &format!("--pin --attach {attach}")).finish();
                }
                limit(sandbox, "--pin")
            });
            DEFAULT.assert_passed(attach, sent, of(&arrivals.finish().0, ipv4(SOURCE)));
            let report = report.finish();
            let (passed, dropped) = (
                number(&report, "/passed/packets"),
                number(&report, "/dropped/packets"),
            );
            assert_eq!(passed + dropped, sent.packets, "{report}");
            DEFAULT.assert_passed("as counted", sent, passed);
            assert_eq!(number(&report, "/flows"), 1, "{report}");
            detach(sandbox);
            before.assert_same(&sandbox.snapshot(), "after detach");
        }
        Place::here().tc("qdisc delete dev wan0 clsact");
    });
}

#[test]
fn a_newer_one_takes_over_from_packet_to_packet() {
    let name = "a_newer_one_takes_over_from_packet_to_packet";
    attaching::by_each_way(|attach| assert_takes_over(name, attach));
}

/// What is known of flows means something else by another key, and has no place in another table.
#[test]
fn what_cannot_be_taken_over_stays_as_it_is() {
    let name = "what_cannot_be_taken_over_stays_as_it_is";
    let by = |attach: &str| {
        sandbox::run(name, |sandbox| {
            let line = Line::new();
            limit(sandbox, &format!("--pin --rate 1/h --attach {attach}")).finish();
            assert_eq!(passes(&line, ipv4(1)), LEFT);
            for (arguments, words) in [
                ("--pin --key dst", "another --key"),
                ("--pin --max-entries 1000", "another --max-entries"),
                ("--pin --rate 1mbit", "another --rate"),
                ("--pin --xfsm port_knocking", "another --xfsm"),
                ("--pin --egress", "another choice of --ingress and --egress"),
                (
                    "--pin --ingress --egress",
                    "another choice of --ingress and --egress",
                ),
                ("", "--pin takes it over"),
                ("--attach clsact", "--pin takes it over"),
            ] {
                TOOL.assert_refused(sandbox, &format!("--iface wan0 {arguments}"), 5, words);
                assert_eq!(passes(&line, ipv4(1)), 0, "{attach}, after {arguments}");
            }
            // It is the instance that runs that is in the way, while there is one.
            let running = limit(sandbox, "--pin --rate 1/h");
            let pid = format!("pid {}", running.process.pid());
            for arguments in ["--iface wan0", "--iface wan0 --pin"] {
                TOOL.assert_refused(sandbox, arguments, 5, &pid);
            }
            running.finish();
            assert_eq!(passes(&line, ipv4(1)), 0);
            detach(sandbox);
        });
    };
    attaching::by_each_way(by);
}

/// With another rate a new start is like `set`.
#[test]
fn tokens_are_kept_when_the_rate_changes() {
    let name = "tokens_are_kept_when_the_rate_changes";
    type Change<'c> = &'c (dyn Fn(&Sandbox, &str) + Sync);
    let by_set: Change<'_> = &|sandbox, rule| drop(set(sandbox, rule));
    let by_start: Change<'_> =
        &|sandbox, rule| drop(limit(sandbox, &format!("--pin {rule}")).finish());
    let by = |how: &str, change: Change<'_>| {
        sandbox::run(name, |sandbox| {
            let line = Line::new();
            limit(sandbox, "--pin").finish();
            // An hour for a token: who has none left would wait that long.
            change(sandbox, "--rate 1/h");
            assert_eq!(passes(&line, ipv4(1)), LEFT, "{how}");
            assert_eq!(passes(&line, ipv4(1)), 0, "{how}");
            change(sandbox, "--rate 5/s");
            let arrivals = line.arrivals();
            let (sent, ()) = while_it_sends(&line, ipv4(1), || sleep(Duration::from_secs(2)));
            let bucket = Bucket {
                tokens: 5,
                regeneration: Duration::from_millis(200),
            };
            // Without the six that it had used up.
            let passed = of(&arrivals.finish().0, ipv4(1));
            bucket.assert_passed(how, sent, passed + LEFT);

            // Whatever regenerates meanwhile is used at once.
            while_it_sends(&line, ipv4(1), || change(sandbox, "--rate 1/h"));
            assert_used_up(&line, ipv4(1), LEFT, how);
            assert_eq!(passes(&line, ipv4(2)), LEFT, "{how}: a new one");
            change(sandbox, "--tokens 9 --rate 1/h");
            assert_eq!(passes(&line, ipv4(2)), 0, "{how}: its tokens are used up");
            assert_eq!(
                passes(&line, ipv4(3)),
                10,
                "{how}: a new one of more tokens"
            );
            let report = status(sandbox);
            assert_eq!(report["rule"]["tokens"], 9, "{report}");
            assert_eq!(report["rule"]["regeneration"], 3600.0, "{report}");
            assert_eq!(number(&report, "/flows"), 3, "{report}");
            detach(sandbox);
        });
    };
    side_by_side([&|| by("set", by_set), &|| by("a new start", by_start)]);
}

#[test]
fn a_running_one_is_changed_and_ended() {
    let name = "a_running_one_is_changed_and_ended";
    sandbox::run(name, |sandbox| {
        let line = Line::new();
        for attach in attaching::ways() {
            let before = sandbox.snapshot();
            let limiting = limit(sandbox, &format!("--rate 1/h --attach {attach}"));
            assert_eq!(passes(&line, ipv4(1)), LEFT, "{attach}");
            let said = set(sandbox, "--rate 20/s");
            let expected = "wan0: 5 tokens, 20 a second (before: 5 tokens, one in 3600s)\n";
            assert_eq!(said, expected);
            sleep(Duration::from_millis(500));
            assert_eq!(
                passes(&line, ipv4(1)),
                LEFT,
                "{attach}: its bucket is full again"
            );
            let own = limiting.report();
            assert_eq!(own["rule"]["regeneration"], 0.05, "{own}");
            let asked = status(sandbox);
            for figure in ["/passed/packets", "/dropped/packets", "/flows"] {
                assert_eq!(number(&asked, figure), number(&own, figure), "{asked}");
            }
            let text = ask(sandbox, "status --iface wan0");
            let pid = limiting.process.pid();
            assert_eq!(text.stderr, format!("wan0: running as pid {pid}\n"));

            for (change, words) in [
                ("", "--tokens, --rate or --burst"),
                ("--rate 1mbit", "counts tokens"),
                ("--burst 32kb", "counts tokens"),
                ("--tokens 0", "at least 1 token"),
                ("--rate 0/s", "--rate"),
            ] {
                TOOL.assert_refused(sandbox, &format!("set --iface wan0 {change}"), 2, words);
            }
            let said = detach(sandbox);
            assert_eq!(
                said,
                format!("wan0: detached (it was running as pid {pid})\n")
            );
            let ended = limiting.process.finish(ENDS_WITHIN);
            ended.assert_code(0);
            before.assert_same(&sandbox.snapshot(), "after detach");
        }
    });
}

/// An instance with two interfaces is one: what is done by the name of one is done at both.
#[test]
fn both_interfaces_of_an_instance_are_changed_and_detached_together() {
    let name = "both_interfaces_of_an_instance_are_changed_and_detached_together";
    sandbox::run(name, |sandbox| {
        let line = Line::new();
        let before = sandbox.snapshot();
        for attach in attaching::ways() {
            let sides = "--ingress --egress";
            let arguments = format!("--iface wan0 lan0 {sides} --rate 1/h --attach {attach}");
            let tool = sandbox.start(TOOL.command(&arguments));
            tool.wait_for_error("Limiting ", READY_WITHIN);
            // Each packet takes a token of the same bucket at wan0, and one at lan0.
            assert_eq!(passes(&line, ipv4(1)), LEFT / 2, "{attach}");
            let said = set(sandbox, "--tokens 3");
            assert!(said.starts_with("wan0: 3 tokens, "), "{said}");
            assert_eq!(passes(&line, ipv4(2)), 2, "{attach}");
            let said = detach(sandbox);
            let pid = tool.pid();
            let expected = format!(
                "wan0: detached (it was running as pid {pid})\n\
                 lan0: detached too (it was the same instance)\n"
            );
            assert_eq!(said, expected);
            assert_eq!(passes(&line, ipv4(1)), BURST, "{attach}");
            tool.finish(ENDS_WITHIN).assert_code(0);
            before.assert_same(&sandbox.snapshot(), "after detach");
        }
    });
}

#[test]
fn a_rate_in_bytes_is_changed_and_a_machine_is_not() {
    let name = "a_rate_in_bytes_is_changed_and_a_machine_is_not";
    sandbox::run(name, |sandbox| {
        let line = Line::new();
        // 64 bytes a packet: eight of them at once, then none for a minute.
        let limiting = limit(sandbox, "--rate 8bit --burst 1514b");
        let passed = passes(&line, ipv4(1)) + passes(&line, ipv4(1));
        assert_eq!(passed, 1514 / 64);
        for (change, words) in [
            ("--tokens 9", "counts bytes"),
            ("--rate 9/s", "counts bytes"),
        ] {
            TOOL.assert_refused(sandbox, &format!("set --iface wan0 {change}"), 2, words);
        }
        // The debt is paid at the new rate.
        let said = set(sandbox, "--rate 1mbit");
        assert!(said.starts_with("wan0: 1mbit, burst "), "{said}");
        sleep(Duration::from_millis(100));
        assert_eq!(passes(&line, ipv4(1)), BURST);
        limiting.finish();

        let limiting = limit(sandbox, "--xfsm port_knocking");
        for change in ["--tokens 9", "--rate 9/s", "--rate 1mbit"] {
            let change = format!("set --iface wan0 {change}");
            TOOL.assert_refused(sandbox, &change, 2, "runs another machine");
        }
        limiting.finish();
    });
}

/// Makes tokenbucket.o there, as compat/tbpoc-bpf does.
fn make_object(folder: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut make = Command::new("make");
    make.arg("-s")
        .arg("-f")
        .arg(root.join("compat/tbpoc-bpf/Makefile"));
    make.arg(format!("BPF={}", root.join("src/bpf").display()));
    assert!(step("run make", make.current_dir(folder).status()).success());
}

#[test]
fn one_that_tc_attached_is_changed_but_not_ended() {
    let name = "one_that_tc_attached_is_changed_but_not_ended";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let line = Line::new();
        let folder = "/run/object";
        step("make a folder", fs::create_dir(folder));
        make_object(folder);
        here.tc("qdisc add dev wan0 clsact");
        here.tc("filter add dev wan0 ingress bpf da obj /run/object/tokenbucket.o");
        assert_eq!(passes(&line, ipv4(1)), LEFT);
        assert_eq!(passes(&line, ipv4(1)), 0);
        let report = status(sandbox);
        assert_eq!(number(&report, "/passed/packets"), LEFT, "{report}");
        assert_eq!(
            number(&report, "/dropped/packets"),
            2 * BURST - LEFT,
            "{report}"
        );
        let text = ask(sandbox, "status --iface wan0");
        assert_eq!(text.stderr, "wan0: attached by tc or another program\n");

        // Whatever regenerates meanwhile is used at once.
        while_it_sends(&line, ipv4(1), || set(sandbox, "--rate 1/h"));
        assert_used_up(&line, ipv4(1), LEFT, "one a second");
        set(sandbox, "--rate 5/s --tokens 3");
        let arrivals = line.arrivals();
        let (sent, ()) = while_it_sends(&line, ipv4(2), || sleep(Duration::from_secs(2)));
        let bucket = Bucket {
            tokens: 3,
            regeneration: Duration::from_millis(200),
        };
        bucket.assert_passed("after set", sent, of(&arrivals.finish().0, ipv4(2)));
        while_it_sends(&line, ipv4(2), || set(sandbox, "--rate 1/h"));
        assert_used_up(&line, ipv4(2), 4, "five a second");

        // Somebody else attached it: he has to remove it.
        TOOL.assert_refused(sandbox, "detach --iface wan0", 5, "tc filter show dev wan0");
        assert_eq!(passes(&line, ipv4(2)), 0);
        // One of ours beside it is another instance.
        let before = sandbox.snapshot();
        let limiting = limit(sandbox, "--pin");
        assert_eq!(passes(&line, ipv4(3)), 4, "the stricter one decides");
        limiting.finish();
        detach(sandbox);
        before.assert_same(&sandbox.snapshot(), "after detach of ours");
        here.tc("qdisc delete dev wan0 clsact");
        remove_folders_of_tc();
        step("remove the folder", fs::remove_dir_all(folder));
    });
}

/// Pins of an interface that goes, or gets another name, or comes again.
#[test]
fn pins_belong_to_the_interface_and_not_to_its_name() {
    let name = "pins_belong_to_the_interface_and_not_to_its_name";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let clean = sandbox.snapshot();
        let cable = || Veth::new((&here, "wan0"), (&here, "far0"));
        for attach in attaching::ways() {
            let pin = format!("--pin --attach {attach}");
            // Deleted, then detached.
            let gone = cable();
            limit(sandbox, &pin).finish();
            drop(gone);
            let said = detach(sandbox);
            assert!(
                said.ends_with(" removed: its interface is gone\n"),
                "{said}"
            );
            clean.assert_same(&sandbox.snapshot(), "after detach without an interface");

            // Deleted and made again: the pins of the old one go with the next start.
            let gone = cable();
            limit(sandbox, &pin).finish();
            drop(gone);
            let again = cable();
            limit(sandbox, "").finish();
            drop(again);
            clean.assert_same(&sandbox.snapshot(), "after a run on a new interface");

            // Renamed.
            let renamed = cable();
            limit(sandbox, &pin).finish();
            here.ip("link set wan0 down");
            here.ip("link set wan0 name wan9");
            here.ip("link set wan9 up");
            let no = ask(sandbox, "detach --iface wan0");
            no.assert_code(2);
            ask(sandbox, "status --iface wan9").assert_code(0);
            ask(sandbox, "set --iface wan9 --rate 5/s").assert_code(0);
            ask(sandbox, "detach --iface wan9").assert_code(0);
            here.ip("link delete wan9");
            drop(renamed);
            clean.assert_same(&sandbox.snapshot(), "after detach by another name");
        }
    });
}

/// Killed at any moment of a first start, and of one that takes over: the next start goes on, and detach
/// leaves nothing.
#[track_caller]
fn assert_survives_kills(name: &str, attach: &str) {
    sandbox::run(name, |sandbox| {
        let line = Line::new();
        let before = sandbox.snapshot();
        let arguments = format!("--pin --rate 1/h --attach {attach}");
        let start = || {
            let command = format!("--iface wan0 --json {arguments}");
            sandbox.start(TOOL.command(&command))
        };
        let limiting = limit(sandbox, &arguments);
        let ready = limiting.process.started().elapsed();
        limiting.finish();
        detach(sandbox);
        for (number, after) in moments(name, ready).enumerate() {
            let when = format!("killed after {after:?}");
            start().kill_after(after);
            if number % 2 == 0 {
                limit(sandbox, &arguments).finish();
            }
            // It may have been killed before there was anything.
            let ended = ask(sandbox, "detach --iface wan0");
            let code = ended.status.code();
            assert!(
                code == Some(0) || number % 2 == 1 && code == Some(2),
                "{when}: {ended:?}"
            );
            if number % 2 == 1 {
                // What it had made by then may be a folder with nothing in it.
                limit(sandbox, "").finish();
            }
            before.assert_same(&sandbox.snapshot(), &when);
        }

        limit(sandbox, &arguments).finish();
        assert_eq!(passes(&line, ipv4(1)), LEFT);
        for after in moments(name, ready) {
            start().kill_after(after);
            assert_eq!(
                passes(&line, ipv4(1)),
                0,
                "taken over, killed after {after:?}"
            );
        }
        limit(sandbox, &arguments).finish();
        assert_eq!(passes(&line, ipv4(1)), 0);
        assert_eq!(passes(&line, ipv4(2)), LEFT);
        detach(sandbox);
        before.assert_same(&sandbox.snapshot(), "after all take-overs");
    });
}

#[test]
fn after_kill_9_a_pinned_one_goes_on_or_is_not_there() {
    let name = "after_kill_9_a_pinned_one_goes_on_or_is_not_there";
    attaching::by_each_way(|attach| assert_survives_kills(name, attach));
}

/// Without a process, it is `status` that makes room.
#[test]
fn status_keeps_room_in_a_table_that_nobody_tends() {
    let name = "status_keeps_room_in_a_table_that_nobody_tends";
    sandbox::run(name, |sandbox| {
        let line = Line::new();
        limit(sandbox, "--pin --max-entries 10 --tokens 1 --rate 2/s").finish();
        let frames = |hosts: std::ops::Range<u8>| {
            hosts
                .map(|host| datagram(line.frame(), ipv4(host)))
                .collect::<Vec<_>>()
        };
        burst(&line, &frames(0..20));
        let full = status(sandbox);
        assert_eq!(number(&full, "/flows"), 10, "{full}");
        assert_eq!(number(&full, "/events/overflowed"), 10, "{full}");
        // Twice the bucket, and a margin.
        sleep(Duration::from_millis(1500));
        let empty = status(sandbox);
        assert_eq!(number(&empty, "/flows"), 0, "{empty}");
        burst(&line, &frames(20..30));
        let again = status(sandbox);
        assert_eq!(number(&again, "/flows"), 10, "{again}");
        assert_eq!(number(&again, "/events/overflowed"), 10, "{again}");
        detach(sandbox);
    });
}

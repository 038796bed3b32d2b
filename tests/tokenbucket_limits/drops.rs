//! `--trace-drops`: what is dropped on a live line is in the file, with its reason; what is not is counted, to the
//! packet; and whatever happens to the file, the tool goes on limiting.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use testbed::capture::{Block, read_pcapng};
use testbed::line::{Line, datagram};
use testbed::process::Ended;
use testbed::sandbox;
use testbed::step;
use testbed::tool::ENDS_WITHIN;
use testbed::traffic::inject;

use crate::limiting::{BURST, LEFT, Limiting, TOOL, burst, ipv4, limit, number};

const FILE: &str = "/run/drops.pcapng";
const TRACE: &str = "--trace-drops /run/drops.pcapng";
/// Types of blocks of pcapng.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// The last report of a run.
#[track_caller]
fn last(ended: &Ended) -> Value {
    let line = ended.stdout.lines().last().unwrap_or_default();
    step("parse the last report", serde_json::from_str(line))
}

/// The end of a run, as asked for.
#[track_caller]
fn end(limiting: Limiting<'_>) -> Ended {
    limiting.process.signal(Signal::SIGTERM);
    let ended = limiting.process.finish(ENDS_WITHIN);
    ended.assert_code(0);
    ended
}

/// So many of the same packet, at once.
fn flood(line: &Line, count: usize) {
    let frame = datagram(line.frame(), ipv4(1)).build();
    let frames = std::iter::repeat_n(frame.as_slice(), count);
    inject(&line.sender, "eth0", frames, Duration::ZERO);
}

fn blocks(kind: u32) -> Vec<Block> {
    let file = step(FILE, fs::read(FILE));
    let mut blocks = step(FILE, read_pcapng(&file));
    blocks.retain(|block| block.kind == kind);
    blocks
}

/// Every packet that was dropped is in one of the counts.
#[track_caller]
fn assert_adds_up(report: &Value) {
    let of = |name: &str| number(report, &format!("/trace/{name}"));
    let parts = [
        "written",
        "not_sampled",
        "above_rate",
        "no_room",
        "not_written",
    ]
    .map(of);
    assert_eq!(of("seen"), parts.iter().sum::<u64>(), "{report}");
    assert_eq!(of("seen"), number(report, "/dropped/packets"), "{report}");
}

#[test]
fn what_is_dropped_is_in_the_file_with_its_reason() {
    let name = "what_is_dropped_is_in_the_file_with_its_reason";
    sandbox::run(name, |sandbox| {
        let line = Line::new();
        for (arguments, word) in [
            ("", "drop: no token left, next in "),
            ("--dry-run", "would drop: no token left, next in "),
        ] {
            let limiting = limit(sandbox, &format!("{TRACE} {arguments}"));
            let packet = datagram(line.frame(), ipv4(1));
            burst(&line, std::slice::from_ref(&packet));
            limiting.report();
            let mode = step(FILE, fs::metadata(FILE)).permissions().mode();
            assert_eq!(mode & 0o7777, 0o600);
            let ended = end(limiting);
            let dropped = BURST - LEFT;
            let said = format!("{FILE}: {dropped} of {dropped} packets written\n");
            assert!(ended.stderr.contains(&said), "{}", ended.stderr);
            assert_adds_up(&last(&ended));

            assert_eq!(blocks(SECTION).len(), 1);
            let interfaces = blocks(INTERFACE);
            assert_eq!(interfaces.len(), 1);
            assert_eq!(
                (interfaces[0].u16(0), interfaces[0].option(2)),
                (1, &b"wan0"[..])
            );
            assert_eq!(interfaces[0].option(9), [9]);
            let packets = blocks(PACKET);
            assert_eq!(packets.len() as u64, dropped);
            let now = step(
                "the time",
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH),
            )
            .as_nanos();
            for block in &packets {
                let time = u128::from(block.u32(4)) << 32 | u128::from(block.u32(8));
                assert!(time < now && now - time < 60_000_000_000, "{time} {now}");
                let frame = packet.build();
                let captured = block.u32(12) as usize;
                assert_eq!(
                    (block.u32(0), captured, block.u32(16) as usize),
                    (0, frame.len().min(256), frame.len())
                );
                assert_eq!(block.body[20..20 + captured], frame[..captured]);
                let comment = String::from_utf8_lossy(block.option(1)).into_owned();
                assert!(comment.starts_with(word), "{comment}");
                // It came in.
                assert_eq!(block.option(2), 1_u32.to_ne_bytes());
            }
            let statistics = blocks(STATISTICS);
            assert_eq!(statistics.len(), 1);
            assert_eq!(statistics[0].option(4), dropped.to_ne_bytes());
            assert_eq!(statistics[0].option(5), 0_u64.to_ne_bytes());
        }
        step(FILE, fs::remove_file(FILE));
    });
}

#[test]
fn what_is_left_out_is_counted_to_the_packet() {
    let name = "what_is_left_out_is_counted_to_the_packet";
    sandbox::run(name, |sandbox| {
        let line = Line::new();
        // More than the ring buffer holds while nobody reads it.
        for (arguments, count, is_stopped, left_out, written) in [
            ("--trace-sample 10", 300, false, "not_sampled", 29..=60),
            ("--trace-rate 5", 300, false, "above_rate", 5..=50),
            ("--trace-rate 0", 8000, true, "no_room", 3000..=4000),
            ("--trace-rate 0", 300, false, "no_room", 290..=294),
        ] {
            let limiting = limit(sandbox, &format!("{TRACE} {arguments}"));
            if is_stopped {
                limiting.process.signal(Signal::SIGSTOP);
            }
            flood(&line, count);
            if is_stopped {
                limiting.process.signal(Signal::SIGCONT);
            }
            limiting.report();
            let ended = end(limiting);
            let report = last(&ended);
            assert_adds_up(&report);
            let in_file = blocks(PACKET).len() as u64;
            assert_eq!(in_file, number(&report, "/trace/written"), "{report}");
            assert!(written.contains(&in_file), "{arguments}: {report}");
            let missing = number(&report, "/trace/seen") - in_file;
            assert_eq!(
                number(&report, &format!("/trace/{left_out}")),
                missing,
                "{report}"
            );
            let statistics = &blocks(STATISTICS)[0];
            assert_eq!(statistics.option(5), missing.to_ne_bytes());
        }
        step(FILE, fs::remove_file(FILE));
    });
}

#[test]
fn a_file_that_cannot_be_made_is_refused_before_anything_is_attached() {
    let name = "a_file_that_cannot_be_made_is_refused_before_anything_is_attached";
    sandbox::run(name, |sandbox| {
        let _line = Line::new();
        step("a target", fs::write("/run/target", "kept"));
        step("a link", symlink("/run/target", "/run/link"));
        step("a pipe", mkfifo("/run/pipe", Mode::S_IRWXU));
        TOOL.assert_each_refused(
            sandbox,
            [
                (
                    "--iface wan0 --trace-drops /run/nowhere/x",
                    2,
                    "write /run/nowhere/x: No such file",
                ),
                (
                    "--iface wan0 --trace-drops /run",
                    2,
                    "write /run: Is a directory",
                ),
                (
                    "--iface wan0 --trace-drops /run/link",
                    2,
                    "write /run/link: Too many levels of symbolic links",
                ),
                (
                    "--iface wan0 --trace-drops /run/pipe",
                    2,
                    "write /run/pipe: ",
                ),
                (
                    "--iface wan0 --trace-drops /run/x --pin",
                    2,
                    "cannot be used with",
                ),
                ("--iface wan0 --trace-sample 5", 2, "--trace-drops"),
            ],
        );
        assert_eq!(step("a target", fs::read_to_string("/run/target")), "kept");
        for path in ["/run/target", "/run/link", "/run/pipe"] {
            step(path, fs::remove_file(path));
        }
    });
}

#[test]
fn a_full_disk_and_a_kill_leave_whole_packets_and_the_limit() {
    let name = "a_full_disk_and_a_kill_leave_whole_packets_and_the_limit";
    sandbox::run(name, |sandbox| {
        let line = Line::new();
        let tmpfs = Some("tmpfs");
        step("a folder", fs::create_dir("/run/small"));
        step(
            "a small disk",
            mount(
                tmpfs,
                "/run/small",
                tmpfs,
                MsFlags::empty(),
                Some("size=8k"),
            ),
        );
        let limiting = limit(sandbox, "--trace-drops /run/small/drops");
        flood(&line, 200);
        limiting
            .process
            .wait_for_error("cannot be written: No space left", ENDS_WITHIN);
        let report = limiting.report();
        assert_eq!(number(&report, "/dropped/packets"), 200 - LEFT, "{report}");
        let ended = end(limiting);
        assert_eq!(
            ended.stderr.matches("cannot be written").count(),
            1,
            "{}",
            ended.stderr
        );
        let report = last(&ended);
        assert_adds_up(&report);
        assert!(number(&report, "/trace/not_written") > 100, "{report}");
        let file = step("the file", fs::read("/run/small/drops"));
        let packets = step("the file", read_pcapng(&file));
        let packets = packets.iter().filter(|block| block.kind == PACKET).count() as u64;
        assert_eq!(packets, number(&report, "/trace/written"));
        step("the disk", umount("/run/small"));
        step("the folder", fs::remove_dir("/run/small"));

        // No more than it may have.
        let limiting = limit(sandbox, &format!("{TRACE} --trace-size 2kb"));
        flood(&line, 100);
        limiting
            .process
            .wait_for_error("--trace-size allows no more", ENDS_WITHIN);
        let ended = end(limiting);
        assert_adds_up(&last(&ended));
        assert!(!blocks(PACKET).is_empty() && blocks(STATISTICS).len() == 1);

        let limiting = limit(sandbox, TRACE);
        flood(&line, 100);
        limiting.report();
        limiting.report();
        sleep(Duration::from_millis(300));
        limiting.process.signal(Signal::SIGKILL);
        limiting.process.finish(ENDS_WITHIN);
        assert_eq!(blocks(PACKET).len() as u64, 100 - LEFT);
        step(FILE, fs::remove_file(FILE));
    });
}

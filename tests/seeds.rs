//! Every command line of the documents that the originals came with, from `compat/`, unchanged but
//! for what is not part of the command: the path that the document leaves open, and `sudo`, which a
//! root test does not need.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::bpf::remove_folders_of_tc;
use testbed::namespace::{Namespace, Place, Veth};
use testbed::process::{Input, Output};
use testbed::sandbox::{self, Sandbox};
use testbed::tool::{ENDS_WITHIN, READY_WITHIN};
use testbed::traffic::ping;
use testbed::{is_installed, step};

/// The compatible folder of an original.
fn compat(original: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("compat")
        .join(original)
}

/// A command that finds the binaries of this very build.
fn on_this_build(program: impl AsRef<Path>) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_neighbor_sharing"));
    let mut command = Command::new(program.as_ref());
    command.env("NETBPF_BIN_DIR", binary.parent().unwrap_or(binary));
    command
}

/// `sudo ip netns exec wan0 netperf -H ADDRESS -l 2` where netperf is, else the same measurement
/// with iperf3; Mbit/s.
fn measure(address: &str) -> f64 {
    if is_installed("netperf") {
        let text = output(&[
            "ip", "netns", "exec", "wan0", "netperf", "-H", address, "-l", "2",
        ]);
        let last = text
            .split_whitespace()
            .last()
            .unwrap_or_else(|| panic!("netperf printed nothing"));
        return last
            .parse()
            .unwrap_or_else(|_| panic!("no throughput at the end of:\n{text}"));
    }
    testbed::skip(
        "netperf_of_the_neighbor_sharing_document",
        "netperf is not in Debian's main; iperf3 takes its place",
    );
    let arguments = [
        "ip", "netns", "exec", "wan0", "iperf3", "-c", address, "-t", "2", "-C",
    ];
    let text = output(&[arguments.as_slice(), &["cubic", "-f", "m"]].concat());
    let receiver = text.lines().find(|line| line.ends_with("receiver"));
    let receiver = receiver.unwrap_or_else(|| panic!("no receiver's line in:\n{text}"));
    let rate = receiver
        .split("Mbits/sec")
        .next()
        .and_then(|text| text.split_whitespace().last());
    rate.and_then(|rate| rate.parse().ok())
        .unwrap_or_else(|| panic!("no rate in {receiver}"))
}

fn output(words: &[&str]) -> String {
    let mut command = Place::here().command(words[0]);
    let output = command
        .args(&words[1..])
        .output()
        .unwrap_or_else(|error| panic!("start {words:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{words:?}: {}\n{text}{errors}",
        output.status
    );
    text
}

/// `sudo /path/to/neighbor_sharing/neighbor_sharing.py`, then the two measurements "in another
/// shell", then Enter.
fn neighbor_sharing_document(sandbox: &Sandbox, command: Command) {
    let mut tool = sandbox.start_with(command, Input::Open, Output::Read);
    tool.wait_for("Press enter when finished: ", READY_WITHIN);
    let text = tool.stdout();
    for line in [
        "Network ready. Create a shell in the wan0 namespace and test with ",
        "   (Neighbors are 172.16.1.100-102, and LAN clients are 172.16.1.150-151)",
        " e.g.: ip netns exec wan0 ",
    ] {
        assert!(text.contains(line), "'{line}' is not in:\n{text}");
    }
    let to_neighbor = measure("172.16.1.100");
    assert!(
        (0.10..=0.30).contains(&to_neighbor),
        "{to_neighbor} Mbit/s to a neighbor"
    );
    // Two seconds are short where iperf3 has to wait for a CPU; that takes away, and adds nothing.
    let to_client = measure("172.16.1.150");
    assert!(
        (0.5..=1.3).contains(&to_client),
        "{to_client} Mbit/s to a LAN client"
    );
    tool.write("\n");
    tool.finish(ENDS_WITHIN).assert_code(0);
}

#[test]
fn neighbor_sharing_by_its_own_name() {
    sandbox::run("neighbor_sharing_by_its_own_name", |sandbox| {
        let script = compat("neighbor_sharing").join("neighbor_sharing.py");
        neighbor_sharing_document(sandbox, on_this_build(script));
    });
}

#[test]
fn neighbor_sharing_through_python() {
    if !is_installed("python3") {
        return testbed::skip(
            "neighbor_sharing_through_python",
            "python3 is not installed",
        );
    }
    sandbox::run("neighbor_sharing_through_python", |sandbox| {
        let mut command = on_this_build("python3");
        command.arg(compat("neighbor_sharing").join("tc_neighbor_sharing.py"));
        command.arg("--duration").arg("0.2");
        let tool = sandbox.start(command);
        tool.finish(ENDS_WITHIN).assert_code(0);
    });
}

/// A copy of what `make` needs, so that what is made there is not in the checkout.
fn copy_of_tree(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for part in ["compat/tbpoc-bpf", "src/bpf"] {
        let to = folder.join(part);
        step("make a folder", std::fs::create_dir_all(&to));
        for entry in step(part, std::fs::read_dir(root.join(part))) {
            let from = step(part, entry).path();
            let name = from.file_name().unwrap_or_default();
            step(from.display(), std::fs::copy(&from, to.join(name)));
        }
    }
}

/// "Compilation" and "Usage", word by word; eth0 is that of this sandbox.
#[test]
fn tbpoc_bpf_by_tc_alone() {
    sandbox::run("tbpoc_bpf_by_tc_alone", |_| {
        let host = Namespace::new("host");
        let _cable = Veth::new((&Place::here(), "eth0"), (&host, "eth0"));
        let (own, far) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        Place::here().ip(&format!("address add {own}/24 dev eth0"));
        host.ip(&format!("address add {far}/24 dev eth0"));
        let tree = Path::new("/run/tree");
        copy_of_tree(tree);
        let run = |line: &str| {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", line])
                .current_dir(tree.join("compat/tbpoc-bpf"));
            let output = step(line, shell.output());
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{line}: {errors}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        run("make");
        let sections = run("readelf -S -W tokenbucket.o");
        assert!(sections.contains(" classifier "), "{sections}");
        run("tc qdisc add dev eth0 clsact");
        let limit_holds = || ping(&host, far.into(), own.into(), 20.0, 20);
        assert_eq!(limit_holds().1, 20, "there is no limit yet");
        run("tc filter add dev eth0 ingress bpf da obj tokenbucket.o");
        // It limits at once; what the document asks for next does no harm.
        let (_, answered) = limit_holds();
        assert!((6..=7).contains(&answered), "{answered} of 20 pings");
        run("gcc -o init_maps init_maps.c");
        let said = run("./init_maps");
        assert!(said.contains("nothing to do"), "{said}");
        let (_, answered) = limit_holds();
        assert!((1..=3).contains(&answered), "{answered} of 20 more pings");
        run("make clean");
        remove_folders_of_tc();
        step("remove the copy", std::fs::remove_dir_all(tree));
    });
}

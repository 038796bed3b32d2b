//! What each tool says in a kernel that is too old for it: one line, before anything is changed. `make
//! check-kernels` boots such a kernel.

use netbpf::preflight;
use testbed::namespace::{Place, Veth};
use testbed::sandbox;
use testbed::tool::Tool;

/// Each tool, with all the ways to work in which it needs BPF.
const TOOLS: [(&str, &[&str]); 5] = [
    (
        env!("CARGO_BIN_EXE_neighbor_sharing"),
        &["", "--demo", "--wan up0 --neighbor down0"],
    ),
    (
        env!("CARGO_BIN_EXE_tokenbucket"),
        &["", "--iface up0", "--iface up0 --attach clsact"],
    ),
    (
        env!("CARGO_BIN_EXE_vlan_learning"),
        &["", "--trunk up0 --map 02:00:00:00:00:01=down0"],
    ),
    (
        env!("CARGO_BIN_EXE_tunnel_monitor"),
        &["", "--iface up0 --listen off"],
    ),
    (
        env!("CARGO_BIN_EXE_tcp_hold"),
        &[
            "",
            "agent /run/agent --iface up0",
            "server 1 push 100 127.0.0.1:5001 --hold --iface up0",
            "client 1 push 100 127.0.0.1:5001 --hold --iface up0",
        ],
    ),
];

#[test]
fn a_kernel_that_is_too_old_is_named_and_nothing_is_changed() {
    let name = "a_kernel_that_is_too_old_is_named_and_nothing_is_changed";
    if preflight::kernel_floor().is_ok() {
        testbed::skip(name, "this kernel is not: make check-kernels KERNELS=5.10");
        return;
    }
    sandbox::run(name, |sandbox| {
        let _cable = Veth::new((&Place::here(), "up0"), (&Place::here(), "down0"));
        for (tool, calls) in TOOLS {
            let calls = calls
                .iter()
                .map(|arguments| (*arguments, 4, "Linux 5.15 or later is needed"));
            Tool::new(tool).assert_each_refused(sandbox, calls);
        }
    });
}

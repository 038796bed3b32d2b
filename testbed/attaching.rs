//! The ways to attach a program that this kernel has, as `--attach` names them.

use crate::others::{GOES_ON, Program};
use crate::{joined, skip};
use nix::unistd::geteuid;

/// All of them that this kernel has; what it has not is said.
pub fn ways() -> &'static [&'static str] {
    if has_tcx() {
        &["tcx", "clsact"]
    } else {
        &["clsact"]
    }
}

/// A body for each way, side by side: each in a sandbox of its own.
pub fn by_each_way(body: impl Fn(&'static str) + Sync) {
    std::thread::scope(|scope| {
        let running: Vec<_> = (ways().iter())
            .map(|way| scope.spawn(|| body(way)))
            .collect();
        running.into_iter().for_each(joined);
    });
}

/// Whether there are TCX links (since 6.6); that there are none is said.
pub fn has_tcx() -> bool {
    // Without root every test skips itself, and says so.
    let has_tcx = !geteuid().is_root() || Program::answering("probe", GOES_ON).can_be_linked();
    if !has_tcx {
        skip("attaching_by_tcx", "this kernel has no TCX links");
    }
    has_tcx
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::{Namespace, Place, Veth};
    use crate::sandbox;

    #[test]
    fn links_are_there_where_one_can_be_made() {
        sandbox::run("links_are_there_where_one_can_be_made", |_| {
            let far = Namespace::new("far");
            let _cable = Veth::new((&Place::here(), "wan0"), (&far, "eth0"));
            let made = std::panic::catch_unwind(|| {
                drop(Program::answering("linked", GOES_ON).attach("wan0"));
            });
            assert_eq!(has_tcx(), made.is_ok());
            assert_eq!(ways().contains(&"tcx"), made.is_ok());
            assert!(ways().contains(&"clsact"));
        });
    }
}

//! What netsetup takes to build networks, and to remove them: `make bench`. Each client and each worker is a
//! namespace with a cable, addresses of both families, and, of a client, a tagger.

use std::time::Instant;

use anyhow::Result;
use netsetup::topology::vlan_learning::{self, Plan, Tagger};
use testbed::{sandbox, step};

/// Of clients and workers.
const SIZES: [(u16, u16); 3] = [(5, 5), (25, 25), (136, 64)];
const RUNS: usize = 5;

fn main() {
    println!(
        "{:<46} {:>7} {:>7} {:>7}",
        format!("ms, {RUNS} runs"),
        "min",
        "median",
        "max"
    );
    for (clients, workers) in SIZES {
        let plan = Plan {
            clients,
            workers,
            tagger: Tagger::Bpf, // the same on every kernel
            ..Plan::default()
        };
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            sandbox::run("network", |_| runs.push(step("build", build(&plan))));
        }
        // Without root nothing ran, and that has been said.
        if runs.is_empty() {
            return;
        }
        let (built, removed): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
        let namespaces = clients + workers;
        print(&format!("{namespaces} namespaces, built"), built);
        print(&format!("{namespaces} namespaces, removed"), removed);
    }
}

/// Milliseconds until all is up, and until all is gone.
fn build(plan: &Plan) -> Result<(f64, f64)> {
    let begin = Instant::now();
    let network = vlan_learning::build(plan, &mut |_| Ok(()))?;
    let built = begin.elapsed();
    let begin = Instant::now();
    network.close()?;
    Ok([built, begin.elapsed()]
        .map(|it| it.as_secs_f64() * 1e3)
        .into())
}

fn print(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let (min, median, max) = (times[0], times[RUNS / 2], times[RUNS - 1]);
    println!("{what:<46} {min:>7.0} {median:>7.0} {max:>7.0}");
}

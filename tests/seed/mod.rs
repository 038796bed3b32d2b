//! Where random tests begin. The short form is the same in every run; the long form begins
//! elsewhere each time. Either says where, and `NETBPF_SEED` brings it back.

use std::time::{SystemTime, UNIX_EPOCH};

use testbed::step;

/// The seed of a test, which is printed: cargo shows it where the test fails.
pub fn of(name: &str, long: bool) -> u64 {
    let seed = match std::env::var("NETBPF_SEED") {
        Ok(text) => step("NETBPF_SEED is a number", text.parse()),
        Err(_) if long => {
            let now = step(
                "read the clock",
                SystemTime::now().duration_since(UNIX_EPOCH),
            );
            now.as_secs()
        }
        Err(_) => 1,
    };
    println!("{name}: NETBPF_SEED={seed} begins the same again");
    seed
}

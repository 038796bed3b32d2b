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

/// splitmix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From the seed of that test.
    pub fn new(name: &str, long: bool) -> Random {
        Random(of(name, long))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

//! The ledger of a network in /run/netbpf, which somebody may have changed: what is read is written as it was read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use netsetup::ledger::Record;

fuzz_target!(|text: &[u8]| {
    let Ok(record) = serde_json::from_slice::<Record>(text) else {
        return;
    };
    let written = serde_json::to_vec_pretty(&record).expect("a ledger is JSON");
    let read = serde_json::from_slice::<Record>(&written).expect("what was written");
    assert_eq!(read, record);
});

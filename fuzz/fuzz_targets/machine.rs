//! A machine's file (`tokenbucket --machine`): what is read is drawn and compiled, its times below what a register
//! holds; what is refused is refused in one line that names its place.

#![no_main]

use libfuzzer_sys::fuzz_target;
use netbpf::tokenbucket::Machine;
use netbpf_fuzz::assert_refusal;

const FILE: &str = "machine.toml";

fuzz_target!(|text: &str| {
    match Machine::parse(FILE, text) {
        Ok(machine) => {
            assert!(!machine.to_string().is_empty());
            assert!(machine.times().all(|(name, _)| !name.is_empty()));
            for count_segments in [false, true] {
                if let Err(failure) = machine.compile(count_segments) {
                    assert_refusal(FILE, text, &failure);
                }
            }
        }
        Err(failure) => assert_refusal(FILE, text, &failure),
    }
});

//! See `fuzz/checks/config.rs`.
#![no_main]

#[path = "../checks/mod.rs"]
#[allow(unused, reason = "each target uses a part")]
mod checks;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| checks::config::check(input));

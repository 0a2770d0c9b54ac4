//! Any answer, described by any pointers and lists: see `checks/described.rs`.
#![no_main]

#[path = "../checks/mod.rs"]
#[allow(unused, reason = "some is for other targets")]
mod checks;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| checks::described::check(data));

//! See `fuzz/checks/file_end.rs`.
#![no_main]

#[path = "../checks/mod.rs"]
#[allow(unused, reason = "each target uses a part")]
mod checks;

use std::sync::LazyLock;

use checks::file_end::Files;
use libfuzzer_sys::fuzz_target;

static CHECK: LazyLock<Files> = LazyLock::new(Files::new);

fuzz_target!(|input: &[u8]| CHECK.check(input));

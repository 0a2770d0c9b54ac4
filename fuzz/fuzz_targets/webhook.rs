//! See `fuzz/checks/webhook.rs`.
#![no_main]

#[path = "../checks/mod.rs"]
#[allow(unused, reason = "each target uses a part")]
mod checks;

use std::sync::LazyLock;

use checks::webhook::Receiver;
use libfuzzer_sys::fuzz_target;

static CHECK: LazyLock<Receiver> = LazyLock::new(|| {
    checks::ignore_sigpipe();
    Receiver::start()
});

fuzz_target!(|input: &[u8]| CHECK.check(input));

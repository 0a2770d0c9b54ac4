//! See `fuzz/checks/handlers.rs`.
#![no_main]

#[path = "../checks/mod.rs"]
#[allow(unused, reason = "each target uses a part")]
mod checks;

use std::sync::LazyLock;

use checks::handlers::Daemon;
use libfuzzer_sys::fuzz_target;

static CHECK: LazyLock<Daemon> = LazyLock::new(|| {
    checks::ignore_sigpipe();
    Daemon::start()
});

fuzz_target!(|input: &[u8]| CHECK.check(input));

//! What must hold for any input: checks that the fuzz targets and `tests/fuzzed` share.
//!
//! Each has what it needs of the real thing (a daemon's parts, an endpoint, a file sink) and panics where a promise is
//! broken. They use the public library and know no fuzzer.

pub mod client;
pub mod config;
pub mod described;
pub mod file_end;
pub mod handlers;
pub mod webhook;

/// Keeps a process that was not started as a Rust program alive where it writes to a connection that is closed.
pub fn ignore_sigpipe() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // The handler stays for ever.
    runtime.block_on(async {
        drop(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::pipe()).unwrap())
    });
}

/// Whether a character could move a terminal's cursor, break a line, or turn the direction of writing.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

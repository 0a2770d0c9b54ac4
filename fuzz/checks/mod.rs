//! What must hold for any input: checks that the fuzz targets and `tests/fuzzed.rs` share.
//!
//! Each has what it needs of the real thing (a daemon's parts, an endpoint, a file sink) and panics where a promise is
//! broken. They use the public library and know no fuzzer.

pub mod client;
pub mod config;
pub mod file_end;
pub mod handlers;
pub mod webhook;

/// Whether a character could move a terminal's cursor, break a line, or turn the direction of writing.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

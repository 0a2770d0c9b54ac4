//! Text that PostgreSQL can store.

/// Replaces NUL, which PostgreSQL's text can't hold.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

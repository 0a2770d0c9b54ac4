//! What this program is built from. `build.rs` beside `Cargo.toml` finds it out.
//!
//! Pure data, fixed when the program is compiled.

use jiff::Timestamp;

use crate::protocol::stats::Build;

/// The version of the crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything else about the build.
pub fn build() -> Build {
    Build {
        commit: env!("PINWATCH_COMMIT").into(),
        date: date(env!("PINWATCH_DATE")).into(),
        target: env!("PINWATCH_TARGET").into(),
        features: features().into(),
        sqlite: libsqlite3_sys::SQLITE_VERSION.to_string_lossy(),
    }
}

/// What `pinwatch --version --verbose` prints.
pub fn lines() -> String {
    let Build { commit, date, target, features, sqlite } = build();
    format!(
        "pinwatch {VERSION}\ncommit:   {commit}\ndate:     {date}\ntarget:   {target}\nfeatures: {features}\nSQLite:   {sqlite}\n"
    )
}

/// The day, in UTC, of a number of seconds since 1970.
fn date(seconds: &str) -> String {
    let time = seconds.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "unknown".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

/// The features of the crate that it is built with. The only one is for tests, so a release has none.
fn features() -> &'static str {
    if cfg!(feature = "fault-points") { "fault-points" } else { "none" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_date_is_a_day_in_utc_or_unknown() {
        assert_eq!(date("1795894821"), "2026-11-28");
        assert_eq!(date(""), "unknown");
        assert_eq!(date("99999999999999999999"), "unknown");
    }
}

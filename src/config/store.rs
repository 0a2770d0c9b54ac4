//! `[store]`: where PINs and outcomes are kept, and how long.
//!
//! Promises: a store that this version can't use is refused by name. Must not know: SQL, or whether the file
//! is there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::check::YEAR;
use super::section::{Section, quoted};
use super::wire::{Span, Text};

/// `[store]`
#[derive(Debug, Clone)]
pub struct Store {
    /// The SQLite file; absolute.
    pub path: PathBuf,
    /// How long outcomes are kept after every sink has them.
    pub retention: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wire {
    url: Text,
    retention: Span,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            url: "sqlite:/var/lib/pinwatch/pinwatch.db".into(),
            retention: Span(Duration::from_secs(7 * 24 * 60 * 60)),
        }
    }
}

/// Reads and checks the section; `None` if it is of no use, which is reported then.
pub(super) fn check(mut section: Section) -> Option<Store> {
    let wire: Wire = section.read();
    let path = path(&mut section, &wire.url.0);
    let retention = section.duration("retention", wire.retention, Duration::from_secs(1)..=10 * YEAR);
    Some(Store { path: path?, retention })
}

fn path(section: &mut Section, url: &str) -> Option<PathBuf> {
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        section.refuse("url", "PostgreSQL is not yet in this version; give \"sqlite:/path/of/the/file\"");
        return None;
    }
    let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    match path {
        Some(path) if path.starts_with('/') && !path.ends_with('/') && !path.contains(['?', '#', '\0']) => {
            section.show("url", quoted(url));
            Some(path.into())
        }
        _ => {
            section.refuse("url", "must be \"sqlite:\" and the absolute path of a file, without parameters");
            None
        }
    }
}

/// The store of a user who has no configuration file, and where that follows from. `None` if the environment
/// has neither folder.
pub(super) fn user_store(state: Option<&Path>, home: Option<&Path>) -> Option<(String, &'static str)> {
    let (folder, origin) = match (state, home) {
        (Some(state), _) => (state.to_owned(), "default, in $XDG_STATE_HOME"),
        (None, Some(home)) => (home.join(".local/state"), "default, in $HOME"),
        (None, None) => return None,
    };
    Some((format!("sqlite:{}", folder.join("pinwatch/pinwatch.db").display()), origin))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};

    #[test]
    fn the_store_is_a_sqlite_file_with_an_absolute_path() {
        table(&[
            ("the short form is taken", "store.url = \"sqlite:/a/b.db\"", ""),
            ("the long form is taken", "store.url = \"sqlite:///a/b.db\"", ""),
            ("a relative path is refused", "store.url = \"sqlite:b.db\"", "store.url: must be \"sqlite:\""),
            ("so is one in the long form", "store.url = \"sqlite://b.db\"", "store.url: must be \"sqlite:\""),
            ("memory is no store", "store.url = \"sqlite::memory:\"", "store.url: must be \"sqlite:\""),
            ("parameters are refused", "store.url = \"sqlite:/a?mode=ro\"", "store.url: must be \"sqlite:\""),
            ("a path alone is refused", "store.url = \"/a/b.db\"", "store.url: must be \"sqlite:\""),
            (
                "PostgreSQL is not yet there",
                "store.url = \"postgres://h/d\"",
                "store.url: PostgreSQL is not yet",
            ),
            ("under no name", "store.url = \"postgresql://h/d\"", "store.url: PostgreSQL is not yet"),
            ("nothing kept is refused", "store.retention = \"0s\"", "store.retention: must be at least 1s"),
        ]);
        let path = |url: &str| load(&format!("store.url = \"{url}\"")).unwrap().store.path;
        assert_eq!(path("sqlite:/a/b.db"), path("sqlite:///a/b.db"));
    }
}

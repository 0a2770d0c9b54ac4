//! `[store]`: where PINs and outcomes are kept, and for how long.
//!
//! Promises that a store that this version can't use is refused, and that no message contains a password. Must not know SQL or
//! whether the file or the server exists.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;

use super::read::{SECOND, YEAR, text_of};
use super::section::{Section, quoted, redacted, section};
use crate::store::postgres::trusts_anybody;

/// The longest path of a database in bytes: 512 (SQLite's MAX_PATHNAME) minus what SQLite reserves for a suffix.
const LONGEST_PATH: usize = 504;

section! {
    /// `[store]`
    pub struct Store {
        pub url: StoreUrl = store_url("sqlite:/var/lib/pinwatch/pinwatch.db"),
        /// How long outcomes are kept, counted from the PIN's end; longer while a sink does not have them.
        pub retention: Duration = duration("7d", SECOND..=10 * YEAR),
    }
}

/// The kind and place of the store.
#[derive(Debug, Clone)]
pub enum StoreUrl {
    /// A file that one daemon uses; an absolute path.
    Sqlite(PathBuf),
    /// A database that any number of nodes share: the URL with its password, and the part of it that may be shown.
    Postgres { url: SecretString, shown: String },
}

/// Shows it without user, password and parameters.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres { shown, .. } => f.write_str(shown),
        }
    }
}

impl Section<'_> {
    /// Reads the URL, and the key `allow_insecure_tls`, which decides whether an unverified server is accepted.
    fn store_url(&mut self, key: &'static str, default: &str) -> Option<StoreUrl> {
        self.resolve(key, "sqlite:");
        let text = self.read(key, default, |written| {
            let text = text_of(written)?;
            let url = StoreUrl::parse(text, true).map_err(str::to_owned)?;
            let shown = if let StoreUrl::Postgres { shown, .. } = &url { shown } else { text };
            Ok((text.to_owned(), quoted(shown)))
        });
        let allow_insecure_tls = self.flag("allow_insecure_tls", false)?;
        let text = text?;
        let url = StoreUrl::parse(&text, allow_insecure_tls);
        // The hidden part may contain a password.
        if let Ok(StoreUrl::Postgres { shown, .. }) = &url
            && *shown != text
        {
            self.warn_if_exposed(key);
        }
        url.map_or_else(|reason| self.refuse(key, reason), Some)
    }
}

/// The error for a URL to another machine without `verify-full`.
const INSECURE_TLS: &str = "must have sslmode=verify-full, because the database is on another machine: without it the password goes to \
     any server that answers there. Write \"postgres://user@host/database?sslmode=verify-full\", and \
     &sslrootcert=/path/of/ca.pem after it if an authority of your own signed the server's certificate; \
     store.allow_insecure_tls = true (migrate-store: --allow-insecure-tls) allows it nevertheless";

impl StoreUrl {
    /// Reads a URL. One that leads to a PostgreSQL on another machine must have `sslmode=verify-full`, unless
    /// `allow_insecure_tls`.
    ///
    /// # Errors
    /// Says what the URL must be. Does not quote it, because it may contain a password.
    pub fn parse(text: &str, allow_insecure_tls: bool) -> Result<Self, &'static str> {
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            let url = postgres(text)?;
            return if allow_insecure_tls || !trusts_anybody(text) { Ok(url) } else { Err(INSECURE_TLS) };
        }
        let path = text.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
        match path {
            Some(path) if path.len() > LONGEST_PATH => {
                Err("must have a path of at most 504 bytes, which is all that SQLite takes")
            }
            Some(path)
                if path.starts_with('/') && !path.ends_with('/') && !path.contains(['?', '#', '\0']) =>
            {
                Ok(Self::Sqlite(path.into()))
            }
            Some(_) => Err("must be \"sqlite:\" and the absolute path of a file, without parameters"),
            None => Err(
                "must be \"sqlite:\" and the absolute path of a file, or \"postgres://user@host/database\"",
            ),
        }
    }
}

fn postgres(text: &str) -> Result<StoreUrl, &'static str> {
    // Leaves out the parser's own message, because it could repeat a part of the password.
    let parsed = Url::parse(text).ok().filter(|url| text.contains("://") && url.fragment().is_none());
    if parsed.is_none() {
        return Err("must be a URL such as \"postgres://user:password@host/database?sslmode=verify-full\"; \
             percent-encode every character of a password that is not a letter or a digit");
    }
    Ok(StoreUrl::Postgres { url: text.to_owned().into(), shown: redacted(text) })
}

/// Returns the store of a user who has no configuration file, and the origin of that path. `None` if the environment has neither
/// folder.
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
        let with_path_of = |bytes: usize| {
            format!("store.url = \"sqlite:{}{}\"", "/xxx".repeat(100), "x".repeat(bytes - 400))
        };
        table(&[
            ("the short form is taken", "store.url = \"sqlite:/a/b.db\"", ""),
            ("the long form is taken", "store.url = \"sqlite:///a/b.db\"", ""),
            ("a relative path is refused", "store.url = \"sqlite:b.db\"", "store.url: must be \"sqlite:\""),
            ("so is one in the long form", "store.url = \"sqlite://b.db\"", "store.url: must be \"sqlite:\""),
            ("memory is no store", "store.url = \"sqlite::memory:\"", "store.url: must be \"sqlite:\""),
            ("parameters are refused", "store.url = \"sqlite:/a?mode=ro\"", "store.url: must be \"sqlite:\""),
            ("a path alone is refused", "store.url = \"/a/b.db\"", "store.url: must be \"sqlite:\""),
            ("504 bytes are taken", &with_path_of(504), ""),
            ("505 are refused", &with_path_of(505), "store.url: must have a path of at most 504 bytes"),
            ("nothing kept is refused", "store.retention = \"0s\"", "store.retention: must be at least 1s"),
        ]);
        let path = |url: &str| load(&format!("store.url = \"{url}\"")).unwrap().store.url.to_string();
        assert_eq!(path("sqlite:/a/b.db"), path("sqlite:///a/b.db"));
    }

    #[test]
    fn a_postgresql_url_is_accepted_and_shown_without_its_password() {
        let refused = "store.url: must be a URL such as \"postgres://";
        table(&[
            ("a host is enough", "store.url = \"postgres://localhost/d\"", ""),
            ("the long name is taken", "store.url = \"postgresql://u:p@h:5433/d?sslmode=verify-full\"", ""),
            ("a socket is a parameter", "store.url = \"postgres:///d?host=/run/postgresql\"", ""),
            ("without slashes it is refused", "store.url = \"postgres:h/d\"", refused),
            ("a port is a number", "store.url = \"postgres://h:x/d\"", refused),
            ("a fragment is refused", "store.url = \"postgres://u:p@h/d#x\"", refused),
            ("another database is refused", "store.url = \"mysql://h/d\"", "store.url: must be \"sqlite:\""),
        ]);
        let store = load("store.url = \"postgres://u:geheim@[::1]/d?password=geheim\"").unwrap().store;
        assert_eq!(store.url.to_string(), "postgres://***@[::1]/d?***");
        assert!(!format!("{store:?}").contains("geheim"));
    }

    #[test]
    fn a_database_on_another_machine_is_verified_unless_that_is_waived() {
        for (url, safe) in [
            ("postgres://h/d", false),
            ("postgres://h/d?sslmode=disable", false),
            ("postgres://h/d?sslmode=allow", false),
            ("postgres://h/d?sslmode=prefer", false),
            ("postgres://h/d?sslmode=require", false),
            ("postgres://h/d?sslmode=verify-ca", false),
            ("postgres://h/d?ssl_mode=verify-full", false),
            ("postgres://h/d?sslmode=verify-full", true),
            ("postgres://h/d?ssl-mode=VERIFY-FULL", true),
            // The last of the two counts.
            ("postgres://h/d?sslmode=verify-full&sslmode=require", false),
            ("postgres://localhost/d?host=h", false),
            ("postgres://localhost/d?hostaddr=10.0.0.1", false),
            ("postgres://127.0.0.1,h/d", false),
            ("postgres://127.0.0.1.example/d", false),
            ("postgres://localhost.example/d", false),
            ("postgres://0.0.0.0/d", false),
            ("postgres://h/d?host=localhost", true),
            ("postgres://LOCALHOST/d", true),
            ("postgres://127.9.9.9:5433/d?sslmode=disable", true),
            ("postgres://[::1]/d", true),
            ("postgres://[::ffff:127.0.0.1]/d", true),
            ("postgres://%2Frun%2Fpostgresql/d", true),
            ("postgres:///d?host=/run/postgresql", true),
        ] {
            let expected = if safe { "" } else { "store.url: must have sslmode=verify-full" };
            table(&[(url, &format!("store.url = {url:?}"), expected)]);
            table(&[(url, &format!("store.url = {url:?}\nstore.allow_insecure_tls = true"), "")]);
        }
    }
}

//! Why a PostgreSQL store can't be opened: sentences that say what to do.
//!
//! Promises that no text has the password: the URL is given as it may be shown.

use thiserror::Error;

/// Why the store can't be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("store.url: {}", said(.0))]
    Url(sqlx::Error),
    #[error(
        "can't reach the database {url}: {}. Check that the server runs, and that it accepts connections from this machine",
        said(error)
    )]
    Unreachable { url: String, error: sqlx::Error },
    #[error("there is no TLS with the database {url}: {what}")]
    Tls { url: String, what: String },
    #[error(
        "the database {url} does not let this user in: {}. Check user, password and database in store.url",
        said(error)
    )]
    Refused { url: String, error: sqlx::Error },
    #[error(
        "the database {url} has no free connection ({}): raise max_connections, or run fewer clients",
        said(error)
    )]
    Full { url: String, error: sqlx::Error },
    #[error(
        "the user of the database {url} lacks a right: {}. It must own its tables and their schema, or be allowed to \
         make them (CREATE SCHEMA pinwatch AUTHORIZATION …, or GRANT CREATE ON DATABASE … TO …)",
        said(error)
    )]
    NoRights { url: String, error: sqlx::Error },
    #[error("the database {url} is PostgreSQL {found}, and pinwatch needs 13 or later")]
    TooOld { url: String, found: u32 },
    #[error(
        "the database {url} was written by a newer pinwatch (schema {found}, this one knows {known}): install that \
         version again, or give another store.url"
    )]
    Newer { url: String, found: i64, known: i64 },
    #[error(
        "the database {url} has tables that are not pinwatch's, or not as it left them: {what}. It was left as it is. \
         Give another store.url"
    )]
    Foreign { url: String, what: String },
    #[error(
        "in the schema {schema:?} of the database {url} another role can make a function that pinwatch would call with \
         its own rights: {why}. Take that right away, as docs/cluster.md says{or}"
    )]
    Unsafe { url: String, schema: String, why: String, or: String },
    #[error("the database {url} can't be used: {}", said(error))]
    Postgres { url: String, error: sqlx::Error },
}

/// Translates a server's error into what it says about the database.
pub fn judge(url: &str, source: sqlx::Error) -> OpenError {
    let url = url.to_owned();
    let code = source.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
    match code.as_deref() {
        // Invalid authorization, no such database: https://www.postgresql.org/docs/current/errcodes-appendix.html
        Some("28000" | "28P01" | "3D000") => OpenError::Refused { url, error: source },
        // Too many connections.
        Some("53300") => OpenError::Full { url, error: source },
        Some("42501") => OpenError::NoRights { url, error: source },
        // The table already exists.
        Some("42P07") => OpenError::Foreign { url, what: source.to_string() },
        None if let Some(what) = tls_trouble(&source) => OpenError::Tls { url, what },
        None if matches!(source, sqlx::Error::Io(_)) => OpenError::Unreachable { url, error: source },
        _ => OpenError::Postgres { url, error: source },
    }
}

/// Why TLS could not be set up, and what to do; `None` if the error is not about TLS.
fn tls_trouble(error: &sqlx::Error) -> Option<String> {
    use rustls::{CertificateError, Error};
    let io = match error {
        // The only TLS error that sqlx itself produces.
        sqlx::Error::Tls(reason) if reason.to_string().contains("does not support TLS") => {
            return Some("it does not speak TLS. Set ssl = on there, or another sslmode in store.url".into());
        }
        sqlx::Error::Tls(reason) => return Some(reason.to_string()),
        sqlx::Error::Io(io) => io,
        _ => return None,
    };
    let error = io.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        // `BadSignature` means an authority with the right name and another key.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "no authority that this machine trusts has signed its certificate. Give that authority's certificate as \
             sslrootcert=/its/file in store.url"
                .into()
        }
        other => format!("{other}. Check sslmode, sslrootcert and the host in store.url"),
    })
}

/// The server's message, without the place in its source code.
fn said(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Configuration(error) => error.to_string(),
        other => other.to_string(),
    }
}

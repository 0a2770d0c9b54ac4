//! Why no client can be made of a configuration. Plain data.

use std::path::PathBuf;

use thiserror::Error;

/// Where the PIN ID stands in `api.path`.
pub const PLACEHOLDER: &str = "{pinId}";

/// Why no client can be made of a configuration. The texts have no secrets.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("api.path must begin with / and have {PLACEHOLDER} once, and is {0:?}")]
    Path(String),
    #[error("api.base_url must be http:// or https:// with a host, and without user, query or fragment")]
    BaseUrl,
    #[error("{0} has a character that no HTTP header can hold")]
    Credentials(&'static str),
    #[error("api.username has a colon, which Basic authentication can't express")]
    UsernameWithColon,
    #[error("api.ca_file {} can't be used: {reason}", path.display())]
    CaFile { path: PathBuf, reason: String },
    #[error("the HTTP client can't be set up: {0}")]
    Setup(String),
}

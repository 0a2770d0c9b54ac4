//! Why no client can be made of a configuration. Plain data.

use std::path::PathBuf;

use thiserror::Error;

/// Why no client can be made of a configuration. The texts have no secrets.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("api.path {0:?} can't be appended to api.base_url: it must begin with / and have {{pinId}} once")]
    Path(String),
    #[error("the host of api.base_url has a character that no HTTP header can hold")]
    Host,
    #[error("api.key has a character that no HTTP header can hold")]
    Key,
    #[error("api.ca_file {} can't be used: {reason}", path.display())]
    CaFile { path: PathBuf, reason: String },
    #[error("the HTTP client can't be set up: {0}")]
    Setup(String),
}

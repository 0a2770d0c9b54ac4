//! A poll that got no answer: what failed, and whether this machine could not even send the request.
//!
//! Promises that "not sent" is said only if no connection was open. Must not know the texts of failures.

use std::error::Error;

use super::Meaning;
use crate::http_client::failure::{TIME_OUT_WHILE_CONNECTING, failure_text, lacking};

/// Why there was no answer, as the libraries report it.
#[derive(Debug)]
pub(super) enum Failure {
    /// There was no connection: DNS, the proxy, TCP or TLS failed.
    Connect(Box<dyn Error + Send + Sync>),
    /// Connecting took too long.
    ConnectTimeout,
    /// The connection was open, and failed before a whole response head arrived. If it was a kept one, the server had most likely
    /// closed it already.
    Lost(hyper::Error),
}

impl Failure {
    pub fn text(&self) -> String {
        match self {
            Self::ConnectTimeout => TIME_OUT_WHILE_CONNECTING.to_owned(),
            Self::Connect(error) => failure_text(&**error, true),
            Self::Lost(error) => failure_text(error, false),
        }
    }

    /// What this machine lacks, if it could not send the request.
    fn lack(&self) -> Option<String> {
        match self {
            Self::Connect(error) => lacking(&**error),
            // Once the connection was open, the request may have been sent, whatever failed.
            Self::ConnectTimeout | Self::Lost(_) => None,
        }
    }

    /// Why there was no answer, for people.
    pub fn reason(&self) -> String {
        self.lack().unwrap_or_else(|| self.text())
    }
}

impl From<Failure> for Meaning {
    fn from(failure: Failure) -> Self {
        failure.lack().map_or_else(|| Self::Unavailable(failure.text()), Self::NotSent)
    }
}

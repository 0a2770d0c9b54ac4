//! The sockets that systemd opens before the daemon starts and keeps open after it ends: a Unix socket for requests, a
//! TCP socket for HTTP.
//!
//! Promises that every socket that was passed is used or refused. Must not know what is served on them.

use std::env;
use std::net::TcpListener;

use listenfd::ListenFd;

use crate::intake::{InheritedSocket, SocketError};

/// The name of the HTTP socket: `FileDescriptorName=` of `systemd/pinwatch-http.socket`.
const HTTP: &str = "http";

/// What was passed; nothing without socket activation.
#[derive(Debug, Default)]
pub struct Inherited {
    pub socket: Option<InheritedSocket>,
    pub http: Option<TcpListener>,
}

impl Inherited {
    /// Takes them from the environment. Must be called before there are threads, because it removes the variables from
    /// the environment.
    ///
    /// # Errors
    /// What was passed is not one listening Unix socket, one TCP socket, or both.
    pub fn take() -> Result<Self, SocketError> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default();
            let kind = if let Ok(Some(socket)) = passed.take_unix_listener(index) {
                if name == HTTP {
                    let reason = "a Unix socket has the name \"http\", and HTTP needs a TCP socket";
                    return Err(SocketError::Passed(reason.to_owned()));
                }
                inherited.socket.replace(socket.into()).map(|_| "Unix")
            } else {
                let listener = passed.take_tcp_listener(index);
                let listener = listener.map_err(|error| SocketError::Passed(error.to_string()))?;
                listener.and_then(|listener| inherited.http.replace(listener)).map(|_| "TCP")
            };
            if let Some(kind) = kind {
                return Err(SocketError::Passed(format!(
                    "several {kind} sockets were passed, and one is used"
                )));
            }
        }
        Ok(inherited)
    }
}

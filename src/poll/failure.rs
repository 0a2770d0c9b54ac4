//! Why a poll got no answer: the kind of a failure, in a few words.
//!
//! Reads the chain of causes inside a `reqwest::Error`, whose own text would show the URL. Knows nothing of
//! time-outs that the client itself imposes.

use std::error::Error;
use std::io;

use super::error_text::harmless;

/// Whether the connection stood, and then failed before a whole response head was there. If it was a kept one,
/// the server most likely had closed it already.
pub(super) fn lost_connection(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout()
}

/// `connect: connection refused`, `DNS: …`, `TLS: …`: what failed, and what is known about it.
pub(crate) fn failure_text(error: &reqwest::Error) -> String {
    let kind = if error.is_dns() {
        "DNS"
    } else if find::<rustls::Error>(error).is_some() {
        "TLS"
    } else if error.is_connect() && error.is_timeout() {
        return "time-out while connecting".to_owned();
    } else if error.is_timeout() {
        return "time-out".to_owned();
    } else if error.is_connect() {
        "connect"
    } else {
        "connection lost"
    };
    harmless(&format!("{kind}: {}", detail(error)))
}

/// What is known about a failure, without the URL.
pub(crate) fn detail(error: &reqwest::Error) -> String {
    if let Some(tls) = find::<rustls::Error>(error) {
        return tls.to_string();
    }
    // The kind of an I/O error is shorter than its text and has no numbers; those without one of their own
    // say more as text.
    let innermost = causes(error).filter(|cause| !cause.is::<reqwest::Error>()).last();
    match innermost.map(|cause| (cause, cause.downcast_ref::<io::Error>())) {
        Some((_, Some(io))) if io.raw_os_error().is_some() && io.kind() != io::ErrorKind::Other => {
            io.kind().to_string()
        }
        Some((cause, _)) => cause.to_string(),
        None => "no more is known".to_owned(),
    }
}

fn find<E: Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// The error and its causes, outermost first.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |cause| next_cause(*cause))
}

fn next_cause<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match cause.downcast_ref::<io::Error>() {
        // The source of an I/O error that wraps another one is that one's source: it itself would be skipped.
        Some(io) => io.get_ref().map(|inner| inner as _),
        None => cause.source(),
    }
}

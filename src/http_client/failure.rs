//! Explains why a request got no answer: the kind of failure in a few words, whether this machine is the cause, and whether the
//! server certainly did not process the request.
//!
//! Promises texts without the URL: it reads the chain of causes, because the text of a `reqwest::Error` itself contains the URL.
//! Must not know the clients' own time-outs.

use std::error::Error;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::harmless;
use super::resolve::NotResolved;

/// A time-out, if there is no connection yet.
pub const TIME_OUT_WHILE_CONNECTING: &str = "time-out while connecting";

/// `connect: connection refused`, `DNS: …`, `TLS: …`: what failed, and what is known about it.
pub fn failure_text(error: &(dyn Error + 'static), while_connecting: bool) -> String {
    let kind = if find::<NotResolved>(error).is_some() {
        "DNS"
    } else if find::<rustls::Error>(error).is_some() {
        "TLS"
    } else if is_time_out(error) {
        return if while_connecting { TIME_OUT_WHILE_CONNECTING } else { "time-out" }.to_owned();
    } else if while_connecting {
        "connect"
    } else {
        "connection lost"
    };
    harmless(&format!("{kind}: {}", detail(error)))
}

fn is_time_out(error: &(dyn Error + 'static)) -> bool {
    find::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
        || find(error).is_some_and(hyper::Error::is_timeout)
        || find(error).is_some_and(reqwest::Error::is_timeout)
}

/// What this machine lacks for opening a connection, and what to do; `None` if the error concerns the network or the other side.
pub fn lacking(error: &(dyn Error + 'static)) -> Option<String> {
    let code = causes(error).filter_map(|cause| cause.downcast_ref()).find_map(Errno::from_io_error)?;
    lacking_by_code(code, find::<NotResolved>(error).is_some())
}

/// If the resolver reports an error code, it could not ask any name server: a name server's own answers have none.
fn lacking_by_code(code: Errno, by_resolver: bool) -> Option<String> {
    Some(match code {
        Errno::MFILE => format!(
            "no request was sent: all {} file descriptors that this process may have are in use (EMFILE); raise \
             LimitNOFILE= in its unit, or ulimit -n",
            getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
        ),
        Errno::NFILE => "no request was sent: all file descriptors of this machine are in use (ENFILE); raise \
                         fs.file-max"
            .to_owned(),
        Errno::NOMEM | Errno::NOBUFS => {
            format!("no request was sent: this machine has no memory for a connection ({code:?}); free some")
        }
        Errno::AGAIN => "no request was sent: this machine has no thread for the resolver, or no room for a \
                         connection (EAGAIN); raise TasksMax= in the unit, or ulimit -u"
            .to_owned(),
        Errno::ADDRNOTAVAIL => "no request was sent: this machine has no free local port or address to connect from \
                                (EADDRNOTAVAIL); widen net.ipv4.ip_local_port_range, or look for what uses them up"
            .to_owned(),
        Errno::NETUNREACH | Errno::NETDOWN => format!(
            "no request was sent: this machine has no route to the API ({code:?}); look at its network (ip route)"
        ),
        Errno::ACCESS | Errno::PERM | Errno::AFNOSUPPORT => format!(
            "no request was sent: this machine forbids the connection ({code:?}); look at its firewall, and at \
             IPAddressDeny= and RestrictAddressFamilies= in the unit"
        ),
        Errno::NOSPC => "no request was sent: this machine watches as many files as it may (ENOSPC); raise \
                         fs.epoll.max_user_watches"
            .to_owned(),
        _ if by_resolver => format!(
            "no request was sent: this machine's resolver does not work ({}); look at /etc/resolv.conf",
            io::Error::from(code)
        ),
        _ => return None,
    })
}

/// Whether the server certainly did not process the request: there was no connection, hyper returned the request unsent, or the
/// server said so. By GOAWAY (RFC 9113, section 6.8) a server refuses the requests after the last one that it names, and h2 fails
/// only those; section 8.7 describes REFUSED_STREAM.
pub fn not_processed(error: &reqwest::Error) -> bool {
    let by_server = |error: &h2::Error| {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (error.is_go_away() || refused)
    };
    error.is_connect()
        || find(error).is_some_and(hyper::Error::is_canceled)
        || find(error).is_some_and(by_server)
}

/// What is known about a failure, without the URL.
pub fn detail(error: &(dyn Error + 'static)) -> String {
    if let Some(tls) = find::<rustls::Error>(error) {
        return tls.to_string();
    }
    // Its text may contain what the other side wrote into a GOAWAY.
    if let Some(reason) = find::<h2::Error>(error).and_then(h2::Error::reason) {
        return format!("HTTP/2: {}", reason.description());
    }
    // The kind of an I/O error is shorter than its text and has no numbers; errors without a specific kind are clearer as text.
    let innermost = causes(error).filter(|cause| !cause.is::<reqwest::Error>()).last();
    match innermost.map(|cause| (cause, cause.downcast_ref::<io::Error>())) {
        Some((_, Some(io))) if io.raw_os_error().is_some() && io.kind() != io::ErrorKind::Other => {
            io.kind().to_string()
        }
        Some((cause, _)) => cause.to_string(),
        None => "no more is known".to_owned(),
    }
}

/// The first error of this type among the error and its causes.
pub fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// The error and its causes, outermost first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause| next_cause(*cause))
}

fn next_cause<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match cause.downcast_ref::<io::Error>() {
        // An I/O error that wraps another reports that one's source as its own, which would skip the wrapped error.
        Some(io) => io.get_ref().map(|inner| inner as _),
        None => cause.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_this_machine_are_told_apart_from_errors_of_the_peer() {
        for (code, hint) in [
            (Errno::MFILE, "LimitNOFILE="),
            (Errno::NFILE, "fs.file-max"),
            (Errno::NOMEM, "memory"),
            (Errno::NOBUFS, "memory"),
            (Errno::AGAIN, "TasksMax="),
            (Errno::ADDRNOTAVAIL, "ip_local_port_range"),
            (Errno::NETUNREACH, "ip route"),
            (Errno::NETDOWN, "ip route"),
            (Errno::PERM, "firewall"),
            (Errno::ACCESS, "firewall"),
            (Errno::AFNOSUPPORT, "RestrictAddressFamilies="),
            (Errno::NOSPC, "max_user_watches"),
        ] {
            for by_resolver in [false, true] {
                let text = lacking_by_code(code, by_resolver).unwrap();
                assert!(text.starts_with("no request was sent: ") && text.contains(hint), "{text}");
                assert_eq!(harmless(&text), text);
            }
        }
        for code in [Errno::CONNREFUSED, Errno::CONNRESET, Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::PIPE] {
            assert_eq!(lacking_by_code(code, false), None, "{code:?}");
        }
        assert!(lacking_by_code(Errno::NOENT, true).unwrap().contains("resolver"));
    }
}

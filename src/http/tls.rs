//! TLS of `[http]`: handshakes, and the files, which are read again when they change.
//!
//! Promises that a file that can't be used changes nothing: the old ones stay in use, the log says so once, and health until it
//! is mended. New connections use what is in force; old ones keep what they began with. Must not know HTTP, except for the answer
//! to a client that speaks it without TLS.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::certificates::{FileError, Loaded, load};
use super::pace::Pace;
use crate::config;
use crate::throttle::Throttle;
use crate::trouble::Trouble;

/// From accepting a connection to the end of its handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How often to check whether the files have changed. Changed files are read once two checks find them the same, so that a
/// certificate is not read without its new key.
const LOOK: Duration = Duration::from_secs(2);

/// The most reasons that are distinguished; there are not many more.
const MAX_REASONS: usize = 32;

/// How long a refused client may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// The answer to HTTP without TLS.
const SPEAK_TLS: &str = "this port speaks HTTPS: use https:// instead of http://\n";

/// TLS with the files in force.
#[derive(Debug)]
pub struct Tls {
    files: config::Tls,
    /// The files just before they were read for the first time.
    opened: Vec<Stamp>,
    loaded: watch::Sender<Loaded>,
    trouble: watch::Sender<Option<Trouble>>,
    /// Failed handshakes, by reason.
    failures: Mutex<HashMap<String, Throttle>>,
}

/// Why there is no TLS on a connection.
enum Refused {
    /// The client speaks HTTP without it.
    Plain(TcpStream),
    Failed(io::Error, TcpStream),
    /// The client has closed.
    Gone,
}

impl Tls {
    /// Reads the files for the first time; `None` if none are configured.
    ///
    /// # Errors
    /// A file can't be used.
    pub fn open(http: &config::Http) -> Result<Option<Self>, FileError> {
        let Some(files) = http.tls.clone() else { return Ok(None) };
        let opened = stamps(&files);
        let loaded = watch::Sender::new(load(&files)?);
        let trouble = watch::Sender::new(None);
        Ok(Some(Self { files, opened, loaded, trouble, failures: Mutex::default() }))
    }

    /// What is wrong with the files.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble.borrow().clone()
    }

    /// Does the handshake; `None` if it failed.
    pub async fn accept(&self, stream: TcpStream, peer: SocketAddr) -> Option<TlsStream<Pace<TcpStream>>> {
        let config = self.loaded.borrow().config.clone();
        let shaken = async {
            let mut first = [0];
            // TLS begins with the byte 22, HTTP with a letter.
            let peeked = stream.peek(&mut first).await.map_err(|_| Refused::Gone)?;
            if peeked == 1 && first[0].is_ascii_alphabetic() {
                return Err(Refused::Plain(stream));
            }
            let shaken = TlsAcceptor::from(config).accept(Pace::new(stream)).into_fallible().await;
            shaken.map_err(|(error, stream)| Refused::Failed(error, stream.into_inner()))
        };
        let (reason, answer, stream) = match timeout(HANDSHAKE_LIMIT, shaken).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(Refused::Plain(stream))) => {
                ("the client spoke plain HTTP: it has to use https://".to_owned(), plain_answer(), stream)
            }
            // Its alert is sent already.
            Ok(Err(Refused::Failed(error, stream))) => (reason(&error)?, String::new(), stream),
            Ok(Err(Refused::Gone)) => return None,
            Err(_) => {
                self.failed(peer, &format!("it took longer than {} s", HANDSHAKE_LIMIT.as_secs()));
                return None;
            }
        };
        self.failed(peer, &reason);
        // The client may read it or not.
        let _ = timeout(FAREWELL, part(stream, &answer)).await;
        None
    }

    /// Logs a failed handshake, if a line is due.
    fn failed(&self, peer: SocketAddr, reason: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_REASONS && !failures.contains_key(reason) {
            failures.clear();
        }
        let due = failures.entry(reason.to_owned()).or_default().due(Instant::now());
        drop(failures);
        let Some(more) = due else { return };
        warn!(peer = %peer.ip(), reason, more, "a TLS handshake failed (more: how many earlier ones were not logged)");
    }

    /// Reads the files again whenever they have changed or `reloads` changes, until `stop`.
    pub async fn keep_current(self: Arc<Self>, mut reloads: watch::Receiver<u64>, stop: CancellationToken) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut in_force = self.opened.clone();
        let mut last = in_force.clone();
        let mut unusable = None;
        loop {
            let is_asked = tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => false,
                Ok(()) = reloads.changed() => true,
            };
            let files = self.files.clone();
            let now = spawn_blocking(move || stamps(&files)).await.unwrap_or_default();
            let has_changed = now != in_force && now == last;
            if is_asked || has_changed || unusable.is_some() {
                unusable = self.read().await.err();
                if unusable.is_none() {
                    in_force.clone_from(&now);
                }
            }
            last = now;
            self.report(unusable.clone());
        }
    }

    async fn read(&self) -> Result<(), String> {
        let files = self.files.clone();
        let loaded = spawn_blocking(move || load(&files)).await;
        let loaded = loaded.map_err(|failure| failure.to_string())?.map_err(|error| error.to_string())?;
        self.loaded.send_replace(loaded);
        info!("the TLS files of [http] were read again");
        Ok(())
    }

    /// Notes what is wrong, and logs it when it changes.
    fn report(&self, unusable: Option<String>) {
        let expires = || self.loaded.borrow().warning(Timestamp::now());
        let is_unusable = unusable.is_some();
        let wrong = unusable.or_else(expires);
        let is_new = self.trouble.send_if_modified(|trouble| Trouble::note(trouble, wrong.as_deref()));
        match wrong {
            _ if !is_new => {}
            None => info!("the TLS files of [http] are good again"),
            Some(wrong) if is_unusable => {
                error!(reason = wrong, "new TLS files can't be used; the old ones stay in use");
            }
            Some(wrong) => warn!(reason = wrong, "the server's certificate needs attention"),
        }
    }
}

/// Identifies the version of a file by its metadata, to notice a change; `None` if the file is missing or can't be examined.
type Stamp = Option<[i64; 7]>;

fn stamps(files: &config::Tls) -> Vec<Stamp> {
    let files = [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()];
    files.into_iter().flatten().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Stamp {
    let of = fs::metadata(path).ok()?;
    let numbers = [of.dev(), of.ino(), of.size()].map(u64::cast_signed);
    let [device, inode, size] = numbers;
    Some([device, inode, size, of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()])
}

/// Why a handshake failed, and a hint if there is one; `None` if the client only left.
fn reason(error: &io::Error) -> Option<String> {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        let is_gone = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        );
        return (!is_gone).then(|| error.to_string());
    };
    let advice = match error {
        Error::NoCertificatesPresented => "the client sent no certificate, and http.client_ca asks for one",
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the client's certificate is of an authority that is not in http.client_ca"
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the client's certificate has expired"
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => {
            "the client does not accept the certificate in http.tls_cert: does it know its authority, and is the name in it?"
        }
        Error::PeerIncompatible(_) => {
            "the client has no version or cipher of TLS in common with us: 1.2 and 1.3"
        }
        _ => return Some(error.to_string()),
    };
    Some(format!("{advice} ({error})"))
}

fn plain_answer() -> String {
    let length = SPEAK_TLS.len();
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close";
    format!("{head}\r\ncontent-length: {length}\r\n\r\n{SPEAK_TLS}")
}

/// Sends the last bytes, and waits until the client has closed: to close with unread bytes would make the system discard
/// what was sent.
async fn part(mut stream: TcpStream, answer: &str) -> io::Result<()> {
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut unread = [0; 4096];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::certificates::tests::{certificate, folder};
    use super::*;

    /// Waits until the trouble is as wanted. The paused clock advances by itself.
    async fn until(tls: &Tls, wanted: impl Fn(Option<&str>) -> bool) {
        let mut trouble = tls.trouble.subscribe();
        let is_so = |trouble: &Option<Trouble>| wanted(trouble.as_ref().map(|trouble| &*trouble.what));
        let limit = Duration::from_secs(60);
        timeout(limit, trouble.wait_for(is_so)).await.expect("it is noticed").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn changed_tls_files_are_reloaded_and_invalid_ones_are_reported_and_ignored() {
        let (_folder, files) = folder(2020..2090);
        let http = config::Http {
            listen: None,
            tokens_file: None,
            tls: Some(files.clone()),
            hosts: Vec::new(),
            allow_remote: false,
        };
        let tls = Arc::new(Tls::open(&http).unwrap().unwrap());
        let (reload, reloads) = watch::channel(0);
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(tls.clone().keep_current(reloads, stop.clone()));
        let mut changes = tls.loaded.subscribe();

        // Without a request.
        let (new, key) = certificate(2020..2091);
        fs::write(&files.cert, &new).unwrap();
        fs::write(&files.key, &key).unwrap();
        timeout(Duration::from_secs(60), changes.changed()).await.expect("it is read anew").unwrap();
        assert!(tls.trouble().is_none());

        // The key is of another certificate.
        let (_, other) = certificate(2020..2090);
        fs::write(&files.key, other).unwrap();
        until(&tls, |what| what.is_some_and(|what| what.contains("not the key of"))).await;
        assert!(!changes.has_changed().unwrap(), "the old ones stay");
        fs::write(&files.key, key).unwrap();
        until(&tls, |what| what.is_none()).await;

        // A reload reads them at once; an expired certificate is used and reported.
        let (expired, key) = certificate(2020..2021);
        fs::write(&files.cert, expired).unwrap();
        fs::write(&files.key, key).unwrap();
        reload.send_replace(1);
        until(&tls, |what| what.is_some_and(|what| what.contains("has expired on 2021-01-01"))).await;
        stop.cancel();
        keeping.await.unwrap();
    }
}

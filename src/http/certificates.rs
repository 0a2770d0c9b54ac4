//! Makes the TLS settings from the files that `http.tls_cert`, `http.tls_key` and `http.client_ca` name.
//!
//! Promises that every fault of a file is found here, and reported with its key, its path and what to do. No message has any of a
//! key's content. Must not know connections.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error, RootCertStore, ServerConfig};
use thiserror::Error;

use crate::config;
use crate::pem;

/// How long before it expires a certificate should be renewed, if its whole life is long enough.
const RENEW: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A file that can't be used.
#[derive(Debug, Error)]
#[error("{key} {} can't be used: {reason}", path.display())]
pub struct FileError {
    key: &'static str,
    path: PathBuf,
    reason: String,
}

/// The TLS settings, made from the files.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Arc<ServerConfig>,
    life: Option<Life>,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy)]
struct Life {
    begins: Timestamp,
    ends: Timestamp,
}

/// Reads the files. Blocks on the disk.
///
/// # Errors
/// A file can't be read, lacks its certificate or key, or does not match the others.
pub fn load(files: &config::Tls) -> Result<Loaded, FileError> {
    let provider = Arc::new(ring::default_provider());
    let chain = pem::certificates(&files.cert).map_err(unusable("http.tls_cert", &files.cert))?;
    let life = chain.first().and_then(|certificate| Life::of(certificate, &provider));
    let key = pem::private_key(&files.key).map_err(unusable("http.tls_key", &files.key))?;
    let wrong = |error: Error| {
        let (key, path, reason) = match error {
            Error::InconsistentKeys(_) => {
                let reason =
                    format!("it is not the key of the first certificate in {}", files.cert.display());
                ("http.tls_key", &files.key, reason)
            }
            Error::General(reason) => ("http.tls_key", &files.key, reason),
            error => ("http.tls_cert", &files.cert, error.to_string()),
        };
        FileError { key, path: path.clone(), reason }
    };
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(wrong)?;
    let builder = match &files.client_ca {
        Some(path) => builder.with_client_cert_verifier(verifier("http.client_ca", path, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(wrong)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Loaded { config: Arc::new(config), life })
}

impl Loaded {
    /// Returns what is wrong with the certificate's validity period, if anything.
    pub fn warning(&self, now: Timestamp) -> Option<String> {
        let Life { begins, ends } = self.life?;
        let whole = Duration::try_from(ends.duration_since(begins)).unwrap_or_default();
        let soon = now.checked_add(RENEW.min(whole / 6)).unwrap_or(now);
        let when = ends.strftime("%Y-%m-%d %H:%M UTC");
        if now < begins {
            let when = begins.strftime("%Y-%m-%d %H:%M UTC");
            Some(format!(
                "the certificate in http.tls_cert is not valid before {when}: is this machine's clock right?"
            ))
        } else if ends < now {
            Some(format!(
                "the certificate in http.tls_cert has expired on {when}, so clients refuse it: renew it"
            ))
        } else if ends < soon {
            Some(format!("the certificate in http.tls_cert expires on {when}: renew it"))
        } else {
            None
        }
    }
}

impl Life {
    /// rustls reports the validity period only when a certificate is not valid, so this asks for the earliest and the latest
    /// possible time.
    fn of(certificate: &CertificateDer<'static>, provider: &Arc<CryptoProvider>) -> Option<Self> {
        const LAST: Duration = Duration::from_secs(253_402_300_799);
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).ok()?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok()?;
        let name = ServerName::try_from("pinwatch.invalid").ok()?;
        let at = |time: Duration| {
            let time = UnixTime::since_unix_epoch(time);
            match verifier.verify_server_cert(certificate, &[], &name, &[], time) {
                Err(Error::InvalidCertificate(reason)) => Some(reason),
                _ => None,
            }
        };
        let (
            CertificateError::NotValidYetContext { not_before, .. },
            CertificateError::ExpiredContext { not_after, .. },
        ) = (at(Duration::ZERO)?, at(LAST)?)
        else {
            return None;
        };
        let timestamp = |time: UnixTime| Timestamp::from_second(i64::try_from(time.as_secs()).ok()?).ok();
        Some(Self { begins: timestamp(not_before)?, ends: timestamp(not_after)? })
    }
}

/// Accepts clients with a certificate of these authorities.
fn verifier(
    key: &'static str,
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(path).map_err(unusable(key, path))? {
        roots.add(certificate).map_err(|error| unusable(key, path)(error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| unusable(key, path)(error.to_string()))
}

/// Makes an error that names the configuration key and its file.
fn unusable(key: &'static str, path: &Path) -> impl Fn(String) -> FileError {
    let path = path.to_owned();
    move |reason| FileError { key, path: path.clone(), reason }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;

    /// A folder with a certificate for `localhost` and its key.
    pub fn folder(valid: std::ops::Range<i32>) -> (TempDir, config::Tls) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let files = config::Tls { cert: at("cert.pem"), key: at("key.pem"), client_ca: None };
        let (certificate, key) = certificate(valid);
        fs::write(&files.cert, certificate).unwrap();
        fs::write(&files.key, key).unwrap();
        (folder, files)
    }

    /// A certificate for `localhost` that is valid from and to the first day of these years, and its key, in PEM.
    pub fn certificate(valid: std::ops::Range<i32>) -> (String, String) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(valid.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(valid.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn every_problem_of_a_tls_file_is_named_with_its_key_and_path() {
        let (folder, files) = folder(2020..2090);
        assert!(load(&files).is_ok());
        let (certificate, key) = certificate(2020..2090);
        let with = |name: &str, content: &str| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let other_key = with("other-key.pem", &key);
        let damaged = with("damaged.pem", &certificate[..certificate.len() / 2]);
        let (nothing, folder_itself) = (with("nothing.pem", ""), folder.path().to_owned());
        let no_der = with("no-der.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let no_key = with("no-key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        let missing = folder.path().join("missing.pem");
        let of_client = |path: &PathBuf| config::Tls { client_ca: Some(path.clone()), ..files.clone() };
        let of_cert = |path: &PathBuf| config::Tls { cert: path.clone(), ..files.clone() };
        let of_key = |path: &PathBuf| config::Tls { key: path.clone(), ..files.clone() };
        for (files, key, path, reason) in [
            (of_cert(&missing), "http.tls_cert", &missing, "No such file"),
            (of_cert(&nothing), "http.tls_cert", &nothing, "no certificate in PEM"),
            (of_cert(&files.key), "http.tls_cert", &files.key, "no certificate in PEM"),
            (of_cert(&damaged), "http.tls_cert", &damaged, "damaged"),
            (of_cert(&no_der), "http.tls_cert", &no_der, ""),
            (of_cert(&folder_itself), "http.tls_cert", &folder_itself, "no regular file"),
            (of_key(&missing), "http.tls_key", &missing, "No such file"),
            (of_key(&files.cert), "http.tls_key", &files.cert, "no private key in PEM"),
            (of_key(&no_key), "http.tls_key", &no_key, ""),
            (of_key(&other_key), "http.tls_key", &other_key, "not the key of the first certificate in"),
            (of_client(&nothing), "http.client_ca", &nothing, "no certificate in PEM"),
            (of_client(&no_der), "http.client_ca", &no_der, ""),
        ] {
            let error = load(&files).unwrap_err().to_string();
            let begins = error.starts_with(&format!("{key} {} can't be used: ", path.display()));
            assert!(begins && error.contains(reason), "{error}");
        }
        assert!(load(&of_client(&files.cert)).is_ok());
    }

    #[test]
    fn a_certificate_that_is_not_valid_or_expires_soon_is_reported() {
        let (_folder, files) = folder(2020..2021);
        let loaded = load(&files).unwrap();
        for (now, expected) in [
            ("2019-12-31T23:59:59Z", Some("not valid before 2020-01-01 00:00 UTC")),
            ("2020-01-01T00:00:00Z", None),
            ("2020-12-17T00:00:00Z", None),
            ("2020-12-19T00:00:00Z", Some("expires on 2021-01-01 00:00 UTC")),
            ("2021-01-01T00:00:01Z", Some("has expired on 2021-01-01 00:00 UTC")),
        ] {
            let warning = loaded.warning(now.parse().unwrap());
            let as_expected = match (&warning, expected) {
                (Some(warning), Some(expected)) => warning.contains(expected),
                (warning, expected) => warning.is_none() && expected.is_none(),
            };
            assert!(as_expected, "{now}: {warning:?}");
        }
    }
}

//! Reads certificates and keys in PEM, for clients and for the server.
//!
//! Promises that no error contains a part of the file, that a key's content is overwritten after use, and that a path that is no
//! regular file, such as a named pipe, blocks nobody. Must not know what the files are for.

use std::fs::{self, File};
use std::path::Path;

use memchr::memmem;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::zeroize::Zeroizing;

use crate::paths::read_at_most;

/// The largest accepted file of certificates, in bytes. The system's whole bundle has a quarter of a megabyte.
const MAX_CERTIFICATES: usize = 4 * 1024 * 1024;

/// The largest accepted file with a key, in bytes: it may contain the certificates too.
const MAX_KEY: usize = 64 * 1024;

/// Reads the certificates of a file, in their order; at least one.
///
/// # Errors
/// What is wrong with the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path, MAX_CERTIFICATES)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    // The error's own text may quote the file.
    let certificates = certificates.map_err(|_| DAMAGED)?;
    if certificates.is_empty() {
        return Err("it has no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned());
    }
    Ok(certificates)
}

/// Reads the private key of a file, the first if there are several.
///
/// # Errors
/// What is wrong with the file.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = read(path, MAX_KEY)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        pem::Error::NoItemsFound if memmem::find(&pem, b"ENCRYPTED").is_some() => {
            "its key is encrypted, and a daemon can't ask for the passphrase: `openssl pkey -in FILE -out NEW` decrypts it"
                .to_owned()
        }
        pem::Error::NoItemsFound => "it has no private key in PEM (-----BEGIN PRIVATE KEY-----)".to_owned(),
        _ => DAMAGED.to_owned(),
    })
}

const DAMAGED: &str = "it is not valid PEM, or it is damaged";

/// Reads a regular file of at most this many bytes.
fn read(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    // Opening a named pipe waits for its writer.
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let content =
        File::open(path).and_then(|file| read_at_most(file, most)).map_err(|error| error.to_string())?;
    content.ok_or_else(|| format!("it has more than {most} bytes, so it can't be the right file"))
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn a_file_without_a_usable_key_is_refused_without_quoting_it() {
        let valid = KeyPair::generate().unwrap().serialize_pem();
        let encrypted = valid.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        for (content, expected) in [
            ("", "it has no private key in PEM"),
            ("hunter2", "it has no private key in PEM"),
            (encrypted.as_str(), "its key is encrypted"),
            ("-----BEGIN PRIVATE KEY-----\nhunter2!\n-----END PRIVATE KEY-----\n", "it is not valid PEM"),
            (&valid.replace("-----END", "hunter2"), "it is not valid PEM"),
            (&"x".repeat(70_000), "it has more than 65536 bytes"),
        ] {
            let refused = private_key(file(content).path()).unwrap_err();
            assert!(refused.starts_with(expected) && !refused.contains("hunter2"), "{refused}");
        }
    }

    #[test]
    fn a_path_that_is_not_a_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        for path in [folder.path(), &pipe] {
            assert_eq!(certificates(path).unwrap_err(), "it is no regular file");
            assert_eq!(private_key(path).unwrap_err(), "it is no regular file");
        }
    }
}

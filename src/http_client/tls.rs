//! TLS for clients.
//!
//! Promises to trust the system's certificates and those of a file, and none for a client that makes only plain connections: a
//! system without certificates can make those. A key is overwritten when it is dropped. Must not know which servers there are.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};
use rustls_platform_verifier::Verifier;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretBox};

use crate::pem::certificates;

/// The certificate that a client shows to a server which asks for one, with its key.
pub struct Identity {
    /// The client's own certificate, and those of the authorities between it and one that the server knows.
    chain: Vec<CertificateDer<'static>>,
    key: SecretBox<PrivateKeyDer<'static>>,
}

impl Identity {
    /// # Errors
    /// The key is of an unknown kind, or belongs to another certificate than the first.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, String> {
        let provider = rustls::crypto::ring::default_provider();
        let loaded = provider.key_provider.load_private_key(key.clone_key());
        let loaded = loaded.map_err(
            |_| "it is not a key that can be used: RSA (2048 to 8192 bits), P-256, P-384 or Ed25519",
        )?;
        match CertifiedKey::new(chain.clone(), loaded).keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err("it is not the key of the first certificate of that file".to_owned());
            }
            Err(error) => return Err(format!("that file's first certificate can't be used: {error}")),
        }
        Ok(Self { chain, key: SecretBox::new(Box::new(key)) })
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        let key = |identity: &Self| Zeroizing::new(identity.key.expose_secret().secret_der().to_vec());
        self.chain == other.chain && key(self) == key(other)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// TLS that trusts the system's certificates and these, shows this identity to servers that ask for one, and offers HTTP/2.
///
/// # Errors
/// The system has no certificates, or one of these is invalid.
pub fn trusting(
    extra: Vec<CertificateDer<'static>>,
    identity: Option<&Identity>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new_with_extra_roots(extra, provider.clone())?;
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(Identity { chain, key }) => {
            builder.with_client_auth_cert(chain.clone(), key.expose_secret().clone_key())?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// TLS that trusts no certificate, for a client that makes only plain connections.
///
/// # Errors
/// Only by a bug: the protocol versions are those of the library.
pub fn trusting_nobody() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// The certificates of authorities in a PEM file.
///
/// # Errors
/// What is wrong with the file, or which of its certificates can't be an authority's.
pub fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = certificates(path)?;
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        let added = store.add(certificate.clone());
        added.map_err(|error| format!("its certificate {} can't be used: {error}", index + 1))?;
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::pem::private_key;

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    fn certificate(key: &KeyPair) -> String {
        CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(key).unwrap().pem()
    }

    #[test]
    fn a_certificate_and_its_key_are_an_identity_even_in_one_file() {
        let key = KeyPair::generate().unwrap();
        let both = file(&[certificate(&key), key.serialize_pem()].concat());
        let read =
            || Identity::new(certificates(both.path()).unwrap(), private_key(both.path()).unwrap()).unwrap();
        assert_eq!(read(), read());
        assert!(trusting(Vec::new(), Some(&read())).is_ok());
        assert_eq!(format!("{:?}", read()), "Identity { .. }");
    }

    #[test]
    fn the_key_of_another_certificate_is_refused() {
        let [ours, theirs] = [(); 2].map(|()| KeyPair::generate().unwrap());
        let (cert, key) = (file(&certificate(&ours)), file(&theirs.serialize_pem()));
        let refused = Identity::new(certificates(cert.path()).unwrap(), private_key(key.path()).unwrap());
        assert_eq!(refused.unwrap_err(), "it is not the key of the first certificate of that file");
    }

    #[test]
    fn an_invalid_private_key_is_refused() {
        let key = private_key(file("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").path());
        let refused = Identity::new(Vec::new(), key.unwrap()).unwrap_err();
        assert!(refused.starts_with("it is not a key that can be used"), "{refused}");
    }

    #[test]
    fn an_invalid_ca_certificate_is_refused_with_its_position() {
        let good = certificate(&KeyPair::generate().unwrap());
        assert_eq!(authorities(file(&good).path()).unwrap().len(), 1);
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let refused = authorities(file(&[&good, bad].concat()).path()).unwrap_err();
        assert!(refused.starts_with("its certificate 2 can't be used"), "{refused}");
        assert!(authorities(file("").path()).unwrap_err().starts_with("it has no certificate in PEM"));
    }
}

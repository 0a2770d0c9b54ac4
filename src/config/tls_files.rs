//! The readers of keys that name PEM files: certificates to trust, and a client's own certificate with its key.
//!
//! Promises that the files can be used for TLS, so that the code that gets the value need not check them again, and that no
//! message contains a part of a key. Must not know which servers there are.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::section::Section;
use crate::http_client::tls::{self, Identity};
use crate::pem;

impl Section<'_> {
    /// Reads the certificates of authorities in a file; none if the key is missing.
    pub(super) fn authorities(&mut self, key: &'static str) -> Option<Vec<CertificateDer<'static>>> {
        let Some(path) = self.optional_path(key)? else { return Some(Vec::new()) };
        tls::authorities(&path).map_or_else(|reason| self.refuse(key, unusable(&reason)), Some)
    }

    /// Reads a client's certificate in the file that `key` names, and its key in the one that `private` names.
    pub(super) fn identity(
        &mut self,
        key: &'static str,
        private: &'static str,
    ) -> Option<Option<Arc<Identity>>> {
        match self.given(&[key, private])[..] {
            [] => return Some(None),
            [_, _] => {}
            [only, ..] => {
                let other = self.full(if only == key { private } else { key });
                return self.refuse(only, format!("must have the other half with it: add {other}"));
            }
        }
        let (certificate, private_key) = (self.path(key, ""), self.path(private, ""));
        let (certificate, private_key) = (certificate?, private_key?);
        self.warn_if_readable(private, &private_key);
        let chain = pem::certificates(&certificate);
        let chain = chain.map_or_else(|reason| self.refuse(key, unusable(&reason)), Some);
        let secret = pem::private_key(&private_key);
        let secret = secret.map_or_else(|reason| self.refuse(private, unusable(&reason)), Some);
        let identity = Identity::new(chain?, secret?).map_err(|reason| {
            format!("can't use this file with {} {}: {reason}", self.full(key), certificate.display())
        });
        identity.map_or_else(|reason| self.refuse(private, reason), |identity| Some(Some(Arc::new(identity))))
    }
}

fn unusable(reason: &str) -> String {
    format!("can't use this file: {reason}")
}

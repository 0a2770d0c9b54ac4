//! What an operator can do about an answer or a failure that has a known cause: a few words for health, the log and `show`.
//!
//! Promises that the words are pinwatch's own, however the receiver names the cause. Must not know the configured values.

use std::error::Error;

use hyper::StatusCode;
use rustls::{AlertDescription, CertificateError, Error as Tls};

use crate::http_client::failure::find;

const SHOW_CERTIFICATE: &str = "set client_cert and client_key";
const OTHER_CERTIFICATE: &str = "it refuses client_cert";

/// The advice about an answer with this status and this beginning of a body.
pub fn on_answer(status: StatusCode, body: &[u8]) -> Option<&'static str> {
    let says = |words: &[u8]| body.windows(words.len()).any(|part| part.eq_ignore_ascii_case(words));
    match status.as_u16() {
        // nginx finishes the handshake whatever the client's certificate is, and says these words on its error page.
        400 if says(b"No required SSL certificate was sent") => Some(SHOW_CERTIFICATE),
        400 if says(b"The SSL certificate error") => Some(OTHER_CERTIFICATE),
        401 | 403 => Some("check secret and headers"),
        _ => None,
    }
}

/// The advice about a request that got no answer.
pub fn on_failure(error: &(dyn Error + 'static)) -> Option<&'static str> {
    use CertificateError as Bad;
    match find::<Tls>(error)? {
        Tls::InvalidCertificate(Bad::UnknownIssuer) => Some("is its authority in ca_file?"),
        Tls::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            Some("it must be renewed, or this machine's clock is wrong")
        }
        Tls::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            Some("is the host in url the right one?")
        }
        Tls::InvalidMessage(_) => Some("does it speak TLS at this port?"),
        Tls::AlertReceived(alert) => on_alert(*alert),
        _ => None,
    }
}

/// Whether the receiver ended the handshake because of the client's certificate. With TLS 1.3 this arrives when the client
/// already waits for the answer, and yet the receiver has not looked at the request.
pub fn is_about_client(error: &(dyn Error + 'static)) -> bool {
    matches!(find::<Tls>(error), Some(Tls::AlertReceived(alert)) if on_alert(*alert).is_some())
}

fn on_alert(alert: AlertDescription) -> Option<&'static str> {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired | Alert::NoCertificate => Some(SHOW_CERTIFICATE),
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => Some(OTHER_CERTIFICATE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_causes_of_failures_get_advice() {
        let answer = |status, body: &str| on_answer(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        let page = "<html><head><title>400 No required SSL certificate was sent</title>";
        assert_eq!(answer(400, page), Some(SHOW_CERTIFICATE));
        assert_eq!(answer(400, "<title>400 The SSL certificate error</title>"), Some(OTHER_CERTIFICATE));
        assert_eq!(answer(403, ""), Some("check secret and headers"));
        assert_eq!((answer(400, "no such PIN"), answer(500, page)), (None, None));

        let failure = |error: Tls| on_failure(&std::io::Error::other(error));
        assert_eq!(failure(CertificateError::UnknownIssuer.into()), Some("is its authority in ca_file?"));
        let alert = |alert| Tls::AlertReceived(alert);
        assert_eq!(failure(alert(AlertDescription::CertificateRequired)), Some(SHOW_CERTIFICATE));
        assert_eq!(failure(alert(AlertDescription::UnknownCA)), Some(OTHER_CERTIFICATE));
        assert_eq!(failure(alert(AlertDescription::InternalError)), None);
        assert!(is_about_client(&alert(AlertDescription::UnknownCA)));
        assert!(!is_about_client(&alert(AlertDescription::InternalError)));
        assert!(!is_about_client(&Tls::from(CertificateError::UnknownIssuer)));
    }
}

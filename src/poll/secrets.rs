//! Removes the credentials from the texts of an answer.
//!
//! Promises that no text of a [`Meaning`] contains them, whether the API or a proxy wrote them plainly, escaped for JSON, a URL
//! or HTML, or as a Basic pair, nor four or more bytes of their beginning where a text was cut off. Works on decoded texts: in
//! the body any character can be written as `\uXXXX`. Must not know requests.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE};
use secrecy::{ExposeSecret, SecretString};

use super::{MAX_TEXT, Meaning};
use crate::config::Credentials;
use crate::outcome::{Delivery, Status};
use crate::redact::{decoded, normal, without};
use crate::text::bounded;

/// The longest escape, in characters. One of a text that was escaped twice is `\\\\u0032`.
const LONGEST_ESCAPE: usize = 12;

/// The secret parts of the credentials, in the forms that are searched for.
pub(super) struct Secrets(Vec<SecretString>);

impl Secrets {
    pub fn new(credentials: &Credentials) -> Self {
        let (plain, for_base64) = match credentials {
            Credentials::Key(key) => (key, key.expose_secret().to_owned()),
            Credentials::Basic { username, password } => {
                (password, format!("{username}:{}", password.expose_secret()))
            }
        };
        let without_padding = |text: String| text.trim_end_matches('=').to_owned();
        let forms = [
            plain.expose_secret().to_owned(),
            without_padding(BASE64.encode(&for_base64)),
            without_padding(URL_SAFE.encode(&for_base64)),
        ];
        Self(forms.iter().map(|form| normal(form).into()).collect())
    }

    /// The meaning without them. A status that contains one is not a status, so the answer can't be trusted.
    pub fn removed_from(&self, meaning: Meaning) -> Meaning {
        let text = |text: String| self.removed_from_text(text);
        match meaning {
            Meaning::Deliveries(mut deliveries) => {
                if deliveries.iter().any(|delivery| self.is_in_status(delivery)) {
                    return Meaning::Unreadable("a delivery's status has the credentials in it".to_owned());
                }
                deliveries.iter_mut().for_each(|delivery| self.clean_description(delivery));
                Meaning::Deliveries(deliveries)
            }
            Meaning::Unreadable(said) => Meaning::Unreadable(text(said)),
            Meaning::Rejected(said) => Meaning::Rejected(text(said)),
            Meaning::Unavailable(said) => Meaning::Unavailable(text(said)),
            Meaning::NotSent(said) => Meaning::NotSent(said),
            Meaning::Unauthorized(_) | Meaning::NotFound | Meaning::Throttled(_) => meaning,
        }
    }

    /// The text without them.
    pub fn removed_from_text(&self, text: String) -> String {
        self.clean(&text).unwrap_or(text)
    }

    fn is_in_status(&self, delivery: &Delivery) -> bool {
        let is_foreign = matches!(delivery.status, Status::Unknown(_) | Status::Other { .. });
        is_foreign && self.clean(delivery.status.as_str()).is_some()
    }

    fn clean_description(&self, delivery: &mut Delivery) {
        // The vendor's own description, which nearly every delivery has, is not searched.
        let said = delivery.description.as_deref().filter(|said| delivery.status.description() != Some(said));
        if let Some(clean) = said.and_then(|said| self.clean(said)) {
            delivery.description = Some(Arc::from(clean));
        }
    }

    /// The text with `***` for each of them, decoded where it was encoded; `None` if it contains none.
    fn clean(&self, said: &str) -> Option<String> {
        // A text that was cut ends like this: see `text::bounded`.
        let (text, end) = said.strip_suffix('…').map_or((said, ""), |text| (without_last_escape(text), "…"));
        let text = decoded(text);
        let clean = without(&text, self.0.iter().map(ExposeSecret::expose_secret), 0);
        // Decoding may have produced control characters.
        (clean != text).then(|| bounded(&(clean + end), MAX_TEXT))
    }
}

/// The text without a trailing escape that may have been cut off: `%3`, `\\u00`.
fn without_last_escape(text: &str) -> &str {
    let near_the_end = text.char_indices().rev().take(LONGEST_ESCAPE);
    let start = near_the_end.filter(|(_, c)| matches!(c, '%' | '&' | '\\')).last();
    start.map_or(text, |(start, _)| &text[..start])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "k-3f9a/Zq+71";

    fn app() -> Secrets {
        Secrets::new(&Credentials::Key(KEY.into()))
    }

    fn basic() -> Secrets {
        Secrets::new(&Credentials::Basic { username: "Aladdin".into(), password: "open sesame".into() })
    }

    #[test]
    fn the_credentials_are_found_in_every_encoding() {
        for (said, expected) in [
            ("App k-3f9a/Zq+71, k-3f9a/Zq+71", "App ***, ***"),
            (r"App k-3f9a\/Zq+71", "App ***"),
            (r"App \u006b-3f9a/Zq\u002B71", "App ***"),
            (r"App \\u006b-3f9a/Zq+71", "App ***"),
            ("App k-3f9a%2FZq%2b71", "App ***"),
            ("App k-3f9a&#47;Zq&#x2B;71", "App ***"),
            ("App K-3F9A/ZQ+71", "App ***"),
            ("as xk-3f9a/Zq+71x", "as x***x"),
            ("cut within App k-3f9a…", "cut within App ***…"),
            ("cut within App k-3f9a%2…", "cut within App ***…"),
            (r"cut within App k-3f9a\\u002…", "cut within App ***…"),
            ("base64 ay0zZjlhL1pxKzcx", "base64 ***"),
        ] {
            assert_eq!(app().clean(said).as_deref(), Some(expected), "{said}");
        }
        for (said, expected) in [
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Basic ***=="),
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ", "Basic ***"),
            (r"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ\u003d=", "Basic ***=="),
            ("Aladdin:open sesame", "Aladdin:***"),
            ("Aladdin%3Aopen%20sesame", "Aladdin:***"),
        ] {
            assert_eq!(basic().clean(said).as_deref(), Some(expected), "{said}");
        }
    }

    #[test]
    fn text_without_credentials_is_unchanged() {
        for said in [r"100%25 of \u0041 &amp; more…", "k-2", "Aladdin", ""] {
            assert_eq!(app().clean(said), None, "{said}");
        }
        let meaning = Meaning::Rejected(r"400 Bad Request: \u0041".to_owned());
        assert_eq!(app().removed_from(meaning.clone()), meaning);
    }

    #[test]
    fn a_status_with_the_key_in_it_makes_the_answer_unreadable() {
        let delivery = |status: &str, description: &str| Delivery {
            status: Status::from_wire(status),
            description: Some(description.into()),
            final_status: true,
        };
        let answer = |status: &str| Meaning::Deliveries(vec![delivery(status, &format!("for App {KEY}"))]);
        let Meaning::Unreadable(said) = app().removed_from(answer(&format!("App {KEY}"))) else { panic!() };
        assert!(!said.contains(KEY));
        let Meaning::Deliveries(clean) = app().removed_from(answer("MESSAGE_DELIVERED")) else { panic!() };
        assert_eq!(clean, [delivery("MESSAGE_DELIVERED", "for App ***")]);
    }

    proptest! {
        #[test]
        fn no_mixture_of_escapes_hides_the_key(ways in prop::collection::vec(0..5, KEY.len()), before: String) {
            let written: String = KEY.chars().zip(ways).map(|(c, way)| match way {
                0 => format!(r"\u{:04x}", u32::from(c)),
                1 => format!(r"\\u{:04X}", u32::from(c)),
                2 => format!("%{:02x}", u32::from(c)),
                3 => format!("&#{};", u32::from(c)),
                _ => c.to_string(),
            }).collect();
            // A `\`, `%` or `&` just before would make another escape of the first character.
            let said = format!("{before} {written}");
            prop_assert!(app().clean(&said).unwrap().ends_with("***"));
        }
    }
}

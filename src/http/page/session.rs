//! The sessions of users who have logged in to the status page.
//!
//! Promises that a session ends after [`LIFETIME`], when its token is no longer in force, or when its user logs out; that there
//! are at most [`MOST`]; and that neither a token nor a cookie is kept: only their hashes are. Lives in memory only. Must not
//! know requests or pages.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::http::tokens::{Client, Hash, TokenId, Tokens, hash, random};

/// How long a session lasts: a working day.
pub const LIFETIME: Duration = Duration::from_hours(8);

/// The most sessions at once. Above this, the oldest one ends.
const MOST: usize = 256;

/// All sessions, by the hash of their cookie.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<Hash, Session>>);

#[derive(Debug)]
struct Session {
    token: TokenId,
    form_token: String,
    began: Instant,
}

/// Somebody who has logged in.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub client: Client,
    /// Each form that changes something has it, so that no other site can make one.
    pub form_token: String,
}

impl Sessions {
    /// Begins a session for the holder of this token; returns its cookie. `None` if the token is not in force, or if the system
    /// has no random numbers.
    pub fn begin(&self, token: TokenId) -> Option<String> {
        let (cookie, form_token) = (random().ok()?, random().ok()?);
        let mut sessions = self.lock();
        sessions.retain(|_, session| session.began.elapsed() < LIFETIME);
        if sessions.len() >= MOST {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.began).map(|(key, _)| *key);
            oldest.and_then(|oldest| sessions.remove(&oldest));
        }
        sessions.insert(hash(&cookie), Session { token, form_token, began: Instant::now() });
        Some(cookie)
    }

    /// Returns the visitor with this cookie, if the session lasts and its token is still in force.
    pub fn visitor(&self, cookie: &str, tokens: &Tokens) -> Option<Visitor> {
        let mut sessions = self.lock();
        let key = hash(cookie);
        let session = sessions.get(&key)?;
        let client = tokens.holder(&session.token).filter(|_| session.began.elapsed() < LIFETIME);
        let visitor =
            client.map(|client| Visitor { client: client.clone(), form_token: session.form_token.clone() });
        if visitor.is_none() {
            sessions.remove(&key);
        }
        visitor
    }

    /// Ends a session.
    pub fn end(&self, cookie: &str) {
        self.lock().remove(&hash(cookie));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Hash, Session>> {
        // Each change is complete in itself, so a panic elsewhere leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visitor {
    /// Whether a form came from a page that this visitor was given.
    pub fn made(&self, form_token: &str) -> bool {
        self.form_token.as_bytes().ct_eq(form_token.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::http::tokens::{NewToken, Scope};

    /// Tokens in force, and one of them.
    fn tokens() -> (Tokens, TokenId) {
        let new = NewToken::make(&"boss".parse().unwrap(), Scope::Admin).unwrap();
        let tokens = Tokens::parse(new.line.as_bytes()).unwrap();
        let (id, _) = tokens.identify(new.token.expose_secret()).unwrap();
        (tokens, id)
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_after_eight_hours_or_with_its_token_or_by_logging_out() {
        let (tokens, id) = tokens();
        let sessions = Sessions::default();
        let cookie = sessions.begin(id).unwrap();
        assert_eq!(sessions.visitor(&cookie, &tokens).unwrap().client.name.as_str(), "boss");
        assert!(sessions.visitor("another", &tokens).is_none());
        tokio::time::advance(LIFETIME - Duration::from_secs(1)).await;
        assert!(sessions.visitor(&cookie, &tokens).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(sessions.visitor(&cookie, &tokens).is_none());

        let cookie = sessions.begin(id).unwrap();
        assert!(sessions.visitor(&cookie, &Tokens::default()).is_none(), "the token is gone");
        assert!(sessions.visitor(&cookie, &tokens).is_none(), "and the session stays ended");

        let cookie = sessions.begin(id).unwrap();
        sessions.end(&cookie);
        assert!(sessions.visitor(&cookie, &tokens).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_sessions_than_the_limit_and_the_oldest_goes_first() {
        let (tokens, id) = tokens();
        let sessions = Sessions::default();
        let first = sessions.begin(id).unwrap();
        for _ in 0..MOST {
            tokio::time::advance(Duration::from_millis(1)).await;
            sessions.begin(id).unwrap();
        }
        assert!(sessions.visitor(&first, &tokens).is_none());
        assert_eq!(sessions.lock().len(), MOST);
    }

    #[test]
    fn a_form_must_have_the_token_of_its_session() {
        let (tokens, id) = tokens();
        let sessions = Sessions::default();
        let visitor = |cookie: &str| sessions.visitor(cookie, &tokens).unwrap();
        let [one, other] = [id, id].map(|id| visitor(&sessions.begin(id).unwrap()));
        assert!(one.made(&one.form_token) && !one.made(&other.form_token) && !one.made(""));
    }
}

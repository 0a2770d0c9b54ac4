//! The PIN ID: what names a PIN everywhere in pinwatch.
//!
//! A `PinId` that exists is valid, so nothing past the intake checks again, and it can be put into a URL
//! path, a log line or a table without surprises.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The longest PIN ID that is taken, in characters (all of them ASCII, so also in bytes).
pub const MAX_PIN_ID_LEN: usize = 128;

/// The ID of one PIN: 1 to 128 characters of `A-Z a-z 0-9 - _ .`, and neither `.` nor `..`.
///
/// Opaque to us; Infobip's are 32 hexadecimal digits. `.` and `..` are refused because a URL path would
/// swallow them. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PinId(Arc<str>);

/// Why a string is no PIN ID.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidPinId {
    #[error("a PIN ID can't be empty")]
    Empty,
    #[error("a PIN ID has at most {MAX_PIN_ID_LEN} characters, and this one has {0}")]
    TooLong(usize),
    #[error("a PIN ID has only the characters A-Z a-z 0-9 - _ . and this one has {0:?}")]
    BadCharacter(char),
    #[error("a PIN ID can't be \".\" or \"..\", which mean something else in a URL")]
    Dots,
}

impl PinId {
    /// The ID as it was submitted.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PinId {
    type Err = InvalidPinId;

    fn from_str(text: &str) -> Result<Self, InvalidPinId> {
        if text.is_empty() {
            return Err(InvalidPinId::Empty);
        }
        // The length first: a hostile line is not scanned to its end for the message's sake.
        if text.len() > MAX_PIN_ID_LEN {
            return Err(InvalidPinId::TooLong(text.chars().count()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
            return Err(InvalidPinId::BadCharacter(bad));
        }
        if matches!(text, "." | "..") {
            return Err(InvalidPinId::Dots);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for PinId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PinId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinId({})", self.0)
    }
}

impl Serialize for PinId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PinId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_the_api_and_of_other_vendors_are_taken() {
        for id in ["9C817C6F8AF3D48F9FE553282AFA2B67", "a", "0.1_b-C", "...", &"x".repeat(128)] {
            assert_eq!(id.parse::<PinId>().unwrap().as_str(), id);
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        assert_eq!("".parse::<PinId>(), Err(InvalidPinId::Empty));
        assert_eq!(".".parse::<PinId>(), Err(InvalidPinId::Dots));
        assert_eq!("..".parse::<PinId>(), Err(InvalidPinId::Dots));
        assert_eq!("x".repeat(129).parse::<PinId>(), Err(InvalidPinId::TooLong(129)));
        for (id, bad) in
            [("a/b", '/'), ("a b", ' '), ("a\0b", '\0'), ("é", 'é'), ("a%2e", '%'), ("a\n", '\n')]
        {
            assert_eq!(id.parse::<PinId>(), Err(InvalidPinId::BadCharacter(bad)));
        }
    }
}

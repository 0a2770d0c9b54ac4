//! The PIN ID, which identifies a PIN everywhere in pinwatch.
//!
//! Promises that every `PinId` is valid: nothing past the intake checks it again, and it is safe in a URL path, a log
//! line or a table. [`CompactPinId`] is a smaller form, for keeping a million of them. Knows nothing of the API or the
//! store.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The longest PIN ID that is accepted, in characters (all are ASCII, so also in bytes).
pub const MAX_PIN_ID_LEN: usize = 128;

/// The longest ID, in bytes, that a `PinId` stores inline; it makes a `PinId` 40 bytes large.
const INLINE: usize = 38;

/// The ID of one PIN: 1 to 128 characters of `A-Z a-z 0-9 - _ .`, but not `.` or `..`.
///
/// pinwatch does not interpret it; Infobip's IDs are 32 hexadecimal digits. `.` and `..` are refused because they mean
/// something else in a URL path. Cloning is cheap: the IDs that vendors use need no allocation.
#[derive(Clone)]
pub struct PinId(Text);

#[derive(Clone)]
enum Text {
    Inline { length: u8, bytes: [u8; INLINE] },
    Shared(Arc<str>),
}

/// Why a text is not a PIN ID.
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
        match &self.0 {
            // The bytes were checked when the ID was made. They are checked again, because only unsafe code could avoid
            // it.
            Text::Inline { length, bytes } => {
                bytes.get(..usize::from(*length)).and_then(|id| str::from_utf8(id).ok()).unwrap_or_default()
            }
            Text::Shared(id) => id,
        }
    }

    /// The ID of a text that the caller knows to be valid.
    fn of_valid(text: &str) -> Self {
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(text.as_bytes());
                Self(Text::Inline { length, bytes })
            }
            _ => Self(Text::Shared(text.into())),
        }
    }
}

impl PartialEq for PinId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for PinId {}

impl PartialOrd for PinId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PinId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for PinId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// A PIN ID in little memory: 32 hexadecimal digits with letters of one case take 16 bytes and no allocation.
///
/// Two are equal exactly if their IDs are equal, case included.
#[derive(Clone, PartialEq, Eq)]
pub struct CompactPinId(Compact);

#[derive(Clone, PartialEq, Eq)]
enum Compact {
    /// Also for IDs without letters, so that each ID has one form.
    Upper([u8; 16]),
    Lower([u8; 16]),
    Text(Arc<str>),
}

impl CompactPinId {
    /// The full PIN ID.
    pub fn expand(&self) -> PinId {
        match &self.0 {
            Compact::Upper(bytes) => expand(bytes, b'A'),
            Compact::Lower(bytes) => expand(bytes, b'a'),
            Compact::Text(id) if id.len() > INLINE => PinId(Text::Shared(id.clone())),
            Compact::Text(id) => PinId::of_valid(id),
        }
    }
}

impl From<&PinId> for CompactPinId {
    fn from(pin: &PinId) -> Self {
        Self(match &pin.0 {
            Text::Inline { length: 32, bytes } => {
                compact(bytes).unwrap_or_else(|| Compact::Text(pin.as_str().into()))
            }
            Text::Inline { .. } => Compact::Text(pin.as_str().into()),
            Text::Shared(id) => Compact::Text(id.clone()),
        })
    }
}

impl Hash for CompactPinId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.0 {
            // Only the upper-case and the lower-case form of an ID share a hash, so nobody can cause more collisions.
            Compact::Upper(bytes) | Compact::Lower(bytes) => state.write(bytes),
            Compact::Text(id) => id.hash(state),
        }
    }
}

impl fmt::Debug for CompactPinId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expand().fmt(f)
    }
}

/// Which bytes a PIN ID may have.
const ALLOWED: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        allowed[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        byte += 1;
    }
    allowed
};

/// The value of each hexadecimal digit, with a bit for an upper-case letter, a lower-case letter or any other byte.
const DIGITS: [u8; 256] = {
    let mut digits = [OTHER; 256];
    let mut value = 0;
    while value < 16 {
        let (upper, lower) = (b"0123456789ABCDEF"[value], b"0123456789abcdef"[value]);
        let letter = value > 9;
        digits[upper as usize] = value as u8 | if letter { UPPER } else { 0 };
        digits[lower as usize] = value as u8 | if letter { LOWER } else { 0 };
        value += 1;
    }
    digits
};
const UPPER: u8 = 0x10;
const LOWER: u8 = 0x20;
const OTHER: u8 = 0x40;

/// Packs the first 32 bytes of `text`, if they are hexadecimal digits with letters of one case.
fn compact(text: &[u8; INLINE]) -> Option<Compact> {
    let mut bytes = [0; 16];
    // Reads all digits before it decides: that is faster without branches, and the start reads a million IDs.
    let mut kinds = 0;
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
        *byte = high << 4 | low & 15;
        kinds |= high | low;
    }
    match kinds & (UPPER | LOWER | OTHER) {
        0 | UPPER => Some(Compact::Upper(bytes)),
        LOWER => Some(Compact::Lower(bytes)),
        _ => None,
    }
}

/// The reverse of [`compact`].
fn expand(bytes: &[u8; 16], ten: u8) -> PinId {
    let digit = |value: u8| if value < 10 { b'0' + value } else { ten + value - 10 };
    let mut text = [0; INLINE];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        (pair[0], pair[1]) = (digit(byte >> 4), digit(byte & 15));
    }
    PinId(Text::Inline { length: 32, bytes: text })
}

impl FromStr for PinId {
    type Err = InvalidPinId;

    fn from_str(text: &str) -> Result<Self, InvalidPinId> {
        if text.is_empty() {
            return Err(InvalidPinId::Empty);
        }
        // Checks the length first, so that a hostile line is not scanned for bad characters.
        if text.len() > MAX_PIN_ID_LEN {
            return Err(InvalidPinId::TooLong(text.chars().count()));
        }
        if let Some(at) = text.bytes().position(|byte| !ALLOWED[usize::from(byte)]) {
            // All bytes before it are ASCII, so a character begins here.
            let bad = text.get(at..).and_then(|rest| rest.chars().next());
            return Err(InvalidPinId::BadCharacter(bad.unwrap_or(char::REPLACEMENT_CHARACTER)));
        }
        if matches!(text, "." | "..") {
            return Err(InvalidPinId::Dots);
        }
        Ok(Self::of_valid(text))
    }
}

impl fmt::Display for PinId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PinId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinId({})", self.as_str())
    }
}

impl Serialize for PinId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for PinId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Parses the text in place: most IDs need no allocation.
        struct Parse;

        impl Visitor<'_> for Parse {
            type Value = PinId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a PIN ID")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PinId, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_ids_of_all_vendors_are_accepted() {
        for id in ["9C817C6F8AF3D48F9FE553282AFA2B67", "a", "0.1_b-C", "...", &"x".repeat(128)] {
            assert_eq!(id.parse::<PinId>().unwrap().as_str(), id);
        }
    }

    #[test]
    fn a_pin_id_is_unchanged_after_it_was_stored_in_compact_form() {
        let hex = "9C817C6F8AF3D48F9FE553282AFA2B67";
        let lower = hex.to_lowercase();
        let mixed = lower.replace("9c", "9C");
        let letters = "G".repeat(32);
        for id in [
            hex,
            &lower,
            &mixed,
            &letters,
            &"1".repeat(32),
            &"A".repeat(31),
            &"a".repeat(33),
            "a",
            &"x".repeat(128),
        ] {
            let pin: PinId = id.parse().unwrap();
            assert_eq!(CompactPinId::from(&pin).expand(), pin);
            assert_eq!(CompactPinId::from(&pin).expand().as_str(), id);
            for other in [hex, &lower, &mixed, &letters].into_iter().filter(|other| *other != id) {
                assert_ne!(CompactPinId::from(&pin), CompactPinId::from(&other.parse().unwrap()));
            }
        }
    }

    #[test]
    fn ids_of_vendors_need_no_allocation() {
        assert_eq!(size_of::<PinId>(), 40);
        assert_eq!(size_of::<CompactPinId>(), 24);
        for id in ["9C817C6F8AF3D48F9FE553282AFA2B67", "019a2b67-1111-7000-8000-0123456789ab"] {
            assert!(matches!(id.parse::<PinId>().unwrap().0, Text::Inline { .. }));
        }
        for id in ["9C817C6F8AF3D48F9FE553282AFA2B67", "9c817c6f8af3d48f9fe553282afa2b67"] {
            let compact = CompactPinId::from(&id.parse().unwrap());
            assert!(!matches!(compact.0, Compact::Text(_)));
        }
    }

    proptest::proptest! {
        #[test]
        fn every_pin_id_is_read_back_from_its_compact_form(id in "[A-Za-z0-9_.-]{1,128}|[0-9A-F]{32}|[0-9a-f]{32}|[0-9A-Fa-f]{32}") {
            if let Ok(pin) = id.parse::<PinId>() {
                proptest::prop_assert_eq!(pin.as_str(), &id);
                let back = CompactPinId::from(&pin).expand();
                proptest::prop_assert_eq!(back.as_str(), &id);
            }
        }
    }

    #[test]
    fn an_invalid_pin_id_is_refused_with_the_reason() {
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

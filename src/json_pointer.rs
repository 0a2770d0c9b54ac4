//! JSON pointers (RFC 6901): the place of a value in a JSON text.
//!
//! A pointer is checked and compiled once. A search parses each part of the text at most once for each token, does not recurse
//! and does not copy values. A name that an object has twice is an error, because two readers could find different values. Pure.
//! Must not know what is searched for.

use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, de};
use serde_json::value::RawValue;
use thiserror::Error;

/// The most tokens of a pointer: a search parses the text once for each.
pub const MAX_TOKENS: usize = 16;

#[cfg(test)]
thread_local! {
    /// The bytes that this thread's searches handed to the parser.
    pub(crate) static BYTES_READ: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The place of a value in a JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: Box<str>,
    tokens: Box<[Token]>,
}

/// A part of a pointer between two slashes, without its escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    name: Box<str>,
    /// The element that it names in an array, if it names one.
    index: Option<usize>,
}

/// Why a text is not a pointer. The texts say what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidPointer {
    #[error("must be a JSON pointer such as \"/results/0\": \"\", or a text that begins with /")]
    NoSlash,
    #[error("must be a JSON pointer: after ~ comes 0 (for ~) or 1 (for /)")]
    Escape,
    #[error(
        "must be a JSON pointer to a value that is there: \"-\" is the place after an array's last element"
    )]
    Behind,
    #[error("must be a JSON pointer with at most {MAX_TOKENS} parts")]
    TooLong,
}

impl Pointer {
    /// The pointer as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the value at this place; `None` if there is none.
    ///
    /// # Errors
    /// On the way there, the text is not JSON, or an object has a name twice.
    pub fn find<'a>(&self, value: &'a RawValue) -> Result<Option<&'a RawValue>, serde_json::Error> {
        let mut found = value;
        for token in &self.tokens {
            match token.find(found)? {
                Some(inner) => found = inner,
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }
}

impl Token {
    fn find<'a>(&self, value: &'a RawValue) -> Result<Option<&'a RawValue>, serde_json::Error> {
        #[cfg(test)]
        BYTES_READ.set(BYTES_READ.get() + value.get().len());
        let mut text = serde_json::Deserializer::from_str(value.get());
        match (value.get().as_bytes().first(), self.index) {
            (Some(b'{'), _) => text.deserialize_map(Member(&self.name)),
            (Some(b'['), Some(index)) => text.deserialize_seq(Element(index)),
            _ => Ok(None),
        }
    }
}

impl FromStr for Pointer {
    type Err = InvalidPointer;

    fn from_str(text: &str) -> Result<Self, InvalidPointer> {
        let tokens = match text.strip_prefix('/') {
            Some(tokens) => tokens.split('/').map(token).collect::<Result<Vec<_>, _>>()?,
            None if text.is_empty() => Vec::new(),
            None => return Err(InvalidPointer::NoSlash),
        };
        if tokens.len() > MAX_TOKENS {
            return Err(InvalidPointer::TooLong);
        }
        Ok(Self { text: text.into(), tokens: tokens.into() })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn token(written: &str) -> Result<Token, InvalidPointer> {
    if written == "-" {
        return Err(InvalidPointer::Behind);
    }
    if written.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
        return Err(InvalidPointer::Escape);
    }
    // In this order, so that ~01 becomes ~1 and not /.
    let name = written.replace("~1", "/").replace("~0", "~");
    let is_index = name == "0" || !name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit());
    let index = is_index.then(|| name.parse().ok()).flatten();
    Ok(Token { name: name.into(), index })
}

/// Finds an object's member by its name.
struct Member<'n>(&'n str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = members.next_key_seed(Named(self.0))? {
            if !is_it {
                members.next_value::<IgnoredAny>()?;
            } else if found.replace(members.next_value()?).is_some() {
                return Err(A::Error::custom(format_args!("{:?} is there twice", self.0)));
            }
        }
        Ok(found)
    }
}

/// Compares a member's name, without a copy of it.
struct Named<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<bool, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for Named<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// Finds an array's element by its index.
struct Element(usize);

impl<'de> Visitor<'de> for Element {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        for _ in 0..self.0 {
            if elements.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = elements.next_element()?;
        // serde_json accepts only an array that was read to its end.
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find<'a>(pointer: &str, text: &'a str) -> Result<Option<&'a str>, String> {
        let value: &RawValue = serde_json::from_str(text).unwrap();
        let found = pointer.parse::<Pointer>().unwrap().find(value);
        found.map(|found| found.map(RawValue::get)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_examples_of_rfc_6901_find_the_values_that_it_states() {
        let text = r#"{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5,
            "k\"l": 6, " ": 7, "m~n": 8}"#;
        for (pointer, expected) in [
            ("", text),
            ("/foo", r#"["bar", "baz"]"#),
            ("/foo/0", r#""bar""#),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert_eq!(find(pointer, text), Ok(Some(expected)), "{pointer}");
        }
        assert_eq!(find("/~01", r#"{"~1": 9, "/": 8}"#), Ok(Some("9")));
    }

    #[test]
    fn a_pointer_to_a_missing_place_finds_no_value() {
        let text = r#"{"a": [1, {"b": null}], "01": 5, "s": "x"}"#;
        for pointer in
            ["/b", "/a/2", "/a/01", "/a/x", "/a/0/0", "/s/0", "/a/1/b/c", "/a/99999999999999999999"]
        {
            assert_eq!(find(pointer, text), Ok(None), "{pointer}");
        }
        assert_eq!(find("/a/1/b", text), Ok(Some("null")));
        assert_eq!(find("/01", text), Ok(Some("5")));
        assert_eq!(find("/0", r#"{"0": "by name"}"#), Ok(Some(r#""by name""#)));
        assert_eq!(find("/\u{e9}", r#"{"\u00e9": 1}"#), Ok(Some("1")));
    }

    #[test]
    fn a_duplicate_member_name_is_an_error() {
        assert!(find("/a", r#"{"a": 1, "b": 2, "a": 1}"#).unwrap_err().contains("\"a\" is there twice"));
        assert_eq!(find("/b", r#"{"a": 1, "b": 2, "a": 1}"#), Ok(Some("2")));
    }

    #[test]
    fn an_invalid_pointer_is_refused() {
        for (text, expected) in [
            ("status", InvalidPointer::NoSlash),
            ("#/status", InvalidPointer::NoSlash),
            ("/a~2", InvalidPointer::Escape),
            ("/a~", InvalidPointer::Escape),
            ("/a/-", InvalidPointer::Behind),
            (&"/a".repeat(MAX_TOKENS + 1), InvalidPointer::TooLong),
        ] {
            assert_eq!(text.parse::<Pointer>(), Err(expected), "{text}");
        }
        assert!("/a".repeat(MAX_TOKENS).parse::<Pointer>().is_ok());
    }

    proptest! {
        #[test]
        fn a_pointer_finds_what_serde_json_finds_and_reads_the_text_once_for_each_token(
            value in any::<u64>().prop_map(made_up),
            pointer in "(/(a|b|~0|~1|[0-9]|10|01)?){0,18}",
        ) {
            let Ok(parsed) = pointer.parse::<Pointer>() else {
                prop_assert!(pointer.matches('/').count() > MAX_TOKENS);
                return Ok(());
            };
            let text = value.to_string();
            let raw: &RawValue = serde_json::from_str(&text).unwrap();
            let before = BYTES_READ.get();
            let found = parsed.find(raw).unwrap();
            let read = BYTES_READ.get() - before;
            let found = found.map(|found| serde_json::from_str(found.get()).unwrap());
            prop_assert_eq!(found.as_ref(), value.pointer(&pointer));
            prop_assert!(read <= text.len() * parsed.tokens.len());
        }

        #[test]
        fn no_text_makes_a_pointer_panic(text: String, pointer: String) {
            if let (Ok(pointer), Ok(value)) = (pointer.parse::<Pointer>(), serde_json::from_str::<&RawValue>(&text)) {
                _ = pointer.find(value);
            }
        }
    }

    /// Arbitrary JSON with the member names that the pointers use.
    fn made_up(seed: u64) -> serde_json::Value {
        fn value(rng: &mut fastrand::Rng, depth: u8) -> serde_json::Value {
            match rng.u8(..if depth == 0 { 2 } else { 5 }) {
                0 => serde_json::Value::Null,
                1 => rng.u8(..).into(),
                2 => (0..rng.u8(..12)).map(|_| value(rng, depth - 1)).collect(),
                _ => {
                    let names = ["a", "b", "~", "/", "", "0", "01", "10"];
                    let members = names
                        .iter()
                        .filter_map(|name| Some((*name, rng.bool().then(|| value(rng, depth - 1))?)));
                    serde_json::Value::Object(members.map(|(name, value)| (name.to_owned(), value)).collect())
                }
            }
        }
        value(&mut fastrand::Rng::with_seed(seed), 4)
    }
}

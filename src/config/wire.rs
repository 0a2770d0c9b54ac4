//! The kinds of values that a configuration has, as users write them.
//!
//! Promises: each kind takes its TOML type, and the same thing as a string, because the environment and
//! `--set` have only strings; nothing else is converted, so `1.5` is no count and `true` no number. A refusal
//! says what would be right and never repeats the value. Must not know: keys, defaults, limits.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A string.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(try_from = "Scalar")]
pub(super) struct Text(pub String);

/// A string that no message may show.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(try_from = "Scalar")]
pub(super) struct Secret(pub SecretString);

/// Several strings that no message may show.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(try_from = "Scalar")]
pub(super) struct Secrets(pub Vec<SecretString>);

/// A whole number from 0 up.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(try_from = "Scalar")]
pub(super) struct Count(pub u64);

/// A number.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(try_from = "Scalar")]
pub(super) struct Number(pub f64);

/// `true` or `false`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(try_from = "Scalar")]
pub(super) struct Flag(pub bool);

/// A duration, written with its units.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(try_from = "Scalar")]
pub(super) struct Span(pub Duration);

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl TryFrom<Scalar> for Text {
    type Error = &'static str;

    fn try_from(scalar: Scalar) -> Result<Self, Self::Error> {
        match scalar {
            Scalar::Text(text) => Ok(Self(text)),
            _ => Err("must be a string, in quotation marks"),
        }
    }
}

impl TryFrom<Scalar> for Secret {
    type Error = &'static str;

    // A number isn't taken for a string: TOML's 1e5 or 0x10 would come out as another key than was written.
    fn try_from(scalar: Scalar) -> Result<Self, Self::Error> {
        Text::try_from(scalar).map(|Text(text)| Self(text.into()))
    }
}

impl TryFrom<Scalar> for Secrets {
    type Error = &'static str;

    fn try_from(scalar: Scalar) -> Result<Self, Self::Error> {
        let secrets: Option<Vec<SecretString>> = match scalar {
            Scalar::List(list) => {
                list.into_iter().map(|item| Secret::try_from(item).ok().map(|secret| secret.0)).collect()
            }
            _ => None,
        };
        secrets.map(Self).ok_or("must be a list of strings, [\"…\", \"…\"]")
    }
}

impl TryFrom<Scalar> for Count {
    type Error = &'static str;

    fn try_from(scalar: Scalar) -> Result<Self, Self::Error> {
        let number = match scalar {
            Scalar::Int(number) => u64::try_from(number).ok(),
            Scalar::Text(text) => without_separators(&text).parse().ok(),
            _ => None,
        };
        number.map(Self).ok_or("must be a whole number, 0 or more")
    }
}

impl TryFrom<Scalar> for Number {
    type Error = &'static str;

    fn try_from(scalar: Scalar) -> Result<Self, Self::Error> {
        let number = match scalar {
            Scalar::Int(number) => Some(number as f64),
            Scalar::Float(number) => Some(number),
            Scalar::Text(text) => without_separators(&text).parse().ok(),
            _ => None,
        };
        number.map(Self).ok_or("must be a number")
    }
}

impl TryFrom<Scalar> for Flag {
    type Error = &'static str;

    fn try_from(scalar: Scalar) -> Result<Self, Self::Error> {
        match scalar {
            Scalar::Bool(flag) => Ok(Self(flag)),
            Scalar::Text(text) if text == "true" => Ok(Self(true)),
            Scalar::Text(text) if text == "false" => Ok(Self(false)),
            _ => Err("must be true or false"),
        }
    }
}

impl TryFrom<Scalar> for Span {
    type Error = String;

    fn try_from(scalar: Scalar) -> Result<Self, Self::Error> {
        const RIGHT: &str = r#"must be a duration with its unit, such as "500ms", "10s", "48h" or "1m 30s""#;
        match scalar {
            // humantime takes a bare "0"; a habit of leaving units out is better not begun.
            Scalar::Text(text) if without_separators(&text).parse::<f64>().is_err() => {
                humantime::parse_duration(&text).map(Self).map_err(|error| format!("{RIGHT}: {error}"))
            }
            Scalar::Text(_) | Scalar::Int(_) | Scalar::Float(_) => {
                Err(format!("{RIGHT}; a number alone doesn't say whether seconds or minutes are meant"))
            }
            Scalar::Bool(_) | Scalar::List(_) | Scalar::Other => Err(RIGHT.to_owned()),
        }
    }
}

/// `1_000_000` as TOML allows it, so that the environment and `--set` may write it too.
fn without_separators(text: &str) -> String {
    text.trim().replace('_', "")
}

/// One value of any type, before it is known which one is wanted. No `Debug`: it may be a secret.
enum Scalar {
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Scalar>),
    Other,
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(flag))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Int(number.into()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Int(number.into()))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar::Float(number))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Scalar, E> {
                Ok(Scalar::Text(text))
            }

            fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Scalar::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Scalar, A::Error> {
                Ok(Scalar::Other)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

//! The body of a 200: the deliveries of one PIN.
//!
//! Pure, and strict where a guess could end a PIN wrongly: an answer is understood whole or not at all. An
//! unreadable one costs an interval; a delivery that was left out could make "all are final" true too early,
//! and an outcome is given only once.
//!
//! Bounded by [`MAX_BODY`], [`MAX_DELIVERIES`], [`MAX_STATUS`] and [`MAX_DESCRIPTION`]; unknown fields are
//! skipped, and serde_json skips them without recursion.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error_text::harmless;
use crate::outcome::{Delivery, Status};

/// The largest body that is read, in bytes, after decompression.
pub const MAX_BODY: usize = 64 * 1024;

/// The most deliveries an answer can have. More is refused, not cut: see the module's reason.
pub const MAX_DELIVERIES: usize = 256;

/// The longest status, in bytes; the vendor's longest has 35. A longer one is refused, because a status that
/// is cut short is another status.
pub const MAX_STATUS: usize = 128;

/// The longest description, in characters; a longer one is cut, for it decides nothing.
pub const MAX_DESCRIPTION: usize = 512;

/// The deliveries that a 200's body tells of, in its order.
///
/// # Errors
/// What is wrong with the body, as a short text that is safe to log.
pub(super) fn deliveries(body: &[u8]) -> Result<Vec<Delivery>, String> {
    if body.len() > MAX_BODY {
        return Err(format!("the body is over {} KiB", MAX_BODY / 1024));
    }
    if body.trim_ascii().is_empty() {
        return Err("the body is empty".to_owned());
    }
    serde_json::from_slice(body).map(|Answer(deliveries)| deliveries).map_err(|error| {
        // serde_json's messages can quote the body.
        harmless(&error.to_string())
    })
}

/// An array of deliveries, or one alone.
struct Answer(Vec<Delivery>);

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Answer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of deliveries")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Answer, A::Error> {
                // One delivery is what nearly every PIN has.
                let mut deliveries = Vec::with_capacity(1);
                while let Some(Element(delivery)) = seq.next_element()? {
                    if deliveries.len() == MAX_DELIVERIES {
                        return Err(A::Error::custom(format_args!("more than {MAX_DELIVERIES} deliveries")));
                    }
                    deliveries.push(delivery);
                }
                Ok(Answer(deliveries))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Answer, A::Error> {
                let Element(delivery) = Element::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Answer(vec![delivery]))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

/// One delivery. Not derived: a derived struct would also be read from an array of its fields.
struct Element(Delivery);

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(field_identifier, rename_all = "camelCase")]
        enum Field {
            Status,
            Description,
            FinalStatus,
            #[serde(other)]
            Other,
        }

        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a delivery")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Element, A::Error> {
                let (mut status, mut description, mut final_status) = (Value::Null, Value::Null, Value::Null);
                while let Some(field) = map.next_key()? {
                    match field {
                        Field::Status => status = map.next_value()?,
                        Field::Description => description = map.next_value()?,
                        Field::FinalStatus => final_status = map.next_value()?,
                        Field::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                delivery(status, description, final_status).map(Element).map_err(A::Error::custom)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// The value of a field, as far as the fields of a delivery can differ.
enum Value<'a> {
    Null,
    Bool(bool),
    Text(Cow<'a, str>),
    /// A number, array or object.
    Other,
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Value<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Value::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Value::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Value::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Value::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Value::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// The delivery of these three fields, or what is wrong with them.
fn delivery(status: Value<'_>, description: Value<'_>, final_status: Value<'_>) -> Result<Delivery, String> {
    let status = match status {
        Value::Text(text) if text.is_empty() => return Err("a delivery with an empty status".to_owned()),
        Value::Text(text) if text.len() > MAX_STATUS => {
            return Err(format!("a delivery's status is over {MAX_STATUS} bytes"));
        }
        Value::Text(text) if text.chars().any(char::is_control) => {
            return Err("a delivery's status has control characters".to_owned());
        }
        Value::Text(text) => Status::from_wire(&text),
        Value::Null => return Err("a delivery without a status".to_owned()),
        Value::Bool(_) | Value::Other => return Err("a delivery's status is no string".to_owned()),
    };
    let final_status = match final_status {
        Value::Bool(value) => value,
        Value::Text(text) => match text.trim() {
            "" => status.is_final_by_table(),
            text if text.eq_ignore_ascii_case("true") => true,
            text if text.eq_ignore_ascii_case("false") => false,
            _ => return Err("a delivery's finalStatus is neither true nor false".to_owned()),
        },
        Value::Null => status.is_final_by_table(),
        Value::Other => return Err("a delivery's finalStatus is neither true nor false".to_owned()),
    };
    let description = match description {
        Value::Text(text) => clean(&text),
        // It decides nothing, so no odd description is worth an answer.
        Value::Null | Value::Bool(_) | Value::Other => None,
    };
    let description = description.or_else(|| status.description().map(Arc::from));
    Ok(Delivery { status, description, final_status })
}

/// A description as it may be shown on a terminal; `None` if nothing is left of it.
fn clean(text: &str) -> Option<Arc<str>> {
    // Nearly every description is clean and short, and then is copied once.
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    if text.len() <= MAX_DESCRIPTION && !text.chars().any(char::is_control) {
        return Some(text.into());
    }
    Some(super::error_text::bounded(text, MAX_DESCRIPTION).into()).filter(|text: &Arc<str>| !text.is_empty())
}

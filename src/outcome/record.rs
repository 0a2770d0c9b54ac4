//! The two kinds of JSON text in the store: the record of an outcome, and a submitter's metadata.
//!
//! Promises that every reader sees a [`Record`] as one line, whether it was made now or read from a database that an
//! older version wrote. Knows nothing of a record's fields.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::text::{compact_json, json_line};

/// An outcome record: one line of JSON without its newline. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record(Arc<str>);

impl From<String> for Record {
    /// `json` must be valid JSON. Removes line breaks and escapes what some readers take for one: U+0085, U+2028 and
    /// U+2029.
    fn from(json: String) -> Self {
        Self(json_line(json).into())
    }
}

impl From<&str> for Record {
    fn from(json: &str) -> Self {
        Self(json_line(json).into())
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl Deref for Record {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// JSON from a submitter: without white space, with its numbers and duplicate keys as they were written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Box<RawValue>")]
pub struct Metadata(Box<RawValue>);

impl Metadata {
    /// The JSON text.
    pub fn get(&self) -> &str {
        self.0.get()
    }
}

impl From<Box<RawValue>> for Metadata {
    fn from(json: Box<RawValue>) -> Self {
        Self(RawValue::from_string(compact_json(json.get())).unwrap_or(json))
    }
}

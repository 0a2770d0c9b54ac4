//! The refusal of a request: `{"ok":false,"error":{"code":"…","message":"…"}}`.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A code for programs and a message for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    pub code: Code,
    #[serde(default)]
    pub message: Cow<'static, str>,
}

impl Refusal {
    /// Whether the same request may succeed later: the reason is the daemon's present state, not the request.
    pub fn is_temporary(&self) -> bool {
        matches!(self.code, Code::ShuttingDown | Code::StoreUnavailable)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    InvalidJson,
    InvalidRequest,
    InvalidPinId,
    LineTooLong,
    UnknownOp,
    NotFound,
    AtCapacity,
    ShuttingDown,
    StoreUnavailable,
    Removed,
    Timeout,
    /// A code of a newer daemon that this version does not know.
    #[serde(untagged)]
    Other(String),
}

impl Code {
    /// All codes that this version sends.
    pub const ALL: [Self; 11] = [
        Self::InvalidJson,
        Self::InvalidRequest,
        Self::InvalidPinId,
        Self::LineTooLong,
        Self::UnknownOp,
        Self::NotFound,
        Self::AtCapacity,
        Self::ShuttingDown,
        Self::StoreUnavailable,
        Self::Removed,
        Self::Timeout,
    ];

    /// Makes a refusal with this code.
    pub fn because(self, message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { code: self, message: message.into() }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_read_back_from_its_name_and_so_is_an_unknown_one() {
        for code in Code::ALL.into_iter().chain([Code::Other("newer".into())]) {
            let json = format!("\"{code}\"");
            assert_eq!(serde_json::to_string(&code).unwrap(), json);
            assert_eq!(serde_json::from_str::<Code>(&json).unwrap(), code);
        }
    }
}

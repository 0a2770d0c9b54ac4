//! Parses TOML into values that know their line.
//!
//! The `config` crate parses TOML too, but keeps only the file's name, and its message quotes the wrong line, which may contain
//! the API key. Promises that neither an error nor an origin contains a part of the text. Must not know keys.

use std::path::Path;

use config::{Map, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;

/// Parses a file into its tables; each value's origin is the file and the line.
pub(super) fn parse(path: &Path, text: &str) -> Result<Map<String, Value>, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let syntax = |(at, message)| ConfigError::Syntax { path: path.to_owned(), line: line(at), message };
    let table = DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        syntax((start, error.message().to_owned()))
    })?;
    table_of(table.into_inner(), &|at| format!("{}, line {}", path.display(), line(at))).map_err(syntax)
}

/// Parses a single TOML value, such as a list given by `--set`.
pub(super) fn parse_value(text: &str, origin: &str) -> Result<Value, String> {
    let value = DeValue::parse(text).map_err(|error| error.message().to_owned())?;
    value_of(value, &|_| origin.to_owned()).map_err(|(_, message)| message)
}

/// Returns the origin of the text at a byte position.
type Origin<'a> = &'a dyn Fn(usize) -> String;

/// A number that is valid TOML but does not fit our types: its position, and why.
type OutOfRange = (usize, String);

fn table_of(table: DeTable, origin: Origin) -> Result<Map<String, Value>, OutOfRange> {
    table
        .into_iter()
        .map(|(key, value)| Ok((key.into_inner().into_owned(), value_of(value, origin)?)))
        .collect()
}

fn value_of(value: Spanned<DeValue>, origin: Origin) -> Result<Value, OutOfRange> {
    let at = value.span().start;
    let kind = match value.into_inner() {
        DeValue::String(text) => text.into_owned().into(),
        DeValue::Boolean(flag) => flag.into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| (at, "a number is too large".to_owned()))?
            .into(),
        DeValue::Float(number) => {
            number.as_str().parse::<f64>().map_err(|_| (at, "a number can't be read".to_owned()))?.into()
        }
        DeValue::Table(table) => ValueKind::Table(table_of(table, origin)?),
        DeValue::Array(values) => ValueKind::Array(
            values.into_iter().map(|value| value_of(value, origin)).collect::<Result<_, _>>()?,
        ),
    };
    Ok(Value::new(Some(&origin(at)), kind))
}

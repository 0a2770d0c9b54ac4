//! TOML into values that know the line they stand in.
//!
//! `config` reads TOML too, but keeps only the file's name, and its message quotes the line with the mistake,
//! which may be the one with the key. Promises: neither an error nor an origin holds any of the text. Must not
//! know: keys.

use std::path::Path;

use config::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;

/// The tables of a file; each value's origin is the file and the line.
pub(super) fn parse(path: &Path, text: &str) -> Result<Map<String, Value>, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let file = path.display().to_string();
    let lines = Lines::of(text, Some(&file));
    let syntax = |line, message: String| ConfigError::Syntax { path: path.to_owned(), line, message };
    let table = DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        syntax(lines.number(start), error.message().to_owned())
    })?;
    table_of(table.into_inner(), &lines).map_err(|(start, message)| syntax(lines.number(start), message))
}

/// A single value in TOML, as `--set` has it for lists.
pub(super) fn parse_value(text: &str, origin: &str) -> Result<Value, String> {
    let value = DeValue::parse(text).map_err(|error| error.message().to_owned())?;
    value_of(value, &Lines { file: None, origin, starts: Vec::new() }).map_err(|(_, message)| message)
}

/// Where lines begin, to name the one that a byte is in.
struct Lines<'a> {
    file: Option<&'a str>,
    origin: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &str, file: Option<&'a str>) -> Self {
        let starts =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1).collect();
        Self { file, origin: "", starts }
    }

    fn number(&self, at: usize) -> usize {
        1 + self.starts.partition_point(|start| *start <= at)
    }

    fn origin(&self, at: usize) -> String {
        match self.file {
            Some(file) => format!("{file}, line {}", self.number(at)),
            None => self.origin.to_owned(),
        }
    }
}

/// A number that is TOML and fits no type of ours: where, and why.
type OutOfRange = (usize, String);

fn table_of(table: DeTable, lines: &Lines) -> Result<Map<String, Value>, OutOfRange> {
    table
        .into_iter()
        .map(|(key, value)| Ok((key.into_inner().into_owned(), value_of(value, lines)?)))
        .collect()
}

fn value_of(value: Spanned<DeValue>, lines: &Lines) -> Result<Value, OutOfRange> {
    let at = value.span().start;
    let origin = lines.origin(at);
    let origin = Some(&origin);
    let too_large = |_| (at, "a number is too large".to_owned());
    Ok(match value.into_inner() {
        DeValue::String(text) => Value::new(origin, text.into_owned()),
        DeValue::Boolean(flag) => Value::new(origin, flag),
        DeValue::Datetime(time) => Value::new(origin, time.to_string()),
        DeValue::Integer(number) => {
            Value::new(origin, i64::from_str_radix(number.as_str(), number.radix()).map_err(too_large)?)
        }
        DeValue::Float(number) => Value::new(
            origin,
            number.as_str().parse::<f64>().map_err(|_| (at, "a number can't be read".to_owned()))?,
        ),
        DeValue::Table(table) => Value::new(origin, table_of(table, lines)?),
        DeValue::Array(values) => {
            let values: Result<Vec<Value>, OutOfRange> =
                values.into_iter().map(|value| value_of(value, lines)).collect();
            Value::new(origin, values?)
        }
    })
}

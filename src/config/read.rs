//! The readers that several sections use: durations, numbers, words, paths, URLs, secrets.
//!
//! Each accepts its TOML type, and the same value as a string, because the environment and `--set` have only strings. Nothing
//! else is converted, so `1.5` is not a count and `true` is not a number. An error says what would be right and never quotes
//! the value. Must not know which keys there are.

use std::net::IpAddr;
use std::ops::{RangeBounds, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use config::ValueKind;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::secret;
use super::section::{Section, did_you_mean, quoted, redacted};
use super::toml_file;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A year as `humantime` reads "1year": 365.25 days.
pub(crate) const YEAR: Duration = Duration::from_secs(31_557_600);

impl Section<'_> {
    /// Reads a string and parses it.
    pub fn parsed<T, E: ToString>(
        &mut self,
        key: &'static str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.read(key, default, |written| {
            let text = text_of(written)?;
            Ok((parse(text).map_err(|reason| reason.to_string())?, quoted(text)))
        })
    }

    /// Reads a duration with its unit.
    pub fn duration(
        &mut self,
        key: &'static str,
        default: &str,
        allowed: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        self.read(key, default, |written| {
            let duration = duration_of(written)?;
            if !allowed.contains(&duration) {
                let (least, most) = (humantime_text(*allowed.start()), humantime_text(*allowed.end()));
                return Err(format!("must be at least {least} and at most {most}"));
            }
            Ok((duration, quoted(&humantime_text(duration))))
        })
    }

    /// Reads a list, or a string: its items with commas between, or the list in TOML. `items` is what a message calls them.
    pub fn items<T: AsRef<str>>(
        &mut self,
        key: &'static str,
        items: &str,
        parse: impl Fn(&ValueKind) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.read(key, ValueKind::Array(Vec::new()), |written| {
            let right = || format!("must be a list of {items}, [\"…\", \"…\"]");
            let of_toml = match written {
                ValueKind::String(text) if is_toml_list(text) => {
                    let list = toml_file::parse_value(text, "");
                    Some(list.map_err(|reason| format!("{}: {reason}", right()))?.kind)
                }
                _ => None,
            };
            let list: Vec<T> = match of_toml.as_ref().unwrap_or(written) {
                ValueKind::Array(list) => {
                    list.iter().map(|value| parse(&value.kind)).collect::<Result<_, _>>()?
                }
                ValueKind::String(text) if text.trim().is_empty() => Vec::new(),
                ValueKind::String(text) => {
                    text.split(',').map(|text| parse(&text.trim().into())).collect::<Result<_, _>>()?
                }
                _ => return Err(right()),
            };
            let shown: Vec<String> = list.iter().map(|item| quoted(item.as_ref())).collect();
            Ok((list, format!("[{}]", shown.join(", "))))
        })
    }

    /// Reads a whole number.
    pub fn count(
        &mut self,
        key: &'static str,
        default: i64,
        allowed: RangeInclusive<usize>,
    ) -> Option<usize> {
        self.read(key, default, |written| {
            let count = match written {
                ValueKind::I64(number) => usize::try_from(*number).ok(),
                ValueKind::String(text) => without_separators(text).parse().ok(),
                _ => None,
            };
            let count = count.filter(|count| allowed.contains(count));
            let (least, most) = (allowed.start(), allowed.end());
            let count = count.ok_or_else(|| format!("must be a whole number from {least} to {most}"))?;
            Ok((count, count.to_string()))
        })
    }

    /// Reads a number; `range` describes `allowed` in words.
    pub fn number(
        &mut self,
        key: &'static str,
        default: f64,
        allowed: impl RangeBounds<f64>,
        range: &str,
    ) -> Option<f64> {
        self.read(key, default, |written| {
            let number = match written {
                ValueKind::I64(number) => Some(*number as f64),
                ValueKind::Float(number) => Some(*number),
                ValueKind::String(text) => without_separators(text).parse().ok(),
                _ => None,
            };
            let number = number.filter(|number| allowed.contains(number));
            let number = number.ok_or_else(|| format!("must be a number {range}"))?;
            Ok((number, format!("{number:?}")))
        })
    }

    /// Reads `true` or `false`.
    pub fn flag(&mut self, key: &'static str, default: bool) -> Option<bool> {
        self.read(key, default, |written| {
            let flag = match written {
                ValueKind::Boolean(flag) => Some(*flag),
                ValueKind::String(text) => text.parse().ok(),
                _ => None,
            };
            flag.map(|flag| (flag, flag.to_string())).ok_or_else(|| "must be true or false".to_owned())
        })
    }

    /// Reads one of a few words, each of which means a value.
    pub fn choice<T: Clone>(&mut self, key: &'static str, default: &str, choices: &[(&str, T)]) -> Option<T> {
        self.parsed(key, default, |word| {
            if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
                return Ok(choice.clone());
            }
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
            let (last, others) = quoted.split_last().ok_or("must not be given")?;
            let meant = did_you_mean(word, &names).map(|name| format!("; did you mean {name:?}?"));
            Err(format!("must be {} or {last}{}", others.join(", "), meant.unwrap_or_default()))
        })
    }

    /// Reads the path of a file and makes it absolute.
    pub fn path(&mut self, key: &'static str, default: &str) -> Option<PathBuf> {
        self.resolve(key, "");
        self.parsed(key, default, absolute_path)
    }

    /// As `path`, but the key may be missing.
    pub fn optional_path(&mut self, key: &'static str) -> Option<Option<PathBuf>> {
        if self.is_given(key) { self.path(key, "").map(Some) } else { Some(None) }
    }

    /// Reads an `https` URL, or an `http` one if it leads to this machine or the key `allow_plain_http` allows it, which is
    /// read here too.
    ///
    /// Refuses a user or password in it, because URLs appear in logs and metrics.
    pub fn url(&mut self, key: &'static str, default: &str) -> Option<Url> {
        let url = self.read(key, default, |written| {
            let url = Url::parse(text_of(written)?)
                .map_err(|error| format!("must be a URL such as \"https://api.example.com\": {error}"))?;
            let refusal = if !matches!(url.scheme(), "http" | "https") {
                "must begin with https:// (or http:// to this machine)"
            } else if url.host_str().is_none_or(str::is_empty) {
                "must have a host, as in \"https://api.example.com\""
            } else if !url.username().is_empty() || url.password().is_some() {
                "must have no user and password in it"
            } else if url.fragment().is_some() {
                "must have no fragment (#…)"
            } else {
                let shown = quoted(&redacted(url.as_str()));
                return Ok((url, shown));
            };
            Err(refusal.to_owned())
        });
        let is_allowed = self.flag("allow_plain_http", false)?;
        let url = url?;
        if url.scheme() == "http" && !is_allowed && !is_loopback(&url) {
            let allow = self.full("allow_plain_http");
            return self.refuse(
                key,
                format!(
                    "must begin with https://, because anybody on the way can read http://; \
                     {allow} = true allows it nevertheless"
                ),
            );
        }
        Some(url)
    }

    /// Reads the secret in `key`, or in the file that `file_key` names.
    pub fn secret(
        &mut self,
        key: &'static str,
        file_key: &'static str,
        check: impl FnOnce(&str) -> Result<(), &'static str>,
    ) -> Option<SecretString> {
        self.hide(key);
        if !self.is_given(file_key) {
            return self.read(key, "", |written| {
                let text = text_of(written)?;
                check(text)?;
                Ok((text.into(), "set".to_owned()))
            });
        }
        let path = self.path(file_key, "")?;
        self.warn_if_readable(file_key, &path);
        let secret = secret::read(&path).map_err(|error| format!("can't use this file: {error}"));
        let checked = secret.and_then(|secret| match check(secret.expose_secret()) {
            Ok(()) => Ok(secret),
            Err(reason) => Err(reason.to_owned()),
        });
        checked.map_or_else(|reason| self.refuse(file_key, reason), Some)
    }
}

/// Whether a text is a list as TOML writes it, and not an IPv6 address in brackets.
fn is_toml_list(text: &str) -> bool {
    let inner = text.trim().strip_prefix('[').map(str::trim_start);
    inner.is_some_and(|inner| inner.starts_with(['"', '\'', ']']))
}

/// Returns the string. Does not accept a number, because TOML's 1e5 or 0x10 would become another text.
pub(super) fn text_of(written: &ValueKind) -> Result<&str, String> {
    match written {
        ValueKind::String(text) => Ok(text),
        _ => Err("must be a string, in quotation marks".to_owned()),
    }
}

fn duration_of(written: &ValueKind) -> Result<Duration, String> {
    const RIGHT: &str = r#"must be a duration with its unit, such as "500ms", "10s", "48h" or "1m 30s""#;
    match written {
        // humantime accepts a bare "0", but every duration must have a unit.
        ValueKind::String(text) if without_separators(text).parse::<f64>().is_err() => {
            humantime::parse_duration(text).map_err(|error| format!("{RIGHT}: {error}"))
        }
        ValueKind::String(_) | ValueKind::I64(_) | ValueKind::Float(_) => {
            Err(format!("{RIGHT}; a number alone doesn't say whether seconds or minutes are meant"))
        }
        _ => Err(RIGHT.to_owned()),
    }
}

/// Formats a duration as in a configuration file.
pub(super) fn humantime_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Removes the separators of `1_000_000`, which TOML allows, so that the environment and `--set` may use them too.
fn without_separators(text: &str) -> String {
    text.trim().replace('_', "")
}

fn absolute_path(text: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') || text.ends_with('/') || text.contains('\0') {
        return Err("must be the absolute path of a file, beginning with /".to_owned());
    }
    Ok(text.into())
}

/// Whether the URL leads to this machine: 127.0.0.0/8, `::1` or `localhost`.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::testing::load;

    #[test]
    fn a_duration_that_is_too_long_for_any_clock_is_refused_in_every_key() {
        for key in [
            "shutdown_grace",
            "api.timeout",
            "api.connect_timeout",
            "api.pool_max_age",
            "schedule.initial_interval",
            "schedule.max_interval",
            "schedule.deadline",
            "schedule.not_found_grace",
            "schedule.deadline_grace",
            "store.retention",
            "cluster.lease",
        ] {
            let refused = load(&format!("{key} = \"400000000000years\"")).unwrap_err().join("; ");
            assert!(refused.contains(&format!("{key}: must be at least")), "{key}: {refused}");
        }
        let webhook = "type = \"webhook\"\nurl = \"https://h.example\"";
        for key in ["timeout", "max_age"] {
            let sink = format!("[[sink]]\n{webhook}\n{key} = \"400000000000years\"");
            assert!(load(&sink).unwrap_err().join("; ").contains(": must be at least"), "{key}");
        }
    }
}

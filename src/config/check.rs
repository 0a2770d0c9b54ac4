//! Checks that several sections make: ranges, choices, absolute paths, URLs.
//!
//! Each takes the key and what was read, gives the checked value, and lists it; or reports what would be
//! right. Must not know: which keys there are.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;

use super::section::{Section, did_you_mean, quoted, redacted};
use super::wire::{Count, Number, Span, Text};

/// A year as `humantime` reads "1year": 365.25 days. Longer times mean nothing here: the timer queue refuses more than
/// two years.
pub(crate) const YEAR: Duration = Duration::from_secs(31_557_600);

impl Section<'_> {
    /// A duration between two others, both of them allowed.
    pub fn duration(&mut self, key: &str, span: Span, allowed: RangeInclusive<Duration>) -> Duration {
        let (least, most) = (humantime_text(*allowed.start()), humantime_text(*allowed.end()));
        if !allowed.contains(&span.0) {
            self.refuse(key, format!("must be at least {least} and at most {most}"));
        }
        self.show(key, quoted(&humantime_text(span.0)));
        span.0
    }

    /// A whole number between two others, both of them allowed.
    pub fn count(&mut self, key: &str, count: Count, allowed: RangeInclusive<usize>) -> usize {
        self.show(key, count.0.to_string());
        match usize::try_from(count.0) {
            Ok(number) if allowed.contains(&number) => number,
            _ => {
                self.refuse(key, out_of_range("a whole number", allowed.start(), allowed.end()));
                *allowed.start()
            }
        }
    }

    /// A number that the test lets through; `right` says which ones it does. Not a number is refused as well.
    pub fn number(&mut self, key: &str, number: Number, right: &str, test: impl Fn(f64) -> bool) -> f64 {
        self.show(key, format!("{:?}", number.0));
        if !test(number.0) {
            self.refuse(key, format!("must be a number {right}"));
        }
        number.0
    }

    /// What one of a few words stands for.
    pub fn choice<T: Copy>(&mut self, key: &str, word: &Text, choices: &[(&'static str, T)]) -> Option<T> {
        self.show(key, quoted(&word.0));
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word.0) {
            return Some(*choice);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let listed = names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" or ");
        let meant = did_you_mean(&word.0, &names).map(|name| format!("; did you mean {name:?}?"));
        self.refuse(key, format!("must be {listed}{}", meant.unwrap_or_default()));
        None
    }

    /// A path that doesn't depend on where the daemon was started.
    pub fn absolute_path(&mut self, key: &str, text: &str) -> Option<PathBuf> {
        let path = Path::new(text);
        if !path.is_absolute() || text.ends_with('/') || text.contains('\0') {
            self.refuse(key, "must be the absolute path of a file, beginning with /");
            return None;
        }
        Some(path.to_owned())
    }

    /// An `https` URL, or an `http` one if that is safe or allowed by the key `allow_plain_http`.
    ///
    /// User and password in it are refused, because a URL reaches logs and metrics.
    pub fn url(&mut self, key: &str, text: &Text, allow_plain_http: bool) -> Option<Url> {
        let url = match Url::parse(&text.0) {
            Ok(url) => url,
            Err(error) => {
                self.refuse(key, format!("must be a URL such as \"https://api.example.com\": {error}"));
                return None;
            }
        };
        let refusal = if !matches!(url.scheme(), "http" | "https") {
            Some("must begin with https:// (or http:// to this machine)".to_owned())
        } else if url.host_str().is_none_or(str::is_empty) {
            Some("must have a host, as in \"https://api.example.com\"".to_owned())
        } else if !url.username().is_empty() || url.password().is_some() {
            Some("must have no user and password in it".to_owned())
        } else if url.fragment().is_some() {
            Some("must have no fragment (#…)".to_owned())
        } else if url.scheme() == "http" && !allow_plain_http && !is_loopback(&url) {
            let allow = self.full("allow_plain_http");
            Some(format!(
                "must begin with https://, because over http:// everybody on the way reads along; \
                 {allow} = true allows it nevertheless"
            ))
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.refuse(key, reason);
            return None;
        }
        self.show(key, quoted(&redacted(url.as_str())));
        Some(url)
    }
}

/// Whether the URL leads to this machine: 127.0.0.0/8, `::1` or `localhost`.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A duration as a configuration file would have it.
pub(super) fn humantime_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn out_of_range(what: &str, least: impl Display, most: impl Display) -> String {
    format!("must be {what} from {least} to {most}")
}

//! One request of the API: its path, its query, what it accepts, and its body.
//!
//! Promises that an unknown parameter is refused, so that a typing error is not ignored; and that a body is read within limits of
//! bytes and time. Must not know what is asked.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};

use crate::http::problem::Problem;
use crate::http::tokens::Client;
use crate::operations::Failure;
use crate::pin::PinId;
use crate::protocol::filter::{Filter, Phase};
use crate::protocol::{
    self, InvalidWhen, MAX_ANSWER, MAX_LINE, MAX_PAGE, When, parse_duration, parse_object, parse_pin_id,
};

pub const JSON: &str = "application/json";
pub const NDJSON: &str = "application/x-ndjson";
pub const EVENT_STREAM: &str = "text/event-stream";

/// The largest body that is read as a whole, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;

/// How long a body may pause.
pub const BODY_STALL: Duration = Duration::from_secs(30);

/// How long reading a whole body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A request whose client has a valid token of the right scope.
pub struct Call {
    pub client: Client,
    pub query: Query,
    pub headers: HeaderMap,
    path: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = RawPathParams::from_request_parts(parts, state).await;
        let path = path.map_err(|_| Problem::invalid("the path is not UTF-8"))?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let client = parts.extensions.remove::<Client>().ok_or_else(Problem::internal)?;
        Ok(Self { client, query: Query::of(&parts.uri), headers: parts.headers.clone(), path })
    }
}

impl Call {
    /// A part of the path.
    pub fn path(&self, name: &str) -> Result<&str, Problem> {
        let value = self.path.iter().find(|(known, _)| known == name);
        value.map(|(_, value)| value.as_str()).ok_or_else(Problem::internal)
    }

    /// The PIN that the path names.
    pub fn pin(&self) -> Result<PinId, Problem> {
        Ok(parse_pin_id(self.path("pinId")?)?)
    }

    /// Checks that the query has no member that was not read, and that the client accepts JSON.
    pub fn check(&self) -> Result<(), Problem> {
        self.query.end()?;
        self.accepts(&[JSON]).map(drop)
    }

    /// Returns the media type that the client prefers; the first one if it prefers several equally.
    pub fn accepts(&self, offered: &[&'static str]) -> Result<&'static str, Problem> {
        best(&self.headers, offered).ok_or_else(|| Problem::not_acceptable(offered))
    }

    /// Returns which of these media types the body has.
    pub fn content_type(&self, known: &[&'static str]) -> Result<&'static str, Problem> {
        let unknown =
            |what: &str| Problem::unsupported_media_type(format!("{what}; send {}", known.join(" or ")));
        let encodings = self.headers.get_all(CONTENT_ENCODING);
        if encodings.iter().any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(unknown("the body has a Content-Encoding, and is not decoded"));
        }
        let given =
            self.headers.get(CONTENT_TYPE).ok_or_else(|| unknown("the header Content-Type is missing"))?;
        let given = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let found = known.iter().find(|known| known.eq_ignore_ascii_case(given));
        found.copied().ok_or_else(|| unknown("the body is of another Content-Type"))
    }

    /// The most bytes that the body can have, if it is read as a whole.
    pub fn most(&self) -> Result<usize, Problem> {
        let length =
            self.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        match length.map(usize::try_from) {
            None => Ok(MAX_BODY),
            Some(Ok(length)) if length <= MAX_BODY => Ok(length),
            Some(_) => Err(too_large()),
        }
    }

    /// Reads the whole body. The caller must have reserved room for it.
    pub async fn read(&self, body: Body) -> Result<String, Problem> {
        read_text(body, self.most()?).await
    }

    /// Checks the request, and reads its body: one JSON object, which messages call `name`, within the length of a line.
    pub async fn object<T: DeserializeOwned>(&self, name: &str, body: Body) -> Result<T, Problem> {
        self.check()?;
        self.content_type(&[JSON])?;
        let _charge = self.client.room.take(self.most()?).await?;
        let json = self.read(body).await?;
        if json.len() > MAX_LINE {
            return Err(Problem::too_large(format!("this object has at most {} KiB", MAX_LINE / 1024)));
        }
        Ok(parse_object(name, &json)?)
    }

    /// Reserves room, then makes the answer.
    pub async fn reply<A: Serialize>(
        &self,
        answer: impl Future<Output = Result<A, Failure>>,
    ) -> Result<Response, Problem> {
        let charge = self.client.room.take(MAX_ANSWER).await?;
        Ok(json(StatusCode::OK, charge.hold(protocol::answer(&answer.await?))))
    }
}

/// Reads a body of at most `most` bytes, within [`BODY_STALL`] for each piece and [`BODY_TIMEOUT`] for all.
async fn read_text(mut body: Body, most: usize) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    let until = Instant::now() + BODY_TIMEOUT;
    loop {
        let frame = timeout_at(until, timeout(BODY_STALL, body.frame())).await;
        let frame = frame.ok().and_then(Result::ok);
        let frame = frame.ok_or_else(|| Problem::too_slow("the body did not come in time"))?;
        match frame.map(|frame| frame.map(|frame| frame.into_data())) {
            None => break,
            Some(Ok(Ok(data))) => {
                if bytes.len() + data.len() > most {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&data);
            }
            // Trailers.
            Some(Ok(Err(_))) => {}
            Some(Err(_)) => return Err(Problem::invalid_json("the body broke off")),
        }
    }
    String::from_utf8(bytes).map_err(|_| Problem::invalid_json("the body is not UTF-8"))
}

fn too_large() -> Problem {
    Problem::too_large(format!(
        "the body has more than {} KiB: send NDJSON, which may have any length",
        MAX_BODY / 1024
    ))
}

/// A response whose body is this JSON.
pub fn json(status: StatusCode, body: Bytes) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static(JSON))], body).into_response()
}

/// The part of the URL after the `?`.
#[derive(Debug)]
pub struct Query {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Query {
    fn of(uri: &Uri) -> Self {
        let given = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        Self { given: given.into_owned().collect(), known: Vec::new() }
    }

    /// Returns the value of this parameter.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        self.known.push(name);
        let mut values = self.given.iter().filter(|(given, _)| given == name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value.map(|(_, value)| value.clone())),
            _ => Err(Problem::invalid(format!("\"{name}\" stands twice in the query"))),
        }
    }

    pub fn number<T>(&mut self, name: &'static str, range: RangeInclusive<T>) -> Result<Option<T>, Problem>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        let (from, to) = (range.start(), range.end());
        let wrong = || Problem::invalid(format!("\"{name}\" is a whole number from {from} to {to}"));
        number.map(Some).ok_or_else(wrong)
    }

    /// Returns the number of items on a page.
    pub fn limit(&mut self) -> Result<Option<u32>, Problem> {
        self.number("limit", 1..=MAX_PAGE)
    }

    /// Returns a duration with its unit, at most `most`.
    pub fn duration(&mut self, name: &'static str, most: Duration) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wrong = |why: String| Problem::invalid(format!("\"{name}\": {why}"));
        match parse_duration(&text) {
            Ok(duration) if duration <= most => Ok(Some(duration)),
            Ok(_) => Err(wrong(format!("at most {}", humantime::format_duration(most)))),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// Returns an age or a time.
    fn when(&mut self, name: &'static str) -> Result<Option<When>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|error: InvalidWhen| {
            let is_time = text.contains('T') && text.contains(' ');
            let hint = if is_time { "; in a query, + means a space: write it as %2B" } else { "" };
            Problem::invalid(format!("\"{name}\": {error}{hint}"))
        })
    }

    /// Returns the members of a filter, each a parameter of its own.
    pub fn filter(&mut self) -> Result<Filter, Problem> {
        let phase = |text: String| {
            Phase::try_from(Cow::from(text)).map_err(|why| Problem::invalid(format!("\"state\": {why}")))
        };
        Ok(Filter {
            state: self.text("state")?.map(phase).transpose()?,
            reference: self.text("reference")?,
            reference_prefix: self.text("referencePrefix")?,
            status: self.text("status")?,
            older_than: self.when("olderThan")?,
            newer_than: self.when("newerThan")?,
            sink: self.text("sink")?,
        })
    }

    pub fn pin(&mut self) -> Result<Option<PinId>, Problem> {
        Ok(self.text("pinId")?.map(|text| parse_pin_id(&text)).transpose()?)
    }

    /// Refuses parameters that the handler has not read.
    pub fn end(&self) -> Result<(), Problem> {
        let Some((unknown, _)) = self.given.iter().find(|(name, _)| !self.known.contains(&name.as_str()))
        else {
            return Ok(());
        };
        let unknown: String = unknown.chars().take(40).collect();
        let known = if self.known.is_empty() { "none".to_owned() } else { self.known.join(", ") };
        Err(Problem::invalid(format!("the query has no parameter {unknown:?}; this path has {known}")))
    }
}

/// RFC 9110, 12.5.1: of the ranges that match, the most specific one decides.
fn best(headers: &HeaderMap, offered: &[&'static str]) -> Option<&'static str> {
    let mut ranges = Vec::new();
    for header in headers.get_all(ACCEPT) {
        for range in header.to_str().ok()?.split(',').map(str::trim).filter(|range| !range.is_empty()) {
            let mut parts = range.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
            ranges.push((range, quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0))));
        }
    }
    if ranges.is_empty() {
        return offered.first().copied();
    }
    let quality = |offer: &str| {
        let (kind, _) = offer.split_once('/')?;
        let any = format!("{kind}/*");
        let given =
            |range: &str| ranges.iter().find(|(given, _)| given == range).map(|(_, quality)| *quality);
        given(offer).or_else(|| given(&any)).or_else(|| given("*/*"))
    };
    let liked = offered.iter().filter_map(|offer| Some((*offer, quality(offer)?)));
    // The last maximum wins, so the first of the offers has to come last.
    let liked: Vec<_> = liked.filter(|(_, quality): &(_, f32)| *quality > 0.0).collect();
    liked.into_iter().rev().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(offer, _)| offer)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream::unfold;
    use tokio::time::sleep;

    use super::*;

    /// Reads a body that delivers one byte in each interval, this many times, and then stalls.
    async fn read(interval: Duration, pieces: u32) -> (Result<String, StatusCode>, Duration) {
        let pieces = unfold(0, move |sent| async move {
            sleep(if sent < pieces { interval } else { Duration::MAX }).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b"x")), sent + 1))
        });
        let begun = Instant::now();
        let text = read_text(Body::from_stream(pieces), MAX_BODY).await;
        (text.map_err(|problem| problem.into_response().status()), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_halfway_ends_after_30_seconds_and_one_that_trickles_after_a_minute() {
        let late = Err(StatusCode::REQUEST_TIMEOUT);
        assert_eq!(read(Duration::from_secs(1), 10).await, (late.clone(), Duration::from_secs(40)));
        assert_eq!(read(Duration::from_secs(29), 1000).await, (late, Duration::from_secs(60)));
    }

    #[test]
    fn the_most_specific_accept_range_decides_and_the_first_offer_is_the_default() {
        let offered = [NDJSON, EVENT_STREAM];
        for (accept, expected) in [
            ("", Some(NDJSON)),
            ("*/*", Some(NDJSON)),
            ("text/event-stream", Some(EVENT_STREAM)),
            ("TEXT/Event-Stream;q=0.5, application/*;q=0.4", Some(EVENT_STREAM)),
            ("text/*, application/x-ndjson", Some(NDJSON)),
            ("*/*, application/x-ndjson;q=0", Some(EVENT_STREAM)),
            ("application/json", None),
            ("*/*;q=0", None),
            ("text/event-stream;q=x", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(best(&headers, &offered), expected, "{accept}");
        }
        assert_eq!(best(&HeaderMap::new(), &offered), Some(NDJSON));
    }

    #[test]
    fn a_query_with_an_unknown_or_repeated_name_is_refused() {
        let mut query = Query::of(&"/v1/pins?limit=7&after=a%20b&wiat=1".parse().unwrap());
        assert_eq!(query.limit().unwrap(), Some(7));
        assert_eq!(query.text("after").unwrap().as_deref(), Some("a b"));
        assert_eq!(query.text("none").unwrap(), None);
        assert!(query.end().is_err());
        assert_eq!(query.text("wiat").unwrap().as_deref(), Some("1"));
        assert!(query.end().is_ok());
        let of = |text: &str| Query::of(&format!("/?{text}").parse().unwrap());
        assert!(of("limit=1&limit=1").limit().is_err());
        for wrong in ["limit=0", "limit=1001", "limit=", "limit=x", "limit=1.0"] {
            assert!(of(wrong).limit().is_err(), "{wrong}");
        }
        let wait =
            |text| of(text).duration("wait", Duration::from_secs(300)).map_err(|problem| problem.status());
        assert_eq!(wait("wait=5m").unwrap(), Some(Duration::from_secs(300)));
        assert!(wait("wait=5m1s").is_err() && wait("wait=30").is_err());
        assert!(Query::of(&"/".parse().unwrap()).end().is_ok());
    }
}

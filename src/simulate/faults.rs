//! Faults: what APIs, proxies and networks do instead of answering.
//!
//! Draws the fault of each request from the seed and the request's number, so a client that sends its requests in the
//! same order meets the same faults in every run. Must not know lives or keys.

use std::convert::Infallible;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;
use fastrand::Rng;
use futures_util::stream::{self, StreamExt};
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

use super::answers;

/// The size of a [`Fault::Huge`] body, in bytes: 128 times what a client should read.
const HUGE: usize = 8 * 1024 * 1024;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// This HTTP status, 400 to 599, with the vendor's error body; 429 has `Retry-After`.
    Status(StatusCode),
    /// 200 with invalid JSON, or with JSON of another structure.
    Malformed,
    /// A proxy's HTML page, with status 200 or 502.
    Html,
    /// 200 without a body.
    Empty,
    /// Half of the correct answer, after which the connection is closed.
    Cut,
    /// A well-formed answer of somewhat more than [`HUGE`] bytes.
    Huge,
    /// The correct answer, one byte at a time.
    Slow,
    /// No answer, for as long as the client waits.
    Stall,
    /// The connection is closed without an answer.
    Close,
}

impl Fault {
    const NAMED: [(&str, Self); 8] = [
        ("malformed", Self::Malformed),
        ("html", Self::Html),
        ("empty", Self::Empty),
        ("cut", Self::Cut),
        ("huge", Self::Huge),
        ("slow", Self::Slow),
        ("stall", Self::Stall),
        ("close", Self::Close),
    ];
}

/// Why a text does not name a fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidFault {
    #[error(
        "no fault is called {0:?}: it is an HTTP status from 400 to 599, or one of malformed, html, empty, cut, huge, slow, stall, close"
    )]
    Kind(String),
    #[error("{0:?} is not KIND=RATE, such as 503=0.05")]
    NoRate(String),
    #[error("a rate is a number from 0 to 1, and {0:?} is none")]
    Rate(String),
    #[error("all rates together are more than 1: a request gets one fault at most")]
    Sum,
}

impl FromStr for Fault {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        if let Some((_, fault)) = Self::NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(*fault);
        }
        let status = text
            .parse()
            .ok()
            .filter(|status: &StatusCode| status.is_client_error() || status.is_server_error());
        status.map(Self::Status).ok_or_else(|| InvalidFault::Kind(text.into()))
    }
}

/// A fault and the share of requests that get it, written as `KIND=RATE`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultRate {
    pub fault: Fault,
    /// From 0 to 1.
    pub rate: f64,
}

impl FromStr for FaultRate {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let (kind, rate) = text.split_once('=').ok_or_else(|| InvalidFault::NoRate(text.into()))?;
        let fault = kind.parse()?;
        let number = rate.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
        Ok(Self { fault, rate: number.ok_or_else(|| InvalidFault::Rate(rate.into()))? })
    }
}

/// Checks the faults of a simulator.
///
/// # Errors
/// [`InvalidFault::Sum`] if the rates are more than 1 together.
pub fn check(faults: &[FaultRate]) -> Result<(), InvalidFault> {
    // Allows for rounding: ten times 0.1 is more than 1.
    let is_possible = faults.iter().map(|fault| fault.rate).sum::<f64>() <= 1.0 + 1e-9;
    is_possible.then_some(()).ok_or(InvalidFault::Sum)
}

/// Draws the fault of a request, if it gets one.
pub fn draw(faults: &[FaultRate], rng: &mut Rng) -> Option<Fault> {
    let mut left = rng.f64();
    for FaultRate { fault, rate } in faults {
        if left < *rate {
            return Some(*fault);
        }
        left -= rate;
    }
    None
}

/// Returns a `Retry-After` of one or two seconds, as a number or as a date.
pub fn retry_after(rng: &mut Rng) -> HeaderValue {
    let seconds = rng.u8(1..=2);
    let as_date = rng.bool().then(|| {
        // Adds one second, because the date has no fractions.
        let then = Timestamp::now().checked_add(SignedDuration::from_secs(i64::from(seconds) + 1)).ok()?;
        let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&then).ok()?;
        HeaderValue::try_from(date).ok()
    });
    as_date.flatten().unwrap_or_else(|| HeaderValue::from(u16::from(seconds)))
}

/// Returns what is sent instead of `right`, the JSON of the correct answer.
///
/// `slow_every` is the time between two bytes of [`Fault::Slow`]. For [`Fault::Stall`] it never returns; the
/// connection's end cancels it.
pub async fn spoil(fault: Fault, right: Bytes, slow_every: Duration, rng: &mut Rng) -> Response<Body> {
    match fault {
        Fault::Status(StatusCode::TOO_MANY_REQUESTS) => answers::throttled(retry_after(rng)),
        Fault::Status(status) => answers::error(status, "This error was asked for."),
        Fault::Malformed => answers::json(MALFORMED[rng.usize(..MALFORMED.len())]),
        Fault::Html => html(rng),
        Fault::Empty => answers::json(Body::empty()),
        Fault::Cut => cut(right),
        Fault::Huge => answers::json(Body::from_stream(huge())),
        Fault::Slow => answers::json(slow(right, slow_every)),
        Fault::Stall => std::future::pending().await,
        // The body fails before hyper flushes anything, so not even the head is sent.
        Fault::Close => {
            Response::new(Body::from_stream(stream::once(async { Err::<Bytes, _>(asked_for()) })))
        }
    }
}

const MALFORMED: [&[u8]; 5] = [
    br#"[{"status":"MESSAGE_DELIVERED","description":"Message sent and delivered","finalStatus":tru"#,
    br#"[{"status":5,"description":["Message"],"finalStatus":{}}]"#,
    br#""MESSAGE_DELIVERED""#,
    b"[{\"status\":\"MESSAGE_\xff\xfe\",\"finalStatus\":true}]",
    br#"[{"status":"MESSAGE_DELIVERED","finalStatus":true}]]"#,
];

const HTML: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>proxy</center>\r\n</body>\r\n</html>\r\n";

fn html(rng: &mut Rng) -> Response<Body> {
    let mut response = Response::new(Body::from(HTML));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    if rng.bool() {
        *response.status_mut() = StatusCode::BAD_GATEWAY;
    }
    response
}

fn cut(right: Bytes) -> Response<Body> {
    let announced = HeaderValue::from(right.len());
    let half = right.slice(..right.len() / 2);
    let end = stream::once(async {
        // hyper flushes the half only while the body is pending.
        tokio::task::yield_now().await;
        Err(asked_for())
    });
    let mut response = answers::json(Body::from_stream(stream::iter([Ok(half)]).chain(end)));
    response.headers_mut().insert(CONTENT_LENGTH, announced);
    response
}

/// Streams one delivery with a very long description. It is well-formed, so only a size limit stops a reader.
fn huge() -> impl stream::Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    static FILLING: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    let begin = Bytes::from_static(br#"[{"status":"MESSAGE_DELIVERED","finalStatus":true,"description":""#);
    let filling = stream::repeat(Bytes::from_static(&FILLING)).take(HUGE / FILLING.len());
    let end = Bytes::from_static(br#""}]"#);
    stream::iter([begin]).chain(filling).chain(stream::iter([end])).map(Ok)
}

fn slow(right: Bytes, every: Duration) -> Body {
    let bytes = (0..right.len()).map(move |at| right.slice(at..=at));
    Body::from_stream(stream::iter(bytes).then(move |byte| async move {
        tokio::time::sleep(every).await;
        Ok::<_, Infallible>(byte)
    }))
}

fn asked_for() -> io::Error {
    io::Error::other("this fault was asked for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_name_and_a_rate() {
        let status = |code| Fault::Status(StatusCode::from_u16(code).unwrap());
        for (text, fault, rate) in [
            ("500=0.5", status(500), 0.5),
            ("429=1", status(429), 1.0),
            ("408=0.25", status(408), 0.25),
            ("malformed=0.125", Fault::Malformed, 0.125),
            ("stall=0", Fault::Stall, 0.0),
            ("close=1", Fault::Close, 1.0),
        ] {
            assert_eq!(text.parse(), Ok(FaultRate { fault, rate }), "{text}");
        }
    }

    #[test]
    fn an_invalid_kind_or_rate_is_refused_with_a_reason() {
        for text in ["teapot=1", "200=1", "600=1", "=1", "500", "500=", "500=2", "500=-0.1", "500=NaN"] {
            let error = text.parse::<FaultRate>().unwrap_err();
            assert!(!error.to_string().is_empty(), "{text}");
        }
        let rates = ["500=0.6", "503=0.6"].map(|text| text.parse().unwrap());
        assert_eq!(check(&rates), Err(InvalidFault::Sum));
        assert_eq!(check(&["500=0.1"; 10].map(|text| text.parse().unwrap())), Ok(()));
    }

    #[test]
    fn faults_come_as_often_as_asked_for() {
        let faults = ["500=0.1", "cut=0.2"].map(|text| text.parse().unwrap());
        let mut rng = Rng::with_seed(1);
        let drawn: Vec<_> = (0..10_000).map(|_| draw(&faults, &mut rng)).collect();
        let count = |fault: Option<Fault>| drawn.iter().filter(|drawn| **drawn == fault).count();
        assert!((900..1100).contains(&count("500".parse().ok())));
        assert!((1850..2150).contains(&count(Some(Fault::Cut))));
        assert!((6800..7200).contains(&count(None)));
    }

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let mut rng = Rng::with_seed(1);
        let values: Vec<_> = (0..50).map(|_| retry_after(&mut rng)).collect();
        assert!(values.iter().any(|value| value == "1"));
        assert!(values.iter().any(|value| value.to_str().unwrap().ends_with(" GMT")));
    }
}

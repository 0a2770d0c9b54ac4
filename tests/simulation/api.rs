//! The model of the API and of its network: real bytes, headers and status codes, and with each
//! answer its true meaning, to compare with the daemon's classification.

use std::borrow::Cow;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use pinwatch::poll::{Connection, Meaning};
use pinwatch::simulate::{FinalForm, Reported};
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, HeaderName, LOCATION, RETRY_AFTER};

use super::clocks::{Clocks, Time};
use super::conditions::{Condition, span};
use super::pin_history::Report;
use super::plan::{Plan, RetryAfter};

/// What an answer is, by the contract.
#[derive(Debug, Clone, PartialEq)]
pub enum Truth {
    Deliveries { reported: Vec<Reported>, done: bool },
    Unreadable,
    Rejected,
    Unauthorized,
    NotFound,
    Throttled(Wait),
    Unavailable,
    NotSent,
}

/// The `Retry-After` of a 429.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wait {
    For(Duration),
    /// By the daemon's clock.
    Until(Timestamp),
}

/// An answer on its way.
#[derive(Debug)]
pub struct Reply {
    pub truth: Truth,
    pub takes: Duration,
    /// For the totals.
    pub fault: Option<&'static str>,
    wire: Wire,
}

#[derive(Debug)]
enum Wire {
    /// No answer; the words are the client's.
    Nothing(&'static str),
    NotSent,
    Answer(u16, Vec<(HeaderName, String)>, Result<Cow<'static, [u8]>, &'static str>),
}

impl Reply {
    /// The meaning that the daemon gives it.
    pub fn meaning(&self, now: Timestamp) -> Meaning {
        match &self.wire {
            Wire::Nothing(words) => Meaning::Unavailable((*words).to_owned()),
            Wire::NotSent => Meaning::NotSent("no file descriptor".to_owned()),
            Wire::Answer(code, headers, body) => {
                let status = StatusCode::from_u16(*code).expect("a status code");
                let headers: HeaderMap = headers
                    .iter()
                    .map(|(name, value)| (name.clone(), value.parse().expect("a header's value")))
                    .collect();
                Meaning::of(None, status, &headers, body.as_deref().map_err(|words| *words), now)
            }
        }
    }
}

pub struct Api {
    /// When each PIN was sent, in true time.
    born: Vec<Option<Time>>,
    tokens: f64,
    refilled: Time,
}

impl Api {
    pub fn new(plan: &Plan) -> Self {
        Self { born: vec![None; plan.pins.len()], tokens: 1.0, refilled: Time::ZERO }
    }

    /// The PIN is sent, unless it is already.
    pub fn send(&mut self, pin: usize, truth: Time) {
        self.born[pin].get_or_insert(truth);
    }

    /// When the PIN's answers began to end it for good, in true time.
    pub fn settled(&self, plan: &Plan, pin: usize) -> Option<Time> {
        Some(self.born[pin]? + plan.pins[pin].pin_history.settled()?)
    }

    /// The answer to a poll.
    pub fn ask(
        &mut self,
        plan: &Plan,
        pin: usize,
        connection: Connection,
        truth: Time,
        rng: &mut Rng,
    ) -> Reply {
        if plan.conditions.at(truth) == Condition::CannotSend {
            let takes = Duration::from_millis(1);
            return Reply { truth: Truth::NotSent, takes, fault: Some("can't send"), wire: Wire::NotSent };
        }
        if connection == Connection::Kept && rng.f64() < plan.strays {
            return stray(rng);
        }
        if self.is_over_limit(plan, truth) {
            return throttled(plan, truth, rng);
        }
        let takes = plan.latency.mul_f64(0.25 + 3.75 * rng.f64() * rng.f64());
        match plan.conditions.at(truth) {
            Condition::Normal => self.right(plan, pin, truth, takes, rng),
            Condition::Slow => {
                let takes = span(plan.latency, Duration::from_secs(40), rng);
                self.right(plan, pin, truth, takes, rng)
            }
            Condition::Errors => error(rng),
            Condition::Silence => nothing("time-out", plan.timeout),
            Condition::Resets => nothing("connection lost", plan.latency / 8),
            Condition::Refused(code) => refused(code),
            Condition::Misrouted(code) => misrouted(code, plan.latency / 4),
            Condition::CannotSend => unreachable!("handled before"),
            Condition::Busy => throttled(plan, truth, rng),
            Condition::Garbage => self.garbage(plan, pin, truth, rng),
            Condition::Flaky(share) if rng.f64() >= share => self.right(plan, pin, truth, takes, rng),
            Condition::Flaky(_) => match rng.u32(..12) {
                0..4 => error(rng),
                4 => nothing("time-out", plan.timeout),
                5..7 => nothing("connection lost", plan.latency / 8),
                7 => throttled(plan, truth, rng),
                8 if rng.u32(..10) == 0 => refused(401),
                _ => self.garbage(plan, pin, truth, rng),
            },
        }
    }

    /// The API's rate limiter: a burst of one second's requests, and the rate on average.
    fn is_over_limit(&mut self, plan: &Plan, truth: Time) -> bool {
        let Some(limit) = plan.limit.filter(|_| plan.is_limited(truth)).map(f64::from) else { return false };
        let refill = truth.saturating_sub(self.refilled).as_secs_f64() * limit;
        self.refilled = truth;
        self.tokens = (self.tokens + refill).min(limit);
        let empty = self.tokens < 1.0;
        if !empty {
            self.tokens -= 1.0;
        }
        empty
    }

    fn right(&self, plan: &Plan, pin: usize, truth: Time, takes: Duration, rng: &mut Rng) -> Reply {
        if takes >= plan.timeout {
            return nothing("too slow", plan.timeout);
        }
        let pin_history = &plan.pins[pin].pin_history;
        let age = self.born[pin].map_or(Duration::ZERO, |born| truth.saturating_sub(born));
        match pin_history.at(age) {
            Report::Deliveries(reported) => {
                let body = array(&reported, rng).into_bytes();
                let done = pin_history.is_done(&reported);
                answer(200, Ok(body.into()), Truth::Deliveries { reported, done }, takes, None)
            }
            Report::NotFound => {
                answer(404, Ok(exception("RESOURCE_NOT_FOUND")), Truth::NotFound, takes, Some("404"))
            }
            Report::Forbidden => refused(403),
            Report::Throttled => throttled(plan, truth, rng),
            Report::Down => error(rng),
            Report::Rejected(code) => {
                answer(code, Ok(exception("BAD_REQUEST")), Truth::Rejected, takes, Some("400 and the like"))
            }
        }
    }

    fn garbage(&self, plan: &Plan, pin: usize, truth: Time, rng: &mut Rng) -> Reply {
        static HUGE: [u8; 70_000] = [b' '; 70_000];
        let takes = plan.latency;
        let right = self.right(plan, pin, truth, Duration::ZERO, rng);
        let (fault, code, body) = match rng.u32(..8) {
            0 => ("empty", 200, Ok(Cow::Borrowed(&b""[..]))),
            1 => ("HTML", 200, Ok(Cow::Borrowed(&b"<html><h1>Welcome</h1></html>"[..]))),
            2 => ("huge", 200, Ok(Cow::Borrowed(&HUGE[..]))),
            3 => ("huge", 200, Err("the body is over 64 KiB")),
            4 => ("no array", 200, Ok(Cow::Borrowed(&br#""MESSAGE_DELIVERED""#[..]))),
            5 => ("204", 204, Ok(Cow::Borrowed(&b""[..]))),
            6 => ("cut", 200, Err("the body is cut off")),
            _ => match right.wire {
                Wire::Answer(200, _, Ok(body)) => {
                    let end = rng.usize(..body.len());
                    ("cut", 200, Ok(Cow::Owned(body[..end].to_vec())))
                }
                _ => return right,
            },
        };
        answer(code, body, Truth::Unreadable, takes, Some(fault))
    }
}

fn answer(
    code: u16,
    body: Result<Cow<'static, [u8]>, &'static str>,
    truth: Truth,
    takes: Duration,
    fault: Option<&'static str>,
) -> Reply {
    Reply { truth, takes, fault, wire: Wire::Answer(code, Vec::new(), body) }
}

fn nothing(words: &'static str, takes: Duration) -> Reply {
    Reply { truth: Truth::Unavailable, takes, fault: Some(words), wire: Wire::Nothing(words) }
}

fn refused(code: u16) -> Reply {
    let takes = Duration::from_millis(20);
    answer(code, Ok(exception("UNAUTHORIZED")), Truth::Unauthorized, takes, Some("401, 403"))
}

/// A response that nobody asked for, left over on a kept connection.
fn stray(rng: &mut Rng) -> Reply {
    let takes = Duration::from_micros(200);
    let code = *rng.choice(&[400, 400, 404, 403]).expect("some");
    Reply { fault: Some("stray"), ..misrouted(code, takes) }
}

/// The answer of a load balancer without a route.
fn misrouted(code: u16, takes: Duration) -> Reply {
    let truth = match code {
        404 => Truth::NotFound,
        403 => Truth::Unauthorized,
        421 => Truth::Unavailable,
        _ => Truth::Rejected,
    };
    answer(code, Ok(b"default backend"[..].into()), truth, takes, Some("load balancer"))
}

fn error(rng: &mut Rng) -> Reply {
    let takes = span(Duration::from_millis(1), Duration::from_secs(2), rng);
    let code = *rng.choice(&[500, 502, 503, 503, 504, 520, 408, 425, 302]).expect("some");
    let body: Result<Cow<'static, [u8]>, _> = match rng.u32(..4) {
        0 => Ok(exception("GENERAL_ERROR")),
        1 => Ok(b"<html><h1>502 Bad Gateway</h1></html>"[..].into()),
        2 => Ok(b""[..].into()),
        _ => Err("the body is cut off"),
    };
    let mut reply = answer(code, body, Truth::Unavailable, takes, Some("5xx and the like"));
    if let (302, Wire::Answer(_, headers, _)) = (code, &mut reply.wire) {
        headers.push((LOCATION, "https://login.example/?token=secret".to_owned()));
    }
    reply
}

fn throttled(plan: &Plan, truth: Time, rng: &mut Rng) -> Reply {
    let wanted = if rng.u32(..8) == 0 { rng.u64(600..7200) } else { rng.u64(1..60) };
    let bounded = |seconds: u64| Wait::For(Duration::from_secs(seconds.clamp(1, 3600)));
    // An HTTP date has no fractions.
    let now = Timestamp::from_second(Clocks::right_wall(truth).as_second()).expect("this century");
    let then = now + Duration::from_secs(wanted);
    let date = |time: Timestamp| time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let (headers, wait) = match plan.retry_after {
        RetryAfter::Seconds => (vec![(RETRY_AFTER, wanted.to_string())], bounded(wanted)),
        RetryAfter::Date => (vec![(DATE, date(now)), (RETRY_AFTER, date(then))], bounded(wanted)),
        RetryAfter::BareDate => (vec![(RETRY_AFTER, date(then))], Wait::Until(then)),
        RetryAfter::Garbage => (vec![(RETRY_AFTER, "in a while, please".to_owned())], bounded(1)),
        RetryAfter::Absent => (vec![], bounded(1)),
        RetryAfter::Zero => (vec![(RETRY_AFTER, "0".to_owned())], bounded(1)),
        RetryAfter::Day => (vec![(RETRY_AFTER, "86400".to_owned())], bounded(86_400)),
    };
    let body = br#"{"errorCode":"E429","description":"Too many requests."}"#;
    let wire = Wire::Answer(429, headers, Ok(body[..].into()));
    Reply { truth: Truth::Throttled(wait), takes: plan.latency / 4, fault: Some("429"), wire }
}

fn exception(id: &str) -> Cow<'static, [u8]> {
    format!(r#"{{"requestError":{{"serviceException":{{"messageId":"{id}","text":"Some text"}}}}}}"#)
        .into_bytes()
        .into()
}

/// The array of these deliveries, in one of the spellings that JSON allows.
fn array(reported: &[Reported], rng: &mut Rng) -> String {
    let gap = if rng.u32(..10) == 0 { "\n  " } else { "" };
    let mut all = String::from("[");
    for (index, delivery) in reported.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let status = delivery.status.status();
        let is_final = delivery.status.is_final();
        let final_status = match delivery.form {
            FinalForm::Bool => format!(r#","finalStatus":{is_final}"#),
            FinalForm::Text => format!(r#","finalStatus":"{is_final}""#),
            FinalForm::Absent => String::new(),
        };
        all.push_str(&format!(r#"{comma}{gap}{{"status":"{status}","description":"Some"{final_status}}}"#));
    }
    all + "]"
}

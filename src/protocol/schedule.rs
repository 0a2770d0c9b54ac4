//! `schedule`: at which ages PINs are polled, and what that costs, beside backoff.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Raw;
use super::stats::Recent;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {}

#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    pub schedule: Raw<Schedule>,
}

/// All of it is of the node that was asked. Times and ages are seconds; a `delay` is weighted: a second of it counts
/// 1/(1 + age/15 min).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Schedule {
    /// `schedule.adapt`.
    pub adapt: Cow<'static, str>,
    pub state: State,
    /// With [`State::FellBack`]; null after a restart.
    pub cause: Option<Cause>,
    /// With [`State::FellBack`]: after so many more the learned schedule is tried again.
    pub endings_until_retry: Option<u32>,
    /// So many endings of a class make it known; null where nothing is learned.
    pub endings_needed: Option<u32>,
    /// A PIN's last poll is at this age (`schedule.deadline`).
    pub deadline: f64,
    /// The shortest and the longest interval.
    pub initial_interval: f64,
    pub max_interval: f64,
    /// Of the PINs that ended last under a learned schedule; null before any has.
    pub recent: Option<Recent>,
    pub classes: Vec<Class>,
}

/// How far learning has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is learned.
    #[default]
    Off,
    /// No class has enough endings yet.
    Learning,
    /// A learned schedule is made with one of the next endings.
    Planning,
    /// PINs are polled by a learned schedule.
    InForce,
    /// No learned schedule is better than backoff.
    NoneBetter,
    /// The learned schedule did worse than backoff, by which PINs are polled until it is tried again.
    FellBack,
    /// One that only a newer daemon knows.
    #[serde(other)]
    Other,
}

/// Why a learned schedule gave way to backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It cost more.
    Worse,
    /// PINs became final much earlier than was learned.
    Early,
    /// One that only a newer daemon knows.
    #[serde(other)]
    Other,
}

/// PINs of a kind, by the last status seen.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Class {
    /// `sms`, `call` or `unknown`.
    pub class: Cow<'static, str>,
    /// PINs from whose end something was learned.
    pub endings: u32,
    /// Whether they are polled as `learned` says.
    pub in_force: bool,
    pub backoff: Course,
    /// Null where nothing was learned yet.
    pub learned: Option<Course>,
    /// Up to this age it rests on what was seen, beyond it on a guess; null where nothing was learned yet.
    pub known_until: Option<f64>,
    /// When PINs become final, as was learned, up to `knownUntil`.
    pub finals: Vec<FinalBy>,
}

/// A schedule.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Course {
    /// Polls and delay of a PIN, on average, by what was learned; null before that.
    pub polls: Option<f64>,
    pub delay: Option<f64>,
    /// Polls of a PIN that never becomes final; null if they are more than 100,000.
    pub until_deadline: Option<usize>,
    /// The ages of its polls, without jitter; the first 500.
    pub ages: Vec<f64>,
}

/// The share of PINs that is final by an age.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
#[serde(default)]
pub struct FinalBy {
    pub age: f64,
    pub share: f64,
}

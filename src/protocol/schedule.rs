//! `schedule`: reports at which ages PINs are polled and what that costs, compared with backoff.

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

/// Describes only the node that answers. Times and ages are in seconds. A `delay` is weighted: each second of it counts
/// 1/(1 + age/15 min).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Schedule {
    /// `schedule.adapt`.
    pub adapt: Cow<'static, str>,
    pub state: State,
    /// With [`State::FellBack`]; null after a restart.
    pub cause: Option<Cause>,
    /// With [`State::FellBack`]: how many more PINs must become final before the learned schedule is tried again.
    pub endings_until_retry: Option<u32>,
    /// How many PINs of a class must become final before it gets a learned schedule; null if learning is off.
    pub endings_needed: Option<u32>,
    /// The age of a PIN at its last poll (`schedule.deadline`).
    pub deadline: f64,
    /// The shortest and the longest interval.
    pub initial_interval: f64,
    pub max_interval: f64,
    /// Averages of the latest PINs that ended under a learned schedule; null before the first.
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
    /// Enough PINs have ended: the learned schedule is made when one of the next PINs becomes final.
    Planning,
    /// PINs are polled by a learned schedule.
    InForce,
    /// No learned schedule is better than backoff.
    NoneBetter,
    /// The learned schedule did worse than backoff. PINs are polled by backoff until it is tried again.
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

/// One class of PINs, by the last status seen.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Class {
    /// `sms`, `call` or `unknown`.
    pub class: Cow<'static, str>,
    /// How many ended PINs it was learned from.
    pub endings: u32,
    /// Whether they are polled as `learned` says.
    pub in_force: bool,
    pub backoff: Course,
    /// Null before anything is learned.
    pub learned: Option<Course>,
    /// Up to this age the learned schedule rests on enough PINs, above it on a guess; null before anything is learned.
    pub known_until: Option<f64>,
    /// When PINs become final, by what was learned, up to `knownUntil`.
    pub finals: Vec<FinalBy>,
}

/// A schedule.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Course {
    /// The average polls and delay of a PIN, predicted from what was learned; null before that.
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

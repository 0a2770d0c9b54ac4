//! The answer to `schedule`: what decides when PINs are polled, described for people.

use std::time::Duration;

use super::failure::Failure;
use super::stats::{recent, rounded};
use crate::config::Adapt;
use crate::protocol::Raw;
use crate::protocol::schedule::{Answer, Cause, Class, Course, FinalBy, Schedule, State};
use crate::schedule::learn::overview::{self, ChannelOverview, Standing};
use crate::schedule::learn::safety::Change;
use crate::schedule::learn::{Channel, LEAST_ENDINGS};
use crate::schedule::{Overview, Stopping};
use crate::services::Services;

pub async fn schedule(services: &Services) -> Result<Answer, Failure> {
    let overview = services.schedule.overview().await?;
    // It takes milliseconds, so it runs on another thread and delays no other request.
    let described = tokio::task::spawn_blocking(move || Raw::new(&describe(&overview))).await;
    // It fails only while the runtime shuts down.
    Ok(Answer { schedule: described.map_err(|_| Stopping)? })
}

fn describe(overview: &Overview) -> Schedule {
    let Overview { adapt, snapshot, learned } = overview;
    let standing = snapshot.learned.as_ref().map(|knowledge| knowledge.standing);
    let (cause, endings_until_retry) = match standing {
        Some(Standing::FellBack { cause, endings_until_retry }) => (cause, Some(endings_until_retry)),
        _ => (None, None),
    };
    let in_force = standing == Some(Standing::InForce);
    Schedule {
        adapt: match adapt {
            Adapt::Off => "off",
            Adapt::Sooner => "sooner",
            Adapt::Fewer => "fewer",
        }
        .into(),
        state: match standing {
            None => State::Off,
            Some(Standing::Learning) => State::Learning,
            Some(Standing::Planning) => State::Planning,
            Some(Standing::InForce) => State::InForce,
            Some(Standing::NoneBetter) => State::NoneBetter,
            Some(Standing::FellBack { .. }) => State::FellBack,
        },
        cause: cause.and_then(|cause| match cause {
            Change::Worse => Some(Cause::Worse),
            Change::Early => Some(Cause::Early),
            Change::Retries => None,
        }),
        endings_until_retry,
        endings_needed: standing.map(|_| LEAST_ENDINGS),
        deadline: seconds(snapshot.limits.deadline),
        initial_interval: seconds(snapshot.limits.shortest),
        max_interval: seconds(snapshot.limits.longest),
        recent: learned.as_ref().and_then(recent),
        classes: snapshot.describe().map(|channel| class(channel, in_force)).into(),
    }
}

fn class(channel: ChannelOverview, in_force: bool) -> Class {
    let ChannelOverview { channel, endings, is_learned, backoff, learned, known_until, finals } = channel;
    Class {
        class: match channel {
            Channel::Sms => "sms",
            Channel::Call => "call",
            Channel::Unknown => "unknown",
        }
        .into(),
        endings,
        in_force: in_force && is_learned,
        backoff: course(backoff),
        learned: learned.map(course),
        known_until: known_until.map(seconds),
        finals: finals
            .into_iter()
            .map(|(age, share)| FinalBy { age: seconds(age), share: (share * 1e6).round() / 1e6 })
            .collect(),
    }
}

fn course(course: overview::Course) -> Course {
    let overview::Course { ages, until_deadline, cost } = course;
    Course {
        polls: cost.map(|cost| rounded(cost.polls)),
        delay: cost.map(|cost| rounded(cost.delay)),
        until_deadline,
        ages: ages.into_iter().map(seconds).collect(),
    }
}

fn seconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64())
}

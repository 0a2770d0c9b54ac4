//! `pinwatch schedule`: shows at which ages PINs are polled, compared with backoff, what that costs, and when PINs
//! become final.
//!
//! Charts are as wide as the terminal, up to a bound, and in ASCII where the locale is not UTF-8.

use std::path::Path;

use super::chart::{ASCII, Axis, BLOCKS, Glyphs};
use super::client::{self, Client};
use super::error::CommandError;
use super::exit::Exit;
use super::human::count;
use super::output::{Output, shows_unicode};
use super::table::{Column, pairs, paragraph};
use crate::protocol::schedule::{Answer, Cause, Class, Course, Request, Schedule, State};

const COLUMNS: [Column; 7] = [
    Column::new("CLASS", 1),
    Column::new("ENDINGS", 5),
    Column::new("SEEN UNTIL", 7),
    Column::new("SCHEDULE", 2),
    Column::new("POLLS/PIN", 3),
    Column::new("DELAY", 4),
    Column::new("IF NEVER FINAL", 6),
];

/// The greatest width of a chart, and the least: a narrower one is not drawn.
const WIDEST: usize = 100;
const NARROWEST: usize = 24;

/// The width of the names at the beginning of a chart's rows.
const NAMES: usize = 12;

/// How many ages are listed, unless all are requested.
const LISTED: usize = 14;

/// The ages that have labels on the axis, in seconds: two or three to a power of ten, so that all have room in 80
/// columns.
const TICKS: [f64; 18] = [
    0.01,
    0.03,
    0.1,
    0.3,
    1.0,
    3.0,
    10.0,
    30.0,
    120.0,
    600.0,
    1_800.0,
    7_200.0,
    21_600.0,
    86_400.0,
    345_600.0,
    1_728_000.0,
    8_640_000.0,
    31_536_000.0,
];

pub async fn run(socket: &Path, mut output: Output) -> Result<Exit, CommandError> {
    let Answer { schedule } = Client::connect(socket).await?.ask(&Request {}).await?;
    if output.is_json() {
        output.json(schedule.get().as_bytes())?;
    } else {
        let schedule = client::read(&schedule)?;
        let (room, glyphs) = (output.room(), if shows_unicode() { &BLOCKS } else { &ASCII });
        output.text(&paragraph(&standing(&schedule), room))?;
        if schedule.state != State::Off {
            output.text("\n")?;
            output.table(COLUMNS, &rows(&schedule))?;
        }
        output.text(&charts(&schedule, room, glyphs))?;
        if schedule.state == State::Off {
            output.text("\n")?;
            output.text(&paragraph(WHAT_TO_SET, room))?;
        }
    }
    output.flush()?;
    Ok(Exit::Done)
}

const WHAT_TO_SET: &str = "To poll PINs when they become final, set schedule.adapt = \"sooner\" (outcomes are noticed sooner, \
with as many polls) or \"fewer\" (as soon, with fewer polls), and reload: \"systemctl reload pinwatch\". After 200 endings of SMS \
or of calls, this shows what was learned.";

/// Says which schedule polls the PINs, and why.
fn standing(schedule: &Schedule) -> String {
    let adapt = format!("schedule.adapt = \"{}\": ", schedule.adapt);
    let needed = schedule.endings_needed.unwrap_or_default();
    let text = match schedule.state {
        State::Off => {
            let polls = schedule.classes.first().and_then(|class| class.backoff.until_deadline);
            let never = polls.map_or_else(String::new, |polls| {
                let deadline = age_text(schedule.deadline);
                format!(" One that never does is polled {} until its deadline at {deadline}.", times(polls))
            });
            format!(
                "PINs are polled by backoff, at intervals that grow. The daemon does not learn when they become final.{never}"
            )
        }
        State::Learning => format!("PINs are polled by backoff, until {needed} of a class have become final."),
        State::Planning => {
            "enough PINs have ended. The learned schedule is made when one of the next PINs becomes final; until \
             then, PINs are polled by backoff."
                .to_owned()
        }
        State::InForce => {
            let is_few = |class: &Class| class.endings > 0 && !class.in_force;
            let others = if schedule.classes.iter().any(is_few) {
                format!("; by backoff where fewer than {needed} PINs of their class have ended")
            } else {
                String::new()
            };
            format!("PINs are polled by the learned schedule{others}.")
        }
        State::NoneBetter if schedule.max_interval < 2.0 * schedule.initial_interval => {
            "PINs are polled by backoff: schedule.max_interval is less than twice schedule.initial_interval, which \
             leaves nothing to choose."
                .to_owned()
        }
        State::NoneBetter => {
            "PINs are polled by backoff: no schedule learned so far is better.".to_owned()
        }
        State::FellBack => {
            let cause = match schedule.cause {
                Some(Cause::Worse) => "the learned schedule cost more",
                Some(Cause::Early) => "PINs became final much earlier than was learned",
                Some(Cause::Other) | None => "the learned schedule did worse",
            };
            let endings = u64::from(schedule.endings_until_retry.unwrap_or_default());
            format!(
                "PINs are polled by backoff, because {cause}. The learned schedule is tried again after {}.",
                count(endings, "more ending")
            )
        }
        State::Other => "this pinwatch is older than the daemon and does not know what it does.".to_owned(),
    };
    let recent = schedule.recent.as_ref().map_or_else(String::new, |recent| {
        format!(
            " The last {} took {:.2} polls each and {} noticed {} after the end; backoff would have taken {:.2} polls and {}.",
            count(recent.endings as u64, "PIN"),
            recent.polls,
            if recent.endings == 1 { "was" } else { "were" },
            delay_text(recent.delay),
            recent.backoff_polls,
            delay_text(recent.backoff_delay)
        )
    });
    adapt + &text + &recent
}

fn times(count: usize) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn rows(schedule: &Schedule) -> Vec<[String; 7]> {
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let row = |class: [String; 3], name: &str, course: &Course| {
        let costs = [
            or_unknown(course.polls.map(|polls| format!("{polls:.2}"))),
            or_unknown(course.delay.map(delay_text)),
            or_unknown(course.until_deadline.map(|polls| count(polls as u64, "poll"))),
        ];
        let ([class, endings, seen], [polls, delay, never]) = (class, costs);
        [class, endings, seen, name.to_owned(), polls, delay, never]
    };
    let needed = schedule.endings_needed.unwrap_or_default();
    let rows = schedule.classes.iter().flat_map(|class| {
        let endings = match class.endings {
            few if few < needed => format!("{few} of {needed}"),
            many => many.to_string(),
        };
        let seen = or_unknown(class.known_until.map(age_text));
        let backoff = row([name(class).to_owned(), endings, seen], "backoff", &class.backoff);
        let learned = learned(class).map(|course| row(Default::default(), "learned", course));
        [Some(backoff), learned].into_iter().flatten()
    });
    rows.collect()
}

/// The learned schedule of a class, if enough is known about the class.
fn learned(class: &Class) -> Option<&Course> {
    class.known_until.and(class.learned.as_ref())
}

fn name(class: &Class) -> &'static str {
    match &*class.class {
        "sms" => "SMS",
        "call" => "call",
        "unknown" => "unknown",
        _ => "other",
    }
}

/// Draws a chart for each class that something is known about; if there is none, a chart of backoff alone.
fn charts(schedule: &Schedule, room: Option<usize>, glyphs: &Glyphs) -> String {
    let known: Vec<_> = schedule.classes.iter().filter(|class| class.known_until.is_some()).collect();
    if known.is_empty() {
        return schedule
            .classes
            .first()
            .map_or_else(String::new, |class| chart(schedule, class, None, room, glyphs));
    }
    known.iter().map(|class| chart(schedule, class, Some(name(class)), room, glyphs)).collect()
}

fn chart(
    schedule: &Schedule,
    class: &Class,
    title: Option<&str>,
    room: Option<usize>,
    glyphs: &Glyphs,
) -> String {
    let courses = [("backoff", Some(&class.backoff)), ("learned", learned(class))];
    let courses = courses.into_iter().filter_map(|(name, course)| Some((name, course?)));
    let width = room.unwrap_or(WIDEST).min(WIDEST).saturating_sub(NAMES);
    let first =
        courses.clone().filter_map(|(_, course)| course.ages.first().copied()).fold(f64::INFINITY, f64::min);
    // Leaves some room before the first poll, because some PINs are final by then.
    let axis = Axis::new(first / 2.0, schedule.deadline, width).filter(|_| width >= NARROWEST);
    let mut text = String::from("\n");
    if let Some(axis) = axis {
        let mut row = |name: &str, row: String| {
            text += format!("{name:<NAMES$}{row}").trim_end();
            text.push('\n');
        };
        row(title.unwrap_or_default(), axis.labels(TICKS.into_iter().map(|tick| (tick, age_text(tick)))));
        for (name, course) in courses.clone() {
            row(name, axis.marks(course.ages.iter().copied(), glyphs));
        }
        if !class.finals.is_empty() {
            row("endings", axis.bars(|age| final_by(class, age), glyphs));
            let known = TICKS.iter().filter(|tick| class.known_until.is_some_and(|until| **tick <= until));
            row("final by", axis.labels(known.map(|tick| (*tick, percent(final_by(class, *tick))))));
        }
    }
    let ages =
        courses.map(|(name, course)| (format!("{name} at"), ages_text(schedule, course, room.is_none())));
    text + &pairs(&ages.collect::<Vec<_>>(), room)
}

/// The learned share of PINs that is final by an age; interpolated between two learned ages.
fn final_by(class: &Class, age: f64) -> f64 {
    let finals = &class.finals;
    let next = finals.partition_point(|point| point.age < age);
    let before = next.checked_sub(1).map_or((0.0, 0.0), |before| (finals[before].age, finals[before].share));
    match finals.get(next) {
        Some(next) => before.1 + (next.share - before.1) * (age - before.0) / (next.age - before.0),
        None => before.1,
    }
}

/// The ages of polls: the first, or all.
fn ages_text(schedule: &Schedule, course: &Course, are_all: bool) -> String {
    let Course { ages, until_deadline, .. } = course;
    let listed = if are_all { ages.len() } else { ages.len().min(LISTED) };
    let mut text = ages[..listed].iter().map(|age| age_text(*age)).collect::<Vec<_>>().join(" ");
    // The last poll is at the deadline, wherever that falls.
    let steady = |pair: &[f64]| pair[1] - pair[0] >= 0.999 * schedule.max_interval;
    let is_steady = ages[listed.saturating_sub(1)..].windows(2).rev().skip(1).all(steady);
    match until_deadline {
        _ if listed == ages.len() && *until_deadline == Some(listed) => {}
        Some(_) if is_steady && listed > 0 => {
            text += &format!(", then every {}", age_text(schedule.max_interval))
        }
        Some(all) => text += &format!(" and {} more", all.saturating_sub(listed)),
        None => text += " and so on",
    }
    text
}

/// An age in its two largest units: `2.5s`, `1m15s`, `48h`, `3d`.
fn age_text(seconds: f64) -> String {
    if seconds < 1.0 {
        return format!("{:.0}ms", seconds * 1_000.0);
    }
    if seconds < 9.95 {
        let text = format!("{seconds:.1}");
        return format!("{}s", text.trim_end_matches(".0"));
    }
    let whole = seconds.round() as u64;
    let (great, small) = match whole {
        ..60 => return format!("{whole}s"),
        60..3_600 => ((whole / 60, "m"), (whole % 60, "s")),
        3_600..=172_800 => ((whole / 3_600, "h"), (whole % 3_600 / 60, "m")),
        _ => ((whole / 86_400, "d"), (whole % 86_400 / 3_600, "h")),
    };
    let part = |(number, unit)| if number == 0 { String::new() } else { format!("{number}{unit}") };
    part(great) + &part(small)
}

/// A delay, rounded to what matters.
fn delay_text(seconds: f64) -> String {
    match seconds {
        ..10.0 => format!("{seconds:.2}s"),
        ..100.0 => format!("{seconds:.1}s"),
        _ => age_text(seconds),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;

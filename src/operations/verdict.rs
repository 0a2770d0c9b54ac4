//! The verdict: how the daemon is doing, in one sentence that names the cause, since when, what happens next by itself, and
//! what to do.
//!
//! Pure: made from the findings and numbers that it is given. Must not ask any part.

use std::time::Duration;

use jiff::Timestamp;

use super::findings::{Finding, Status};
use crate::protocol::stats::{Level, Verdict};
use crate::readable::{count, short, thousands};

/// The numbers that a verdict names.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    pub in_flight: u64,
    /// PINs that ended since the start.
    pub ended: u64,
    /// The average time from the moment a PIN became final until that was noticed.
    pub notice_delay: Option<Duration>,
    /// The sinks with dead letters, and how many each has.
    pub dead_letters: Vec<(String, u64)>,
}

/// Puts the worst finding into words; the others follow as `further`.
pub fn verdict(findings: &[Finding], numbers: &Numbers, now: Timestamp) -> Verdict {
    let mut findings: Vec<_> = findings.iter().collect();
    // Stable: findings that are equally bad keep their order.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.makes));
    let mut sentences: Vec<_> = findings.iter().map(|finding| describe(finding, now)).collect();
    let dead = numbers.dead_letters.iter().filter(|(_, dead)| *dead > 0);
    sentences.extend(dead.map(|(sink, dead)| {
        format!(
            "The sink {sink} has {}. See: pinwatch dead-letters list --sink {sink}",
            count(*dead, "dead letter")
        )
    }));
    let level = match findings.first().map(|finding| finding.makes) {
        Some(Status::NotReady) => Level::Bad,
        Some(Status::Degraded | Status::Ready) => Level::Warning,
        None if sentences.is_empty() => Level::Good,
        None => Level::Warning,
    };
    let mut sentences = sentences.into_iter();
    let summary = sentences.next().unwrap_or_else(|| all_well(numbers));
    Verdict { level, summary, further: sentences.collect() }
}

fn all_well(numbers: &Numbers) -> String {
    let Numbers { in_flight, ended, notice_delay, .. } = numbers;
    let noticed = notice_delay.map_or_else(String::new, |delay| {
        format!(", noticed {:.1} s after they are final", delay.as_secs_f64())
    });
    match (in_flight, ended) {
        (0, 0) => "All well: ready for PINs, and none was submitted since the start. To submit one: pinwatch submit PIN_ID".into(),
        (0, _) => format!("All well: no PIN is in flight, and {} ended since the start{noticed}", thousands(*ended)),
        _ => format!("All well: {} in flight{noticed}", count(*in_flight, "PIN")),
    }
}

/// Describes a finding: what and since when; what happens next; what to do.
fn describe(finding: &Finding, now: Timestamp) -> String {
    let since = finding.since.map_or_else(String::new, |since| format!(" for {}", span(since, now)));
    let next = |what: &str| match finding.until {
        Some(until) if until > now => format!("{what} in {}", span(now, until)),
        _ => format!("{what} now"),
    };
    let paused = |cause: &str, next: String, advice: &str| {
        format!("Polling has been paused{since}: {cause}. {next}. {advice}")
    };
    let Finding { what, .. } = finding;
    match finding.code {
        "unauthorized" => paused(
            "the API refuses the key",
            next("Next probe"),
            "Check api.key, api.key_file or api.username, then reload",
        ),
        "throttled" => paused(
            "the API answers 429, too many requests",
            next("It continues"),
            "If this happens often, set api.rate below the limit of the account",
        ),
        "outage" => paused(
            "most polls get no usable answer",
            next("Next probe"),
            "Check api.base_url, the network and the API",
        ),
        "not_sent" => paused(
            "this machine can't send requests",
            next("Next try"),
            "Check its file descriptors, memory, ports and name server",
        ),
        "sink_trouble" | "sink_closed" => {
            let sink = finding.sink.as_deref().unwrap_or("?");
            let next = match (finding.code, finding.until) {
                ("sink_closed", _) => "It gets nothing until the daemon is started again".to_owned(),
                (_, Some(_)) => format!("Outcomes are kept. {}", next("Next try")),
                (_, None) => "Outcomes are kept, and it is tried again by itself".to_owned(),
            };
            format!("The sink {sink} has taken no outcomes{since}: {what}. {next}")
        }
        "store_failing" => {
            format!(
                "No PIN has been accepted{since}: {what}. Every write is tried again by itself. Check the disk and the \
                 folder of the database, or the server if store.url names one"
            )
        }
        "polls_late" => format!("Polls have been late{since}: {what}"),
        "at_capacity" => format!(
            "No PIN is accepted: {what}. PINs are accepted again as soon as others end; or raise the limit"
        ),
        _ => {
            let (first, rest) = what.split_at(what.chars().next().map_or(0, char::len_utf8));
            let since =
                finding.since.map_or_else(String::new, |since| format!(" (for {})", span(since, now)));
            format!("{}{rest}{since}", first.to_uppercase())
        }
    }
}

/// The time between two moments, in whole seconds.
fn span(from: Timestamp, to: Timestamp) -> String {
    short(Duration::from_secs(to.duration_since(from).as_secs().max(0).unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn ago(seconds: u64) -> Timestamp {
        now() - Duration::from_secs(seconds)
    }

    fn of(findings: &[Finding], numbers: Numbers) -> (Level, String, Vec<String>) {
        let Verdict { level, summary, further } = verdict(findings, &numbers, now());
        (level, summary, further)
    }

    #[test]
    fn a_healthy_daemon_says_that_all_is_well_even_if_it_is_idle() {
        let noticed = Some(Duration::from_millis(2100));
        let busy = Numbers { in_flight: 1204, ended: 7, notice_delay: noticed, ..Numbers::default() };
        let done = Numbers { ended: 3412, ..Numbers::default() };
        for (numbers, summary) in [
            (busy, "All well: 1,204 PINs in flight, noticed 2.1 s after they are final"),
            (done, "All well: no PIN is in flight, and 3,412 ended since the start"),
            (
                Numbers::default(),
                "All well: ready for PINs, and none was submitted since the start. To submit one: pinwatch submit PIN_ID",
            ),
        ] {
            assert_eq!(of(&[], numbers), (Level::Good, summary.to_owned(), vec![]));
        }
    }

    #[test]
    fn a_pause_is_described_with_its_cause_duration_next_step_and_remedy() {
        for (code, says) in [
            ("unauthorized", "the API refuses the key. Next probe in 12s. Check api.key"),
            ("throttled", "429, too many requests. It continues in 12s. If this happens often, set api.rate"),
            ("outage", "no usable answer. Next probe in 12s. Check api.base_url"),
            ("not_sent", "can't send requests. Next try in 12s. Check its file descriptors"),
        ] {
            let finding = Finding::new(code, Status::Degraded, "paused").since(ago(125));
            let finding = Finding { until: Some(now() + Duration::from_secs(12)), ..finding };
            let (level, summary, _) = of(&[finding], Numbers::default());
            assert_eq!(level, Level::Warning);
            assert!(summary.starts_with("Polling has been paused for 2m 5s: "), "{summary}");
            assert!(summary.contains(says), "{summary}");
        }
    }

    #[test]
    fn the_worst_finding_comes_first_and_the_others_follow() {
        let trouble =
            Finding::new("sink_trouble", Status::Degraded, "no space left on device").since(ago(60));
        let trouble = Finding { sink: Some("file".into()), ..trouble };
        let full =
            Finding::new("at_capacity", Status::NotReady, "10 PINs are in flight (intake.max_in_flight)");
        let numbers =
            Numbers { dead_letters: vec![("hook".into(), 3), ("file".into(), 0)], ..Numbers::default() };
        let (level, summary, further) = of(&[trouble, full], numbers);
        assert_eq!(level, Level::Bad);
        assert!(summary.starts_with("No PIN is accepted: 10 PINs are in flight"), "{summary}");
        assert_eq!(
            further,
            [
                "The sink file has taken no outcomes for 1m: no space left on device. Outcomes are kept, and it is tried again by itself",
                "The sink hook has 3 dead letters. See: pinwatch dead-letters list --sink hook",
            ]
        );
    }

    #[test]
    fn dead_letters_alone_are_a_warning() {
        let numbers = Numbers { dead_letters: vec![("hook".into(), 1)], ..Numbers::default() };
        let (level, summary, _) = of(&[], numbers);
        assert!(
            level == Level::Warning && summary.starts_with("The sink hook has 1 dead letter."),
            "{summary}"
        );
    }

    #[test]
    fn a_finding_without_a_sentence_of_its_own_is_shown_with_its_text() {
        let finding = Finding::new("lease_lost", Status::NotReady, "this node polls nothing").since(ago(5));
        assert_eq!(of(&[finding], Numbers::default()).1, "This node polls nothing (for 5s)");
    }
}

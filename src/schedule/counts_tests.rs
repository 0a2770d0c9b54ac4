//! Tests the counts of polls and endings with PINs whose times are all known.

use super::*;
use crate::metrics::catalogue::LIFETIMES;

/// The polls by band, in the order of [`AGE_BANDS`].
fn by_age(core: &Core) -> [u64; 6] {
    assert_eq!(core.counts.by_age.iter().sum::<u64>(), core.counts.polls);
    core.counts.by_age
}

#[tokio::test(start_paused = true)]
async fn polls_are_counted_by_the_age_of_their_pin_when_they_are_sent() {
    let hour = 60 * MINUTE;
    // At 15 s, 45 s, 1m45s, 3m45s, 7m45s, 15m45s, then every 15 minutes up to 48 hours.
    let steps = config::Schedule { initial_interval: 15 * SECOND, max_interval: 15 * MINUTE, ..settings() };
    let mut core = core_with(steps).0;
    submit(&mut core, "A", 48 * hour);
    let verdict = loop {
        if let Some(verdict) = poll(&mut core, waiting()).await {
            break verdict;
        }
    };
    assert_eq!(verdict.ending, Ending::Deadline);
    assert_eq!(by_age(&core), [2, 3, 3, 20, 72, 97]);
    let Counts { outcomes, polls_of_ended, noticed, .. } = core.counts;
    assert_eq!((outcomes[Ending::Deadline as usize], polls_of_ended, noticed), (1, 197, 0));
    assert_eq!(core.counts.never_final(), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_pin_is_assumed_to_become_final_in_the_middle_between_two_polls() {
    let mut core = core();
    // Polled at 1, 3 and 7 s: it became final at an unknown moment of the last 4 s.
    submit(&mut core, "A", 60 * MINUTE);
    poll(&mut core, waiting()).await;
    poll(&mut core, waiting()).await;
    assert!(poll(&mut core, delivered()).await.is_some());
    assert_eq!(core.counts.mean_notice_delay(), Some(2 * SECOND));
    // Its first answer is final: it became final within 1 s.
    submit(&mut core, "B", 60 * MINUTE);
    assert!(poll(&mut core, delivered()).await.is_some());
    assert_eq!(core.counts.mean_notice_delay(), Some(SECOND + SECOND / 4));
    // Noticed at 7 s and 1 s: within 10 s and within 1 s.
    let within = |limit| LIFETIMES.iter().position(|&other| other == limit).unwrap();
    let ages = core.counts.final_ages;
    assert_eq!((ages[within(1.0)], ages[within(10.0)], ages.iter().sum::<u64>()), (1, 1, 2));
    assert_eq!((core.counts.polls_per_pin(), core.counts.never_final()), (Some(2.0), Some(0.0)));
}

#[tokio::test(start_paused = true)]
async fn the_final_time_is_not_estimated_if_the_previous_answer_had_no_status() {
    let mut core = core();
    submit(&mut core, "A", 60 * MINUTE);
    poll(&mut core, Meaning::NotFound).await;
    assert!(poll(&mut core, delivered()).await.is_some());
    let now = core.clock().date();
    core.resume(&InFlight { pin: pin("B"), submitted_at: now, deadline_at: now.wall + 60 * MINUTE });
    assert!(poll(&mut core, delivered()).await.is_some());
    assert_eq!(core.counts.mean_notice_delay(), None);
    assert_eq!(core.counts.final_ages.iter().sum::<u64>(), 2, "their ages are known all the same");
}

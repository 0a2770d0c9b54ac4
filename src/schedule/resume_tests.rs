//! Tests that PINs that were in flight before are spread over time.

use super::*;

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_age_decides_the_interval_and_polls_are_spread_over_it() {
    let (mut core, wall) = core_with(settings());
    let submitted_at = wall.wall() - 60 * MINUTE;
    for n in 0..1000 {
        let deadline_at = submitted_at + 120 * MINUTE;
        core.resume(&InFlight { pin: pin(&format!("P{n}")), submitted_at: submitted_at.into(), deadline_at });
    }
    for tenth in 1..=10 {
        advance(MINUTE / 10).await;
        let due = core.due();
        assert!(
            (tenth * 100 - 60..=tenth * 100 + 60).contains(&due),
            "{due} are due after {tenth}/10 of a minute"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_pin_whose_deadline_passed_while_the_daemon_was_away_gets_its_last_poll() {
    let (mut core, wall) = core_with(settings());
    let submitted_at = wall.wall() - 60 * MINUTE;
    core.resume(&InFlight {
        pin: pin("A"),
        submitted_at: submitted_at.into(),
        deadline_at: submitted_at + MINUTE,
    });
    assert_eq!(poll(&mut core, waiting()).await.unwrap().ending, Ending::Deadline);
}

#[tokio::test(start_paused = true)]
async fn polls_are_spread_over_time_even_after_a_slow_start() {
    let (mut core, wall) = core_with(settings());
    let submitted_at = wall.wall() - 60 * MINUTE;
    let mut resumed = core.resume_all();
    // Reading takes half a minute, in which half of the first PINs become due.
    for n in 0..1000 {
        let deadline_at = submitted_at + 120 * MINUTE;
        resumed.resume(&InFlight {
            pin: pin(&format!("P{n}")),
            submitted_at: submitted_at.into(),
            deadline_at,
        });
        advance(MINUTE / 2000).await;
    }
    resumed.done();
    assert_eq!(core.due(), 0);
    advance(MINUTE / 10).await;
    let due = core.due();
    assert!((60..=200).contains(&due), "{due} are due after a tenth of a minute");
}

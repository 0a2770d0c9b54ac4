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

/// Resumes a thousand PINs of this age, one by one or all at once.
fn resume_old(core: &mut Core, wall: &TestWall, at_once: bool, deadline: Duration) {
    let submitted_at = wall.wall() - 60 * MINUTE;
    let old = |n| InFlight {
        pin: pin(&format!("P{n}")),
        submitted_at: submitted_at.into(),
        deadline_at: submitted_at + deadline,
    };
    if at_once {
        let mut resumed = core.resume_all();
        (0..1000).for_each(|n| resumed.resume(&old(n)));
        resumed.done();
    } else {
        (0..1000).for_each(|n| core.resume(&old(n)));
    }
}

#[tokio::test(start_paused = true)]
async fn pins_whose_deadlines_passed_while_the_daemon_was_away_are_polled_one_after_the_other_within_seconds()
{
    for at_once in [true, false] {
        let (mut core, wall) = core_with(settings());
        resume_old(&mut core, &wall, at_once, 30 * MINUTE);
        for second in 0..=30_usize {
            let due = core.due();
            assert!((second * 1000 / 30).abs_diff(due) <= 60, "{due} are due after {second} s");
            advance(SECOND).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pin_whose_grace_is_nearly_over_at_the_start_is_polled_before_it_ends() {
    for at_once in [true, false] {
        let (mut core, wall) =
            core_with(config::Schedule { deadline_grace: 30 * MINUTE + SECOND, ..settings() });
        resume_old(&mut core, &wall, at_once, 30 * MINUTE);
        advance(SECOND).await;
        assert_eq!(core.due(), 1000);
        // That its grace was over before the start does not matter: it is polled at once.
        let (mut core, wall) = core_with(config::Schedule { deadline_grace: MINUTE, ..settings() });
        resume_old(&mut core, &wall, at_once, 30 * MINUTE);
        assert_eq!(core.due(), 1000);
    }
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

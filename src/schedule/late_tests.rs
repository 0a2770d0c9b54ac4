//! When polls are reported as late.

use super::*;

/// A core that may send this many polls a second, with as many PINs as it may poll in half a minute.
fn crowded(rate: u32) -> Core {
    let mut core = Core::new(settings(), NonZeroU32::new(rate), Clock::new(TestWall::new()), 7);
    for n in 0..30 * rate {
        submit(&mut core, &format!("P{n}"), DAY);
    }
    core
}

/// Polls everything that is due for this many seconds, and checks how late polls are every 2 s, as the schedule's task
/// does.
async fn go_on(core: &mut Core, seconds: u32) {
    for second in 0..seconds {
        if second % 2 == 0 {
            core.watch_lateness();
        }
        while let Ok(ticket) = core.next_poll() {
            core.answered(ticket, waiting());
        }
        advance(SECOND).await;
    }
    core.watch_lateness();
}

#[tokio::test(start_paused = true)]
async fn polls_that_stay_late_are_reported_after_a_minute_and_until_they_are_in_time_again() {
    let mut core = crowded(10);
    go_on(&mut core, 40).await;
    assert_eq!(core.late(), None, "many submits at once are no trouble yet");
    // Each wants a poll a minute later on, and all together may have two.
    for n in 0..3_000 {
        submit(&mut core, &format!("Q{n}"), DAY);
    }
    go_on(&mut core, 121).await;
    let (longest, since) = core.late().expect("polls are late");
    assert!(longest > 10 * SECOND && core.clock().now().since(since) >= MINUTE, "{longest:?}");
    core.reconfigure(settings(), None);
    while let Ok(ticket) = core.next_poll() {
        core.answered(ticket, waiting());
    }
    assert_eq!(core.late(), None, "at once, and not with the next look");
}

#[tokio::test(start_paused = true)]
async fn a_load_that_comes_and_goes_is_not_late() {
    let mut core = crowded(10);
    for second in 0..300 {
        // As if polls were late each time that a look every 20 s would see.
        if second % 20 == 0 {
            core.reconfigure(settings(), NonZeroU32::new(1));
        }
        if second % 20 == 5 {
            core.reconfigure(settings(), None);
        }
        go_on(&mut core, 1).await;
        assert_eq!(core.late(), None, "after {second} s");
    }
}

#[tokio::test(start_paused = true)]
async fn polls_that_a_brake_holds_back_are_not_late() {
    let mut core = crowded(10);
    let throttled = Meaning::Throttled(10 * MINUTE);
    while core.brake().is_none() {
        let ticket = next(&mut core).await;
        core.answered(ticket, throttled.clone());
    }
    for _ in 0..10 {
        advance(20 * SECOND).await;
        core.watch_lateness();
    }
    assert!(core.due() > 100);
    assert_eq!(core.late(), None);
}

#[tokio::test(start_paused = true)]
async fn pins_in_flight_are_counted_by_age_until_they_are_gone() {
    let mut core = core();
    submit(&mut core, "A", DAY);
    advance(2 * MINUTE).await;
    submit(&mut core, "B", DAY);
    let old = core.clock().date();
    let old = Dated { steady: old.steady.before(30 * 60 * MINUTE), ..old };
    core.resume(&InFlight { pin: pin("C"), submitted_at: old, deadline_at: old.wall + 2 * DAY });
    assert_eq!(core.in_flight_by_age(), [1, 1, 0, 0, 0, 1]);
    assert!(matches!(core.cancel(&pin("A")), Cancelled::Now(_)));
    assert_eq!(core.in_flight_by_age(), [1, 1, 0, 0, 0, 1], "until the store has it");
    for id in ["A", "C"] {
        core.finished(&pin(id));
    }
    assert_eq!(core.in_flight_by_age(), [1, 0, 0, 0, 0, 0]);
}

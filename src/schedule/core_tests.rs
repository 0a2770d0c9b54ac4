//! Tests the schedule's rules on a clock that the tests move.

#[path = "counts_tests.rs"]
mod counting;
#[path = "evidence_tests.rs"]
mod evidence;
#[path = "late_tests.rs"]
mod late;
#[path = "learning_tests.rs"]
mod learning;
#[path = "resume_tests.rs"]
mod resume;
#[path = "slots_tests.rs"]
mod slots;

use std::sync::Mutex;

use jiff::Timestamp;
use tokio::time::advance;

use super::super::brake::Reason;
use super::*;
use crate::clock::{Boot, Dated, Machine};
use crate::outcome::Status;
use crate::store::SavedSchedule;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// A clock that follows tokio's; a test can set its wall clock.
#[derive(Clone)]
struct TestWall {
    wall: Arc<Mutex<(Timestamp, tokio::time::Instant)>>,
    /// The machine has been running for some days before this.
    begun: tokio::time::Instant,
}

impl TestWall {
    fn new() -> Self {
        let noon = "2026-01-02T12:00:00Z".parse().unwrap();
        let begun = tokio::time::Instant::now();
        Self { wall: Arc::new(Mutex::new((noon, begun))), begun }
    }

    fn jump_to(&self, time: Timestamp) {
        *self.wall.lock().unwrap() = (time, tokio::time::Instant::now());
    }
}

impl Machine for TestWall {
    fn wall(&self) -> Timestamp {
        let (base, since) = *self.wall.lock().unwrap();
        base + since.elapsed()
    }

    fn boot(&self) -> Boot {
        Boot { id: Some("this".into()), time: 7 * DAY + self.begun.elapsed() }
    }
}

fn settings() -> config::Schedule {
    config::Schedule {
        initial_interval: SECOND,
        multiplier: 2.0,
        max_interval: MINUTE,
        randomization_factor: 0.0,
        deadline: 60 * MINUTE,
        not_found_grace: 2 * MINUTE,
        deadline_grace: 60 * MINUTE,
        completion: config::Completion::All,
        adapt: config::Adapt::Off,
    }
}

fn core_with(settings: config::Schedule) -> (Core, TestWall) {
    let wall = TestWall::new();
    (Core::new(settings, None, Clock::new(wall.clone()), 7), wall)
}

fn core() -> Core {
    core_with(settings()).0
}

fn pin(id: &str) -> PinId {
    id.parse().unwrap()
}

/// Submits a PIN now.
fn submit(core: &mut Core, id: &str, deadline: Duration) {
    let now = core.clock().date();
    core.accept(&InFlight { pin: pin(id), submitted_at: now, deadline_at: now.wall + deadline });
}

fn deliveries(statuses: &[(&str, bool)]) -> Meaning {
    let delivery = |&(status, final_status): &(&str, bool)| Delivery {
        status: Status::from_wire(status),
        description: None,
        final_status,
    };
    Meaning::Deliveries(statuses.iter().map(delivery).collect())
}

fn waiting() -> Meaning {
    deliveries(&[("MESSAGE_WAITING_DELIVERY", false)])
}

fn delivered() -> Meaning {
    deliveries(&[("MESSAGE_DELIVERED", true)])
}

/// Sleeps until the next poll, and returns it.
async fn next(core: &mut Core) -> Ticket {
    loop {
        match core.next_poll() {
            Ok(ticket) => return ticket,
            Err(again) => {
                let again = again.expect("a poll will be due");
                advance(again.since(core.clock().now())).await;
            }
        }
    }
}

/// Waits for the next poll, and answers it.
async fn poll(core: &mut Core, meaning: Meaning) -> Option<Verdict> {
    let ticket = next(core).await;
    core.answered(ticket, meaning)
}

fn age(core: &Core, id: &str) -> Duration {
    core.clock().now().since(core.entry(&pin(id)).unwrap().submitted)
}

#[tokio::test(start_paused = true)]
async fn a_pin_is_polled_with_growing_intervals_until_it_is_final() {
    let mut core = core();
    submit(&mut core, "A", 60 * MINUTE);
    let mut ages = Vec::new();
    for _ in 0..8 {
        assert_eq!(poll(&mut core, waiting()).await, None);
        ages.push(age(&core, "A").as_secs());
    }
    assert_eq!(ages, [1, 3, 7, 15, 31, 63, 123, 183]);
    let verdict = poll(&mut core, delivered()).await.unwrap();
    assert_eq!((verdict.ending, verdict.polls), (Ending::Final, 9));
    assert_eq!(core.next_poll().unwrap_err(), None, "a PIN with a verdict is not polled");
    core.finished(&pin("A"));
    assert_eq!((core.in_flight(), core.finishing()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_means_that_nothing_is_known_yet() {
    for completion in [config::Completion::All, config::Completion::Any] {
        let mut core = core_with(config::Schedule { completion, ..settings() }).0;
        submit(&mut core, "A", MINUTE);
        assert_eq!(poll(&mut core, deliveries(&[])).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_does_not_hide_the_last_status_from_the_outcome() {
    let mut core = core();
    for (id, last) in [("A", deliveries(&[])), ("B", Meaning::Unreadable("HTML".into()))] {
        submit(&mut core, id, 10 * SECOND);
        assert_eq!(poll(&mut core, deliveries(&[])).await, None);
        assert_eq!(poll(&mut core, waiting()).await, None);
        assert_eq!(poll(&mut core, deliveries(&[])).await, None);
        let verdict = poll(&mut core, last).await.expect("the last poll");
        assert_eq!(verdict.ending, Ending::Deadline);
        assert_eq!(verdict.deliveries.unwrap()[0].status.as_str(), "MESSAGE_WAITING_DELIVERY");
        core.finished(&pin(id));
    }
}

#[tokio::test(start_paused = true)]
async fn completion_all_waits_for_the_resend_and_any_does_not() {
    let resent = || deliveries(&[("MESSAGE_EXPIRED", true), ("MESSAGE_WAITING_DELIVERY", false)]);
    let mut all = core();
    submit(&mut all, "A", MINUTE);
    assert_eq!(poll(&mut all, resent()).await, None);
    let any = config::Schedule { completion: config::Completion::Any, ..settings() };
    let mut any = core_with(any).0;
    submit(&mut any, "A", MINUTE);
    assert_eq!(poll(&mut any, resent()).await.unwrap().ending, Ending::Final);
}

#[tokio::test(start_paused = true)]
async fn at_its_deadline_a_pin_is_polled_one_last_time_and_then_given_up() {
    let mut core = core();
    submit(&mut core, "A", 10 * SECOND);
    for _ in 0..3 {
        assert_eq!(poll(&mut core, waiting()).await, None);
    }
    let last = next(&mut core).await;
    assert_eq!(age(&core, "A"), 10 * SECOND);
    let verdict = core.answered(last, Meaning::Unavailable("503".into())).unwrap();
    assert_eq!(verdict.ending, Ending::Deadline);
    assert_eq!(verdict.deliveries.unwrap()[0].status.as_str(), "MESSAGE_WAITING_DELIVERY");
}

#[tokio::test(start_paused = true)]
async fn a_pin_that_is_final_at_its_last_poll_is_final() {
    let mut core = core();
    submit(&mut core, "A", Duration::from_millis(10));
    let verdict = poll(&mut core, delivered()).await.unwrap();
    assert_eq!(verdict.ending, Ending::Final);
}

#[tokio::test(start_paused = true)]
async fn a_poll_without_a_usable_answer_is_repeated_after_the_next_interval() {
    for meaning in [Meaning::Unreadable("HTML".into()), Meaning::Unavailable("503".into())] {
        let mut core = core();
        submit(&mut core, "A", MINUTE);
        assert_eq!(poll(&mut core, meaning).await, None);
        next(&mut core).await;
        assert_eq!(age(&core, "A"), 3 * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_gives_up_no_pin_before_its_deadline_and_grace() {
    let mut core = core_with(config::Schedule { deadline_grace: 24 * 60 * MINUTE, ..settings() }).0;
    for id in ["A", "B", "C"] {
        submit(&mut core, id, MINUTE);
    }
    let mut polls = 0;
    while core.clock().now() < Moment::START.after(23 * 60 * MINUTE) {
        assert_eq!(poll(&mut core, Meaning::Unauthorized(401)).await, None);
        polls += 1;
    }
    assert!(polls <= 23 * 60 + 10, "{polls} polls in 23 hours are no single probes");
    let mut endings = Vec::new();
    for _ in 0..3 {
        endings.push(poll(&mut core, delivered()).await.unwrap().ending);
    }
    assert_eq!(endings, [Ending::Final; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_429_stops_all_pins_and_costs_none_its_last_poll() {
    let mut core = core();
    submit(&mut core, "A", 2 * SECOND);
    submit(&mut core, "B", 60 * MINUTE);
    assert_eq!(poll(&mut core, Meaning::Throttled(5 * MINUTE)).await, None);
    assert_eq!(core.brake().unwrap().0, Reason::Throttled);
    let probe = next(&mut core).await;
    assert!(core.clock().now() >= Moment::START.after(5 * MINUTE));
    assert_eq!(core.next_poll().unwrap_err(), None, "one probe at a time");
    core.answered(probe, delivered()).unwrap();
    assert_eq!(poll(&mut core, delivered()).await.unwrap().ending, Ending::Final);
}

/// Polls without an answer until the brake is on.
async fn break_down(core: &mut Core) {
    while core.brake().is_none() {
        poll(core, Meaning::Unavailable("503".into())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_only_probes_go_out_and_no_pin_is_given_up_for_want_of_an_answer() {
    let mut core = core();
    for n in 0..1000 {
        submit(&mut core, &format!("P{n}"), MINUTE);
    }
    break_down(&mut core).await;
    let start = core.clock().now();
    let mut probes = 0;
    while core.clock().now().since(start) < 30 * MINUTE {
        assert_eq!(poll(&mut core, Meaning::Unavailable("503".into())).await, None);
        assert!(core.expired().is_empty());
        probes += 1;
    }
    assert!(probes <= 66, "{probes} probes in half an hour");
    assert_eq!(
        poll(&mut core, waiting()).await.unwrap().ending,
        Ending::Deadline,
        "the last poll of the probe's PIN"
    );
    assert_eq!(core.brake(), None);
    // The backlog starts slowly, without a thundering herd, and all of it is polled in the end.
    let (start, mut first_second) = (core.clock().now(), 0);
    for _ in 1..1000 {
        let verdict = poll(&mut core, delivered()).await.unwrap();
        assert_eq!(verdict.ending, Ending::Final);
        first_second += u32::from(core.clock().now().since(start) < SECOND);
    }
    assert!(first_second <= 20, "{first_second} polls in the first second after the outage");
}

#[tokio::test(start_paused = true)]
async fn a_pin_that_an_outage_keeps_from_its_last_poll_is_given_up_when_its_grace_is_over() {
    let mut core = core();
    submit(&mut core, "SHORT", MINUTE);
    submit(&mut core, "LONG", 600 * MINUTE);
    break_down(&mut core).await;
    advance(59 * MINUTE).await;
    assert!(core.expired().is_empty());
    advance(2 * MINUTE).await;
    let expired = core.expired();
    assert_eq!((expired.len(), expired[0].ending), (1, Ending::Deadline));
    assert_eq!(expired[0].pin, pin("SHORT"));
    assert!(core.expired().is_empty(), "a PIN is given up once");
}

#[tokio::test(start_paused = true)]
async fn a_brake_and_the_rate_survive_a_restart() {
    let mut core = core();
    submit(&mut core, "A", 60 * MINUTE);
    assert_eq!(core.take_unsaved(), None);
    poll(&mut core, Meaning::Throttled(10 * MINUTE)).await;
    let saved = core.take_unsaved().unwrap();
    assert_eq!(saved.reason.as_deref(), Some("throttled"));
    assert_eq!(core.take_unsaved(), None, "it is told once");

    let (mut restarted, _) = core_with(settings());
    let until = Some(restarted.clock().steady().after(10 * MINUTE));
    restarted.restore(&SavedSchedule { until, ..saved.clone() });
    assert_eq!(restarted.rate(), core.rate());
    submit(&mut restarted, "B", 60 * MINUTE);
    let probe = next(&mut restarted).await;
    assert!(restarted.clock().now() >= Moment::START.after(10 * MINUTE));
    restarted.answered(probe, delivered()).unwrap();
    assert_eq!(restarted.take_unsaved().unwrap().reason, None);

    // The saved end is far away; no brake waits for a year.
    let (mut restarted, _) = core_with(settings());
    let until = Some(restarted.clock().steady().after(365 * DAY));
    restarted.restore(&SavedSchedule { until, ..saved });
    submit(&mut restarted, "C", 60 * 24 * MINUTE);
    next(&mut restarted).await;
    assert!(restarted.clock().now() <= Moment::START.after(61 * MINUTE));
}

#[tokio::test(start_paused = true)]
async fn the_rate_that_is_in_force_at_a_stop_is_that_of_the_next_start() {
    // Later than the slow beginning after a brake.
    for seconds in [5, 11, 23, 40] {
        let mut core = core_with(config::Schedule { max_interval: SECOND, ..settings() }).0;
        for n in 0..200 {
            submit(&mut core, &format!("P{n}"), 60 * MINUTE);
        }
        let mut saved = None;
        for time in [5 * SECOND, seconds * SECOND] {
            let end = core.clock().now().after(time);
            while core.clock().now() < end {
                poll(&mut core, waiting()).await;
                saved = core.take_unsaved().or(saved);
            }
            if core.rate().is_none() {
                poll(&mut core, Meaning::Throttled(SECOND)).await;
            }
        }
        core.keep_all();
        saved = core.take_unsaved().or(saved);
        let mut restarted = core_with(settings()).0;
        restarted.restore(&saved.expect("the 429 was saved at least"));
        assert_eq!(
            (core.rate().is_some(), restarted.rate()),
            (true, core.rate()),
            "{seconds} s after the 429"
        );
        core.keep_all();
        assert_eq!(core.take_unsaved(), None, "nothing changed since");
    }
}

/// Refuses one PIN, and the PIN that is polled to check it.
async fn refuse_the_key(core: &mut Core) {
    while core.brake().is_none() {
        poll(core, Meaning::Unauthorized(401)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_ends_the_pause_of_a_wrong_key_at_once() {
    let mut core = core();
    submit(&mut core, "A", 60 * MINUTE);
    submit(&mut core, "B", 60 * MINUTE);
    refuse_the_key(&mut core).await;
    advance(4 * SECOND).await;
    core.reconfigure(settings(), None);
    let before = core.clock().now();
    let probe = next(&mut core).await;
    assert!(core.clock().now().since(before) < SECOND);
    core.answered(probe, waiting());
    assert_eq!(core.brake(), None);
}

#[tokio::test(start_paused = true)]
async fn with_another_api_or_account_a_probe_is_sent_at_once_whatever_paused_polling() {
    for trouble in [
        Meaning::Throttled(60 * MINUTE),
        Meaning::Unavailable("503".into()),
        Meaning::Unauthorized(401),
        Meaning::NotSent("no file descriptor".into()),
    ] {
        let mut core = core();
        for id in ["A", "B", "C", "D", "E"] {
            submit(&mut core, id, 60 * MINUTE);
        }
        while core.brake().is_none() {
            poll(&mut core, trouble.clone()).await;
        }
        core.take_unsaved();
        core.renew();
        core.reconfigure(settings(), None);
        let saved = core.take_unsaved().expect("the next start must not wait either");
        assert!(saved.until.unwrap() <= core.clock().steady());
        let due = core.queue.next_due().unwrap().max(core.clock().now());
        let probe = next(&mut core).await;
        let late = core.clock().now().since(due);
        assert!(late <= SECOND, "as soon as a PIN is due, at the least rate: {late:?}");
        assert_eq!(core.next_poll().unwrap_err(), None, "one probe at a time");
        core.answered(probe, waiting());
        assert_eq!(core.brake(), None, "{trouble:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_api_answered_says_nothing_about_the_new_one() {
    let mut core = core();
    for n in 0..10 {
        submit(&mut core, &format!("P{n}"), 60 * MINUTE);
    }
    for _ in 0..10 {
        poll(&mut core, Meaning::NotFound).await;
    }
    assert!(core.refused_everywhere().is_some());
    core.renew();
    assert_eq!(core.refused_everywhere(), None);
    for _ in 0..4 {
        poll(&mut core, Meaning::Unavailable("503".into())).await;
        assert_eq!(core.brake(), None);
    }
    poll(&mut core, Meaning::Unavailable("503".into())).await;
    assert!(core.brake().is_some(), "none of five PINs is answered by the new API");
}

#[tokio::test(start_paused = true)]
async fn after_a_key_change_polls_with_the_old_key_count_only_if_they_have_deliveries() {
    let mut core = core();
    for id in ["A", "B", "C", "D"] {
        submit(&mut core, id, 60 * MINUTE);
    }
    let [a, b, c, d] =
        [next(&mut core).await, next(&mut core).await, next(&mut core).await, next(&mut core).await];
    core.renew();
    assert_eq!(core.answered(a, Meaning::Unauthorized(401)), None);
    assert_eq!(core.answered(b, Meaning::Throttled(MINUTE)), None);
    assert_eq!(core.answered(c, Meaning::Rejected("another account's".into())), None);
    assert_eq!(core.brake(), None);
    assert_eq!(core.answered(d, delivered()).unwrap().ending, Ending::Final);
    for _ in 0..3 {
        assert_eq!(poll(&mut core, delivered()).await.unwrap().ending, Ending::Final);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_with_the_old_key_neither_delays_nor_decides_the_probe_with_the_new_one() {
    let mut core = core();
    for id in ["A", "B", "C"] {
        submit(&mut core, id, 60 * MINUTE);
    }
    refuse_the_key(&mut core).await;
    let old = next(&mut core).await;
    assert_eq!(core.next_poll().unwrap_err(), None, "one probe at a time");
    core.reconfigure(settings(), None);
    core.renew();
    let new = core.next_poll().expect("the old one's answer is waited for");
    assert_eq!(core.next_poll().unwrap_err(), None, "one probe at a time, of each key");
    core.answered(old, waiting());
    assert!(core.brake().is_some(), "the old key was good, which says nothing of the new one");
    assert_eq!(core.next_poll().unwrap_err(), None);
    core.answered(new, waiting());
    assert_eq!(core.brake(), None);
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_the_cancel_is_ignored() {
    let mut core = core();
    submit(&mut core, "A", MINUTE);
    let ticket = next(&mut core).await;
    let Cancelled::Now(verdict) = core.cancel(&pin("A")) else { panic!("not cancelled") };
    assert_eq!((verdict.ending, verdict.polls), (Ending::Cancelled, 1));
    assert!(matches!(core.cancel(&pin("A")), Cancelled::Finishing));
    core.finished(&pin("A"));
    submit(&mut core, "A", MINUTE);
    assert_eq!(core.answered(ticket, delivered()), None, "it was of the PIN before");
    assert!(matches!(core.cancel(&pin("B")), Cancelled::Unknown));
    assert_eq!(poll(&mut core, delivered()).await.unwrap().polls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_pin_is_polled_no_more() {
    let mut core = core();
    submit(&mut core, "A", MINUTE);
    assert!(matches!(core.cancel(&pin("A")), Cancelled::Now(_)));
    assert_eq!(core.next_poll().unwrap_err(), None);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_moves_no_poll_and_no_deadline() {
    let (mut core, wall) = core_with(settings());
    submit(&mut core, "A", 10 * SECOND);
    for time in ["2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z", "2026-01-02T12:00:00Z"] {
        wall.jump_to(time.parse().unwrap());
        assert_eq!(poll(&mut core, waiting()).await, None, "at {time}");
    }
    assert_eq!(age(&core, "A"), 7 * SECOND);
    // A PIN that was in flight before the wall clock was set keeps its age, whatever its date.
    let date = core.clock().date();
    wall.jump_to("2031-01-01T00:00:00Z".parse().unwrap());
    advance(2 * SECOND).await;
    core.resume(&InFlight { pin: pin("B"), submitted_at: date, deadline_at: date.wall + 5 * SECOND });
    assert_eq!(age(&core, "B"), 2 * SECOND);
    // Another node's clock may be slightly ahead; the PIN's age is then unknown, and it counts as new.
    let later = Dated { steady: date.steady.after(60 * MINUTE), ..date };
    core.resume(&InFlight { pin: pin("C"), submitted_at: later, deadline_at: later.wall + 5 * SECOND });
    assert_eq!(age(&core, "C"), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn polling_pauses_while_too_many_verdicts_wait_for_the_store() {
    let mut core = core();
    for n in 0..=MAX_FINISHING {
        submit(&mut core, &format!("P{n}"), MINUTE);
    }
    for _ in 0..MAX_FINISHING {
        poll(&mut core, delivered()).await.unwrap();
    }
    assert_eq!(core.next_poll().unwrap_err(), None);
    core.finished(&pin("P0"));
    core.finished(&pin("P1"));
    assert!(poll(&mut core, delivered()).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn under_a_rate_limit_new_pins_are_not_starved_by_many_old_ones() {
    let wall = TestWall::new();
    let mut core = Core::new(settings(), NonZeroU32::new(10), Clock::new(wall.clone()), 7);
    let submitted_at = wall.wall() - 30 * MINUTE;
    for n in 0..6000 {
        let deadline_at = submitted_at + 24 * 60 * MINUTE;
        core.resume(&InFlight {
            pin: pin(&format!("OLD{n}")),
            submitted_at: submitted_at.into(),
            deadline_at,
        });
    }
    // With 100 PINs per second at a rate of 10, the backlog is longest after ten minutes.
    let mut old = 0;
    while core.clock().now() < Moment::START.after(10 * MINUTE) {
        assert!(poll(&mut core, waiting()).await.is_none());
        old += 1;
    }
    assert!((5_900..=6_110).contains(&old), "{old} polls in ten minutes at ten a second");
    submit(&mut core, "NEW", 60 * MINUTE);
    let mut before = 0;
    loop {
        let ticket = next(&mut core).await;
        let is_new = ticket.pin == pin("NEW");
        core.answered(ticket, waiting());
        if is_new {
            break;
        }
        before += 1;
    }
    assert!(before <= 120, "{before} old PINs were polled before the new one");
}

#[tokio::test(start_paused = true)]
async fn pins_with_equal_answers_share_one_copy() {
    let mut core = core();
    submit(&mut core, "A", 60 * MINUTE);
    submit(&mut core, "B", 60 * MINUTE);
    for heard in [waiting, || Meaning::NotFound] {
        for _ in ["A", "B"] {
            assert_eq!(poll(&mut core, heard()).await, None);
        }
    }
    let [a, b] = ["A", "B"].map(|id| core.entry(&pin(id)).unwrap());
    assert!(Arc::ptr_eq(a.seen.as_ref().unwrap(), b.seen.as_ref().unwrap()));
    let [a, b] = [a, b].map(|entry| entry.last_answer.clone().unwrap().trouble.unwrap());
    assert!(Arc::ptr_eq(&a, &b), "{a} {b}");
}

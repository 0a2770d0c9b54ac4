//! Tests learned intervals in the core, and backoff's intervals where nothing was learned.

use super::super::super::learn::Channel;
use super::*;

/// Settings with jitter for every interval.
fn settings_of(adapt: config::Adapt) -> config::Schedule {
    let base = settings();
    config::Schedule { multiplier: 1.5, max_interval: 60 * MINUTE, randomization_factor: 0.2, adapt, ..base }
}

/// Polls a few PINs with all kinds of answers; returns the first letters of their IDs, and when each was polled in
/// microseconds.
async fn polls(settings: config::Schedule) -> Vec<(String, u128)> {
    let mut core = core_with(settings).0;
    let now = core.clock().date();
    submit(&mut core, "A", 60 * MINUTE);
    core.resume(&InFlight { pin: pin("C"), submitted_at: now, deadline_at: now.wall + 30 * MINUTE });
    let mut polls = Vec::new();
    for n in 0..24 {
        if n == 3 {
            submit(&mut core, "B", 60 * MINUTE);
        }
        let ticket = next(&mut core).await;
        polls.push((ticket.pin.to_string(), core.clock().now().since(Moment::START).as_micros()));
        let meaning = match n % 5 {
            1 => Meaning::NotFound,
            2 => deliveries(&[]),
            _ if n == 20 => delivered(),
            _ => waiting(),
        };
        core.answered(ticket, meaning);
    }
    polls
}

#[tokio::test(start_paused = true)]
async fn without_learning_every_poll_has_its_recorded_time() {
    // Recorded from the version before learning existed, with the same seed and the same answers.
    let recorded = [
        ("C", 222_485),
        ("A", 1_109_352),
        ("C", 1_309_801),
        ("B", 2_176_015),
        ("C", 2_579_689),
        ("A", 2_598_028),
        ("B", 3_850_992),
        ("C", 4_462_984),
        ("A", 4_522_875),
        ("B", 6_050_788),
        ("A", 7_261_320),
        ("C", 8_000_742),
        ("B", 10_083_229),
        ("A", 13_023_434),
        ("C", 13_043_539),
        ("B", 15_131_455),
        ("C", 20_421_557),
        ("A", 21_513_487),
        ("B", 22_783_133),
        ("C", 31_458_757),
        ("A", 34_879_741),
        ("B", 35_687_889),
        ("C", 47_048_884),
        ("B", 51_517_862),
    ];
    let polls = polls(settings_of(config::Adapt::Off)).await;
    let polls: Vec<_> = polls.iter().map(|(pin, moment)| (pin.as_str(), *moment)).collect();
    assert_eq!(polls, recorded);
}

#[tokio::test(start_paused = true)]
async fn before_enough_is_learned_every_poll_follows_backoff() {
    let without = polls(settings_of(config::Adapt::Off)).await;
    for adapt in [config::Adapt::Sooner, config::Adapt::Fewer] {
        assert_eq!(polls(settings_of(adapt)).await, without);
    }
}

/// Lets PINs end one after the other, each some 20 seconds after its submission; returns the polls of each.
async fn end_pins(core: &mut Core, count: usize) -> Vec<u32> {
    end_pins_after(core, 20 * SECOND, count).await
}

/// Does the same with another time after the submission.
async fn end_pins_after(core: &mut Core, life: Duration, count: usize) -> Vec<u32> {
    let mut polls = Vec::new();
    for n in 0..count {
        let id = format!("E{n}");
        submit(core, &id, 48 * 60 * MINUTE);
        let verdict = loop {
            let ticket = next(core).await;
            let is_final = age(core, &id) >= life + life / 5_000 * (731 * n as u32 % 1_000);
            let meaning = if is_final { delivered() } else { waiting() };
            if let Some(verdict) = core.answered(ticket, meaning) {
                break verdict;
            }
        };
        core.finished(&pin(&id));
        polls.push(verdict.polls);
        if let Some(problem) = core.problem() {
            core.adopt(problem.solve());
        }
    }
    polls
}

/// Returns the polls of the last hundred PINs.
fn last_hundred(polls: &[u32]) -> u32 {
    polls[polls.len() - 100..].iter().sum()
}

#[tokio::test(start_paused = true)]
async fn a_learned_schedule_saves_polls_also_with_new_settings_until_it_is_turned_off() {
    let settings = settings_of(config::Adapt::Fewer);
    let mut core = core_with(settings.clone()).0;
    let by_backoff = last_hundred(&end_pins(&mut core, 150).await);
    let learned = last_hundred(&end_pins(&mut core, 450).await);
    assert!(learned * 3 < by_backoff * 2, "{learned} polls, and {by_backoff} by backoff");

    core.reconfigure(config::Schedule { max_interval: 30 * MINUTE, ..settings.clone() }, None);
    let learned = last_hundred(&end_pins(&mut core, 110).await);
    assert!(learned * 3 < by_backoff * 2, "{learned} polls, and {by_backoff} by backoff");

    core.reconfigure(config::Schedule { adapt: config::Adapt::Off, ..settings }, None);
    let off = last_hundred(&end_pins(&mut core, 110).await);
    assert!(off.abs_diff(by_backoff) * 10 < by_backoff, "{off} polls, and {by_backoff} by backoff");
}

#[tokio::test(start_paused = true)]
async fn an_ending_after_a_useless_answer_or_a_restart_teaches_nothing() {
    let ended = |core: &Core| core.learner().unwrap().counts(Channel::Sms).endings;
    let mut core = core_with(settings_of(config::Adapt::Sooner)).0;
    submit(&mut core, "A", 60 * MINUTE);
    poll(&mut core, Meaning::NotFound).await;
    assert!(poll(&mut core, delivered()).await.is_some());
    assert_eq!(ended(&core), 0, "it may have been final long before");

    let now = core.clock().date();
    core.resume(&InFlight { pin: pin("B"), submitted_at: now, deadline_at: now.wall + 60 * MINUTE });
    assert!(poll(&mut core, delivered()).await.is_some());
    assert_eq!(ended(&core), 0, "an earlier process may have polled it since");

    submit(&mut core, "C", 60 * MINUTE);
    assert!(poll(&mut core, delivered()).await.is_some());
    assert_eq!(ended(&core), 1);
    core.resume(&InFlight { pin: pin("D"), submitted_at: now, deadline_at: now.wall + 60 * MINUTE });
    poll(&mut core, waiting()).await;
    assert!(poll(&mut core, delivered()).await.is_some());
    assert_eq!(ended(&core), 2, "this process saw it not final");
}

#[test]
fn the_newest_delivery_that_is_not_final_decides_the_channel() {
    let cases: [(&[(&str, bool)], Channel); 7] = [
        (&[], Channel::Unknown),
        (&[("UNDEFINED", false)], Channel::Unknown),
        (&[("SOMETHING_NEW", false)], Channel::Unknown),
        (&[("MESSAGE_WAITING_DELIVERY", false)], Channel::Sms),
        (&[("MESSAGE_DELIVERED", true), ("PROCESSING", false)], Channel::Call),
        (&[("MESSAGE_WAITING_DELIVERY", false), ("ERROR_NO_ANSWER", true)], Channel::Sms),
        (&[("MESSAGE_EXPIRED", true), ("PROCESSED", true)], Channel::Call),
    ];
    for (statuses, channel) in cases {
        let Meaning::Deliveries(deliveries) = deliveries(statuses) else { unreachable!() };
        assert_eq!(channel_of(&deliveries), channel, "{statuses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_the_learned_schedule() {
    let mut core = core_with(settings_of(config::Adapt::Fewer)).0;
    let by_backoff = last_hundred(&end_pins(&mut core, 150).await);
    assert!(core.take_unsaved().is_none(), "nothing is worth a write yet");
    end_pins(&mut core, 300).await;
    let saved = core.take_unsaved().unwrap();

    let mut restarted = core_with(settings_of(config::Adapt::Fewer)).0;
    restarted.restore(&saved);
    let learned = last_hundred(&end_pins(&mut restarted, 101).await);
    assert!(learned * 3 < by_backoff * 2, "{learned} polls, and {by_backoff} by backoff");

    let mut damaged = core_with(settings_of(config::Adapt::Fewer)).0;
    damaged.restore(&SavedSchedule { learned: Some(vec![9; 50]), ..saved });
    assert_eq!(damaged.learner().unwrap().counts(Channel::Sms).endings, 0);
}

#[tokio::test(start_paused = true)]
async fn backoff_replaces_an_outdated_learned_schedule_and_stats_show_it() {
    let mut core = core_with(settings_of(config::Adapt::Fewer)).0;
    end_pins(&mut core, 400).await;
    let learned = core.learned().unwrap();
    assert!(learned.is_in_force && learned.compared > 0 && learned.relapses == 0, "{learned:?}");

    // From now on, PINs are final long before their first poll.
    let mut ended = 0;
    while core.learned().unwrap().is_in_force {
        end_pins_after(&mut core, SECOND, 10).await;
        ended += 10;
        assert!(ended <= 500, "{:?}", core.learned());
    }
    let learned = core.learned().unwrap();
    assert!(learned.endings_until_retry > 400 && learned.relapses == 1, "{learned:?}");
    assert!(core.take_unsaved().is_some(), "the next start is to know that");
    assert_eq!(core.interval_at(None, Duration::ZERO), SECOND);
}

//! Tests that a PIN ends on evidence about that PIN, and pauses other PINs only if they have the same problem.

use super::*;
use crate::poll::Connection;

const HOUR: Duration = Duration::from_secs(3600);

/// The API's answer for each PIN.
type Answer<'a> = &'a dyn Fn(&str) -> Meaning;

/// Lets the schedule poll for this time and answers each poll at once; returns the verdicts with the ages of their
/// PINs.
async fn run(core: &mut Core, time: Duration, answer: Answer<'_>) -> Vec<(String, Ending, Duration)> {
    let end = core.clock().now().after(time);
    let mut ended = Vec::new();
    loop {
        let verdicts = core.expired();
        let mut note = |core: &mut Core, verdict: Verdict| {
            let entry = core.entry(&verdict.pin).unwrap();
            let age = core.clock().now().since(entry.submitted);
            core.finished(&verdict.pin);
            ended.push((verdict.pin.as_str().to_owned(), verdict.ending, age));
        };
        verdicts.into_iter().for_each(|verdict| note(core, verdict));
        match core.next_poll() {
            Ok(ticket) => {
                let meaning = answer(ticket.pin.as_str());
                if let Some(verdict) = core.answered(ticket, meaning) {
                    note(core, verdict);
                }
            }
            Err(again) => {
                // The task checks for expired PINs every 20 s.
                let again = again.unwrap_or(end).min(core.clock().now().after(20 * SECOND)).min(end);
                if core.clock().now() >= end {
                    return ended;
                }
                advance(again.since(core.clock().now())).await;
            }
        }
    }
}

fn ending_of(ended: &[(String, Ending, Duration)], id: &str) -> Option<(Ending, Duration)> {
    ended.iter().find(|(pin, ..)| pin == id).map(|(_, ending, age)| (*ending, *age))
}

/// An API that delivers each PIN at its third poll, except those that begin with `BAD`.
fn third_is_final(bad: Meaning) -> impl Fn(&str) -> Meaning {
    let polls = Mutex::new(std::collections::HashMap::<String, u32>::new());
    move |id: &str| {
        if id.starts_with("BAD") {
            return bad.clone();
        }
        let mut polls = polls.lock().unwrap();
        let count = polls.entry(id.to_owned()).or_default();
        *count += 1;
        if *count >= 3 { delivered() } else { waiting() }
    }
}

#[tokio::test(start_paused = true)]
async fn a_404_ends_a_pin_only_after_three_of_them_over_the_grace() {
    let mut core = core();
    submit(&mut core, "A", 60 * MINUTE);
    assert_eq!(poll(&mut core, waiting()).await, None);
    let mut ages = Vec::new();
    let verdict = loop {
        let verdict = poll(&mut core, Meaning::NotFound).await;
        ages.push(age(&core, "A").as_secs());
        if let Some(verdict) = verdict {
            break verdict;
        }
    };
    // The first 404 comes at 3 s, so its grace of two minutes ends at 123 s.
    assert_eq!((ages.first(), ages.last()), (Some(&3), Some(&123)));
    assert_eq!(verdict.ending, Ending::NotFound);
    assert_eq!(verdict.deliveries.unwrap()[0].status.as_str(), "MESSAGE_WAITING_DELIVERY");
}

#[tokio::test(start_paused = true)]
async fn a_pin_is_rejected_with_the_apis_last_message_after_confirmation_on_new_connections() {
    let mut core = core();
    submit(&mut core, "A", 60 * MINUTE);
    let mut connections = Vec::new();
    let verdict = loop {
        let ticket = next(&mut core).await;
        connections.push(ticket.connection);
        let text = format!("refused {} times", connections.len());
        if let Some(verdict) = core.answered(ticket, Meaning::Rejected(text)) {
            break verdict;
        }
    };
    assert!(connections.len() >= 3);
    assert_eq!(connections[0], Connection::Kept);
    assert!(connections[1..].iter().all(|connection| *connection == Connection::New), "{connections:?}");
    let said = format!("refused {} times", connections.len());
    assert_eq!((verdict.ending, verdict.error), (Ending::Rejected, Some(said)));
}

/// Issue 13, A.1
#[tokio::test(start_paused = true)]
async fn a_pin_that_a_firewall_blocks_ends_without_pausing_others() {
    for status in [401, 403] {
        let mut core = core();
        for n in 0..300 {
            submit(&mut core, &format!("P{n}"), 20 * SECOND);
        }
        submit(&mut core, "BAD", 20 * SECOND);
        let ended = run(&mut core, 40 * SECOND, &third_is_final(Meaning::Unauthorized(status))).await;
        let finals = ended.iter().filter(|(_, ending, age)| *ending == Ending::Final && *age <= 8 * SECOND);
        assert_eq!(finals.count(), 300);
        let (ending, age) = ending_of(&ended, "BAD").expect("the blocked PIN ends too");
        assert!(ending == Ending::Deadline && age <= 40 * SECOND, "{ending} {age:?}");
        assert_eq!(core.brake(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_blocked_pin_with_a_long_deadline_is_rejected_once_that_is_confirmed() {
    let mut core = core();
    submit(&mut core, "BAD", 48 * HOUR);
    submit(&mut core, "GOOD", 48 * HOUR);
    let answer = |id: &str| if id == "BAD" { Meaning::Unauthorized(403) } else { waiting() };
    let ended = run(&mut core, HOUR, &answer).await;
    let (ending, age) = ending_of(&ended, "BAD").expect("it ends");
    assert!(ending == Ending::Rejected && (2 * MINUTE..=5 * MINUTE).contains(&age), "{ending} {age:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_is_noticed_at_the_second_refusal_on_a_new_connection() {
    let mut core = core();
    for n in 0..50 {
        submit(&mut core, &format!("P{n}"), 60 * MINUTE);
    }
    let first = next(&mut core).await;
    core.answered(first.clone(), Meaning::Unauthorized(401));
    assert_eq!(core.brake(), None, "one refusal may be about its PIN");
    let check = core.next_poll().expect("the check goes out at once");
    assert_eq!(check.connection, Connection::New);
    assert_ne!(check.pin, first.pin);
    let again = core.next_poll().unwrap_err().expect("nothing else goes out meanwhile");
    assert!(again <= core.clock().now().after(SECOND), "and not for longer than a second");
    core.answered(check, Meaning::Unauthorized(401));
    assert_eq!(core.brake().unwrap().0, Reason::Unauthorized);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_gets_no_answer_is_made_with_another_pin() {
    let mut core = core();
    for id in ["A", "B", "C", "D"] {
        submit(&mut core, id, 60 * MINUTE);
    }
    let refused = next(&mut core).await;
    core.answered(refused, Meaning::Unauthorized(403));
    let check = core.next_poll().unwrap();
    core.answered(check.clone(), Meaning::Unavailable("time-out".into()));
    let other = core.next_poll().unwrap();
    assert_ne!(other.pin, check.pin);
    core.answered(other, waiting());
    assert_eq!(core.brake(), None);
}

/// Refuses a PIN, and lets another one's 429 pause polling while the check runs; returns the check's poll.
async fn pause_during_a_check(core: &mut Core) -> Ticket {
    for id in ["A", "B", "C", "D"] {
        submit(core, id, 60 * MINUTE);
    }
    // B is polled at the same time, and is answered last.
    let (refused, running) = (next(core).await, next(core).await);
    core.answered(refused, Meaning::Unauthorized(401));
    let check = core.next_poll().expect("the check goes out at once");
    core.answered(running, Meaning::Throttled(6 * SECOND));
    assert_eq!(core.brake().map(|(reason, _)| reason), Some(Reason::Throttled));
    check
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_is_noticed_though_a_brake_went_on_during_an_earlier_check() {
    for unanswered in [
        Meaning::Unavailable("503".into()),
        Meaning::Throttled(SECOND),
        Meaning::NotSent("no file descriptor".into()),
    ] {
        let mut core = core();
        let check = pause_during_a_check(&mut core).await;
        core.answered(check, unanswered.clone());
        let polls = core.counts.polls;
        run(&mut core, 5 * MINUTE, &|_| Meaning::Unauthorized(401)).await;
        assert_eq!(core.brake().map(|(reason, _)| reason), Some(Reason::Unauthorized), "{unanswered:?}");
        assert!(
            core.counts.polls - polls <= 12,
            "only the probe of the 429, the check and probes of the key go out"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_is_refused_shows_a_wrong_key_though_a_429_paused_polling_meanwhile() {
    let mut core = core();
    let check = pause_during_a_check(&mut core).await;
    core.answered(check, Meaning::Unauthorized(401));
    assert_eq!(core.brake().map(|(reason, _)| reason), Some(Reason::Unauthorized));
}

/// Issue 13, A.1, second half.
#[tokio::test(start_paused = true)]
async fn a_pin_that_always_gets_429_slows_down_nobody_else() {
    let mut core = core();
    submit(&mut core, "BAD", 60 * SECOND);
    let answer = third_is_final(Meaning::Throttled(SECOND));
    let mut ended = run(&mut core, 10 * SECOND, &answer).await;
    for round in 0..9 {
        for n in 0..100 {
            submit(&mut core, &format!("P{round}-{n}"), 60 * MINUTE);
        }
        ended.extend(run(&mut core, 10 * SECOND, &answer).await);
    }
    ended.extend(run(&mut core, MINUTE, &answer).await);
    let slowest = ended.iter().filter(|(_, ending, _)| *ending == Ending::Final).map(|(.., age)| *age).max();
    assert_eq!(ended.len(), 901);
    assert!(slowest.unwrap() <= 60 * SECOND, "{slowest:?}");
    let (ending, age) = ending_of(&ended, "BAD").unwrap();
    assert!(ending == Ending::Deadline && age <= 90 * SECOND, "{ending} {age:?}");
}

/// Polls for this time; returns how many polls of PINs that begin with `GOOD` were sent in each second.
async fn good_polls(core: &mut Core, seconds: u32, answer: Answer<'_>) -> Vec<u32> {
    let mut each = Vec::new();
    for _ in 0..seconds {
        let good = Mutex::new(0);
        let counting = |id: &str| {
            *good.lock().unwrap() += u32::from(id.starts_with("GOOD"));
            answer(id)
        };
        run(core, SECOND, &counting).await;
        each.push(good.into_inner().unwrap());
    }
    each
}

/// A core with so many PINs that are polled every second.
fn busy(good: usize) -> Core {
    let mut core = core_with(config::Schedule { max_interval: SECOND, ..settings() }).0;
    for n in 0..good {
        submit(&mut core, &format!("GOOD{n}"), 60 * MINUTE);
    }
    core
}

#[tokio::test(start_paused = true)]
async fn pins_that_get_429s_and_other_answers_in_turn_pause_polling_once_each() {
    for bad in [1, 3] {
        let mut core = busy(20);
        for n in 0..bad {
            submit(&mut core, &format!("BAD{n}"), 60 * MINUTE);
        }
        let polls = Mutex::new(std::collections::HashMap::<String, u32>::new());
        let answer = |id: &str| {
            let mut polls = polls.lock().unwrap();
            let count = polls.entry(id.to_owned()).or_default();
            *count += 1;
            let is_throttled = id.starts_with("BAD") && count.is_multiple_of(2);
            if is_throttled { Meaning::Throttled(5 * SECOND) } else { waiting() }
        };
        let each = good_polls(&mut core, 8 * MINUTE.as_secs() as u32, &answer).await;
        let without = each.iter().filter(|polls| **polls == 0).count();
        assert!(without <= 6 * bad, "{without} seconds without polls, with {bad} such PINs");
        assert!(each[60..].iter().all(|polls| *polls > 0), "{each:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn new_pins_that_get_nothing_but_429s_are_not_probed_one_after_the_other() {
    let mut core = busy(95);
    let answer = |id: &str| if id.starts_with("BAD") { Meaning::Throttled(5 * SECOND) } else { waiting() };
    run(&mut core, 5 * SECOND, &answer).await;
    let mut each = Vec::new();
    for n in 0..5 {
        submit(&mut core, &format!("BAD{n}"), 60 * MINUTE);
        each.extend(good_polls(&mut core, 3, &answer).await);
    }
    each.extend(good_polls(&mut core, 60, &answer).await);
    let longest = each.split(|polls| *polls > 0).map(<[u32]>::len).max();
    assert!(longest <= Some(11), "at most two pauses of five seconds in a row: {each:?}");
    assert!(each.iter().filter(|polls| **polls == 0).count() <= 27, "one pause for each: {each:?}");
    assert!(each[40..].iter().all(|polls| *polls > 0), "{each:?}");
}

#[tokio::test(start_paused = true)]
async fn an_account_that_polls_too_often_pauses_though_each_of_its_pins_got_a_429_before() {
    let mut core = busy(30);
    // The API allows ten polls a second.
    let mut sent = std::collections::VecDeque::new();
    let mut throttled = 0;
    let end = core.clock().now().after(10 * MINUTE);
    while core.clock().now() < end {
        let ticket = next(&mut core).await;
        let now = core.clock().now();
        sent.retain(|at| now.since(*at) < SECOND);
        let is_over = sent.len() >= 10;
        if !is_over {
            sent.push_back(now);
        }
        throttled += u32::from(is_over);
        core.answered(ticket, if is_over { Meaning::Throttled(SECOND) } else { waiting() });
    }
    assert!(throttled <= 300, "{throttled} 429s among {} polls", core.counts.polls);
}

/// Issue 13, A.2
#[tokio::test(start_paused = true)]
async fn a_load_balancer_that_temporarily_answers_404_for_all_pins_ends_no_pin() {
    for refusal in [Meaning::NotFound, Meaning::Rejected("405 Method Not Allowed".into())] {
        let mut core = core();
        for n in 0..300 {
            submit(&mut core, &format!("P{n}"), 60 * MINUTE);
        }
        assert_eq!(run(&mut core, 10 * SECOND, &|_| waiting()).await, []);
        assert_eq!(core.refused_everywhere(), None);
        assert_eq!(run(&mut core, 20 * MINUTE, &|_| refusal.clone()).await, [], "{refusal:?}");
        assert!(core.refused_everywhere().is_some(), "health reports it");
        let ended = run(&mut core, 10 * MINUTE, &|_| delivered()).await;
        assert_eq!(ended.iter().filter(|(_, ending, _)| *ending == Ending::Final).count(), 300);
        assert_eq!(core.refused_everywhere(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_of_most_pins_are_reported_between_their_polls_but_not_once_there_is_no_news_or_no_pin() {
    let refuse_three = |polled_every: Duration| {
        let mut core = core_with(config::Schedule {
            initial_interval: polled_every,
            max_interval: polled_every,
            ..settings()
        })
        .0;
        ["A", "B", "C"].into_iter().for_each(|id| submit(&mut core, id, 48 * HOUR));
        core
    };
    let mut core = refuse_three(5 * MINUTE);
    run(&mut core, 5 * MINUTE + SECOND, &|_| Meaning::NotFound).await;
    let since = core.refused_everywhere().expect("all are refused").0;
    for _ in 0..9 {
        run(&mut core, MINUTE, &|_| Meaning::NotFound).await;
        assert_eq!(core.refused_everywhere().map(|(since, _)| since), Some(since));
    }
    for id in ["A", "B", "C"] {
        assert!(core.refused_everywhere().is_some());
        core.cancel(&pin(id));
    }
    assert_eq!(core.refused_everywhere(), None, "no PIN is polled any more");

    let mut core = refuse_three(HOUR);
    run(&mut core, HOUR + 9 * MINUTE, &|_| Meaning::NotFound).await;
    assert!(core.refused_everywhere().is_some());
    run(&mut core, 2 * MINUTE, &|_| Meaning::NotFound).await;
    assert_eq!(core.refused_everywhere(), None, "nobody knows any more");
}

/// The API refuses this share of the polls, whichever PIN they ask for.
fn refuses(share: f64, refusal: Meaning) -> impl Fn(&str) -> Meaning {
    let random = Mutex::new(fastrand::Rng::with_seed(3));
    move |_| if random.lock().unwrap().f64() < share { refusal.clone() } else { waiting() }
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_that_recovers_little_by_little_from_404s_for_all_ends_no_pin() {
    let seldom = config::Schedule { max_interval: 20 * SECOND, ..settings() };
    for refusal in [Meaning::NotFound, Meaning::Rejected("405 Method Not Allowed".into())] {
        let mut core = core_with(seldom.clone()).0;
        for n in 0..40 {
            submit(&mut core, &format!("P{n}"), 60 * MINUTE);
        }
        assert_eq!(run(&mut core, MINUTE, &|_| waiting()).await, []);
        // First all are refused, then fewer and fewer; no PIN is refused for two minutes while most others are answered.
        for (share, time) in [(1.0, 5 * MINUTE), (0.8, 2 * MINUTE), (0.45, MINUTE)] {
            assert_eq!(
                run(&mut core, time, &refuses(share, refusal.clone())).await,
                [],
                "{share} {refusal:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_works_again_for_the_first_pin_ends_no_other_pin_that_it_was_refused_for() {
    let mut core = core();
    for id in ["A", "B", "C"] {
        submit(&mut core, id, 60 * MINUTE);
    }
    run(&mut core, 5 * SECOND, &|_| waiting()).await;
    assert_eq!(run(&mut core, 5 * MINUTE, &|_| Meaning::Unauthorized(401)).await, []);
    assert_eq!(core.brake().map(|(reason, _)| reason), Some(Reason::Unauthorized));
    let answer = |id: &str| if id == "A" { waiting() } else { Meaning::Unauthorized(401) };
    assert_eq!(run(&mut core, 2 * MINUTE, &answer).await, []);
    assert_eq!(core.brake(), None, "A's probe was answered");
    assert_eq!(run(&mut core, 5 * MINUTE, &|_| waiting()).await, []);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_pin_is_not_found_within_the_deadline_grace_though_others_are_asked_only_once_an_hour() {
    let hourly = config::Schedule { initial_interval: HOUR, max_interval: HOUR, ..settings() };
    let mut core = core_with(hourly).0;
    for id in ["OLD1", "OLD2"] {
        submit(&mut core, id, 48 * HOUR);
    }
    core.reconfigure(config::Schedule { max_interval: HOUR, ..settings() }, None);
    submit(&mut core, "BAD", 48 * HOUR);
    let answer = |id: &str| if id == "BAD" { Meaning::NotFound } else { waiting() };
    let ended = run(&mut core, 4 * HOUR, &answer).await;
    let (ending, age) = ending_of(&ended, "BAD").expect("it ends");
    assert!(ending == Ending::NotFound && (2 * MINUTE..=2 * HOUR + 10 * MINUTE).contains(&age), "{age:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_refuses_about_half_of_the_pins_is_reported_once_and_not_again_and_again() {
    let mut core = core();
    for n in 0..300 {
        submit(&mut core, &format!("P{n}"), 60 * MINUTE);
    }
    run(&mut core, 10 * SECOND, &|_| Meaning::NotFound).await;
    let since = core.refused_everywhere().expect("all are refused").0;
    let half = |id: &str| if id.ends_with(['0', '2', '4', '6', '8']) { Meaning::NotFound } else { waiting() };
    for _ in 0..60 {
        run(&mut core, SECOND, &half).await;
        assert_eq!(core.refused_everywhere().map(|(since, _)| since), Some(since));
    }
    run(&mut core, 10 * MINUTE, &|_| waiting()).await;
    assert_eq!(core.refused_everywhere(), None);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_temporarily_answers_with_a_web_page_ends_no_pin_at_its_deadline() {
    let mut core = core();
    for n in 0..100 {
        submit(&mut core, &format!("P{n}"), MINUTE);
    }
    assert_eq!(run(&mut core, 10 * MINUTE, &|_| Meaning::Unreadable("HTML".into())).await, []);
    let ended = run(&mut core, MINUTE, &|_| delivered()).await;
    assert_eq!(ended.iter().filter(|(_, ending, _)| *ending == Ending::Final).count(), 100);
}

#[tokio::test(start_paused = true)]
async fn without_any_answered_pin_a_404_is_confirmed_after_the_deadline_grace() {
    let mut core = core();
    for n in 0..10 {
        submit(&mut core, &format!("P{n}"), 48 * HOUR);
    }
    let ended = run(&mut core, 2 * HOUR, &|_| Meaning::NotFound).await;
    assert_eq!(ended.len(), 10);
    for (_, ending, age) in ended {
        assert!(ending == Ending::NotFound && age >= HOUR, "{ending} {age:?}");
    }
}

/// Issue 13, A.4
#[tokio::test(start_paused = true)]
async fn a_machine_that_can_send_nothing_ends_no_pin_before_the_deadline_grace() {
    let mut core = core();
    for n in 0..20 {
        submit(&mut core, &format!("P{n}"), 3 * SECOND);
    }
    let lack = |_: &str| Meaning::NotSent("no file descriptor".into());
    assert_eq!(run(&mut core, 59 * MINUTE, &lack).await, []);
    assert_eq!(core.brake().unwrap().0, Reason::NotSent);
    assert!(core.counts.not_sent < 200, "{} polls were tried", core.counts.not_sent);
    let ended = run(&mut core, 30 * SECOND, &|_| delivered()).await;
    assert_eq!(ended.iter().filter(|(_, ending, _)| *ending == Ending::Final).count(), 20);
    // Every PIN ends eventually.
    submit(&mut core, "LAST", 3 * SECOND);
    let ended = run(&mut core, 61 * MINUTE, &lack).await;
    assert_eq!(ending_of(&ended, "LAST").map(|(ending, _)| ending), Some(Ending::Deadline));
}

/// Issue 13, A.5
#[tokio::test(start_paused = true)]
async fn one_429_in_a_quiet_moment_does_not_slow_down_the_burst_after_it_nor_the_next_start() {
    let mut core = core();
    for id in ["A", "B", "C"] {
        submit(&mut core, id, 60 * MINUTE);
    }
    poll(&mut core, Meaning::Throttled(SECOND)).await;
    run(&mut core, 2 * SECOND, &|_| waiting()).await;
    for n in 0..500 {
        submit(&mut core, &format!("P{n}"), 60 * MINUTE);
    }
    let ended = run(&mut core, 20 * SECOND, &|_| delivered()).await;
    assert_eq!(ended.len(), 503, "all are done within 20 s");
    let saved = core.take_unsaved().expect("the recovery is saved");
    assert!(saved.rate.is_none_or(|rate| rate > 100.0), "{:?}", saved.rate);
}

/// Issue 13, A.6 and A.7
#[tokio::test(start_paused = true)]
async fn the_last_poll_is_sent_at_the_deadline_or_later() {
    let mut core = core();
    submit(&mut core, "A", 3 * SECOND);
    let early = next(&mut core).await;
    assert_eq!(age(&core, "A"), SECOND);
    advance(3 * SECOND).await;
    assert_eq!(core.answered(early, waiting()), None, "it was sent before the deadline");
    let last = core.next_poll().expect("the last poll goes out at once");
    assert_eq!(core.answered(last, delivered()).unwrap().ending, Ending::Final);
}

/// Lets the API fail for all but one poll at a time, again and again, and then work; returns which PINs got no final
/// status though they were not asked in a good moment.
async fn after_an_outage_with_good_moments(
    count: usize,
    every: Duration,
    failure: Meaning,
) -> Vec<(String, Ending, Duration)> {
    let mut core = core_with(config::Schedule { randomization_factor: 0.2, ..settings() }).0;
    for n in 0..count {
        submit(&mut core, &format!("P{n}"), 12 * SECOND);
    }
    assert_eq!(run(&mut core, 6 * SECOND, &|_| waiting()).await, []);
    assert_eq!(run(&mut core, MINUTE, &|_| failure.clone()).await, [], "at the deadline, in the outage");
    let lucky = Mutex::new(Vec::new());
    let mut ended = Vec::new();
    // Each ends a PIN. The last one left could not tell whether it alone fails.
    for _ in 0..10.min(count - 2) {
        let is_good = Mutex::new(true);
        let moment = |id: &str| {
            if std::mem::take(&mut *is_good.lock().unwrap()) {
                lucky.lock().unwrap().push(id.to_owned());
                return waiting();
            }
            failure.clone()
        };
        ended.extend(run(&mut core, every, &moment).await);
    }
    ended.extend(run(&mut core, 2 * MINUTE, &|_| delivered()).await);
    assert_eq!(ended.len(), count);
    let lucky = lucky.into_inner().unwrap();
    ended.retain(|(pin, ending, _)| *ending != Ending::Final && !lucky.contains(pin));
    ended
}

#[tokio::test(start_paused = true)]
async fn a_good_moment_in_an_outage_ends_no_pin_past_its_deadline_but_the_one_that_was_asked_in_it() {
    let down = || Meaning::Unavailable("503".into());
    for every in [3 * SECOND, MINUTE] {
        assert_eq!(after_an_outage_with_good_moments(3, every, down()).await, []);
        for failure in [down(), Meaning::Unreadable("HTML".into()), Meaning::NotFound] {
            for count in [15, 40] {
                let ended = after_an_outage_with_good_moments(count, every, failure.clone()).await;
                assert_eq!(ended, [], "{failure:?}, every {every:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_begins_at_the_deadline_of_many_pins_ends_none_of_them() {
    let mut core = core();
    for n in 0..40 {
        submit(&mut core, &format!("P{n}"), 10 * SECOND);
    }
    assert_eq!(run(&mut core, 9 * SECOND, &|_| waiting()).await, []);
    assert_eq!(run(&mut core, 10 * MINUTE, &|_| Meaning::Unavailable("503".into())).await, []);
    let ended = run(&mut core, 2 * MINUTE, &|_| delivered()).await;
    assert_eq!(ended.iter().filter(|(_, ending, _)| *ending == Ending::Final).count(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_pin_that_alone_fails_at_its_deadline_ends_with_the_next_poll_that_fails_too() {
    for failure in [Meaning::Unavailable("503".into()), Meaning::Unreadable("HTML".into()), Meaning::NotFound]
    {
        let mut core = core();
        for n in 0..10 {
            submit(&mut core, &format!("P{n}"), 60 * MINUTE);
        }
        submit(&mut core, "BAD", 10 * MINUTE);
        run(&mut core, 10 * MINUTE - SECOND, &|_| waiting()).await;
        let answer = |id: &str| if id == "BAD" { failure.clone() } else { waiting() };
        let ended = run(&mut core, 2 * MINUTE, &answer).await;
        let (ending, age) = ending_of(&ended, "BAD").expect("it ends");
        assert!(ending == Ending::Deadline && age <= 11 * MINUTE, "{ending} {age:?}");
    }
}

/// Issue 13, A.8
#[tokio::test(start_paused = true)]
async fn an_outage_of_part_of_the_api_delays_only_the_pins_it_concerns() {
    let mut core = core();
    let answer = third_is_final(Meaning::Unavailable("503".into()));
    for n in 0..20 {
        submit(&mut core, &format!("BAD{n}"), 5 * MINUTE);
    }
    let mut ended = run(&mut core, 30 * SECOND, &answer).await;
    assert_eq!(core.brake().map(|(reason, _)| reason), Some(Reason::Outage), "so far nobody was answered");
    for second in 0..89 {
        for n in 0..10 {
            submit(&mut core, &format!("P{second}-{n}"), 60 * MINUTE);
        }
        ended.extend(run(&mut core, SECOND, &answer).await);
    }
    // PINs without an answer wait for their last poll as in any outage, until their grace is over.
    ended.extend(run(&mut core, 2 * HOUR, &answer).await);
    let finals: Vec<_> = ended.iter().filter(|(_, ending, _)| *ending == Ending::Final).collect();
    assert_eq!((finals.len(), ended.len()), (890, 910));
    let late = finals.iter().filter(|(.., age)| *age > 30 * SECOND).count();
    assert_eq!(late, 0, "PINs that are answered were delayed by those that are not");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_half_of_the_api_delays_no_pin_of_the_other_half() {
    for share in [40, 50] {
        let mut core = core();
        let mut random = fastrand::Rng::with_seed(share);
        let answer = |id: &str| {
            if id.starts_with("BAD") { Meaning::Unavailable("503".into()) } else { delivered() }
        };
        let (mut ended, mut later) = (Vec::new(), std::collections::HashSet::new());
        for n in 0..17 * 120 {
            let kind = if random.u64(..100) < share { "BAD" } else { "GOOD" };
            let id = format!("{kind}{n}");
            submit(&mut core, &id, 60 * MINUTE);
            later.extend((n > 17 * 15).then_some(id));
            ended.extend(run(&mut core, SECOND / 17, &answer).await);
        }
        // The first five that are polled may all fail, before anybody is answered.
        ended.retain(|(id, ..)| later.contains(id));
        let mut ages: Vec<_> = ended.iter().map(|(.., age)| *age).collect();
        ages.sort();
        let (most, last) = (ages[ages.len() * 99 / 100], ages[ages.len() - 1]);
        assert!(most <= SECOND + SECOND / 10 && last <= 3 * SECOND, "{share} %: {most:?} {last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_each_new_pin_is_probed_soon_though_other_probes_fail_meanwhile() {
    let mut core = core_with(config::Schedule { initial_interval: 20 * SECOND, ..settings() }).0;
    let answer = |id: &str| {
        if id.starts_with("GOOD") { delivered() } else { Meaning::Unavailable("503".into()) }
    };
    for n in 0..5 {
        submit(&mut core, &format!("BAD{n}"), 24 * HOUR);
    }
    run(&mut core, 30 * MINUTE, &answer).await;
    assert_eq!(core.brake().map(|(reason, _)| reason), Some(Reason::Outage));
    // A probe goes out every 30 s, so one at least fails before these are due.
    for n in 0..4 {
        submit(&mut core, &format!("BADNEW{n}"), 24 * HOUR);
    }
    run(&mut core, 15 * SECOND, &answer).await;
    submit(&mut core, "GOOD", 24 * HOUR);
    let ended = run(&mut core, 5 * MINUTE, &answer).await;
    let (ending, age) = ending_of(&ended, "GOOD").unwrap();
    assert!(ending == Ending::Final && age <= 22 * SECOND, "{age:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_pin_is_probed_while_a_single_pin_is_why_the_key_seems_wrong() {
    let answer = |id: &str| if id == "BAD" { Meaning::Unauthorized(403) } else { delivered() };
    // A probe goes out at 1, 6, 16, 36 and 76 s.
    for wait in [10, 35, 36, 38, 75, 100] {
        let mut core = core();
        submit(&mut core, "BAD", 24 * HOUR);
        run(&mut core, wait * SECOND, &answer).await;
        assert_eq!(core.brake().map(|(reason, _)| reason), Some(Reason::Unauthorized));
        submit(&mut core, "GOOD", 24 * HOUR);
        let ended = run(&mut core, 3 * SECOND, &answer).await;
        let (ending, age) = ending_of(&ended, "GOOD").expect("it is probed");
        assert!(ending == Ending::Final && age <= 2 * SECOND + SECOND / 10, "{age:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn new_pins_do_not_hasten_the_probes_of_a_key_that_was_refused_for_two_pins() {
    let mut core = core();
    submit(&mut core, "A", 24 * HOUR);
    run(&mut core, MINUTE, &|_| Meaning::Unauthorized(401)).await;
    for n in 0..600 {
        submit(&mut core, &format!("P{n}"), 24 * HOUR);
        run(&mut core, SECOND, &|_| Meaning::Unauthorized(401)).await;
    }
    assert!(core.counts.unauthorized <= 20, "{} polls in eleven minutes", core.counts.unauthorized);
}

#[tokio::test(start_paused = true)]
async fn a_probe_never_asks_about_the_same_pin_twice_in_a_row() {
    let mut core = core();
    for n in 0..10 {
        submit(&mut core, &format!("P{n}"), 60 * MINUTE);
    }
    break_down(&mut core).await;
    let mut last = None;
    for _ in 0..50 {
        let probe = next(&mut core).await;
        assert_ne!(Some(&probe.pin), last.as_ref());
        last = Some(probe.pin.clone());
        core.answered(probe, Meaning::Unavailable("503".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn every_pin_ends_within_its_deadline_and_grace_with_any_answers() {
    let unusable: [fn() -> Meaning; 7] = [
        || Meaning::Unauthorized(401),
        || Meaning::Throttled(HOUR),
        || Meaning::Unavailable("503".into()),
        || Meaning::Unreadable("HTML".into()),
        || Meaning::NotFound,
        || Meaning::Rejected("400".into()),
        || Meaning::NotSent("no port".into()),
    ];
    for meaning in unusable {
        for count in [1, 2, 30] {
            let mut core = core();
            for n in 0..count {
                submit(&mut core, &format!("P{n}"), 10 * MINUTE);
            }
            let ended = run(&mut core, 10 * MINUTE + HOUR + MINUTE, &|_| meaning()).await;
            assert_eq!(ended.len(), count, "{:?}", meaning());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_of_the_old_account_do_not_count_for_the_new_one() {
    let mut core = core();
    submit(&mut core, "A", 60 * MINUTE);
    for _ in 0..6 {
        assert_eq!(poll(&mut core, Meaning::NotFound).await, None);
    }
    core.renew();
    let ticket = next(&mut core).await;
    assert_eq!((core.answered(ticket, Meaning::NotFound), age(&core, "A") > 2 * MINUTE), (None, true));
}

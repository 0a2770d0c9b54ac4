//! What `pinwatch schedule` prints for a given answer.

use serde_json::{Value, json};

use super::super::table;
use super::*;

/// Everything that is printed on a terminal with this many columns.
fn printed(answer: Value, room: Option<usize>, glyphs: &Glyphs) -> String {
    let schedule: Schedule = serde_json::from_value(answer).unwrap();
    let table = table::table(COLUMNS, &rows(&schedule), room).0;
    [paragraph(&standing(&schedule), room), table, charts(&schedule, room, glyphs)].concat()
}

/// The ages of backoff with the default settings, until intervals stop growing.
fn backoff(polls: Option<f64>, delay: Option<f64>) -> Value {
    let (mut age, mut interval, mut ages) = (0.0, 1.0, Vec::new());
    while age < 172_800.0 {
        age = f64::min(age + interval, 172_800.0);
        interval = f64::min(interval * 1.5, 3_600.0);
        ages.push(age);
    }
    json!({"polls": polls, "delay": delay, "untilDeadline": ages.len(), "ages": ages})
}

fn answer(state: &str, classes: Value) -> Value {
    json!({"adapt": "sooner", "state": state, "endingsNeeded": 200, "deadline": 172_800.0, "initialInterval": 1.0,
           "maxInterval": 3_600.0, "classes": classes})
}

fn learned() -> Value {
    let hours = (1..48).map(|hour| f64::from(hour) * 3_600.0);
    let ages: Vec<f64> = [9.4, 12.0, 15.0, 18.5, 24.0, 32.0, 60.0].into_iter().chain(hours).collect();
    let sms = json!({"class": "sms", "endings": 5_145, "inForce": true, "backoff": backoff(Some(6.7), Some(5.33)),
        "learned": {"polls": 6.0, "delay": 2.17, "untilDeadline": ages.len(), "ages": ages}, "knownUntil": 128.0,
        "finals": [{"age": 8.0, "share": 0.05}, {"age": 16.0, "share": 0.55}, {"age": 32.0, "share": 0.9},
                   {"age": 128.0, "share": 0.98}]});
    let call = json!({"class": "call", "endings": 55, "backoff": backoff(None, None), "learned": backoff(None, None)});
    let mut answer = answer("in_force", json!([sms, call]));
    answer["recent"] =
        json!({"endings": 500, "polls": 6.13, "delay": 1.892, "backoffPolls": 6.89, "backoffDelay": 105.4});
    answer
}

#[test]
fn the_learned_schedule_is_shown_beside_backoff_with_a_chart_in_80_columns() {
    insta::assert_snapshot!(printed(learned(), Some(80), &BLOCKS), @r#"
    schedule.adapt = "sooner": PINs are polled by the learned schedule; by backoff
    where fewer than 200 PINs of their class have ended. The last 500 PINs took 6.13
    polls each and were noticed 1.89s after the end; backoff would have taken 6.89
    polls and 1m45s.
    CLASS  ENDINGS    SEEN UNTIL  SCHEDULE  POLLS/PIN  DELAY  IF NEVER FINAL
    SMS    5145       2m8s        backoff   6.70       5.33s  67 polls
                                  learned   6.00       2.17s  54 polls
    call   55 of 200  -           backoff   -          -      67 polls

    SMS            1s    3s    10s   30s     2m      10m   30m     2h   6h      24h
    backoff        │    │   │ │  │ │  │ │ │ │  │ │ │ │ │ │  │ │ │ │ │ ││││┃│┃┃┃┃┃┃┃┃
    learned                    ││ │││ │  │                     │   │ ││││││┃┃┃┃┃┃┃┃┃
    endings              ▁▁▁▁▁▂▆▇█▇▅▅▆▂▁▁▁▁▁▁▁
    final by       1%    2%    18%   86%     97%
    backoff at  1s 2.5s 4.8s 8.1s 13s 21s 32s 49s 1m15s 1m53s 2m51s 4m17s 6m27s
                9m42s and 53 more
    learned at  9.4s 12s 15s 19s 24s 32s 1m 1h 2h 3h 4h 5h 6h 7h, then every 1h
    "#);
}

#[test]
fn the_chart_is_ascii_if_the_locale_is_not_utf_8() {
    let printed = printed(learned(), Some(80), &ASCII);
    assert!(printed.is_ascii(), "{printed}");
    insta::assert_snapshot!(printed.lines().skip(8).take(6).collect::<Vec<_>>().join("\n"), @r#"

    SMS            1s    3s    10s   30s     2m      10m   30m     2h   6h      24h
    backoff        |    |   | |  | |  | | | |  | | | | | |  | | | | | ||||#|########
    learned                    || ||| |  |                     |   | ||||||#########
    endings              .....:*%#%++*:.......
    final by       1%    2%    18%   86%     97%
    "#);
}

#[test]
fn only_backoff_is_shown_if_learning_is_off() {
    let class = json!({"class": "sms", "backoff": backoff(None, None)});
    let schedule: Schedule = serde_json::from_value(answer("off", json!([class]))).unwrap();
    let printed = [paragraph(&standing(&schedule), Some(60)), charts(&schedule, Some(60), &ASCII)].concat();
    insta::assert_snapshot!(printed, @r#"
    schedule.adapt = "sooner": PINs are polled by backoff, at
    intervals that grow. The daemon does not learn when they
    become final. One that never does is polled 67 times until
    its deadline at 48h.

                  1s  3s   10s      2m    10m       2h  6h   24h
    backoff       |   | | | | || || || | || || || || |||########
    backoff at  1s 2.5s 4.8s 8.1s 13s 21s 32s 49s 1m15s 1m53s
                2m51s 4m17s 6m27s 9m42s and 53 more
    "#);
}

#[test]
fn each_state_says_which_schedule_is_used_and_why() {
    let said = |state: &str, more: Value| {
        let mut answer = answer(state, json!([]));
        answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        standing(&serde_json::from_value(answer).unwrap())
    };
    let fell_back = |cause: &str| said("fell_back", json!({"cause": cause, "endingsUntilRetry": 312}));
    let all = [
        said("learning", json!({})),
        said("planning", json!({})),
        said("in_force", json!({})),
        said("none_better", json!({})),
        said("none_better", json!({"maxInterval": 1.5})),
        fell_back("worse"),
        fell_back("early"),
        said("fell_back", json!({"endingsUntilRetry": 1})),
        said("of_a_newer_daemon", json!({})),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    schedule.adapt = "sooner": PINs are polled by backoff, until 200 of a class have become final.
    schedule.adapt = "sooner": enough PINs have ended. The learned schedule is made when one of the next PINs becomes final; until then, PINs are polled by backoff.
    schedule.adapt = "sooner": PINs are polled by the learned schedule.
    schedule.adapt = "sooner": PINs are polled by backoff: no schedule learned so far is better.
    schedule.adapt = "sooner": PINs are polled by backoff: schedule.max_interval is less than twice schedule.initial_interval, which leaves nothing to choose.
    schedule.adapt = "sooner": PINs are polled by backoff, because the learned schedule cost more. The learned schedule is tried again after 312 more endings.
    schedule.adapt = "sooner": PINs are polled by backoff, because PINs became final much earlier than was learned. The learned schedule is tried again after 312 more endings.
    schedule.adapt = "sooner": PINs are polled by backoff, because the learned schedule did worse. The learned schedule is tried again after 1 more ending.
    schedule.adapt = "sooner": this pinwatch is older than the daemon and does not know what it does.
    "#);
}

#[test]
fn the_first_ages_are_listed_with_how_they_continue_and_all_on_request() {
    let schedule = |max| Schedule { max_interval: max, deadline: 100.0, ..Schedule::default() };
    let ages: Vec<f64> = (1..=20).map(|n| f64::from(n) * 5.0).collect();
    let course = Course { until_deadline: Some(20), ages, ..Course::default() };
    assert_eq!(ages_text(&schedule(5.0), &course, true).split(' ').count(), 20);
    let first = "5s 10s 15s 20s 25s 30s 35s 40s 45s 50s 55s 1m 1m5s 1m10s";
    assert_eq!(ages_text(&schedule(5.0), &course, false), format!("{first}, then every 5s"));
    assert_eq!(ages_text(&schedule(9.0), &course, false), format!("{first} and 6 more"));
    let endless = Course { until_deadline: None, ..course };
    assert_eq!(
        ages_text(&schedule(9.0), &endless, true).split(' ').skip(20).collect::<Vec<_>>(),
        ["and", "so", "on"]
    );
}

#[test]
fn an_age_is_written_in_its_two_largest_units() {
    let cases = [
        (0.25, "250ms"),
        (1.0, "1s"),
        (2.5, "2.5s"),
        (9.96, "10s"),
        (59.7, "1m"),
        (75.0, "1m15s"),
        (3_600.0, "1h"),
        (100_000.0, "27h46m"),
        (172_800.0, "48h"),
        (180_000.0, "2d2h"),
        (1e300, "213503982334601d7h"),
    ];
    for (seconds, text) in cases {
        assert_eq!(age_text(seconds), text);
    }
}

//! Learned intervals in the core, and those that nothing was learned for.

use super::*;

/// Settings that draw jitter for every interval.
fn settings_of(adapt: config::Adapt) -> config::Schedule {
    let base = settings();
    config::Schedule { multiplier: 1.5, max_interval: 60 * MINUTE, randomization_factor: 0.2, adapt, ..base }
}

/// When a few PINs with all kinds of answers are polled, in microseconds, and the first letters of their IDs.
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
async fn without_learning_every_poll_is_when_it_was_before_there_was_any() {
    // By the daemon of before, from the same seed and the same answers.
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

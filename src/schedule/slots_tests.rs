//! Tests what several nodes need of the schedule: it polls only the PINs of its slots, and only while its lease is
//! valid.

use super::*;
use crate::slot::{Slots, slot_of};

/// Returns a schedule that holds only the slots of these PINs.
fn core_of(ids: &[&str]) -> Core {
    let mut core = core();
    core.release(&Slots::ALL);
    core.hold(&slots_of(ids));
    core
}

fn slots_of(ids: &[&str]) -> Slots {
    ids.iter().map(|id| slot_of(&pin(id))).collect()
}

fn resume(core: &mut Core, id: &str) {
    let submitted_at = core.clock().wall() - MINUTE;
    core.resume(&InFlight {
        pin: pin(id),
        submitted_at: submitted_at.into(),
        deadline_at: submitted_at + 60 * MINUTE,
    });
}

#[tokio::test(start_paused = true)]
async fn a_pin_of_another_nodes_slot_is_not_taken() {
    let mut core = core_of(&["A"]);
    assert_ne!(slot_of(&pin("A")), slot_of(&pin("B")));
    submit(&mut core, "B", 60 * MINUTE);
    resume(&mut core, "B");
    assert_eq!((core.in_flight(), core.next_poll().unwrap_err()), (0, None));
    submit(&mut core, "A", 60 * MINUTE);
    assert_eq!(next(&mut core).await.pin, pin("A"));
}

#[tokio::test(start_paused = true)]
async fn the_pins_of_a_released_slot_are_forgotten_and_their_answers_are_ignored() {
    let mut core = core_of(&["A", "B", "C", "D"]);
    submit(&mut core, "A", 60 * MINUTE);
    let polling = next(&mut core).await;
    submit(&mut core, "B", 60 * MINUTE);
    submit(&mut core, "C", 60 * MINUTE);
    submit(&mut core, "D", 60 * MINUTE);
    assert!(matches!(core.cancel(&pin("C")), Cancelled::Now(_)));
    let mut forgotten = core.release(&slots_of(&["A", "B", "C"]));
    forgotten.sort();
    assert_eq!(forgotten, [pin("A"), pin("B"), pin("C")]);
    assert_eq!((core.in_flight(), core.finishing()), (1, 0));
    // The PIN comes back, and the answer of the running poll does not count for it.
    core.hold(&slots_of(&["A"]));
    resume(&mut core, "A");
    assert_eq!(core.answered(polling, delivered()), None);
    assert_eq!(core.entry(&pin("A")).unwrap().polls, 0);
    let mut polled = [next(&mut core).await.pin, next(&mut core).await.pin];
    polled.sort();
    assert_eq!(polled, [pin("A"), pin("D")]);
}

#[tokio::test(start_paused = true)]
async fn a_pin_that_the_store_does_not_have_is_forgotten_but_not_one_that_came_back() {
    let mut core = core_of(&["A"]);
    submit(&mut core, "A", 60 * MINUTE);
    poll(&mut core, delivered()).await.unwrap();
    core.release(&Slots::ALL);
    core.hold(&Slots::ALL);
    resume(&mut core, "A");
    assert!(!core.gone(&pin("A")), "the verdict was of the PIN before");
    poll(&mut core, delivered()).await.unwrap();
    assert!(core.gone(&pin("A")));
    assert_eq!((core.in_flight(), core.finishing()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_poll_begins_after_the_lease_may_have_ended_until_it_is_renewed() {
    let mut core = core_of(&["A"]);
    submit(&mut core, "A", 60 * MINUTE);
    let until = core.clock().now().after(SECOND);
    core.lease_until(until);
    advance(SECOND).await;
    assert_eq!(core.due(), 1);
    assert_eq!(core.next_poll().unwrap_err(), None, "nothing but a renewal can change it");
    core.lease_until(core.clock().now().after(SECOND));
    assert_eq!(core.next_poll().unwrap().pin, pin("A"));
}

#[tokio::test(start_paused = true)]
async fn a_probe_ends_the_brake_even_if_its_slot_was_released() {
    let mut core = core_of(&["A", "B"]);
    submit(&mut core, "A", 60 * MINUTE);
    submit(&mut core, "B", 60 * MINUTE);
    poll(&mut core, Meaning::Unauthorized(401)).await;
    let probe = next(&mut core).await;
    core.release(&slots_of(&[probe.pin.as_str()]));
    assert_eq!(core.answered(probe, delivered()), None);
    assert_eq!(core.brake(), None);
}

#[tokio::test(start_paused = true)]
async fn a_nodes_share_of_the_rate_is_proportional_to_its_slots() {
    let wall = TestWall::new();
    let mut core = Core::new(settings(), NonZeroU32::new(256), Clock::new(wall), 7);
    core.release(&Slots::ALL);
    core.hold(&(0..32).collect());
    assert_eq!(core.rate(), Some(32.0));
    // In small steps and at once, as when a node joins: every step counts.
    (32..64).for_each(|slot| core.hold(&[slot].into_iter().collect()));
    assert_eq!(core.rate(), Some(64.0));
    core.reconfigure(settings(), NonZeroU32::new(512));
    assert_eq!(core.rate(), Some(128.0));
    core.release(&(1..64).collect());
    assert_eq!(core.rate(), Some(2.0));
    core.hold(&Slots::ALL);
    assert_eq!(core.rate(), Some(512.0));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_share_the_rate_exceed_it_together_by_no_more_than_a_small_burst() {
    let wall = TestWall::new();
    let mut nodes: Vec<Core> = (0..3)
        .map(|_| {
            let mut core = Core::new(settings(), NonZeroU32::new(100), Clock::new(wall.clone()), 7);
            core.release(&Slots::ALL);
            core
        })
        .collect();
    let parts = |n: usize| -> Vec<Slots> {
        (0..3).map(|node| (0..=u8::MAX).filter(|slot| usize::from(*slot) % n == node).collect()).collect()
    };
    let mut seconds = Vec::new();
    // One node, two, three, one again: each has its share, and more PINs are due than may be polled.
    for count in [1, 2, 3, 1] {
        for (core, slots) in nodes.iter_mut().zip(parts(count)) {
            core.release(&Slots::ALL.without(&slots));
            core.hold(&slots);
            (0..4000).for_each(|n| submit(core, &format!("P{n}"), 600 * MINUTE));
        }
        for _ in 0..5 {
            let mut polls = 0;
            for _ in 0..1000 {
                advance(Duration::from_millis(1)).await;
                for core in &mut nodes {
                    while let Ok(ticket) = core.next_poll() {
                        polls += 1;
                        core.answered(ticket, waiting());
                    }
                }
            }
            seconds.push(polls);
        }
    }
    assert!(seconds.iter().all(|polls| *polls <= 130), "{seconds:?}");
    // In the first second of each step, the PINs that were taken in are not due yet.
    let settled = seconds.chunks(5).flat_map(|chunk| &chunk[1..]);
    assert!(settled.into_iter().all(|polls| *polls >= 95), "{seconds:?}");
}

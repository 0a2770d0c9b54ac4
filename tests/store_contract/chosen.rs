//! Commands about some outcomes and not their neighbours, and which outcomes a sink does not have.

use jiff::Timestamp;
use pinwatch::store::{DeliveryCommand, Seqs};

use super::deliveries::{GIVEN_UP_AT, command, cursor, dead, failed, given_up, missing, retry};
use super::place::{Node, Place};

crate::promises! {
    a_replay_of_listed_outcomes_leaves_those_between_them_alone
    dead_letters_that_are_listed_are_replayed_or_dropped_and_no_others
    a_command_about_no_outcome_does_nothing
    a_sink_lacks_what_it_still_has_to_get_and_its_dead_letters
}

const SINK: &str = "s";

fn replay(seqs: &[i64], only_dead: bool) -> DeliveryCommand {
    DeliveryCommand::Replay { sink: SINK.into(), seqs: Seqs::Each(seqs.to_vec()), only_dead }
}

fn drop(seqs: &[i64]) -> DeliveryCommand {
    let at = Timestamp::from_millisecond(GIVEN_UP_AT).unwrap();
    DeliveryCommand::Drop { sink: SINK.into(), seqs: Seqs::Each(seqs.to_vec()), at }
}

/// A node with outcomes in the order of `seq`, all of which the sink has.
async fn delivered(place: &Place, count: usize) -> (Node, Vec<i64>) {
    let mut node = place.node().await;
    node.writes.register_sink(SINK, true).await.unwrap();
    let mut seqs = Vec::new();
    for n in 0..count {
        seqs.extend(node.submit_and_finish(&[&format!("P{n}")]).await);
    }
    node.advance(cursor(SINK, seqs[count - 1])).await;
    (node, seqs)
}

async fn a_replay_of_listed_outcomes_leaves_those_between_them_alone(place: Place) {
    let (mut node, seqs) = delivered(&place, 4).await;
    let late = node.submit_and_finish(&["LATE"]).await[0];
    let wanted = [seqs[3], seqs[0], late, late + 1000];
    assert_eq!(command(&mut node, replay(&wanted, false)).await, 2, "one is on its way, one does not exist");
    assert_eq!(missing(&node, SINK, false).await, [seqs[0], seqs[3]]);
    assert_eq!(command(&mut node, replay(&wanted, false)).await, 2, "once more does no harm");
    assert_eq!(missing(&node, SINK, false).await, [seqs[0], seqs[3]]);
}

async fn dead_letters_that_are_listed_are_replayed_or_dropped_and_no_others(place: Place) {
    let (mut node, seqs) = delivered(&place, 6).await;
    let letters: Vec<_> = seqs[..5].iter().map(|seq| dead(*seq)).collect();
    node.advance(failed(SINK, &letters)).await;
    assert_eq!(command(&mut node, drop(&[seqs[0], seqs[2], seqs[5]])).await, 2);
    assert_eq!(command(&mut node, drop(&[seqs[0], seqs[2], seqs[5]])).await, 0, "once more does no harm");
    assert_eq!(missing(&node, SINK, true).await, [seqs[1], seqs[3], seqs[4]]);
    for (seq, at) in [(seqs[0], Some(GIVEN_UP_AT)), (seqs[1], None), (seqs[2], Some(GIVEN_UP_AT))] {
        assert_eq!(given_up(&node, seq).await, [(SINK.to_owned(), at)]);
    }
    assert_eq!(command(&mut node, replay(&[seqs[0], seqs[1], seqs[4]], true)).await, 2);
    assert_eq!(missing(&node, SINK, true).await, [seqs[3]]);
    assert_eq!(missing(&node, SINK, false).await, [seqs[1], seqs[4]]);
    assert_eq!(
        command(&mut node, replay(&[seqs[0]], false)).await,
        1,
        "what was dropped is delivered after all"
    );
    assert_eq!(given_up(&node, seqs[0]).await, [(SINK.to_owned(), None)]);
    assert_eq!(given_up(&node, seqs[2]).await, [(SINK.to_owned(), Some(GIVEN_UP_AT))]);
}

async fn a_command_about_no_outcome_does_nothing(place: Place) {
    let (mut node, seqs) = delivered(&place, 2).await;
    node.advance(failed(SINK, &[dead(seqs[0])])).await;
    for nothing in [replay(&[], false), replay(&[], true), drop(&[])] {
        assert_eq!(command(&mut node, nothing).await, 0);
    }
    assert_eq!(missing(&node, SINK, true).await, [seqs[0]]);
}

async fn a_sink_lacks_what_it_still_has_to_get_and_its_dead_letters(place: Place) {
    let (mut node, seqs) = delivered(&place, 4).await;
    node.writes.register_sink("t", true).await.unwrap();
    let late = node.submit_and_finish(&["LATE"]).await[0];
    node.advance(failed(SINK, &[dead(seqs[0]), retry(seqs[1]), dead(seqs[2])])).await;
    assert_eq!(command(&mut node, drop(&[seqs[2]])).await, 1);
    let asked = [late, seqs[3], seqs[2], seqs[1], seqs[0]];
    let lacking = async |sink, asked: &[i64]| {
        let mut lacking = node.store.lacking(sink, asked).await.unwrap();
        lacking.sort_unstable();
        lacking
    };
    assert_eq!(lacking(SINK, &asked).await, [seqs[0], seqs[1], late], "it has one, and one was dropped");
    assert_eq!(
        lacking("t", &asked).await,
        [seqs[0], seqs[1], seqs[2], seqs[3], late],
        "it begins at the oldest"
    );
    assert_eq!(lacking("none", &asked).await, [0; 0]);
    assert_eq!(lacking("' OR 1=1 --", &asked).await, [0; 0]);
    assert_eq!(lacking(SINK, &[seqs[0]]).await, [seqs[0]], "only of what is asked about");
    assert_eq!(lacking(SINK, &[]).await, [0; 0]);
}

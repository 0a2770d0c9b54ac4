//! Takeover: nodes take their shares of a dead node's slots at the same time, and read their PINs.

use pinwatch::pin::PinId;
use pinwatch::slot::{Slots, slot_of};

use super::place::{node_at, pin};
use crate::support::postgres::Postgres;

#[tokio::test]
async fn nodes_that_take_slots_of_a_dead_node_at_the_same_time_all_get_their_share() {
    let Some(server) = Postgres::shared() else { return };
    let database = server.database();
    let _dead = node_at(&database.url(), "dead", &Slots::ALL).await;
    let mut nodes = Vec::new();
    for name in ["a", "b", "c", "d"] {
        nodes.push(node_at(&database.url(), name, &Slots::NONE).await);
    }
    database.execute("UPDATE node SET lease_until = now() - interval '1 second' WHERE name = 'dead'");
    let taking = nodes.into_iter().zip(0u8..).map(|(mut node, place)| {
        tokio::spawn(async move {
            let part: Slots = (0..=u8::MAX).filter(|slot| slot % 4 == place).collect();
            (node.membership().take(&part).await.unwrap(), part)
        })
    });
    for taking in taking.collect::<Vec<_>>() {
        let (taken, part) = taking.await.unwrap();
        assert_eq!(taken, part);
    }
}

#[tokio::test]
async fn each_pin_of_the_chosen_slots_is_read_once_even_if_a_page_ends_within_a_slot() {
    let Some(server) = Postgres::shared() else { return };
    let database = server.database();
    let mut node = node_at(&database.url(), "a", &Slots::ALL).await;
    // Some pages of them, each of which ends in the midst of a slot.
    let ids: Vec<String> = (0..20_000).map(|n| format!("P{n}")).collect();
    node.submit(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let odd: Slots = (0..=u8::MAX).filter(|slot| slot % 2 == 1).collect();
    let all = ids.iter().map(|id| pin(id)).filter(|pin| odd.holds(pin));
    let mut all: Vec<(u8, PinId)> = all.map(|pin| (slot_of(&pin), pin)).collect();
    all.sort_unstable();
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let page = node.membership().questions().in_flight_of(&odd, after.as_ref()).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.pin.clone());
        read.extend(page.into_iter().map(|found| (slot_of(&found.pin), found.pin)));
    }
    assert!(read == all, "{} of {} were read", read.len(), all.len());
}

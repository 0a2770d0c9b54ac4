//! Tests the plans of nodes that join, leave and look at different times, against a database that decides conflicts.

use proptest::prelude::*;

use super::*;

/// The tables: which nodes are alive, and which node holds each slot.
#[derive(Debug, Clone)]
struct Database {
    live: Vec<NodeId>,
    holders: Holders,
}

impl Database {
    fn new(live: impl IntoIterator<Item = NodeId>) -> Self {
        Self { live: live.into_iter().collect(), holders: [None; SLOTS] }
    }

    fn plan(&self, me: NodeId) -> Plan {
        plan(me, &self.live, &self.holders)
    }

    /// Carries out a node's plan as far as the database allows it now; the node may have looked at older tables.
    fn carry_out(&mut self, me: NodeId, plan: &Plan) {
        for slot in plan.take.iter() {
            let holder = &mut self.holders[usize::from(slot)];
            if holder.is_none_or(|node| !self.live.contains(&node)) {
                *holder = Some(me);
            }
        }
        for slot in plan.give.iter() {
            let holder = &mut self.holders[usize::from(slot)];
            assert_eq!(*holder, Some(me), "a node gives what it has");
            *holder = None;
        }
    }

    /// Every node looks at the same tables, then each one acts.
    fn round(&mut self) {
        let seen = self.clone();
        for node in seen.live.iter().copied() {
            self.carry_out(node, &seen.plan(node));
        }
    }

    /// How many slots each living node holds.
    fn counts(&self) -> Vec<usize> {
        let count = |node: &NodeId| self.holders.iter().filter(|holder| **holder == Some(*node)).count();
        self.live.iter().map(count).collect()
    }

    fn is_balanced(&self) -> bool {
        let counts = self.counts();
        counts.iter().sum::<usize>() == SLOTS
            && counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1
    }
}

#[test]
fn a_lone_node_takes_all_slots_and_a_second_one_gets_half_in_two_rounds() {
    let mut database = Database::new([7]);
    database.round();
    assert_eq!(database.counts(), [256]);
    database.live.push(3);
    database.round();
    assert_eq!(database.counts(), [128, 0], "the second one can't take what is not given yet");
    database.round();
    assert_eq!(database.counts(), [128, 128]);
}

#[test]
fn living_nodes_share_the_slots_of_a_dead_one_evenly_at_once() {
    let mut database = Database::new([1, 2, 3]);
    database.round();
    assert_eq!(database.counts(), [86, 85, 85]);
    let before = database.clone();
    database.live.remove(0);
    database.round();
    assert_eq!(database.counts(), [128, 128]);
    let moved = database.holders.iter().zip(before.holders).filter(|(now, then)| **now != *then).count();
    assert_eq!(moved, 86, "nothing moves but what has to");
}

#[test]
fn a_node_that_is_not_alive_wants_nothing() {
    let database = Database::new([1, 2]);
    assert_eq!(database.plan(3), Plan::default());
}

#[test]
fn only_one_of_two_nodes_with_too_large_a_share_gives_slots_away() {
    let mut database = Database::new([1, 2, 3]);
    for (slot, holder) in database.holders.iter_mut().enumerate() {
        *holder = Some(if slot < 86 {
            1
        } else if slot < 172 {
            2
        } else {
            3
        });
    }
    assert_eq!(database.counts(), [86, 86, 84]);
    database.round();
    database.round();
    assert_eq!(database.counts(), [86, 85, 85]);
}

/// Any nodes, alive or dead, with or without slots.
fn any_database() -> impl Strategy<Value = Database> {
    let live = prop::collection::btree_set(0..12, 1..9);
    let holders = prop::collection::vec(prop::option::of(0..12), SLOTS);
    (live, holders).prop_map(|(live, holders)| {
        let mut database = Database::new(live);
        database.holders.copy_from_slice(&holders);
        database
    })
}

proptest! {
    #[test]
    fn in_two_rounds_every_slot_is_held_and_shares_are_even(mut database in any_database()) {
        database.round();
        database.round();
        prop_assert!(database.is_balanced(), "{:?}", database.counts());
    }

    #[test]
    fn no_slot_moves_when_shares_are_even(mut database in any_database()) {
        database.round();
        database.round();
        for node in database.live.clone() {
            prop_assert_eq!(database.plan(node), Plan::default());
        }
    }

    #[test]
    fn no_node_takes_a_living_nodes_slot_and_no_two_take_the_same(database in any_database()) {
        let mut wanted = Slots::NONE;
        for node in database.live.clone() {
            let plan = database.plan(node);
            prop_assert!(plan.take.iter().all(|slot| !wanted.contains(slot)));
            wanted = wanted.union(&plan.take);
            let of_living = |slot: u8| database.holders[usize::from(slot)].is_some_and(|n| database.live.contains(&n));
            prop_assert!(!plan.take.iter().any(of_living));
            prop_assert!(plan.give.iter().all(|slot| database.holders[usize::from(slot)] == Some(node)));
            prop_assert!(plan.give.is_empty() || plan.take.is_empty());
        }
    }

    /// Each node acts on an old view of its own while nodes join and die; then nothing changes any more.
    #[test]
    fn after_any_changes_of_nodes_a_few_rounds_make_shares_even(
        mut database in any_database(),
        steps in prop::collection::vec((0..12i32, 0..3u8), 0..60),
    ) {
        let mut plans: BTreeMap<NodeId, Plan> = BTreeMap::new();
        for (node, step) in steps {
            match step {
                0 if database.live.contains(&node) => {
                    if database.live.len() > 1 {
                        database.live.retain(|other| *other != node);
                    }
                }
                0 => database.live.push(node),
                1 => {
                    plans.insert(node, database.plan(node));
                }
                _ => {
                    // What it gives must still be its own: a node that died meanwhile begins anew.
                    if let Some(mut plan) = plans.remove(&node).filter(|_| database.live.contains(&node)) {
                        let own = |slot: &u8| database.holders[usize::from(*slot)] == Some(node);
                        plan.give = plan.give.iter().filter(own).collect();
                        database.carry_out(node, &plan);
                    }
                }
            }
        }
        for _ in 0..3 {
            database.round();
        }
        prop_assert!(database.is_balanced(), "{:?}", database.counts());
    }
}

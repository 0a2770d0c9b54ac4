//! Simulates several nodes on one database that fails at times, on a clock that the tests move. Checks at every step that
//! no two nodes can poll the same PIN.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::{Holders, NodeState};
use super::*;
use crate::pin::PinId;
use crate::schedule::{Ask, Event, SlotEvent, Stats};
use crate::slot::{SLOTS, slot_of};
use crate::store::{InFlight, Orphan};

const LEASE: Duration = Duration::from_secs(6);
const PINS: usize = 1000;

/// The tables.
struct Tables {
    leases: BTreeMap<NodeId, (u32, Instant)>,
    holders: Holders,
    /// Nodes that can't reach the database.
    cut: BTreeSet<NodeId>,
    /// Nodes whose queries the database does not answer.
    silent: BTreeSet<NodeId>,
    /// How many times a node finds its wanted slots locked by another node.
    busy: usize,
    /// How long a page of PINs takes to read.
    page: Duration,
    /// How many outcomes of dead nodes are not delivered yet.
    orphans: HashMap<Orphan, u64>,
    /// Identifies the run of the server.
    server: i64,
    pages_read: usize,
}

/// What a node's schedule would poll.
#[derive(Default)]
struct Polls {
    held: Slots,
    until: Option<Instant>,
    pins: BTreeSet<PinId>,
}

#[derive(Clone)]
struct Simulation {
    tables: Arc<Mutex<Tables>>,
    polls: Arc<Mutex<BTreeMap<NodeId, Polls>>>,
    states: Arc<Mutex<BTreeMap<NodeId, watch::Receiver<State>>>>,
}

struct Connection {
    id: NodeId,
    fence: u32,
    simulation: Simulation,
}

impl Connection {
    async fn tables<T>(&self, act: impl FnOnce(&mut Tables) -> T) -> Result<T, Unavailable> {
        sleep(Duration::from_millis(3)).await;
        while self.simulation.tables(|tables| tables.silent.contains(&self.id)) {
            sleep(Duration::from_millis(3)).await;
        }
        let mut tables = self.simulation.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.cut.contains(&self.id) {
            return Err(Unavailable("cut off".into()));
        }
        Ok(act(&mut tables))
    }
}

impl Tables {
    fn lives(&self, node: NodeId) -> bool {
        self.leases.get(&node).is_some_and(|(_, until)| *until > Instant::now())
    }
}

impl Registry for Connection {
    async fn register(&mut self) -> Result<Registration, Unavailable> {
        let id = self.id;
        let fence = self
            .tables(|tables| {
                let lease = tables.leases.entry(id).or_insert((0, Instant::now()));
                let left = lease.1.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    return Err(left);
                }
                *lease = (lease.0 + 1, Instant::now() + LEASE);
                Ok(lease.0)
            })
            .await?;
        Ok(match fence {
            Ok(fence) => {
                self.fence = fence;
                Registration::As(id)
            }
            Err(left) => Registration::Taken(left),
        })
    }

    async fn renew(&mut self, _: &NodeReport) -> Result<Renewal, Unavailable> {
        let (id, fence) = (self.id, self.fence);
        let act = |tables: &mut Tables| match tables.leases.get_mut(&id) {
            Some(lease) if lease.0 == fence => {
                lease.1 = Instant::now() + LEASE;
                Renewal::Runs
            }
            _ => Renewal::Fenced,
        };
        self.tables(act).await
    }

    async fn look(&mut self) -> Result<View, Unavailable> {
        self.tables(|tables| {
            let slots = |id| {
                (0..=u8::MAX).filter(|slot| tables.holders[usize::from(*slot)] == Some(id)).collect::<Slots>()
            };
            let seen = |(id, (_, until)): (&NodeId, &(u32, Instant))| NodeState {
                id: *id,
                name: id.to_string(),
                lease_left: until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()),
                version: String::new(),
                report: NodeReport::default(),
                slots: slots(*id),
            };
            View { nodes: tables.leases.iter().map(seen).collect() }
        })
        .await
    }

    fn server(&self) -> Option<i64> {
        Some(self.simulation.tables(|tables| tables.server))
    }

    async fn take(&mut self, slots: &Slots) -> Result<Slots, Unavailable> {
        let id = self.id;
        self.tables(|tables| {
            if tables.busy > 0 {
                tables.busy -= 1;
                return Slots::NONE;
            }
            let free = |slot: &u8| tables.holders[usize::from(*slot)].is_none_or(|node| !tables.lives(node));
            let taken: Slots = slots.iter().filter(free).collect();
            taken.iter().for_each(|slot| tables.holders[usize::from(slot)] = Some(id));
            taken
        })
        .await
    }

    async fn give(&mut self, slots: &Slots) -> Result<(), Unavailable> {
        let id = self.id;
        self.tables(|tables| {
            for slot in slots.iter().map(usize::from) {
                assert_eq!(tables.holders[slot], Some(id));
                tables.holders[slot] = None;
            }
        })
        .await
    }

    async fn page(&mut self, slots: &Slots, after: Option<&PinId>) -> Result<Vec<InFlight>, Unavailable> {
        let read = |tables: &mut Tables| {
            tables.pages_read += 1;
            tables.page
        };
        let page = self.tables(read).await?;
        sleep(page).await;
        let place = |pin: &PinId| (slot_of(pin), pin.clone());
        let mut pins: Vec<PinId> = (0..PINS).map(|n| format!("P{n}").parse().unwrap()).collect();
        pins.retain(|pin| slots.holds(pin) && after.is_none_or(|after| place(pin) > place(after)));
        pins.sort_by_key(place);
        pins.truncate(100);
        let (submitted_at, deadline_at) = (jiff::Timestamp::UNIX_EPOCH.into(), jiff::Timestamp::MAX);
        Ok(pins.into_iter().map(|pin| InFlight { pin, submitted_at, deadline_at }).collect())
    }

    fn claim(&mut self, slots: &Slots) {
        self.simulation.polls(|polls| {
            let pins =
                polls.get(&self.id).map_or(0, |polls| polls.pins.iter().filter(|p| slots.holds(p)).count());
            let all = (0..PINS).filter(|n| slots.holds(&format!("P{n}").parse().unwrap())).count();
            assert_eq!(pins, all, "what is claimed is loaded");
        });
    }

    async fn settle(&mut self) -> Result<(), Unavailable> {
        self.tables(|_| ()).await
    }

    async fn orphans(&mut self) -> Result<Vec<Orphan>, Unavailable> {
        self.tables(|tables| tables.orphans.keys().cloned().collect()).await
    }

    async fn adopt(&mut self, orphan: &Orphan) -> Result<u64, Unavailable> {
        sleep(LEASE / 4).await;
        let some = |tables: &mut Tables| {
            let left = tables.orphans.get_mut(orphan)?;
            let some = (*left).min(5000);
            *left -= some;
            if some == 0 {
                tables.orphans.remove(orphan);
            }
            Some(some)
        };
        Ok(self.tables(some).await?.unwrap_or(0))
    }
}

impl Simulation {
    fn new() -> Self {
        let tables = Tables {
            leases: BTreeMap::new(),
            holders: [None; SLOTS],
            cut: BTreeSet::new(),
            silent: BTreeSet::new(),
            busy: 0,
            page: Duration::ZERO,
            orphans: HashMap::new(),
            server: 1,
            pages_read: 0,
        };
        Self { tables: Arc::new(Mutex::new(tables)), polls: Arc::default(), states: Arc::default() }
    }

    fn tables<T>(&self, act: impl FnOnce(&mut Tables) -> T) -> T {
        act(&mut self.tables.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn polls<T>(&self, act: impl FnOnce(&mut BTreeMap<NodeId, Polls>) -> T) -> T {
        act(&mut self.polls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts a node. Dropping the returned value kills it like `kill -9`.
    async fn start(&self, id: NodeId) -> JoinSet<()> {
        let mut connection = Connection { id, fence: 0, simulation: self.clone() };
        let registered = Instant::now();
        assert_eq!(connection.register().await.unwrap(), Registration::As(id));
        let (schedule, _inbox, events) = Schedule::channel();
        let (state, seen) = watch::channel(State::default());
        self.states.lock().unwrap().insert(id, seen);
        let task = Task {
            registry: connection,
            schedule,
            lease: LEASE,
            hints: Hints::default(),
            state,
            stop: CancellationToken::new(),
            finish: CancellationToken::new(),
        };
        let mut node = JoinSet::new();
        node.spawn(listen(self.clone(), id, events));
        node.spawn(task.run(id, registered));
        node
    }

    fn kill(&self, id: NodeId, node: JoinSet<()>) {
        drop(node);
        self.polls(|polls| polls.remove(&id));
    }

    /// How many slots each node polls; 0 without a lease.
    fn polled(&self) -> Vec<usize> {
        let now = Instant::now();
        let runs = |polls: &Polls| polls.until.is_some_and(|until| until > now);
        self.polls(|all| all.values().map(|p| if runs(p) { p.held.len() } else { 0 }).collect())
    }

    /// PINs that are in some schedule.
    fn known(&self) -> usize {
        self.polls(|all| all.values().map(|polls| polls.pins.len()).sum())
    }

    fn state(&self, id: NodeId) -> State {
        self.states.lock().unwrap()[&id].borrow().clone()
    }

    /// Lets time pass, and checks at each step that no two nodes can poll the same PIN.
    async fn pass(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(Duration::from_millis(5)).await;
            let now = Instant::now();
            self.polls(|all| {
                let mut polled = Slots::NONE;
                for polls in all.values().filter(|polls| polls.until.is_some_and(|until| until > now)) {
                    assert_eq!(polled.without(&polls.held), polled, "two nodes poll the same");
                    polled = polled.union(&polls.held);
                }
            });
        }
    }
}

/// Does what a schedule does with slot events.
async fn listen(simulation: Simulation, id: NodeId, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        simulation.polls(|all| {
            let polls = all.entry(id).or_default();
            match event {
                Event::Slots(SlotEvent::Hold(slots)) => polls.held = polls.held.union(&slots),
                Event::Slots(SlotEvent::Resume(pins)) => {
                    polls
                        .pins
                        .extend(pins.into_iter().map(|pin| pin.pin).filter(|pin| polls.held.holds(pin)));
                }
                Event::Slots(SlotEvent::Release(slots, done)) => {
                    polls.held = polls.held.without(&slots);
                    polls.pins.retain(|pin| !slots.holds(pin));
                    let _ = done.send(());
                }
                Event::Slots(SlotEvent::Lease(until)) => polls.until = Some(until),
                Event::Ask(Ask::Stats(reply)) => {
                    let _ = reply.send(Stats { in_flight: polls.pins.len(), ..Stats::default() });
                }
                _ => panic!("nobody else asks"),
            }
        });
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test(start_paused = true)]
async fn nodes_share_the_slots_and_take_over_those_of_a_killed_one_a_second_after_its_lease() {
    let simulation = Simulation::new();
    let first = simulation.start(1).await;
    simulation.pass(seconds(1)).await;
    assert_eq!((simulation.polled(), simulation.known()), (vec![256], PINS));
    assert!(simulation.state(1).ready);
    let _others = [simulation.start(2).await, simulation.start(3).await];
    simulation.pass(seconds(6)).await;
    assert_eq!((simulation.polled(), simulation.known()), (vec![86, 85, 85], PINS));
    simulation.kill(1, first);
    simulation.pass(LEASE + seconds(1)).await;
    assert_eq!((simulation.polled(), simulation.known()), (vec![128, 128], PINS));
    assert_eq!(simulation.state(2).nodes, 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_stops_polling_before_others_begin_and_rejoins_later() {
    let simulation = Simulation::new();
    let _nodes = [simulation.start(1).await, simulation.start(2).await];
    simulation.pass(seconds(6)).await;
    simulation.tables(|tables| tables.cut.insert(1));
    simulation.pass(LEASE + seconds(1)).await;
    assert_eq!(simulation.polled(), [0, 256]);
    let State { lost, trouble, .. } = simulation.state(1);
    assert_eq!((lost, trouble.is_some()), (1, true));
    simulation.tables(|tables| tables.cut.clear());
    simulation.pass(seconds(6)).await;
    assert_eq!((simulation.polled(), simulation.known()), (vec![128, 128], PINS));
    assert!(simulation.state(1).trouble.is_none());
}

#[tokio::test(start_paused = true)]
async fn slots_locked_by_another_node_are_tried_again_within_a_second() {
    let simulation = Simulation::new();
    let first = simulation.start(1).await;
    let _others = [simulation.start(2).await, simulation.start(3).await];
    simulation.pass(seconds(6)).await;
    simulation.tables(|tables| tables.busy = 6);
    simulation.kill(1, first);
    simulation.pass(LEASE + seconds(1)).await;
    assert_eq!((simulation.polled(), simulation.tables(|tables| tables.busy)), (vec![128, 128], 0));
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_database_hangs_reports_the_end_of_its_lease_in_time() {
    let simulation = Simulation::new();
    let _nodes = [simulation.start(1).await, simulation.start(2).await];
    simulation.pass(seconds(6)).await;
    simulation.tables(|tables| tables.silent.insert(1));
    simulation.pass(LEASE).await;
    assert_eq!((simulation.state(1).lost, simulation.state(1).trouble.is_some()), (1, true));
    simulation.tables(|tables| tables.silent.clear());
    simulation.pass(seconds(6)).await;
    assert_eq!((simulation.polled(), simulation.state(1).lost), (vec![128, 128], 1));
    assert!(simulation.state(1).trouble.is_none());
}

#[tokio::test(start_paused = true)]
async fn all_nodes_stop_polling_while_all_are_cut_off_and_continue_afterwards() {
    let simulation = Simulation::new();
    let _nodes = [simulation.start(1).await, simulation.start(2).await, simulation.start(3).await];
    simulation.pass(seconds(6)).await;
    simulation.tables(|tables| tables.cut.extend([1, 2, 3]));
    simulation.pass(seconds(60)).await;
    assert_eq!(simulation.polled(), [0, 0, 0]);
    simulation.tables(|tables| tables.cut.clear());
    simulation.pass(seconds(6)).await;
    assert_eq!(simulation.known(), PINS);
    assert!(simulation.polled().iter().all(|slots| (85..=86).contains(slots)), "{:?}", simulation.polled());
}

#[tokio::test(start_paused = true)]
async fn a_short_network_failure_costs_no_slot_and_no_lease() {
    let simulation = Simulation::new();
    let _nodes = [simulation.start(1).await, simulation.start(2).await];
    simulation.pass(seconds(6)).await;
    simulation.tables(|tables| tables.cut.insert(1));
    simulation.pass(seconds(3)).await;
    simulation.tables(|tables| tables.cut.clear());
    simulation.pass(seconds(3)).await;
    assert_eq!((simulation.polled(), simulation.state(1).lost), (vec![128, 128], 0));
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_renewed_while_pins_are_read_for_a_long_time() {
    let simulation = Simulation::new();
    simulation.tables(|tables| tables.page = seconds(3));
    let _node = simulation.start(1).await;
    simulation.pass(seconds(40)).await;
    assert_eq!((simulation.polled(), simulation.known(), simulation.state(1).lost), (vec![256], PINS, 0));
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_renewed_while_a_node_adopts_the_outcomes_of_dead_nodes() {
    let simulation = Simulation::new();
    let left = |node, sink: &str| Orphan { node, sink: sink.into() };
    simulation.tables(|tables| {
        tables.orphans.extend([(left(7, "a"), 23_000), (left(7, "b"), 0), (left(8, "a"), 1)]);
    });
    let _node = simulation.start(1).await;
    simulation.pass(seconds(30)).await;
    assert!(simulation.tables(|tables| tables.orphans.is_empty()));
    assert_eq!((simulation.polled(), simulation.state(1).lost), (vec![256], 0));
}

#[tokio::test(start_paused = true)]
async fn pins_are_read_again_when_another_server_answers() {
    let simulation = Simulation::new();
    let _nodes = [simulation.start(1).await, simulation.start(2).await];
    simulation.pass(seconds(6)).await;
    let read = |simulation: &Simulation| simulation.tables(|tables| std::mem::take(&mut tables.pages_read));
    read(&simulation);
    simulation.pass(seconds(6)).await;
    assert_eq!(read(&simulation), 0, "nothing is read without need");
    simulation.tables(|tables| tables.server = 2);
    simulation.pass(seconds(6)).await;
    // Pages of a hundred, and for each node one that is empty.
    assert_eq!(read(&simulation), PINS / 100 + 2);
    assert_eq!((simulation.polled(), simulation.known()), (vec![128, 128], PINS));
}

#[tokio::test(start_paused = true)]
async fn a_node_polls_nothing_while_another_process_has_its_name() {
    let simulation = Simulation::new();
    let _node = simulation.start(1).await;
    simulation.pass(seconds(3)).await;
    // The other one registered while this one was stopped; its lease runs for a minute.
    simulation.tables(|tables| tables.leases.insert(1, (9, Instant::now() + seconds(60))));
    simulation.pass(seconds(10)).await;
    assert_eq!((simulation.polled(), simulation.known()), (vec![0], 0));
    assert!(simulation.state(1).trouble.unwrap().what.contains("cluster.node"));
    simulation.pass(seconds(60)).await;
    assert_eq!((simulation.polled(), simulation.known()), (vec![256], PINS));
}

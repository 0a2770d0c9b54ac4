//! Where a store is, and a node that has it open.

use std::time::Duration;

use jiff::Timestamp;
use pinwatch::clock::{Clock, Dated};
use pinwatch::outcome::{Ending, Verdict};
use pinwatch::pin::PinId;
use pinwatch::slot::Slots;
use pinwatch::store::postgres::{self as server, Membership, NodeReport, Registration, Renewal};
use pinwatch::store::{
    self, Applied, ClusterApplied, ClusterWork, NewPin, Outcome, Progress, Store, Submitted, Transaction,
    Writes,
};
use tempfile::TempDir;

use crate::support::postgres::{Database, Postgres};

/// Long: no test renews it but on purpose.
const LEASE: Duration = Duration::from_secs(60);

pub enum Place {
    Sqlite(TempDir),
    Postgres(Database),
}

/// One that has the store open. On PostgreSQL the first one of a place holds all slots.
pub struct Node {
    pub store: Store,
    pub writes: Box<dyn Writes>,
    pub membership: Option<Membership>,
}

impl Place {
    pub fn sqlite() -> Self {
        Self::Sqlite(TempDir::new().unwrap())
    }

    /// `None` without a server, which was reported.
    pub fn postgres() -> Option<Self> {
        Postgres::shared().map(|server| Self::Postgres(server.database()))
    }

    pub async fn node(&self) -> Node {
        match self {
            Self::Sqlite(folder) => {
                let (store, writes) = store::open_sqlite(&folder.path().join("db"), &Clock::system())
                    .await
                    .unwrap()
                    .load(|_| {})
                    .await
                    .unwrap();
                Node { store, writes, membership: None }
            }
            Self::Postgres(database) => node_at(&database.url(), "a", &Slots::ALL).await,
        }
    }
}

/// A node of a name, with those of the slots that it gets.
pub async fn node_at(url: &str, name: &str, slots: &Slots) -> Node {
    node_with_lease(url, name, slots, LEASE).await
}

pub async fn node_with_lease(url: &str, name: &str, slots: &Slots, lease: Duration) -> Node {
    let url = format!("{url}?sslmode=disable").into();
    let mut membership = server::open(&url, "shown", name.into(), lease, &Clock::system()).await.unwrap();
    assert!(matches!(membership.register().await.unwrap(), Registration::As(_)));
    membership.take(slots).await.unwrap();
    let (store, writes) = membership.store().await.unwrap();
    Node { store, writes, membership: Some(membership) }
}

impl Node {
    pub fn membership(&mut self) -> &mut Membership {
        self.membership.as_mut().unwrap()
    }

    /// Renews the lease; whether it runs.
    pub async fn renew(&mut self) -> bool {
        self.membership().renew(&NodeReport::default()).await.unwrap() == Renewal::Runs
    }

    pub async fn apply(&mut self, work: Transaction) -> Applied {
        self.writes.apply(&work, usize::MAX).await.unwrap()
    }

    /// Only changes that concern other nodes.
    pub async fn apply_cluster(&mut self, cluster: ClusterWork) -> ClusterApplied {
        self.apply(Transaction { cluster, ..Transaction::default() }).await.cluster
    }

    /// Fetches what other nodes left for any slot.
    pub async fn claim(&mut self) -> Applied {
        self.apply(Transaction { cluster: claim(), ..Transaction::default() }).await
    }

    pub async fn submit(&mut self, pins: &[&str]) -> Vec<Submitted> {
        self.apply(submits(pins)).await.submitted
    }

    /// The PINs end; gives their outcomes.
    pub async fn finish(&mut self, pins: &[&str]) -> Vec<Outcome> {
        self.apply(verdicts(pins)).await.finished
    }

    /// They come and end; gives the `seq` of each.
    pub async fn submit_and_finish(&mut self, pins: &[&str]) -> Vec<i64> {
        self.submit(pins).await;
        let mut outcomes = self.finish(pins).await;
        assert_eq!(outcomes.len(), pins.len());
        outcomes.sort_by_key(|outcome| pins.iter().position(|pin| *pin == outcome.pin.as_str()));
        outcomes.iter().map(|outcome| outcome.seq).collect()
    }

    pub async fn advance(&mut self, progress: Progress) {
        self.apply(Transaction { progress: vec![progress], ..Transaction::default() }).await;
    }
}

/// A claim of what other nodes left for any slot.
pub fn claim() -> ClusterWork {
    ClusterWork { claim: Some(Slots::ALL), ..ClusterWork::default() }
}

pub fn submits(pins: &[&str]) -> Transaction {
    Transaction { submits: pins.iter().map(|id| new(id)).collect(), ..Transaction::default() }
}

pub fn verdicts(pins: &[&str]) -> Transaction {
    Transaction { verdicts: pins.iter().map(|id| verdict(id)).collect(), ..Transaction::default() }
}

pub fn pin(id: &str) -> PinId {
    id.parse().unwrap()
}

pub fn new(id: &str) -> NewPin {
    NewPin {
        pin: pin(id),
        reference: None,
        metadata: None,
        // The wall clock was an hour fast then.
        submitted_at: Dated::with_ahead("2026-01-02T03:04:05.006Z".parse().unwrap(), 3_600_000),
        deadline_at: "2026-01-04T03:04:05.006Z".parse().unwrap(),
        submitter: None,
        again: false,
    }
}

pub fn verdict(id: &str) -> Verdict {
    Verdict {
        pin: pin(id),
        ending: Ending::Final,
        deliveries: None,
        error: None,
        polls: 1,
        finished_at: "2026-01-02T03:05:00Z".parse::<Timestamp>().unwrap().into(),
    }
}

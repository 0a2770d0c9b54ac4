//! The shared tables in PostgreSQL, as the cluster asks for them.
//!
//! Promises that nothing which the lease waits for takes longer than a third of it: what the writer does not answer
//! in that time is looked for again at the next look.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{Hints, Holders, Registered, Registry, Renewed, Report, Seen, Shared, View};
use crate::pin::PinId;
use crate::sinks::Health;
use crate::slot::{SLOTS, Slots};
use crate::store::postgres::{Hint, Membership, NodeRow, Questions, Registration};
use crate::store::{Fate, InFlight, Orphan, Unavailable, Writer};

/// How long after an error it is listened again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// This node's way to the tables.
pub struct Postgres {
    pub membership: Membership,
    pub questions: Questions,
    pub writer: Writer,
    /// Knows which sinks there are now.
    pub health: Health,
    pub lease: Duration,
}

impl Postgres {
    /// An answer that the lease must not wait for any longer.
    async fn soon<T>(&self, answer: impl Future<Output = Result<T, Unavailable>>) -> Result<T, Unavailable> {
        let late = || Unavailable("the database did not answer in time".into());
        timeout(self.lease / 3, answer).await.map_err(|_| late())?
    }
}

impl Registry for Postgres {
    async fn register(&mut self) -> Result<Registered, Unavailable> {
        Ok(match self.membership.register().await? {
            Registration::As(id) => Registered::As(id),
            Registration::Taken(left) => Registered::Taken(left),
        })
    }

    async fn renew(&mut self, report: &Report) -> Result<Renewed, Unavailable> {
        let stats = serde_json::to_string(report).map_err(|error| Unavailable(error.to_string().into()))?;
        Ok(if self.membership.renew(&stats).await? { Renewed::Runs } else { Renewed::Fenced })
    }

    async fn look(&mut self) -> Result<View, Unavailable> {
        let view = view(self.membership.look().await?);
        // Those of a dead node are counted again when somebody has them.
        let live = view.nodes.iter().filter(|node| node.lease_left.is_some());
        self.membership.set_in_flight(live.map(|node| node.report.in_flight).sum());
        Ok(view)
    }

    fn server(&self) -> Option<i64> {
        self.membership.server_started()
    }

    async fn take(&mut self, slots: &Slots) -> Result<Slots, Unavailable> {
        self.membership.take(slots).await
    }

    async fn give(&mut self, slots: &Slots) -> Result<(), Unavailable> {
        self.soon(self.writer.release(*slots)).await
    }

    async fn page(&mut self, slots: &Slots, after: Option<&PinId>) -> Result<Vec<InFlight>, Unavailable> {
        self.soon(self.questions.in_flight_of(slots, after)).await
    }

    fn claim(&mut self, slots: &Slots) {
        self.writer.claim(*slots);
    }

    async fn settle(&mut self) -> Result<(), Unavailable> {
        // Behind them in the writer's queue, so they are done when it is.
        self.soon(self.writer.flush()).await
    }

    async fn orphans(&mut self) -> Result<Vec<Orphan>, Unavailable> {
        let sinks: Vec<String> = self.health.all().into_keys().collect();
        self.membership.orphans(&sinks).await
    }

    async fn adopt(&mut self, orphan: &Orphan) -> Result<u64, Unavailable> {
        self.soon(self.writer.adopt(orphan.clone())).await
    }
}

fn view(rows: Vec<NodeRow>) -> View {
    let mut holders: Holders = [None; SLOTS];
    let seen = |row: NodeRow| {
        row.slots.iter().for_each(|slot| holders[usize::from(slot)] = Some(row.id));
        Seen {
            id: row.id,
            name: row.name,
            lease_left: row.lease_left,
            version: row.version,
            // Another version may tell other things: then of that node no numbers are known.
            report: serde_json::from_str(&row.stats).unwrap_or_default(),
        }
    };
    let nodes = rows.into_iter().map(seen).collect();
    View { nodes, holders }
}

#[async_trait]
impl Shared for Questions {
    async fn look(&self) -> Result<View, Unavailable> {
        Ok(view(Questions::look(self).await?))
    }

    async fn fates(&self, pins: &[PinId]) -> Result<Vec<Fate>, Unavailable> {
        Questions::fates(self, pins).await
    }
}

/// Hears what nodes hint at, for ever.
pub async fn listen(questions: Questions, hints: Hints, outcomes: watch::Sender<u64>) {
    loop {
        let mut listener = match questions.listen().await {
            Ok(listener) => listener,
            Err(error) => {
                debug!(%error, "no hints are heard; every look finds what they would have told");
                sleep(LISTEN_AGAIN).await;
                continue;
            }
        };
        loop {
            let hint = listener.next().await;
            let all = !matches!(hint, Ok(Hint::Slots | Hint::Inbox | Hint::Outcome));
            if all || matches!(hint, Ok(Hint::Slots)) {
                hints.slots.notify_one();
            }
            if all || matches!(hint, Ok(Hint::Inbox)) {
                hints.inbox.notify_one();
            }
            if all || matches!(hint, Ok(Hint::Outcome)) {
                outcomes.send_modify(|count| *count += 1);
            }
            if hint.is_err() {
                sleep(LISTEN_AGAIN).await;
            }
        }
    }
}

/// What answers questions about all nodes.
pub fn shared(questions: &Questions) -> Arc<dyn Shared> {
    Arc::new(questions.clone())
}

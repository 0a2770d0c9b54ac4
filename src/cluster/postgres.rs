//! Connects the cluster task to the tables in PostgreSQL.
//!
//! Promises that no call delays the renewal by more than a third of the lease, so the lease never lapses by that: calls
//! through [`Membership`] give up after a quarter, others after a third. The next round shows whether they took effect.
//! Knows no SQL: the store has the statements.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{Hints, NodeReport, Registration, Registry, Renewal, View};
use crate::pin::PinId;
use crate::sinks::Health;
use crate::slot::Slots;
use crate::store::postgres::{Hint, Membership, Questions};
use crate::store::{InFlight, Orphan, Unavailable, Writer};

/// The pause before listening again after an error.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// This node's access to the shared tables.
pub struct Postgres {
    pub membership: Membership,
    pub questions: Questions,
    pub writer: Writer,
    /// Names the sinks that are configured now.
    pub health: Health,
    pub lease: Duration,
}

impl Postgres {
    /// Gives up on an answer that would delay the renewal of the lease.
    async fn soon<T>(&self, answer: impl Future<Output = Result<T, Unavailable>>) -> Result<T, Unavailable> {
        let late = || Unavailable("the database did not answer in time".into());
        timeout(self.lease / 3, answer).await.map_err(|_| late())?
    }
}

impl Registry for Postgres {
    async fn register(&mut self) -> Result<Registration, Unavailable> {
        self.membership.register().await
    }

    async fn renew(&mut self, report: &NodeReport) -> Result<Renewal, Unavailable> {
        self.membership.renew(report).await
    }

    async fn look(&mut self) -> Result<View, Unavailable> {
        let view = self.membership.look().await?;
        // A dead node's PINs count again once another node has loaded them.
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
        // The writer works in order: when it has done this, it has done the claims.
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

/// Passes on the hints of all nodes, until it is dropped.
pub async fn listen(questions: Questions, hints: Hints, outcomes: watch::Sender<u64>) {
    loop {
        let mut listener = match questions.listen().await {
            Ok(listener) => listener,
            Err(error) => {
                debug!(%error, "hints from other nodes do not arrive; regular rounds replace them");
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

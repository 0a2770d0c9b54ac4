//! The transaction: all changes that this node makes, while its lease runs.
//!
//! Promises that a transaction whose commit had an unknown result is settled before the next one begins. The new
//! connection waits until the old transaction has ended and asks whether it was committed; if so, the next
//! transaction reports both results. Knows nothing of who waits for it.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use tracing::info;

use super::super::{Applied, ClusterApplied, Submitted, Transaction, Unavailable, Writes};
use super::connect::{ANSWER_TIMEOUT, Pause, Server, fenced, is_broken, is_conflict, within};
use super::done::{CHANNEL, Done};
use super::lease::lock_lease;
use super::{Node, adopt, claims, finish, outbox, reconnect, submit};
use crate::fault::fault_point;
use crate::outcome::Verdict;
use crate::slot::Slots;

/// How many times a transaction that conflicts with another node's is repeated before it fails.
const CONFLICTS: u32 = 5;

/// The only connection of this node that writes PINs and outcomes.
pub struct WriteConnection {
    server: Server,
    node: Node,
    connection: Option<PgConnection>,
    last_seq: i64,
    /// The transaction whose commit had an unknown result: its number, and what it did if it was committed.
    uncertain: Option<(i64, Done)>,
    /// The result of such a transaction, once it is known to be committed and until it is reported.
    settled: Option<Done>,
    /// The pause after connecting failed.
    pause: Pause,
}

/// Why a transaction was not committed, or may not be.
enum Failure {
    Fenced,
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Failure> for Unavailable {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Fenced => fenced(),
            Failure::Sql(error) => error.into(),
        }
    }
}

impl WriteConnection {
    pub(super) async fn open(server: Server, node: Node) -> Result<Self, sqlx::Error> {
        let (connection, uncertain, settled) = (None, None, None);
        let mut writer =
            Self { server, node, connection, last_seq: 0, uncertain, settled, pause: Pause::default() };
        let mut connection = writer.connected().await?;
        let last = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM outcome WHERE lane = $1");
        writer.last_seq = last.bind(writer.node.id()).fetch_one(&mut connection).await?;
        writer.connection = Some(connection);
        Ok(writer)
    }

    /// Takes the connection, which is opened again if it was lost; [`Self::keep`] puts it back. When this returns, no
    /// transaction of an earlier connection is open.
    async fn connected(&mut self) -> Result<PgConnection, sqlx::Error> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let connected = self.connect().await;
        match &connected {
            Ok(_) => self.pause.end(),
            Err(error) => self.pause.begin(error.into()),
        }
        connected
    }

    /// Keeps the connection for the next request if it is usable after this result.
    fn keep<T>(&mut self, connection: PgConnection, result: &Result<T, sqlx::Error>) {
        if result.as_ref().err().is_none_or(|error| !is_broken(error)) {
            self.connection = Some(connection);
        }
    }

    async fn connect(&mut self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.server.connect_writer().await?;
        within(ANSWER_TIMEOUT, reconnect::wait_until_alone(&mut connection, &self.node)).await?;
        reconnect::pass_numbers(&mut connection, self.last_seq).await?;
        if let Some((number, done)) = &self.uncertain {
            let asked = reconnect::is_committed(&mut connection, &self.node, *number, &done.applied);
            let committed = within(ANSWER_TIMEOUT, asked).await?;
            info!(committed, "a commit whose answer was lost is settled");
            self.settled = self.uncertain.take().map(|(_, done)| done).filter(|_| committed);
        }
        Ok(connection)
    }

    async fn attempt(
        &mut self,
        work: &Transaction,
        verdicts: &[&Verdict],
        max_in_flight: usize,
    ) -> Result<Done, Failure> {
        let node = self.node.clone();
        let mut connection = self.connected().await?;
        let doing = transact(&mut connection, &node, work, verdicts, max_in_flight);
        let (number, done) = match within(ANSWER_TIMEOUT, doing).await {
            Ok(done) => done,
            Err(failure) => {
                self.undo(connection, &failure).await;
                return Err(failure);
            }
        };
        fault_point!("not-committed");
        match within(ANSWER_TIMEOUT, connection.execute("COMMIT")).await {
            Ok(_) => self.connection = Some(connection),
            // The server reports that it did not commit.
            Err(error) if !is_broken(&error) => {
                let failure = Failure::Sql(error);
                self.undo(connection, &failure).await;
                return Err(failure);
            }
            Err(error) => {
                self.uncertain = Some((number, done));
                return Err(error.into());
            }
        }
        fault_point!("committed-and-not-noted");
        Ok(done)
    }

    /// Rolls back a failed transaction; drops the connection if there is no answer.
    async fn undo(&mut self, mut connection: PgConnection, failure: &Failure) {
        let usable = match failure {
            Failure::Fenced => true,
            Failure::Sql(error) => !is_broken(error),
        };
        if usable && within(ANSWER_TIMEOUT, connection.execute("ROLLBACK")).await.is_ok() {
            self.connection = Some(connection);
        }
    }

    /// Sends hints. They only save other nodes from waiting for their next round, so errors don't matter.
    async fn hint(&mut self, mut hints: Vec<String>) {
        hints.sort_unstable();
        hints.dedup();
        if hints.is_empty() {
            return;
        }
        let Some(mut connection) = self.connection.take() else { return };
        // Outside the transaction, because PostgreSQL commits transactions that notify one at a time, across all nodes.
        let hint = sqlx::query("SELECT pg_notify($1, hint) FROM unnest($2::text[]) AS hint")
            .bind(CHANNEL)
            .bind(hints);
        let given = within(ANSWER_TIMEOUT, hint.execute(&mut connection)).await;
        self.keep(connection, &given);
    }

    /// Whether there is anything to claim. Asks without a transaction, because mostly there is nothing.
    async fn anything_to_claim(&mut self, slots: &Slots) -> Result<bool, Unavailable> {
        let mut connection = self.connected().await?;
        let found = within(ANSWER_TIMEOUT, claims::anything(&mut connection, &self.node, slots)).await;
        self.keep(connection, &found);
        Ok(found?)
    }
}

/// Begins a transaction that writes; returns its number.
async fn begin(connection: &mut PgConnection, node: &Node) -> Result<i64, Failure> {
    connection.execute("BEGIN").await?;
    lock_lease(connection, node).await?.ok_or(Failure::Fenced)
}

/// Makes all changes; leaves the commit to the caller.
async fn transact(
    connection: &mut PgConnection,
    node: &Node,
    work: &Transaction,
    verdicts: &[&Verdict],
    max_in_flight: usize,
) -> Result<(i64, Done), Failure> {
    let number = begin(connection, node).await?;
    let mut done = Done::default();
    let room = max_in_flight.saturating_sub(node.in_flight());
    // Submits come before verdicts. An insert of a PIN waits for another node's transaction that deletes it; if this
    // transaction held deletions by then, the two could wait for each other.
    submit::submit(connection, node, &work.submits, room, &mut done).await?;
    finish::finish(connection, node, verdicts, &mut done).await?;
    outbox::advance(connection, node, &work.progress).await?;
    for command in &work.commands {
        done.applied.affected.push(outbox::carry_out(connection, node, command).await?);
    }
    if let Some(before) = work.prune {
        done.applied.pruned = outbox::prune(connection, before).await?;
    }
    claims::cancel_at_holder(connection, &work.cluster.cancels, &mut done).await?;
    for orphan in &work.cluster.adopt {
        done.applied.cluster.adopted.push(adopt::adopt(connection, node, orphan).await?);
    }
    if let Some(slots) = &work.cluster.claim {
        claims::claim(connection, node, slots, &mut done).await?;
    }
    claims::release(connection, node, &work.cluster.release, &mut done).await?;
    // Last, because a renewal of the lease waits for this row until the commit.
    if let Some(schedule) = &work.schedule {
        outbox::save_schedule(connection, node, schedule).await?;
    }
    Ok((number, done))
}

/// Puts an earlier transaction's result before this one's. Requesters of delivery commands and adoptions got an error
/// then; so those counts come after the new ones, where nobody reads them.
fn join(earlier: Done, done: Done) -> Done {
    fn chain<T>(first: Vec<T>, then: Vec<T>) -> Vec<T> {
        first.into_iter().chain(then).collect()
    }
    let (old, new) = (earlier.applied, done.applied);
    let (old_cluster, new_cluster) = (old.cluster, new.cluster);
    let cluster = ClusterApplied {
        cancels: chain(old_cluster.cancels, new_cluster.cancels),
        known: chain(old_cluster.known, new_cluster.known),
        gone: chain(old_cluster.gone, new_cluster.gone),
        adopted: chain(new_cluster.adopted, old_cluster.adopted),
    };
    let applied = Applied {
        accepted: chain(old.accepted, new.accepted),
        finished: chain(old.finished, new.finished),
        affected: chain(new.affected, old.affected),
        submitted: new.submitted,
        pruned: new.pruned,
        cluster,
    };
    Done { applied, hints: done.hints }
}

#[async_trait]
impl Writes for WriteConnection {
    fn in_flight(&self) -> usize {
        self.node.in_flight()
    }

    fn last_seq(&self) -> i64 {
        self.last_seq
    }

    async fn apply(&mut self, work: &Transaction, max_in_flight: usize) -> Result<Applied, Unavailable> {
        if let Some(unavailable) = self.pause.runs() {
            return Err(unavailable);
        }
        // First, because a settled transaction may already have finished PINs of this work.
        self.connection = Some(self.connected().await?);
        let is_open = |verdict: &&Verdict| {
            let Some(Done { applied: Applied { finished, cluster, .. }, .. }) = &self.settled else {
                return true;
            };
            let ended = finished.iter().chain(&cluster.known).map(|outcome| &outcome.pin);
            !ended.chain(&cluster.gone).any(|pin| *pin == verdict.pin)
        };
        let verdicts: Vec<&Verdict> = work.verdicts.iter().filter(is_open).collect();
        if let Some(slots) = &work.cluster.claim
            && work.changes() == 1
            && self.settled.is_none()
            && !self.anything_to_claim(slots).await?
        {
            return Ok(Applied::default());
        }
        let mut attempts = 0;
        let mut done = loop {
            match self.attempt(work, &verdicts, max_in_flight).await {
                Ok(done) => break done,
                Err(Failure::Sql(error)) if is_conflict(&error) && attempts < CONFLICTS => attempts += 1,
                Err(failure) => return Err(failure.into()),
            }
        };
        self.hint(std::mem::take(&mut done.hints)).await;
        if let Some(earlier) = self.settled.take() {
            done = join(earlier, done);
        }
        let applied = done.applied;
        let taken = applied.submitted.iter().filter(|submitted| **submitted == Submitted::Accepted).count();
        self.node.count(taken, applied.finished.len());
        if let Some(last) = applied.finished.last() {
            self.last_seq = last.seq;
        }
        Ok(applied)
    }

    async fn register_sink(&mut self, name: &str, from_oldest: bool) -> Result<i64, Unavailable> {
        let (node, first) = (self.node.clone(), if from_oldest { 0 } else { self.last_seq });
        let mut connection = self.connected().await?;
        let result = within(ANSWER_TIMEOUT, register_sink(&mut connection, &node, name, first)).await;
        match result {
            Ok(cursor) => {
                self.connection = Some(connection);
                Ok(cursor)
            }
            Err(failure) => {
                self.undo(connection, &failure).await;
                Err(failure.into())
            }
        }
    }

    /// Releases all slots and the lease, so that other nodes can continue at once.
    async fn close(mut self: Box<Self>) -> Result<(), Unavailable> {
        let node = self.node.clone();
        let mut connection = self.connected().await?;
        match within(ANSWER_TIMEOUT, leave(&mut connection, &node)).await {
            Ok(()) => self.connection = Some(connection),
            // Other nodes have taken everything already, or will when the lease is over.
            Err(Failure::Fenced) => return Ok(()),
            Err(failure) => return Err(failure.into()),
        }
        self.hint(vec!["slots".into()]).await;
        let Some(connection) = self.connection.take() else { return Ok(()) };
        Ok(within(ANSWER_TIMEOUT, connection.close()).await?)
    }
}

async fn register_sink(
    connection: &mut PgConnection,
    node: &Node,
    name: &str,
    first: i64,
) -> Result<i64, Failure> {
    begin(connection, node).await?;
    sqlx::query("INSERT INTO cursor (lane, sink, cursor) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(node.id())
        .bind(name)
        .bind(first)
        .execute(&mut *connection)
        .await?;
    let cursor = sqlx::query_scalar("SELECT cursor FROM cursor WHERE lane = $1 AND sink = $2")
        .bind(node.id())
        .bind(name)
        .fetch_one(&mut *connection)
        .await?;
    connection.execute("COMMIT").await?;
    Ok(cursor)
}

async fn leave(connection: &mut PgConnection, node: &Node) -> Result<(), Failure> {
    begin(connection, node).await?;
    sqlx::query("UPDATE slot SET node = NULL, fence = fence + 1 WHERE node = $1")
        .bind(node.id())
        .execute(&mut *connection)
        .await?;
    // Raises the fence, so that a renewal on its way finds no row to renew.
    sqlx::query(
        "UPDATE node SET lease_until = clock_timestamp(), fence = fence + 1 WHERE id = $1 AND fence = $2",
    )
    .bind(node.id())
    .bind(node.fence())
    .execute(&mut *connection)
    .await?;
    connection.execute("COMMIT").await?;
    Ok(())
}

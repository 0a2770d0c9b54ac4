//! This node's membership in the cluster: its row and lease, and the slots that it takes.
//!
//! Promises that no large transaction delays a renewal: everything that the lease depends on uses a connection of its
//! own. Does not know which node should hold which slot.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::super::rows::anchor;
use super::super::{Orphan, Store, Unavailable, Writes};
use super::Node;
use super::columns::numbers;
use super::connect::{Server, fenced, is_broken, within};
use super::error::OpenError;
use super::lease::lock_lease;
use super::questions::Questions;
use super::read::Reader;
use super::view::{NodeId, NodeReport, View, lease_left};
use super::write::WriteConnection;
use crate::clock::{Anchor, Clock};
use crate::slot::Slots;

/// Connections that read, for client requests and sinks; one of them listens for hints.
const READERS: u32 = 5;

/// How many times this node tries to take a dead node's slots while another node locks the dead node's row, and the pause between
/// two tries. A transaction that takes slots lasts a few milliseconds. The next round takes what is still missing.
const TAKES: u32 = 8;
const TAKES_APART: Duration = Duration::from_millis(20);

/// The result of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// This node has this number, and its lease runs.
    As(NodeId),
    /// A lease of this name runs for this much longer. Its process was killed a moment ago, or is alive.
    Taken(Duration),
}

/// The result of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    Runs,
    /// Another process has registered this node's name; this process holds nothing any more.
    Fenced,
}

/// This node's membership. Every request ends within a quarter of the lease, except the first one after the connection
/// was lost.
pub struct Membership {
    server: Server,
    node: Node,
    name: String,
    questions: Questions,
    connection: Option<PgConnection>,
    server_started: Option<i64>,
    clock: Clock,
}

impl Membership {
    pub(super) fn new(server: Server, node: Node, name: String, clock: Clock) -> Self {
        let questions = Questions { readers: server.readers(READERS), node: node.clone() };
        Self { server, node, name, questions, connection: None, server_started: None, clock }
    }

    /// The store of this node, once it is registered.
    ///
    /// # Errors
    /// The database can't be used.
    pub async fn store(&self) -> Result<(Store, Box<dyn Writes>), OpenError> {
        let writer = WriteConnection::open(self.server.clone(), self.node.clone()).await;
        let writer =
            writer.map_err(|source| OpenError::Postgres { url: self.server.shown.clone(), error: source })?;
        let reader = Reader { readers: self.questions.readers.clone(), node: self.node.clone() };
        Ok((Arc::new(reader), Box::new(writer)))
    }

    /// The queries that only a cluster needs.
    pub fn questions(&self) -> Questions {
        self.questions.clone()
    }

    /// Sets about how many PINs are in flight in the whole database. This count, updated by this node's writer, is
    /// compared with `intake.max_in_flight`.
    pub fn set_in_flight(&self, count: usize) {
        self.node.set_in_flight(count);
    }

    /// Registers this node under its name, with a new fence, unless a lease of that name runs. Once this node is
    /// registered, every transaction of an earlier process of that name has ended, and that process can't write any more.
    pub async fn register(&mut self) -> Result<Registration, Unavailable> {
        let mut connection = self.connected().await?;
        let registering = register(&mut connection, &self.name, self.server.lease, &self.clock);
        let result = within(self.server.time_limit(), registering).await;
        Ok(match self.back(connection, result)? {
            Ok((id, fence)) => {
                self.node.become_registered(id, fence);
                Registration::As(id)
            }
            Err(left) => Registration::Taken(left),
        })
    }

    /// Renews the lease for its whole length from now, and publishes `report` to the other nodes.
    pub async fn renew(&mut self, report: &NodeReport) -> Result<Renewal, Unavailable> {
        let report = serde_json::to_string(report).map_err(|error| Unavailable(error.to_string().into()))?;
        let mut connection = self.connected().await?;
        let Anchor { boot, steady } = self.clock.anchor();
        let renewal = sqlx::query(
            "UPDATE node SET lease_until = clock_timestamp() + $3 * interval '1 millisecond', stats = $4, steady = $5, \
                 boot_id = $6, boot_time = $7 WHERE id = $1 AND fence = $2",
        )
        .bind(self.node.id())
        .bind(self.node.fence())
        .bind(millis(self.server.lease))
        .bind(report)
        .bind(steady.millis())
        .bind(boot.id.as_deref())
        .bind(boot.millis())
        .execute(&mut connection);
        let result = within(self.server.time_limit(), renewal).await;
        let is_renewed = self.back(connection, result)?.rows_affected() == 1;
        Ok(if is_renewed { Renewal::Runs } else { Renewal::Fenced })
    }

    /// All nodes and their slots at one moment.
    pub async fn look(&mut self) -> Result<View, Unavailable> {
        let mut connection = self.connected().await?;
        let result = within(self.server.time_limit(), View::read(&mut connection)).await;
        self.back(connection, result)
    }

    /// Takes those of these slots that no node with a running lease holds; returns the slots taken. While a dead node's
    /// last transaction is open, its slots can't be taken.
    ///
    /// # Errors
    /// The database can't be reached, or this node's lease is over.
    pub async fn take(&mut self, slots: &Slots) -> Result<Slots, Unavailable> {
        let mut connection = self.connected().await?;
        let result = within(self.server.time_limit(), take_all(&mut connection, &self.node, slots)).await;
        self.back(connection, result)?.ok_or_else(fenced)
    }

    /// The outcomes that dead nodes did not deliver to these sinks.
    pub async fn orphans(&mut self, sinks: &[String]) -> Result<Vec<Orphan>, Unavailable> {
        let mut connection = self.connected().await?;
        let rows = sqlx::query_as(
            "SELECT c.lane, c.sink FROM cursor c JOIN node ON node.id = c.lane \
             WHERE node.lease_until <= clock_timestamp() AND node.id <> $1 AND c.sink = ANY($2) \
               AND (EXISTS (SELECT 1 FROM outcome o WHERE o.lane = c.lane AND o.seq > c.cursor) \
                    OR EXISTS (SELECT 1 FROM delivery d WHERE d.lane = c.lane AND d.sink = c.sink AND NOT d.dead)) \
             ORDER BY c.lane, c.sink",
        )
        .bind(self.node.id())
        .bind(sinks)
        .fetch_all(&mut connection);
        let result = within(self.server.time_limit(), rows).await;
        let rows: Vec<(i32, String)> = self.back(connection, result)?;
        Ok(rows.into_iter().map(|(node, sink)| Orphan { node, sink }).collect())
    }

    /// When the server that answered last was started, in microseconds since the epoch. A different number means
    /// another server, or that it was restarted.
    pub fn server_started(&self) -> Option<i64> {
        self.server_started
    }

    async fn connected(&mut self) -> Result<PgConnection, Unavailable> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = self.server.connect_keeper().await?;
        let started =
            sqlx::query_scalar("SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint")
                .fetch_one(&mut connection);
        self.server_started = Some(within(self.server.time_limit(), started).await?);
        Ok(connection)
    }

    /// Keeps the connection for the next request if it is usable.
    fn back<T>(
        &mut self,
        connection: PgConnection,
        result: Result<T, sqlx::Error>,
    ) -> Result<T, Unavailable> {
        if result.as_ref().err().is_none_or(|error| !is_broken(error)) {
            self.connection = Some(connection);
        }
        Ok(result?)
    }
}

/// The node's number and fence, or how long the lease of the name's last holder still runs.
type Registered = Result<(i32, i64), Duration>;

async fn register(
    connection: &mut PgConnection,
    name: &str,
    lease: Duration,
    clock: &Clock,
) -> Result<Registered, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // Waits for the open transaction of an earlier process of this name.
    let left: Option<f64> = sqlx::query_scalar(
        "SELECT (extract(epoch FROM lease_until - clock_timestamp()) * 1000)::float8 \
         FROM node WHERE name = $1 FOR UPDATE",
    )
    .bind(name)
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some(left) = left.and_then(lease_left) {
        transaction.rollback().await?;
        return Ok(Err(left));
    }
    let registered: Option<(i32, i64)> = sqlx::query_as(
        "INSERT INTO node (name, fence, lease_until, started_at, version) \
         VALUES ($1, 1, clock_timestamp() + $2 * interval '1 millisecond', $3, $4) \
         ON CONFLICT (name) DO UPDATE SET fence = node.fence + 1, lease_until = excluded.lease_until, \
             started_at = excluded.started_at, version = excluded.version, stats = '{}' \
             WHERE node.lease_until <= clock_timestamp() \
         RETURNING id, fence",
    )
    .bind(name)
    .bind(millis(lease))
    .bind(Timestamp::now().as_millisecond())
    .bind(crate::build::VERSION)
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some((id, _)) = registered {
        sqlx::query("INSERT INTO pruned (lane) VALUES ($1) ON CONFLICT DO NOTHING")
            .bind(id)
            .execute(&mut *transaction)
            .await?;
    }
    clock.go_on(&anchors(&mut transaction).await?);
    transaction.commit().await?;
    // No row: another process has just registered this name for the first time.
    Ok(registered.ok_or(lease))
}

/// The nodes' anchors of steady time.
pub(in super::super) async fn anchors(connection: &mut PgConnection) -> Result<Vec<Anchor>, sqlx::Error> {
    let rows: Vec<(Option<i64>, Option<String>, Option<i64>)> = sqlx::query_as(
        "SELECT steady, boot_id, boot_time FROM node UNION ALL SELECT steady, NULL, NULL FROM steady_begin",
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter_map(|(steady, id, time)| anchor(steady, id, time)).collect())
}

/// Takes slots, with several tries. Other nodes take their part of a dead node's slots at the same moment, and only one
/// can hold the dead node's row; the others try again when that transaction should be over.
async fn take_all(
    connection: &mut PgConnection,
    node: &Node,
    slots: &Slots,
) -> Result<Option<Slots>, sqlx::Error> {
    let mut taken = Slots::NONE;
    for _ in 0..TAKES {
        let missing = slots.without(&taken);
        let Some((some, more)) = take(connection, node, &missing).await? else { return Ok(None) };
        taken = taken.union(&some);
        if !more {
            break;
        }
        tokio::time::sleep(TAKES_APART).await;
    }
    Ok(Some(taken))
}

/// Takes the slots that it can. Also returns whether a dead node's row was locked, so that more can be taken soon;
/// `None` if this node's lease is over.
async fn take(
    connection: &mut PgConnection,
    node: &Node,
    slots: &Slots,
) -> Result<Option<(Slots, bool)>, sqlx::Error> {
    let wanted = numbers(slots);
    let mut transaction = connection.begin().await?;
    if lock_lease(&mut transaction, node).await?.is_none() {
        transaction.rollback().await?;
        return Ok(None);
    }
    // A dead node's row is locked while a transaction of that node is still open, or while another node takes its part.
    // The next try takes those slots.
    let dead: Vec<i32> = sqlx::query_scalar(
        "SELECT id FROM node WHERE lease_until <= clock_timestamp() \
         AND id IN (SELECT slot.node FROM slot WHERE slot = ANY($1)) ORDER BY id FOR UPDATE SKIP LOCKED",
    )
    .bind(&wanted)
    .fetch_all(&mut *transaction)
    .await?;
    let taken: Vec<i16> = sqlx::query_scalar(
        "UPDATE slot SET node = $1, fence = fence + 1 \
         WHERE slot IN (SELECT slot FROM slot WHERE slot = ANY($2) ORDER BY slot FOR UPDATE SKIP LOCKED) \
           AND (node IS NULL OR node = ANY($3)) RETURNING slot",
    )
    .bind(node.id())
    .bind(&wanted)
    .bind(&dead)
    .fetch_all(&mut *transaction)
    .await?;
    let more = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM slot JOIN node ON node.id = slot.node \
         WHERE slot = ANY($1) AND lease_until <= clock_timestamp() AND node.id <> ALL($2))",
    )
    .bind(&wanted)
    .bind(&dead)
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Some((taken.into_iter().filter_map(|slot| u8::try_from(slot).ok()).collect(), more)))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

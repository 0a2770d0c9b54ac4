-- Times are milliseconds since the Unix epoch, UTC; but a lease ends by this server's clock, which decides.

-- A row a node name, kept over restarts. Its number is also that of its part of the outbox, its lane.
CREATE TABLE node (
    id           integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text        NOT NULL UNIQUE,
    -- One more at every registration: who wrote with another one writes no more.
    fence        bigint      NOT NULL,
    lease_until  timestamptz NOT NULL,
    started_at   bigint      NOT NULL,
    version      text        NOT NULL,
    -- What it tells of itself with each renewal: JSON.
    stats        text        NOT NULL DEFAULT '{}',
    -- Why its polling stands still, and what 429s taught of the rate: for its next start.
    brake_reason text,
    brake_until  bigint,
    brake_rate   float8
) WITH (fillfactor = 50);

-- Who polls the PINs of a slot; the lease is the node's.
CREATE TABLE slot (
    slot  smallint NOT NULL PRIMARY KEY CHECK (slot BETWEEN 0 AND 255),
    node  integer,
    -- One more at every change of the holder.
    fence bigint   NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO slot (slot) SELECT generate_series(0, 255);

-- The PINs in flight. Rows come and go at the speed of the daemon, so they are cleaned up often.
CREATE TABLE pin (
    slot         smallint NOT NULL,
    pin_id       text     NOT NULL COLLATE "C",
    submitted_at bigint   NOT NULL,
    deadline_at  bigint   NOT NULL,
    reference    text,
    metadata     text,
    PRIMARY KEY (slot, pin_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.5);

-- What a slot's holder is still to hear of: PINs that other nodes took in, and withdrawals that they were asked for.
CREATE TABLE inbox (
    slot   smallint NOT NULL,
    pin_id text     NOT NULL COLLATE "C",
    kind   text     NOT NULL CHECK (kind IN ('submit', 'cancel')),
    PRIMARY KEY (slot, pin_id, kind)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- The outbox: what sinks deliver. Within a lane the order of seq is the order of commits, because a lane has one
-- writer; over all lanes it is not.
CREATE SEQUENCE outcome_seq;
CREATE TABLE outcome (
    seq         bigint   NOT NULL PRIMARY KEY,
    lane        integer  NOT NULL,
    pin_id      text     NOT NULL COLLATE "C",
    finished_at bigint   NOT NULL,
    record      text     NOT NULL
);
CREATE INDEX outcome_by_lane ON outcome (lane, seq);
CREATE INDEX outcome_by_pin ON outcome (pin_id, seq);
-- For retention.
CREATE INDEX outcome_by_end ON outcome (finished_at);

-- How far each sink of each node is in the node's lane: it has, or `delivery` says what became of, every outcome of
-- the lane up to its cursor.
CREATE TABLE cursor (
    lane   integer NOT NULL,
    sink   text    NOT NULL COLLATE "C",
    cursor bigint  NOT NULL,
    PRIMARY KEY (lane, sink)
) WITH (fillfactor = 50);

-- Outcomes at or before a sink's cursor that it does not have: to be tried again by the node of `lane`, which need
-- not be the one that found them, or given up.
CREATE TABLE delivery (
    sink         text    NOT NULL COLLATE "C",
    seq          bigint  NOT NULL,
    lane         integer NOT NULL,
    dead         boolean NOT NULL,
    tries        integer NOT NULL,
    first_try_at bigint,
    last_try_at  bigint,
    error        text,
    PRIMARY KEY (sink, seq)
);
CREATE INDEX delivery_to_do ON delivery (lane, sink, seq) WHERE NOT dead;
-- For retention, which asks of each outcome whether any sink still needs it.
CREATE INDEX delivery_by_seq ON delivery (seq);

-- "pinw": says whose file this is, so that a foreign one is never written to.
PRAGMA application_id = 0x70696e77;

-- The PINs in flight. Times are milliseconds since the Unix epoch, UTC.
CREATE TABLE pin (
    pin_id       TEXT    NOT NULL PRIMARY KEY,
    submitted_at INTEGER NOT NULL,
    deadline_at  INTEGER NOT NULL,
    reference    TEXT,
    metadata     TEXT
) STRICT, WITHOUT ROWID;

-- The outbox: what sinks deliver, in the order of seq. AUTOINCREMENT so that a seq is never used twice,
-- not even after retention removed the newest.
CREATE TABLE outcome (
    seq         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    pin_id      TEXT    NOT NULL,
    finished_at INTEGER NOT NULL,
    record      TEXT    NOT NULL
) STRICT;
-- For retention.
CREATE INDEX outcome_by_end ON outcome (finished_at);

-- The outcomes of a PIN, by the first 48 bits of the SHA-256 of its ID. Those after history.indexed may not be in
-- it yet: entries are put in by many, in their order, for one at a time would be a page written for each.
CREATE TABLE outcome_by_pin (
    pin_hash INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    PRIMARY KEY (pin_hash, seq)
) STRICT, WITHOUT ROWID;

-- How far each sink is: it has, or `delivery` says what became of, every outcome up to its cursor.
CREATE TABLE sink (
    name   TEXT    NOT NULL PRIMARY KEY,
    cursor INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Outcomes at or before a sink's cursor that it does not have: to be tried again, or given up.
CREATE TABLE delivery (
    sink          TEXT    NOT NULL,
    seq           INTEGER NOT NULL,
    dead          INTEGER NOT NULL,
    tries         INTEGER NOT NULL,
    first_try_at  INTEGER,
    last_try_at   INTEGER,
    error         TEXT,
    PRIMARY KEY (sink, seq)
) STRICT, WITHOUT ROWID;
-- For retention, which asks of each outcome whether any sink still needs it.
CREATE INDEX delivery_by_seq ON delivery (seq);

-- How many transactions were ever committed, compared with the note in the lock file at start-up; and the seq up
-- to which all outcomes are in outcome_by_pin.
CREATE TABLE history (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    commits  INTEGER NOT NULL,
    indexed  INTEGER NOT NULL
) STRICT;
INSERT INTO history (only_row, commits, indexed) VALUES (1, 0, 0);

-- Why all polling stands still, and what 429s taught of the rate: for the next start.
CREATE TABLE brake (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    reason   TEXT,
    until    INTEGER,
    rate     REAL
) STRICT;
INSERT INTO brake (only_row) VALUES (1);

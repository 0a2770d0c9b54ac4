-- Dead letters that somebody gave up: the sink's cursor is past them and it does not have them, until replay. Kept as
-- long as their outcome.
CREATE TABLE dropped (
    seq        INTEGER NOT NULL,
    sink       TEXT    NOT NULL,
    dropped_at INTEGER NOT NULL,
    PRIMARY KEY (seq, sink)
) STRICT, WITHOUT ROWID;

-- Dead letters that somebody gave up: the sink's cursor is past them and it does not have them, until replay. Kept as
-- long as their outcome.
CREATE TABLE dropped (
    seq        bigint NOT NULL,
    sink       text   NOT NULL COLLATE "C",
    dropped_at bigint NOT NULL,
    PRIMARY KEY (seq, sink)
);

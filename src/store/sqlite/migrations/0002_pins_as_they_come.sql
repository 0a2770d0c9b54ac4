-- The PINs in flight in the order in which they came. IDs are random: by ID, each of a million PINs had a page of its
-- own, read and written for it alone. What finds them by ID is in memory (by_hash.rs), and made at each start.
CREATE TABLE pin_as_it_came (
    number       INTEGER NOT NULL PRIMARY KEY,
    pin_id       TEXT    NOT NULL,
    -- Of the ID, as in outcome_by_pin: a flipped bit in either shows. NULL where the row is older than this column.
    pin_hash     INTEGER,
    submitted_at INTEGER NOT NULL,
    deadline_at  INTEGER NOT NULL,
    reference    TEXT,
    metadata     TEXT
) STRICT;
INSERT INTO pin_as_it_came (pin_id, submitted_at, deadline_at, reference, metadata)
    SELECT pin_id, submitted_at, deadline_at, reference, metadata FROM pin ORDER BY submitted_at;
DROP TABLE pin;
ALTER TABLE pin_as_it_came RENAME TO pin;

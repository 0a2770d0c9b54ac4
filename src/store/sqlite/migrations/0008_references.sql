-- The outcomes of PINs that have a reference, by the first 48 bits of the SHA-256 of the reference. Filled together
-- with outcome_by_pin; history.indexed is about both tables.
CREATE TABLE outcome_by_reference (
    reference_hash INTEGER NOT NULL,
    seq            INTEGER NOT NULL,
    PRIMARY KEY (reference_hash, seq)
) STRICT, WITHOUT ROWID;
-- Outcomes up to this seq are from before this table and may be missing from it; they are put in from the newest to
-- the oldest while the daemon runs.
ALTER TABLE history ADD COLUMN unreferenced_to INTEGER NOT NULL DEFAULT 0;
UPDATE history SET unreferenced_to = indexed;

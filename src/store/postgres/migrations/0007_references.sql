-- PINs and outcomes by their reference, if they have one. The indexes contain a hash, because a reference can be longer
-- than an entry of an index. Where the tables exist already, indexes.rs builds these indexes before this migration runs,
-- while other nodes write. So nothing else may be here, and a semicolon only ends a statement.
CREATE INDEX IF NOT EXISTS pin_by_reference ON pin (hashtextextended(reference, 0), slot, pin_id)
    WHERE reference IS NOT NULL;
-- The reference as the record has it, and whatever follows it up to the metadata. The record is text, and no version of
-- pinwatch writes these keys in another order. Outcomes of nodes with an older version are in the index too.
CREATE INDEX IF NOT EXISTS outcome_by_reference ON outcome (
    hashtextextended(split_part(split_part(split_part(record, '"metadata":', 1), '"reference":"', 2), '",', 1), 0), seq)
    WHERE split_part(split_part(record, '"metadata":', 1), '"reference":"', 2) <> '';

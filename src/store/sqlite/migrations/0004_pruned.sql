-- The highest seq that retention has removed: whoever reads on from before it is told that outcomes are missing. A gap
-- in seq alone would say nothing, for not every number is used.
ALTER TABLE history ADD COLUMN pruned_to INTEGER NOT NULL DEFAULT 0;

-- The highest seq of each lane that retention has removed: whoever reads on from before it is told that outcomes are
-- missing. A gap in seq alone would say nothing, for not every number is used. A table of its own, because the row of
-- a living node must be free for the renewal of its lease.
CREATE TABLE pruned (
    lane integer NOT NULL PRIMARY KEY,
    seq  bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO pruned (lane) SELECT id FROM node;

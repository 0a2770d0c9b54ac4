-- Ages and waits follow what elapses, not the wall clock (src/clock/steady.rs). From here on outcome.finished_at and
-- node.brake_until are on that steady axis, which begins with this server's clock. Where the wall clock's time is
-- told to people too, it stands as before, beside by how much it was ahead of the axis then.
ALTER TABLE pin ADD COLUMN IF NOT EXISTS clock_ahead bigint NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN IF NOT EXISTS first_ahead bigint NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN IF NOT EXISTS last_ahead bigint NOT NULL DEFAULT 0;

-- What time it was on the axis at the last renewal, and on which run of which machine: how long that had lasted.
ALTER TABLE node ADD COLUMN IF NOT EXISTS steady bigint;
ALTER TABLE node ADD COLUMN IF NOT EXISTS boot_id text;
ALTER TABLE node ADD COLUMN IF NOT EXISTS boot_time bigint;

-- Where the axis begins: a node whose own clock is wrong must not say.
CREATE TABLE steady_begin (steady bigint NOT NULL);
INSERT INTO steady_begin SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

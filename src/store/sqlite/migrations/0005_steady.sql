-- Ages and waits follow what elapses, not the wall clock (src/clock/steady.rs). From here on outcome.finished_at and
-- brake.until are on that steady axis, which begins with the wall clock's time. Where the wall clock's time is
-- told to people too, it stands as before, beside by how much it was ahead of the axis then.
ALTER TABLE pin ADD COLUMN clock_ahead INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN first_ahead INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN last_ahead INTEGER NOT NULL DEFAULT 0;

-- What time it was on the axis at the last commit, and on which run of which machine: how long that had lasted.
ALTER TABLE history ADD COLUMN steady INTEGER;
ALTER TABLE history ADD COLUMN boot_id TEXT;
ALTER TABLE history ADD COLUMN boot_time INTEGER;

-- What the schedule learned of when PINs become final (schedule.adapt), for the next start.
ALTER TABLE node ADD COLUMN IF NOT EXISTS learned bytea;

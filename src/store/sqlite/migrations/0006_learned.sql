-- What the schedule learned of when PINs become final (schedule.adapt), for the next start.
ALTER TABLE brake ADD COLUMN learned BLOB;

-- The name of the token that a PIN was submitted with over HTTP; it stays with the outcome.
ALTER TABLE pin ADD COLUMN submitter TEXT;
ALTER TABLE outcome ADD COLUMN submitter TEXT;

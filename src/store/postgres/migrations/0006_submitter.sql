-- The name of the token that a PIN was submitted with over HTTP; it stays with the outcome.
ALTER TABLE pin ADD COLUMN IF NOT EXISTS submitter text;
ALTER TABLE outcome ADD COLUMN IF NOT EXISTS submitter text;

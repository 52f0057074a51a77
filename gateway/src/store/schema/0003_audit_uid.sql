-- Whom the guest's agent made of the Linux user; NULL where none is involved, or no connection came about.
ALTER TABLE audit_events ADD COLUMN uid BIGINT;

ALTER TABLE outbox DROP COLUMN baggage;

DROP FUNCTION settle_events;
DROP TABLE outbox_settled, outbox_counted;
ALTER TABLE audit_blocks DROP COLUMN events;
ALTER TABLE outbox DROP COLUMN chain_id;

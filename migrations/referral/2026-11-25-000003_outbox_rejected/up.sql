-- What notify-svc rejected is counted without reading what waits; no event costs an entry here until it is rejected.
-- Writers wait for one scan. CONCURRENTLY would wait for an instance that, with a snapshot, waits for this migration's lock.
CREATE INDEX outbox_rejected ON outbox (reject_time) WHERE reject_time IS NOT NULL;

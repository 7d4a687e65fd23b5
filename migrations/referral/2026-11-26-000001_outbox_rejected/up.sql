-- What notify-svc rejected is counted without reading what waits; no event costs an entry here until it is rejected.
CREATE INDEX outbox_rejected ON outbox (reject_time) WHERE reject_time IS NOT NULL;

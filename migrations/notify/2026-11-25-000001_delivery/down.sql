-- Only on an empty queue: the columns below hold what the older version doesn't know.
DROP FUNCTION remove_settled(timestamptz, integer);
DROP TABLE signing_keys, jobs, audit_events, requests, preferences, addresses, gates;
DROP FUNCTION refuse_change();
DROP INDEX notifications_kind;
ALTER TABLE deliveries
    DROP COLUMN due_time,
    DROP COLUMN park_until,
    DROP COLUMN parked_on,
    DROP COLUMN lane,
    DROP COLUMN contact_place;
ALTER TABLE deliveries ADD COLUMN due_time timestamptz GENERATED ALWAYS AS (coalesce(lease_until, next_attempt_time)) STORED;
CREATE INDEX deliveries_due ON deliveries (due_time) WHERE due_time IS NOT NULL;

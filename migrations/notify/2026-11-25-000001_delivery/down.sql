-- Only on an empty queue: the columns below hold what the older version doesn't know.
DROP FUNCTION remove_settled(timestamptz, integer);
DROP TABLE signing_keys, jobs, audit_events, requests, preferences, addresses, gates;
DROP FUNCTION refuse_change();
ALTER TABLE deliveries
    DROP COLUMN waiting_since,
    DROP COLUMN parked_on,
    DROP COLUMN lane,
    DROP COLUMN contact_place;

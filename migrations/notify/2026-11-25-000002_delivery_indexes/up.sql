DROP INDEX deliveries_due;
CREATE INDEX deliveries_due ON deliveries (lane, due_time) WHERE due_time IS NOT NULL;
CREATE INDEX deliveries_parked ON deliveries (parked_on, lane, notification_id) WHERE parked_on IS NOT NULL;
-- Leases that have run out come first, however much is due.
DROP INDEX deliveries_sending;
CREATE INDEX deliveries_leased ON deliveries (lease_until) WHERE lease_until IS NOT NULL;

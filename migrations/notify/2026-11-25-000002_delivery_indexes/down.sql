DROP INDEX deliveries_leased, deliveries_parked, deliveries_due;
CREATE INDEX deliveries_due ON deliveries (due_time) WHERE due_time IS NOT NULL;
CREATE INDEX deliveries_sending ON deliveries (notification_id) WHERE state = 'SENDING';

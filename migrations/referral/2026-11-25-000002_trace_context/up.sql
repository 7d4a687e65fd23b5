-- W3C baggage of the call that made the fact; it goes with the event to notify-svc.
ALTER TABLE outbox ADD COLUMN baggage text NOT NULL DEFAULT '';

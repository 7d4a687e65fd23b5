-- W3C baggage of the call that made the fact, and when it was made (by the producer's clock): for the spans of the attempts,
-- and for how long it took from the fact to the recipient.
ALTER TABLE notifications
    ADD COLUMN baggage text NOT NULL DEFAULT '',
    ADD COLUMN occur_time timestamptz;

-- What came in. A key is kept for ever: it is what makes a record that is sent again a duplicate.
CREATE TABLE inbox (
    producer text NOT NULL CHECK (octet_length(producer) BETWEEN 1 AND 64),
    event_id uuid NOT NULL,
    trace_id text NOT NULL CHECK (trace_id ~ '^[0-9a-f]{32}$'),
    -- When the fact was made, by the producer's clock.
    occur_time timestamptz,
    receive_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (producer, event_id)
);

-- Records that can never be stored, as they came, for operators. A record that is sent again is kept once.
CREATE TABLE rejected_records (
    record_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    producer text NOT NULL,
    -- Text: it may be the very thing that is wrong.
    event_id text NOT NULL,
    event bytea NOT NULL,
    event_digest bytea NOT NULL GENERATED ALWAYS AS (sha256(event)) STORED,
    traceparent text NOT NULL,
    trace_id text NOT NULL,
    reason text NOT NULL CHECK (reason ~ '^[A-Z][A-Z0-9_]*$'),
    detail text NOT NULL,
    reject_time timestamptz NOT NULL DEFAULT now(),
    UNIQUE (producer, event_id, event_digest)
);

-- One thing that one person should hear of. QUEUED means not settled: whether a worker holds it is its delivery's affair.
CREATE TABLE notifications (
    -- UUIDv7 by the database's clock: its order is the order of arrival.
    notification_id uuid PRIMARY KEY,
    producer text NOT NULL,
    source_event_id uuid NOT NULL,
    -- Its place in the event.
    position integer NOT NULL CHECK (position >= 1),
    recipient_id text NOT NULL CHECK (recipient_id <> ''),
    kind text NOT NULL,
    locale text NOT NULL,
    arguments jsonb NOT NULL CHECK (jsonb_typeof(arguments) = 'object'),
    -- [{"channel", "address"}] in the recipient's order, as of the fact.
    contacts jsonb NOT NULL CHECK (jsonb_typeof(contacts) = 'array'),
    state text NOT NULL DEFAULT 'QUEUED'
        CHECK (state IN ('QUEUED', 'DELIVERED', 'SUPPRESSED', 'EXPIRED', 'CANCELLED', 'DEAD')),
    trace_id text NOT NULL CHECK (trace_id ~ '^[0-9a-f]{32}$'),
    traceparent text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    expire_time timestamptz NOT NULL,
    settle_time timestamptz,
    CHECK ((settle_time IS NULL) = (state = 'QUEUED')),
    UNIQUE (source_event_id, producer, position),
    FOREIGN KEY (producer, source_event_id) REFERENCES inbox (producer, event_id)
);
CREATE INDEX notifications_recipient ON notifications (recipient_id, notification_id);
CREATE INDEX notifications_trace ON notifications (trace_id, notification_id);
-- The rare states; DELIVERED is found by walking the primary key.
CREATE INDEX notifications_open ON notifications (notification_id) WHERE settle_time IS NULL;
CREATE INDEX notifications_undelivered ON notifications (state, notification_id)
    WHERE state IN ('SUPPRESSED', 'EXPIRED', 'CANCELLED', 'DEAD');

-- A notification's delivery over one channel. Only the current one is open; the next is made when it gives up.
CREATE TABLE deliveries (
    notification_id uuid NOT NULL REFERENCES notifications ON DELETE CASCADE,
    -- The contact's place in the recipient's order; channels passed over leave gaps.
    position integer NOT NULL CHECK (position >= 1),
    channel text NOT NULL,
    address text NOT NULL,
    state text NOT NULL DEFAULT 'QUEUED'
        CHECK (state IN ('QUEUED', 'SENDING', 'DELIVERED', 'FAILED', 'EXPIRED', 'CANCELLED')),
    reason text NOT NULL DEFAULT '',
    -- Attempts begun; the latest one's number, which is also the fencing token of its lease.
    attempt_count integer NOT NULL DEFAULT 0 CHECK (attempt_count >= 0),
    -- Those of them that count against the limit.
    tries_used integer NOT NULL DEFAULT 0 CHECK (tries_used BETWEEN 0 AND attempt_count),
    next_attempt_time timestamptz,
    lease_until timestamptz,
    lease_owner text,
    settle_time timestamptz,
    -- When the queue has to look at it: an attempt is due, or a lease has run out.
    due_time timestamptz GENERATED ALWAYS AS (coalesce(lease_until, next_attempt_time)) STORED,
    PRIMARY KEY (notification_id, position),
    CHECK ((next_attempt_time IS NOT NULL) = (state = 'QUEUED')),
    CHECK ((lease_until IS NOT NULL) = (state = 'SENDING')),
    CHECK ((lease_owner IS NOT NULL) = (state = 'SENDING')),
    CHECK ((settle_time IS NOT NULL) = (state NOT IN ('QUEUED', 'SENDING'))),
    CHECK ((reason <> '') = (state = 'FAILED'))
);
CREATE INDEX deliveries_due ON deliveries (due_time) WHERE due_time IS NOT NULL;
CREATE UNIQUE INDEX deliveries_one_open ON deliveries (notification_id) WHERE settle_time IS NULL;
CREATE INDEX deliveries_sending ON deliveries (notification_id) WHERE state = 'SENDING';

-- One try to deliver. Made before the send, so that a killed worker's try is on record too.
CREATE TABLE attempts (
    notification_id uuid NOT NULL,
    position integer NOT NULL,
    number integer NOT NULL CHECK (number >= 1),
    start_time timestamptz NOT NULL,
    end_time timestamptz,
    outcome text CHECK (outcome IN ('DELIVERED', 'TRANSIENT', 'ADDRESS', 'CONTENT', 'CONFIGURATION', 'AMBIGUOUS')),
    reason text NOT NULL DEFAULT '',
    trace_id text NOT NULL CHECK (trace_id ~ '^[0-9a-f]{32}$'),
    PRIMARY KEY (notification_id, position, number),
    FOREIGN KEY (notification_id, position) REFERENCES deliveries ON DELETE CASCADE,
    CHECK ((end_time IS NULL) = (outcome IS NULL)),
    CHECK (end_time >= start_time)
);

-- Gives the role that serves what it needs and no more. Called by the migrating role after every migration.
-- Nobody but the owner can change or remove what came in.
CREATE FUNCTION grant_service_rights(service_role name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), service_role);
    EXECUTE format('GRANT SELECT, INSERT ON inbox, rejected_records, notifications, deliveries, attempts TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, settle_time) ON notifications TO %I', service_role);
    EXECUTE format(
        'GRANT UPDATE (state, reason, attempt_count, tries_used, next_attempt_time, lease_until, lease_owner, settle_time)
            ON deliveries TO %I', service_role);
    EXECUTE format('GRANT UPDATE (end_time, outcome, reason) ON attempts TO %I', service_role);
END
$$;
REVOKE ALL ON FUNCTION grant_service_rights(name) FROM PUBLIC;

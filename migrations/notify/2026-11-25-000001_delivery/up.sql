-- The whole of delivery: lanes, gates, what is known of addresses, preferences, jobs, audit, retention.

-- ── queue ───────────────────────────────────────────────────────────────────────────────────────────────────────
-- Nothing here rewrites or reads the table: the version before serves on. What follows in migrations of their own would
-- otherwise lock tables in another order than it does.
ALTER TABLE deliveries
    -- The contact's place in the recipient's order; NULL: the same as `position`, which counts the deliveries of a
    -- notification, redriven ones included.
    ADD COLUMN contact_place integer CHECK (contact_place >= 1),
    -- 0 urgent, 1 normal, 2 bulk: each has its share of the workers and of every limit.
    ADD COLUMN lane smallint NOT NULL DEFAULT 1 CHECK (lane BETWEEN 0 AND 2),
    -- While it is QUEUED: the gate that holds it, and the time at which it became due. `next_attempt_time` is its expiry
    -- then: the queue looks at it again at the latest when that has come.
    ADD COLUMN parked_on text,
    ADD COLUMN waiting_since timestamptz,
    ADD CONSTRAINT deliveries_parked_check CHECK ((parked_on IS NULL) = (waiting_since IS NULL)),
    -- Both wider than those that they replace: no row has to be looked at.
    DROP CONSTRAINT deliveries_state_check,
    ADD CONSTRAINT deliveries_state_check
        CHECK (state IN ('QUEUED', 'SENDING', 'DELIVERED', 'FAILED', 'EXPIRED', 'CANCELLED', 'SUPPRESSED')) NOT VALID,
    DROP CONSTRAINT deliveries_check5,
    ADD CONSTRAINT deliveries_reason_check CHECK ((reason <> '') = (state IN ('FAILED', 'SUPPRESSED'))) NOT VALID;

-- Dead rows are reused soon: these tables change all the time.
ALTER TABLE deliveries SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);
ALTER TABLE attempts SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);
ALTER TABLE notifications SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

-- What deliveries have to pass: a channel, a provider, a domain, a recipient. A row exists only where there is something
-- to remember: a limit in use, a pause, failures.
CREATE TABLE gates (
    gate text PRIMARY KEY CHECK (octet_length(gate) BETWEEN 1 AND 400),
    -- Token bucket as GCRA keeps it: when the bucket will be full again.
    full_time timestamptz NOT NULL DEFAULT to_timestamp(0),
    -- Nothing passes before: a provider asked for it, too many attempts failed, or an operator paused it.
    closed_until timestamptz NOT NULL DEFAULT to_timestamp(0),
    reason text NOT NULL DEFAULT '',
    -- The operator who paused it, and why, in the operator's words.
    closed_by text NOT NULL DEFAULT '',
    note text NOT NULL DEFAULT '',
    -- Attempts in a row that failed for the provider's or the domain's sake.
    failure_count integer NOT NULL DEFAULT 0 CHECK (failure_count >= 0),
    failing_since timestamptz,
    -- Whether only probes pass, one at a time.
    tripped boolean NOT NULL DEFAULT false,
    -- Whether deliveries are parked on it, and when the next of them may pass.
    waiting boolean NOT NULL DEFAULT false,
    open_time timestamptz NOT NULL DEFAULT to_timestamp(0)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX gates_waiting ON gates (open_time) WHERE waiting;

-- What is known of addresses; it counts for more than the contacts that came with an event.
CREATE TABLE addresses (
    channel text NOT NULL,
    address text NOT NULL,
    reason text NOT NULL CHECK (reason ~ '^[A-Z][A-Z0-9_]*$'),
    -- NULL: nothing is sent there any more.
    moved_to text CHECK (moved_to <> address),
    mark_time timestamptz NOT NULL DEFAULT now(),
    notification_id uuid NOT NULL,
    PRIMARY KEY (channel, address)
);
-- Marks that have grown old go.
CREATE INDEX addresses_marked ON addresses (mark_time) WHERE moved_to IS NULL;

-- What recipients want; whoever isn't here wants everything.
CREATE TABLE preferences (
    recipient_id text PRIMARY KEY CHECK (recipient_id <> ''),
    -- [{"kind", "channel"}], each null for any.
    mutes jsonb NOT NULL CHECK (jsonb_typeof(mutes) = 'array'),
    -- Minutes of the day by the clock of `time_zone`.
    quiet_start integer CHECK (quiet_start BETWEEN 0 AND 1439),
    quiet_end integer CHECK (quiet_end BETWEEN 0 AND 1439),
    time_zone text,
    update_time timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(quiet_start, quiet_end, time_zone) IN (0, 3)),
    CHECK (quiet_start <> quiet_end)
);

-- ── operators ───────────────────────────────────────────────────────────────────────────────────────────────────
-- Every mutation's first answer, for ever.
CREATE TABLE requests (
    caller text NOT NULL,
    request_id uuid NOT NULL,
    method text NOT NULL,
    content_digest bytea NOT NULL CHECK (octet_length(content_digest) = 32),
    -- The answer, or the refusal's code (a number of gRPC's), reason and message.
    response bytea,
    refusal_code integer,
    refusal_reason text,
    refusal_message text,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, request_id),
    CHECK (num_nonnulls(refusal_code, refusal_reason, refusal_message) IN (0, 3)),
    CHECK ((response IS NULL) = (refusal_code IS NOT NULL))
);

CREATE TABLE audit_events (
    audit_event_id uuid PRIMARY KEY,
    create_time timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    subject_id text NOT NULL,
    outcome text NOT NULL,
    trace_id text NOT NULL CHECK (trace_id ~ '^[0-9a-f]{32}$'),
    request_id text NOT NULL,
    detail text NOT NULL
);
CREATE INDEX audit_events_subject ON audit_events (subject_id, audit_event_id);
CREATE INDEX audit_events_trace ON audit_events (trace_id, audit_event_id);
CREATE INDEX audit_events_actor ON audit_events (actor, audit_event_id);

CREATE TABLE jobs (
    job_id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('REDRIVE')),
    state text NOT NULL DEFAULT 'RUNNING' CHECK (state IN ('RUNNING', 'DONE', 'CANCELLED')),
    filter jsonb NOT NULL,
    per_second integer NOT NULL CHECK (per_second BETWEEN 1 AND 10000),
    matched bigint NOT NULL CHECK (matched >= 0),
    done bigint NOT NULL DEFAULT 0 CHECK (done >= 0),
    -- The last notification that was dealt with.
    progress uuid,
    next_step_time timestamptz,
    caller text NOT NULL,
    reason text NOT NULL,
    trace_id text NOT NULL CHECK (trace_id ~ '^[0-9a-f]{32}$'),
    create_time timestamptz NOT NULL DEFAULT now(),
    end_time timestamptz,
    CHECK ((end_time IS NULL) = (state = 'RUNNING')),
    CHECK ((next_step_time IS NOT NULL) = (state = 'RUNNING'))
);
CREATE INDEX jobs_running ON jobs (next_step_time) WHERE state = 'RUNNING';

-- Made once, by the first instance that needs it: what all instances sign with.
CREATE TABLE signing_keys (
    purpose text PRIMARY KEY,
    key bytea NOT NULL CHECK (octet_length(key) = 32)
);

-- ── what stays, and what goes ───────────────────────────────────────────────────────────────────────────────────
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: what is written there stays', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON requests FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON signing_keys FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The serving role can't delete notifications but for this: up to `most` that settled before `cutoff`, which is a day ago or
-- earlier, the oldest first. Their inbox keys stay. Returns how many went.
CREATE FUNCTION remove_settled(cutoff timestamptz, most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    -- The lowest UUIDv7 of that moment: IDs are in the order of arrival, and nothing settles before it arrives.
    first_kept uuid := (lpad(to_hex(floor(extract(epoch FROM least(cutoff, now() - interval '1 day')) * 1000)::bigint), 12, '0')
                        || '00000000000000000000')::uuid;
    removed bigint;
BEGIN
    WITH old AS (
        SELECT notification_id FROM notifications
         WHERE notification_id < first_kept AND settle_time < least(cutoff, now() - interval '1 day')
         ORDER BY notification_id LIMIT most FOR UPDATE SKIP LOCKED)
    DELETE FROM notifications n USING old WHERE n.notification_id = old.notification_id;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;
REVOKE ALL ON FUNCTION remove_settled(timestamptz, integer) FROM PUBLIC;

CREATE OR REPLACE FUNCTION grant_service_rights(service_role name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), service_role);
    EXECUTE format('GRANT SELECT, INSERT ON inbox, rejected_records, notifications, deliveries, attempts, gates, addresses,
        preferences, requests, audit_events, jobs, signing_keys TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, settle_time, expire_time) ON notifications TO %I', service_role);
    EXECUTE format(
        'GRANT UPDATE (state, reason, address, attempt_count, tries_used, next_attempt_time, lease_until, lease_owner,
            parked_on, waiting_since, settle_time) ON deliveries TO %I', service_role);
    EXECUTE format('GRANT UPDATE (end_time, outcome, reason) ON attempts TO %I', service_role);
    EXECUTE format('GRANT UPDATE, DELETE ON gates, addresses, preferences TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, done, progress, next_step_time, end_time) ON jobs TO %I', service_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION remove_settled TO %I', service_role);
END
$$;

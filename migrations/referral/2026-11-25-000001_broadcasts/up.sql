-- Operators' broadcasts: durable jobs that feed the outbox, behind everything else that is in it.
--
-- Locks: a step holds its broadcast's row and nothing else, and takes it only if it is free. Commands lock broadcasts
-- after the stripes and before payments.

CREATE TABLE broadcasts (
    broadcast_id uuid PRIMARY KEY,
    -- Absent fields match everybody.
    filter jsonb NOT NULL CHECK (jsonb_typeof(filter) = 'object'),
    text text NOT NULL CHECK (octet_length(text) BETWEEN 1 AND 4000),
    subject text NOT NULL,
    button_label text NOT NULL,
    button_url text NOT NULL,
    expire_time timestamptz NOT NULL,
    recipients_per_second int NOT NULL CHECK (recipients_per_second BETWEEN 1 AND 10000),
    matched bigint NOT NULL CHECK (matched >= 0),
    caller text NOT NULL,
    traceparent text NOT NULL,
    create_time timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'RUNNING' CHECK (state IN ('RUNNING', 'DONE', 'CANCELLED', 'EXPIRED')),
    published bigint NOT NULL DEFAULT 0 CHECK (published >= 0),
    -- The last partner that was looked at; the lowest ID there is: none yet.
    progress uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    next_step_time timestamptz,
    end_time timestamptz,
    cancel_reason text,
    CONSTRAINT broadcasts_button CHECK ((button_label = '') = (button_url = '')),
    CONSTRAINT broadcasts_expiry CHECK (expire_time > create_time),
    CONSTRAINT broadcasts_running CHECK (
        (state = 'RUNNING') = (next_step_time IS NOT NULL) AND (state = 'RUNNING') = (end_time IS NULL)
    ),
    CONSTRAINT broadcasts_cancelled CHECK ((state = 'CANCELLED') = (cancel_reason IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX broadcasts_due ON broadcasts (next_step_time) WHERE next_step_time IS NOT NULL;

-- What people were told stays on record; progress only goes forward, and ends once.
CREATE FUNCTION broadcasts_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a broadcast only goes forward, and what it says stays'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'broadcasts_stay';
END $$;
CREATE TRIGGER broadcasts_stay BEFORE UPDATE ON broadcasts FOR EACH ROW
    WHEN (OLD.state <> 'RUNNING' OR NEW.published < OLD.published OR NEW.progress < OLD.progress
        OR (NEW.broadcast_id, NEW.filter, NEW.text, NEW.subject, NEW.button_label, NEW.button_url, NEW.expire_time,
                NEW.recipients_per_second, NEW.matched, NEW.caller, NEW.traceparent, NEW.create_time)
            IS DISTINCT FROM (OLD.broadcast_id, OLD.filter, OLD.text, OLD.subject, OLD.button_label, OLD.button_url,
                OLD.expire_time, OLD.recipients_per_second, OLD.matched, OLD.caller, OLD.traceparent, OLD.create_time))
    EXECUTE FUNCTION broadcasts_stay();
CREATE TRIGGER stays BEFORE DELETE OR TRUNCATE ON broadcasts FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Events of broadcasts wait behind all others.
ALTER TABLE outbox ADD COLUMN bulk boolean NOT NULL DEFAULT false;
DROP INDEX outbox_unsettled;
CREATE INDEX outbox_unsettled ON outbox (bulk, event_id) WHERE reject_time IS NULL;

CREATE OR REPLACE FUNCTION grant_service_rights(service_role name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', service_role);
    EXECUTE format('GRANT SELECT, INSERT ON plans, partners, standings, xp_awards, payments, late_references, ledger_transactions,
        ledger_entries, commissions, requests, audit_events, outbox, broadcasts TO %I', service_role);
    EXECUTE format('GRANT SELECT ON accounts TO %I', service_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION open_accounts TO %I', service_role);
    EXECUTE format('GRANT UPDATE (referrer_id, depth, lineage, username, first_name, last_name, locale, contacts)
        ON partners TO %I', service_role);
    EXECUTE format('GRANT UPDATE (xp, members, pro_members, counted_as_pro, pro_expires_at) ON standings TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, submitted_ref, confirmed_ref, confirm_time, pro_start, pro_end, transaction_id,
        reject_reason, override_reason) ON payments TO %I', service_role);
    EXECUTE format('GRANT UPDATE (reject_time, reject_reason, reject_detail), DELETE ON outbox TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, published, progress, next_step_time, end_time, cancel_reason)
        ON broadcasts TO %I', service_role);
END $$;

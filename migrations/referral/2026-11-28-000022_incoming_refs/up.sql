-- A transfer in TON has two hashes, the sender's transaction and the account's own. If the sender's was handed in, the account's
-- is used up with it.

-- Whoever writes holds the tree lock first: those on their way end before the tables below are altered, and the next ones wait.
SELECT pg_advisory_xact_lock(1, 0);

ALTER TABLE ton_payments ADD COLUMN incoming_ref text UNIQUE CHECK (incoming_ref ~ '^[0-9a-f]{64}$');
-- Those that were paid before: the chain is asked.
UPDATE ton_payments t SET next_attempt_time = now()
FROM payments p WHERE p.payment_id = t.payment_id AND p.state = 'SUCCEEDED';
-- And those that an older version confirms meanwhile.
CREATE FUNCTION ton_incoming_asked() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.next_attempt_time := now();
    RETURN NEW;
END $$;
CREATE TRIGGER ton_incoming_asked BEFORE UPDATE ON ton_payments FOR EACH ROW
    WHEN (NEW.finding = 'PAID' AND NEW.incoming_ref IS NULL AND NEW.next_attempt_time IS NULL) EXECUTE FUNCTION ton_incoming_asked();

ALTER TABLE late_references ADD COLUMN incoming_ref text CHECK (incoming_ref ~ '^[0-9a-f]{64}$');
CREATE INDEX late_references_by_incoming_ref ON late_references (incoming_ref) WHERE incoming_ref IS NOT NULL;

DROP TRIGGER ton_terms_stay ON ton_payments;
CREATE TRIGGER ton_terms_stay BEFORE UPDATE ON ton_payments FOR EACH ROW
    WHEN ((NEW.payment_id, NEW.address, NEW.nanotons, NEW.memo, NEW.tolerance_bps, NEW.rate_minor_units, NEW.rate_source, NEW.rate_time)
        IS DISTINCT FROM (OLD.payment_id, OLD.address, OLD.nanotons, OLD.memo, OLD.tolerance_bps, OLD.rate_minor_units,
            OLD.rate_source, OLD.rate_time)
        OR OLD.incoming_ref IS NOT NULL AND NEW.incoming_ref IS DISTINCT FROM OLD.incoming_ref)
    EXECUTE FUNCTION ton_terms_stay();

-- One unique key for each column, and these two for both together.
CREATE FUNCTION references_used_once() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM (SELECT * FROM changed WHERE confirmed_ref IS NOT NULL) n
        CROSS JOIN LATERAL (SELECT t.payment_id FROM ton_payments t WHERE t.incoming_ref = n.confirmed_ref OFFSET 0) t
        WHERE t.payment_id <> n.payment_id
    ) THEN
        RAISE EXCEPTION 'a reference was used for another payment' USING ERRCODE = 'unique_violation', CONSTRAINT = 'references_used_once';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER references_used_once_inserted AFTER INSERT ON payments REFERENCING NEW TABLE AS changed FOR EACH STATEMENT
    EXECUTE FUNCTION references_used_once();
CREATE TRIGGER references_used_once AFTER UPDATE ON payments REFERENCING NEW TABLE AS changed FOR EACH STATEMENT
    EXECUTE FUNCTION references_used_once();

CREATE FUNCTION incoming_used_once() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM payments p WHERE p.confirmed_ref = NEW.incoming_ref AND p.payment_id <> NEW.payment_id) THEN
        RAISE EXCEPTION 'a reference was used for another payment' USING ERRCODE = 'unique_violation', CONSTRAINT = 'references_used_once';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER incoming_used_once AFTER INSERT OR UPDATE OF incoming_ref ON ton_payments FOR EACH ROW
    WHEN (NEW.incoming_ref IS NOT NULL) EXECUTE FUNCTION incoming_used_once();

CREATE OR REPLACE FUNCTION grant_service_rights(service_role name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', service_role);
    EXECUTE format('GRANT SELECT, INSERT ON plans, partners, standings, xp_awards, payments, late_references, ledger_transactions,
        ledger_entries, commissions, requests, audit_events, outbox, broadcasts, refunds, clawbacks, payouts, payout_items,
        adjustments, ton_payments, audit_blocks TO %I', service_role);
    EXECUTE format('GRANT SELECT ON accounts, outbox_settled, outbox_counted, xp_counts TO %I', service_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION open_accounts, settle_events TO %I', service_role);
    EXECUTE format('GRANT UPDATE (referrer_id, depth, lineage, attach_time, username, first_name, last_name, locale, contacts)
        ON partners TO %I', service_role);
    EXECUTE format('GRANT UPDATE (xp, members, pro_members, counted_as_pro, pro_expires_at, notices_sent)
        ON standings TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, submitted_ref, confirmed_ref, confirm_time, pro_start, pro_end, transaction_id,
        reject_reason, override_reason, refunded) ON payments TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, release_transaction_id, reversed, reserved, paid) ON commissions TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, approver, approve_time, external_ref, reason, end_time, end_transaction_id)
        ON payouts TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, decider, decide_time, reject_reason, transaction_id, reserved, paid)
        ON adjustments TO %I', service_role);
    EXECUTE format('GRANT UPDATE (attempts, first_answer_time, next_attempt_time, finding, traceparent, incoming_ref)
        ON ton_payments TO %I', service_role);
    EXECUTE format('GRANT UPDATE (incoming_ref) ON late_references TO %I', service_role);
    EXECUTE format('GRANT UPDATE (reject_time, reject_reason, reject_detail), DELETE ON outbox TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, published, progress, next_step_time, end_time, cancel_reason)
        ON broadcasts TO %I', service_role);
END $$;

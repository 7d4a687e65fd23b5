-- Each notice of an end of PRO is requested once. A count beside the present end forgets: one that moves away and comes back,
-- as when a renewal is refunded, had its notices.

-- Whoever writes holds the tree lock first: those on their way end before what follows, and the next ones wait.
SELECT pg_advisory_xact_lock(1, 0);

CREATE TABLE pro_notices (
    partner_id uuid NOT NULL REFERENCES partners,
    pro_end timestamptz NOT NULL,
    -- In their order: three days before, one day before, at the end.
    notice smallint NOT NULL CHECK (notice BETWEEN 1 AND 3),
    create_time timestamptz NOT NULL DEFAULT now(),
    -- Whose command requested it; none: an older version's.
    audit_event_id uuid,
    PRIMARY KEY (partner_id, pro_end, notice)
);
CREATE TRIGGER stays BEFORE UPDATE OR DELETE OR TRUNCATE ON pro_notices FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Whoever counts one and does not say which command it was is an older version.
CREATE FUNCTION standings_noticed() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO pro_notices (partner_id, pro_end, notice)
    SELECT NEW.partner_id, NEW.pro_expires_at, n FROM generate_series(1, NEW.notices_sent) AS n
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER standings_noticed AFTER UPDATE OF notices_sent ON standings FOR EACH ROW
    WHEN (NEW.notices_sent > OLD.notices_sent AND NEW.pro_expires_at IS NOT NULL) EXECUTE FUNCTION standings_noticed();

INSERT INTO pro_notices (partner_id, pro_end, notice)
SELECT partner_id, pro_expires_at, n FROM standings, generate_series(1, notices_sent) AS n WHERE pro_expires_at IS NOT NULL;

-- Until when an older version may count without a record: a while yet, if one has written to this database at all.
CREATE TABLE pro_notices_recorded (since timestamptz NOT NULL);
INSERT INTO pro_notices_recorded
SELECT CASE WHEN EXISTS (SELECT FROM audit_events) THEN now() + interval '1 day' ELSE '-infinity' END;
CREATE TRIGGER append_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON pro_notices_recorded FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_change();

CREATE OR REPLACE FUNCTION grant_service_rights(service_role name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', service_role);
    EXECUTE format('GRANT SELECT, INSERT ON plans, partners, standings, xp_awards, payments, late_references, ledger_transactions,
        ledger_entries, commissions, requests, audit_events, outbox, broadcasts, refunds, clawbacks, payouts, payout_items,
        adjustments, ton_payments, audit_blocks, pro_notices TO %I', service_role);
    EXECUTE format('GRANT SELECT ON accounts, outbox_settled, outbox_counted, xp_counts, pro_notices_recorded TO %I', service_role);
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

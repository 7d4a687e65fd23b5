-- That no event is lost between its fact and notify-svc can be counted: per chain of blocks, what was put in the outbox is
-- what was settled and what waits.

-- NULL: of a broadcast, or written by an older version.
ALTER TABLE outbox ADD COLUMN chain_id uuid;

-- How many events its chain has put in the outbox by the end of this block. NULL: an older version wrote it.
ALTER TABLE audit_blocks ADD COLUMN events bigint CHECK (events >= 0);

CREATE TABLE outbox_settled (
    chain_id uuid PRIMARY KEY,
    events bigint NOT NULL CHECK (events > 0)
) WITH (fillfactor = 50);

-- From when on a chain must have begun to be counted: while an older version may still publish, it settles without counting.
CREATE TABLE outbox_counted (since timestamptz NOT NULL);
INSERT INTO outbox_counted
SELECT CASE WHEN EXISTS (SELECT FROM audit_events) THEN now() + interval '1 day' ELSE '-infinity' END;

-- Removes events that notify-svc has committed. Only so are they counted, and only so does the count grow.
CREATE FUNCTION settle_events(ids uuid[]) RETURNS void LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    WITH gone AS (
        DELETE FROM outbox WHERE event_id = ANY (ids) AND reject_time IS NULL RETURNING chain_id
    )
    INSERT INTO outbox_settled AS s
    SELECT chain_id, count(*) FROM gone WHERE chain_id IS NOT NULL GROUP BY chain_id ORDER BY chain_id
    ON CONFLICT (chain_id) DO UPDATE SET events = s.events + excluded.events
$$;
REVOKE EXECUTE ON FUNCTION settle_events FROM PUBLIC;

CREATE OR REPLACE FUNCTION grant_service_rights(service_role name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', service_role);
    EXECUTE format('GRANT SELECT, INSERT ON plans, partners, standings, xp_awards, payments, late_references, ledger_transactions,
        ledger_entries, commissions, requests, audit_events, outbox, broadcasts, refunds, clawbacks, payouts, payout_items,
        adjustments, ton_payments, audit_blocks TO %I', service_role);
    EXECUTE format('GRANT SELECT ON accounts, outbox_settled, outbox_counted TO %I', service_role);
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
    EXECUTE format('GRANT UPDATE (attempts, first_answer_time, next_attempt_time, finding, traceparent) ON ton_payments TO %I', service_role);
    EXECUTE format('GRANT UPDATE (reject_time, reject_reason, reject_detail), DELETE ON outbox TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, published, progress, next_step_time, end_time, cancel_reason)
        ON broadcasts TO %I', service_role);
END $$;

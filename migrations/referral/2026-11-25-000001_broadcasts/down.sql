-- Only where no event of a broadcast waits: the older version would send it like any other.
CREATE OR REPLACE FUNCTION grant_service_rights(service_role name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', service_role);
    EXECUTE format('GRANT SELECT, INSERT ON plans, partners, standings, xp_awards, payments, late_references, ledger_transactions,
        ledger_entries, commissions, requests, audit_events, outbox TO %I', service_role);
    EXECUTE format('GRANT SELECT ON accounts TO %I', service_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION open_accounts TO %I', service_role);
    EXECUTE format('GRANT UPDATE (referrer_id, depth, lineage, username, first_name, last_name, locale, contacts)
        ON partners TO %I', service_role);
    EXECUTE format('GRANT UPDATE (xp, members, pro_members, counted_as_pro, pro_expires_at) ON standings TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, submitted_ref, confirmed_ref, confirm_time, pro_start, pro_end, transaction_id,
        reject_reason, override_reason) ON payments TO %I', service_role);
    EXECUTE format('GRANT UPDATE (reject_time, reject_reason, reject_detail), DELETE ON outbox TO %I', service_role);
END $$;
DROP INDEX outbox_unsettled;
ALTER TABLE outbox DROP COLUMN bulk;
CREATE INDEX outbox_unsettled ON outbox (event_id) WHERE reject_time IS NULL;
DROP TABLE broadcasts;
DROP FUNCTION broadcasts_stay();

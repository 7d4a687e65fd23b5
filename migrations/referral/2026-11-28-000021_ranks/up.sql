-- How many partners have how much XP, so that a rank is a sum over some hundred rows, however many partners there are.
--
-- Tier 0 has a node for each number of XP that somebody has; a node of tier t counts those of 64 nodes of the tier below:
-- node n there is all XP x with x >> 6t = n. Five tiers are enough: in the last, a node is 16,777,216 XP wide.
-- That they are right, CheckLedger proves: a wrong one keeps nobody from getting XP.
SELECT pg_advisory_xact_lock(1, 0);
CREATE TABLE xp_counts (
    tier smallint NOT NULL CHECK (tier BETWEEN 0 AND 4),
    node bigint NOT NULL CHECK (node >= 0),
    partners bigint NOT NULL,
    PRIMARY KEY (tier, node)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 500);

-- What `moved` changes: how many partners came to a number of XP, less those who left it.
CREATE FUNCTION xp_counts_of(numbers bigint[], moved bigint[])
RETURNS TABLE (tier smallint, node bigint, partners bigint) LANGUAGE sql IMMUTABLE AS $$
    SELECT t.tier, m.xp >> 6 * t.tier, sum(m.partners)::bigint
    FROM unnest(numbers, moved) AS m (xp, partners), unnest('{0,1,2,3,4}'::smallint[]) AS t (tier)
    GROUP BY 1, 2 HAVING sum(m.partners) <> 0 ORDER BY 1, 2
$$;

-- Counts what a statement wrote. Two that count take turns until they commit, since one may count in several statements: the
-- lock comes after those on standings and accounts, and while it is held nothing else is waited for.
CREATE FUNCTION standings_counted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    numbers bigint[];
    moved bigint[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(xp), array_agg(partners) INTO numbers, moved
        FROM (SELECT xp, count(*) AS partners FROM new_rows GROUP BY xp) m;
    ELSE
        SELECT array_agg(xp), array_agg(partners) INTO numbers, moved
        FROM (
            SELECT xp, sum(partners)::bigint AS partners
            FROM (SELECT xp, 1 FROM new_rows UNION ALL SELECT xp, -1 FROM old_rows) AS m (xp, partners)
            GROUP BY xp HAVING sum(partners) <> 0
        ) m;
    END IF;
    IF numbers IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(5, 0);
        MERGE INTO xp_counts c USING xp_counts_of(numbers, moved) AS m ON c.tier = m.tier AND c.node = m.node
        WHEN MATCHED THEN UPDATE SET partners = c.partners + m.partners
        WHEN NOT MATCHED THEN INSERT (tier, node, partners) VALUES (m.tier, m.node, m.partners);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER standings_inserted AFTER INSERT ON standings
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION standings_counted();
CREATE TRIGGER standings_updated AFTER UPDATE ON standings
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION standings_counted();

CREATE TRIGGER stays BEFORE DELETE OR TRUNCATE ON standings FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Counts everybody anew, for whoever wrote standings past the triggers. The owner's alone.
CREATE FUNCTION recount_xp() RETURNS void LANGUAGE sql SET search_path = pg_catalog, public, pg_temp AS $$
    LOCK TABLE standings IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM xp_counts;
    INSERT INTO xp_counts
    SELECT c.* FROM (
        SELECT array_agg(xp) AS numbers, array_agg(partners) AS partners
        FROM (SELECT xp, count(*) AS partners FROM standings GROUP BY xp) s
    ) s, xp_counts_of(s.numbers, s.partners) AS c;
$$;
REVOKE EXECUTE ON FUNCTION recount_xp FROM PUBLIC;
SELECT recount_xp();

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
    EXECUTE format('GRANT UPDATE (attempts, first_answer_time, next_attempt_time, finding, traceparent) ON ton_payments TO %I', service_role);
    EXECUTE format('GRANT UPDATE (reject_time, reject_reason, reject_detail), DELETE ON outbox TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, published, progress, next_step_time, end_time, cancel_reason)
        ON broadcasts TO %I', service_role);
END $$;

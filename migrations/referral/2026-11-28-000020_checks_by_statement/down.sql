DROP TRIGGER commissions_inserted ON commissions;
DROP FUNCTION commissions_inserted;
ALTER TABLE commissions
    ADD CONSTRAINT commissions_payment_id_fkey FOREIGN KEY (payment_id) REFERENCES payments,
    ADD CONSTRAINT commissions_transaction_id_fkey FOREIGN KEY (transaction_id) REFERENCES ledger_transactions,
    ADD CONSTRAINT commissions_release_transaction_id_fkey FOREIGN KEY (release_transaction_id) REFERENCES ledger_transactions,
    ADD CONSTRAINT commissions_plan_version_fkey FOREIGN KEY (plan_version) REFERENCES plans,
    ADD CONSTRAINT commissions_earner_id_fkey FOREIGN KEY (earner_id) REFERENCES partners;
DROP TRIGGER xp_awards_inserted ON xp_awards;
DROP FUNCTION xp_awards_inserted;
ALTER TABLE xp_awards
    ADD CONSTRAINT xp_awards_partner_id_fkey FOREIGN KEY (partner_id) REFERENCES partners,
    ADD CONSTRAINT xp_awards_source_partner_id_fkey FOREIGN KEY (source_partner_id) REFERENCES partners;
ALTER TABLE ledger_transactions
    ADD CONSTRAINT ledger_transactions_payment_id_fkey FOREIGN KEY (payment_id) REFERENCES payments;
CREATE OR REPLACE FUNCTION ledger_transactions_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM new_rows n JOIN payments p USING (payment_id)
        WHERE n.kind = 'PRO_SALE' AND (p.state <> 'SUCCEEDED' OR p.transaction_id <> n.transaction_id)
    ) THEN
        RAISE EXCEPTION 'a sale is booked for a payment that succeeded' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_transactions_paid';
    END IF;
    IF EXISTS (
        SELECT FROM new_rows n
        WHERE CASE n.kind
            WHEN 'REFUND' THEN NOT EXISTS (
                SELECT FROM refunds r WHERE r.transaction_id = n.transaction_id AND r.payment_id = n.payment_id)
            WHEN 'PAYOUT_RESERVED' THEN NOT EXISTS (
                SELECT FROM payouts p WHERE p.payout_id = n.payout_id AND p.reserve_transaction_id = n.transaction_id)
            WHEN 'PAYOUT_PAID' THEN NOT EXISTS (
                SELECT FROM payouts p
                WHERE p.payout_id = n.payout_id AND p.end_transaction_id = n.transaction_id AND p.state = 'COMPLETED')
            WHEN 'PAYOUT_RETURNED' THEN NOT EXISTS (
                SELECT FROM payouts p
                WHERE p.payout_id = n.payout_id AND p.end_transaction_id = n.transaction_id AND p.state IN ('FAILED', 'CANCELLED'))
            WHEN 'ADJUSTMENT' THEN NOT EXISTS (
                SELECT FROM adjustments a
                WHERE a.adjustment_id = n.adjustment_id AND a.transaction_id = n.transaction_id AND a.state = 'APPROVED')
            ELSE false END
    ) THEN
        RAISE EXCEPTION 'a transaction is booked for the fact that names it' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_transactions_named';
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION ledger_entries_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    expected bigint;
    carried bigint;
BEGIN
    IF EXISTS (
        SELECT FROM new_rows n JOIN accounts a USING (account_id)
        GROUP BY n.transaction_id, a.asset HAVING sum(n.amount) <> 0
    ) THEN
        RAISE EXCEPTION 'a transaction does not sum to zero' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_balance';
    END IF;
    IF EXISTS (
        SELECT FROM (SELECT transaction_id, count(*) AS entries FROM new_rows GROUP BY 1) n
        LEFT JOIN ledger_transactions t USING (transaction_id)
        WHERE t.transaction_id IS NULL
            OR n.entries <> (SELECT count(*) FROM ledger_entries e WHERE e.transaction_id = n.transaction_id)
    ) THEN
        RAISE EXCEPTION 'entries come with their transaction, all at once' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_sealed';
    END IF;
    IF EXISTS (
        SELECT FROM (
            SELECT n.transaction_id, coalesce(sum(n.amount) FILTER (WHERE a.purpose = 'PLATFORM_CLEARING'), 0) AS received
            FROM new_rows n JOIN accounts a USING (account_id) GROUP BY 1
        ) n
        JOIN ledger_transactions t USING (transaction_id) JOIN payments p USING (payment_id)
        WHERE t.kind = 'PRO_SALE' AND n.received <> -p.amount
    ) THEN
        RAISE EXCEPTION 'a sale books what was paid' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_received';
    END IF;
    -- Most batches are sales alone.
    IF EXISTS (
        SELECT FROM (SELECT DISTINCT transaction_id FROM new_rows) n JOIN ledger_transactions t USING (transaction_id)
        WHERE t.kind <> 'PRO_SALE'
    ) AND EXISTS (
        SELECT FROM (
            SELECT n.transaction_id,
                coalesce(sum(n.amount) FILTER (WHERE a.purpose = 'PLATFORM_CLEARING'), 0) AS clearing,
                coalesce(sum(n.amount) FILTER (WHERE a.purpose = 'PARTNER_AVAILABLE'), 0) AS available,
                coalesce(sum(n.amount) FILTER (WHERE a.purpose = 'PARTNER_PENDING'), 0) AS pending,
                coalesce(sum(n.amount) FILTER (WHERE a.purpose = 'PARTNER_RESERVED'), 0) AS reserved,
                count(*) AS entries, count(DISTINCT a.owner_id) AS owners, max(a.owner_id::text) AS owner,
                coalesce(min(n.balance_after) FILTER (WHERE a.purpose = 'PARTNER_AVAILABLE'), 0) AS left_available
            FROM new_rows n JOIN accounts a USING (account_id) GROUP BY 1
        ) n
        JOIN ledger_transactions t USING (transaction_id)
        LEFT JOIN refunds r ON t.kind = 'REFUND' AND r.transaction_id = t.transaction_id
        LEFT JOIN payouts p ON p.payout_id = t.payout_id
        LEFT JOIN adjustments j ON j.adjustment_id = t.adjustment_id
        WHERE t.kind <> 'PRO_SALE' AND NOT coalesce(CASE t.kind
            WHEN 'REFUND' THEN n.clearing = r.amount AND n.available <= 0 AND n.pending <= 0 AND n.reserved = 0
            WHEN 'RELEASE' THEN n.pending < 0 AND n.available = -n.pending AND n.entries = 2 AND n.owners = 1
            WHEN 'PAYOUT_RESERVED' THEN n.reserved = p.amount AND n.available = -p.amount AND n.entries = 2
                AND n.owners = 1 AND n.owner = p.partner_id::text AND n.left_available >= 0
            WHEN 'PAYOUT_PAID' THEN n.reserved = -p.amount AND n.clearing = p.amount AND n.entries = 2
                AND n.owner = p.partner_id::text
            WHEN 'PAYOUT_RETURNED' THEN n.reserved = -p.amount AND n.available = p.amount AND n.entries = 2
                AND n.owners = 1 AND n.owner = p.partner_id::text
            WHEN 'ADJUSTMENT' THEN n.available = j.amount AND n.entries = 2 AND n.owners = 1 AND n.owner = j.partner_id::text
            END, false)
    ) THEN
        RAISE EXCEPTION 'a transaction moves something else than its fact says' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_fact';
    END IF;
    IF EXISTS (
        SELECT FROM (
            SELECT version, amount, balance_after, lag(version) OVER w AS before, lag(balance_after) OVER w AS balance
            FROM new_rows WINDOW w AS (PARTITION BY account_id ORDER BY version)
        ) n
        WHERE before IS NOT NULL AND (version <> before + 1 OR balance_after <> balance + amount)
    ) THEN
        RAISE EXCEPTION 'entries do not follow one another' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_chain';
    END IF;
    WITH ends AS (
        SELECT account_id, min(version) AS first, max(version) AS last, sum(amount) AS moved
        FROM new_rows GROUP BY account_id
    ), tails AS (
        SELECT e.account_id, e.first, e.last, n.balance_after, n.balance_after - e.moved AS opening
        FROM ends e JOIN new_rows n ON n.account_id = e.account_id AND n.version = e.last
    ), carry AS (
        UPDATE accounts a SET version = t.last, balance = t.balance_after
        FROM tails t
        WHERE a.account_id = t.account_id AND a.version = t.first - 1 AND a.balance = t.opening
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM ends), (SELECT count(*) FROM carry) INTO expected, carried;
    IF carried <> expected THEN
        RAISE EXCEPTION 'an entry does not continue its account' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_chain';
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER payments_keep_key ON payments;
CREATE OR REPLACE FUNCTION partners_updated() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    moved uuid[];
BEGIN
    SELECT array_agg(n.partner_id) INTO moved
    FROM new_rows n JOIN old_rows o USING (partner_id)
    WHERE (n.referrer_id, n.depth, n.lineage) IS DISTINCT FROM (o.referrer_id, o.depth, o.lineage);
    IF moved IS NULL THEN
        RETURN NULL;
    END IF;
    -- A snapshot older than the lock would hide what others just moved.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the tree changes under read committed only' USING ERRCODE = 'check_violation', CONSTRAINT = 'partners_tree';
    END IF;
    PERFORM pg_advisory_xact_lock(1, 0);
    IF EXISTS (
        SELECT FROM new_rows n JOIN old_rows o USING (partner_id)
        WHERE o.referrer_id IS NOT NULL AND n.referrer_id IS DISTINCT FROM o.referrer_id
    ) THEN
        RAISE EXCEPTION 'the first referrer stays' USING ERRCODE = 'check_violation', CONSTRAINT = 'partners_first_referrer';
    END IF;
    IF EXISTS (
        SELECT FROM partners c JOIN partners p ON p.partner_id = c.referrer_id
        WHERE (c.partner_id = ANY (moved) OR c.referrer_id = ANY (moved))
            AND (c.depth <> p.depth + 1 OR c.lineage <> (p.partner_id || p.lineage)[1:9])
    ) THEN
        RAISE EXCEPTION 'a partner''s depth or lineage does not follow the referrer''s'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'partners_tree';
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION commissions_updated() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM new_rows n JOIN old_rows o USING (payment_id, level)
        WHERE n.release_transaction_id IS DISTINCT FROM o.release_transaction_id AND NOT EXISTS (
            SELECT FROM ledger_transactions t
            WHERE t.transaction_id = n.release_transaction_id AND t.kind = 'RELEASE' AND t.xmin = pg_current_xact_id()::xid)
    ) THEN
        RAISE EXCEPTION 'a commission is released by a release of its own'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'commissions_release';
    END IF;
    RETURN NULL;
END $$;

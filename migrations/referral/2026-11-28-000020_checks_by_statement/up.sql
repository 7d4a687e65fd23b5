-- What a statement writes is checked once for all its rows, and each thing it refers to is looked up once.
--
-- A foreign key is checked for every row by a statement of its own, which locks the row that it finds: nine commissions cost
-- 45 of these, more than all else that a sale does. Partners, payments, plans and ledger transactions are never deleted and
-- keep their keys, so that what is there when a row is written stays. What a commission and an award refer to is said more
-- exactly here than a foreign key could.

-- Whoever writes holds the tree lock first: those on their way end before the tables below are altered, and the next ones wait.
SELECT pg_advisory_xact_lock(1, 0);

-- ── commissions ─────────────────────────────────────────────────────────────────────────────────────────────────
CREATE FUNCTION commissions_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    mispaid boolean;
    misearned boolean;
    released boolean;
BEGIN
    -- The plan is the one in force at the sale, not the payment's.
    SELECT bool_or((p.state, p.transaction_id, p.asset, p.amount)
            IS DISTINCT FROM ('SUCCEEDED', n.transaction_id, n.asset, n.base) OR v.version IS NULL),
        bool_or(n.earner_id IS DISTINCT FROM b.lineage[n.level]),
        bool_or(n.release_transaction_id IS NOT NULL)
    INTO mispaid, misearned, released
    FROM new_rows n
    LEFT JOIN payments p USING (payment_id)
    LEFT JOIN partners b ON b.partner_id = p.partner_id
    LEFT JOIN plans v ON v.version = n.plan_version;
    IF mispaid THEN
        RAISE EXCEPTION 'a commission is earned by a payment, on its terms'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'commissions_payment';
    END IF;
    IF misearned THEN
        RAISE EXCEPTION 'the ancestor of that level earns a commission'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'commissions_earner';
    END IF;
    IF released THEN
        RAISE EXCEPTION 'a commission is released after it was earned'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'commissions_release';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER commissions_inserted AFTER INSERT ON commissions
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION commissions_inserted();
ALTER TABLE commissions
    DROP CONSTRAINT commissions_payment_id_fkey,
    DROP CONSTRAINT commissions_transaction_id_fkey,
    -- Whoever updates it is checked by commissions_updated.
    DROP CONSTRAINT commissions_release_transaction_id_fkey,
    DROP CONSTRAINT commissions_plan_version_fkey,
    DROP CONSTRAINT commissions_earner_id_fkey;

-- As before, without comparing each row with each: what changed is what is new.
CREATE OR REPLACE FUNCTION commissions_updated() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM (
            SELECT payment_id, level, release_transaction_id FROM new_rows
            EXCEPT SELECT payment_id, level, release_transaction_id FROM old_rows
        ) n
        WHERE NOT EXISTS (
            SELECT FROM ledger_transactions t
            WHERE t.transaction_id = n.release_transaction_id AND t.kind = 'RELEASE' AND t.xmin = pg_current_xact_id()::xid)
    ) THEN
        RAISE EXCEPTION 'a commission is released by a release of its own'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'commissions_release';
    END IF;
    RETURN NULL;
END $$;

-- A sale's ID was kept by what referred to it.
CREATE TRIGGER payments_keep_key BEFORE UPDATE OF payment_id ON payments FOR EACH ROW
    WHEN (NEW.payment_id <> OLD.payment_id) EXECUTE FUNCTION payments_success_stays();

-- ── the tree ────────────────────────────────────────────────────────────────────────────────────────────────────
-- As before, without comparing each row with each.
CREATE OR REPLACE FUNCTION partners_updated() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    moved uuid[];
BEGIN
    SELECT array_agg(partner_id) INTO moved
    FROM (
        SELECT partner_id, referrer_id, depth, lineage FROM new_rows
        EXCEPT SELECT partner_id, referrer_id, depth, lineage FROM old_rows
    ) n;
    IF moved IS NULL THEN
        RETURN NULL;
    END IF;
    -- A snapshot older than the lock would hide what others just moved.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the tree changes under read committed only' USING ERRCODE = 'check_violation', CONSTRAINT = 'partners_tree';
    END IF;
    PERFORM pg_advisory_xact_lock(1, 0);
    IF EXISTS (
        SELECT partner_id, referrer_id FROM old_rows WHERE referrer_id IS NOT NULL
        EXCEPT SELECT partner_id, referrer_id FROM new_rows
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

-- ── awards ──────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE FUNCTION xp_awards_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM new_rows n LEFT JOIN partners s ON s.partner_id = n.source_partner_id
        WHERE n.partner_id IS DISTINCT FROM s.lineage[n.level]
    ) THEN
        RAISE EXCEPTION 'the ancestor of that level is awarded'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'xp_awards_ancestor';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER xp_awards_inserted AFTER INSERT ON xp_awards
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION xp_awards_inserted();
ALTER TABLE xp_awards
    DROP CONSTRAINT xp_awards_partner_id_fkey,
    DROP CONSTRAINT xp_awards_source_partner_id_fkey;

-- ── the ledger ──────────────────────────────────────────────────────────────────────────────────────────────────
-- As before; and a payment that isn't there is none that succeeded.
CREATE OR REPLACE FUNCTION ledger_transactions_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM new_rows n LEFT JOIN payments p USING (payment_id)
        WHERE n.kind = 'PRO_SALE' AND (p.state, p.transaction_id) IS DISTINCT FROM ('SUCCEEDED', n.transaction_id)
    ) THEN
        RAISE EXCEPTION 'a sale is booked for a payment that succeeded'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_transactions_paid';
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
        RAISE EXCEPTION 'a transaction is booked for the fact that names it'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_transactions_named';
    END IF;
    RETURN NULL;
END $$;
ALTER TABLE ledger_transactions DROP CONSTRAINT ledger_transactions_payment_id_fkey;

-- As before, in one pass by transaction and one by account; and a transaction is in one asset. Never compiled, whoever writes:
-- that would take longer than it does.
CREATE OR REPLACE FUNCTION ledger_entries_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
DECLARE
    unbalanced boolean;
    unsealed boolean;
    mispaid boolean;
    others boolean;
    expected bigint;
    carried bigint;
BEGIN
    SELECT bool_or(n.total <> 0 OR n.first_asset <> n.last_asset),
        bool_or(t.transaction_id IS NULL
            OR n.entries <> (SELECT count(*) FROM ledger_entries e WHERE e.transaction_id = n.transaction_id)),
        bool_or(t.kind = 'PRO_SALE' AND n.clearing IS DISTINCT FROM -p.amount),
        bool_or(t.kind <> 'PRO_SALE')
    INTO unbalanced, unsealed, mispaid, others
    FROM (
        SELECT n.transaction_id, count(*) AS entries, min(a.asset) AS first_asset, max(a.asset) AS last_asset,
            sum(n.amount) FILTER (WHERE a.account_id IS NOT NULL) AS total,
            sum(n.amount) FILTER (WHERE a.purpose = 'PLATFORM_CLEARING') AS clearing
        FROM new_rows n LEFT JOIN accounts a USING (account_id)
        GROUP BY n.transaction_id
    ) n
    LEFT JOIN ledger_transactions t USING (transaction_id)
    LEFT JOIN payments p ON t.kind = 'PRO_SALE' AND p.payment_id = t.payment_id;
    IF unbalanced THEN
        RAISE EXCEPTION 'a transaction does not sum to zero' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_balance';
    END IF;
    IF unsealed THEN
        RAISE EXCEPTION 'entries come with their transaction, all at once' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_sealed';
    END IF;
    -- Entries that don't follow one another carry nothing on.
    WITH steps AS (
        SELECT account_id, version, amount, balance_after, lag(version) OVER w AS before, lag(balance_after) OVER w AS balance
        FROM new_rows WINDOW w AS (PARTITION BY account_id ORDER BY version)
    ), ends AS (
        SELECT account_id, min(version) - 1 AS before, max(version) AS version, sum(amount) AS moved,
            min(balance_after - amount) FILTER (WHERE before IS NULL) AS opening,
            bool_and(before IS NULL OR (version = before + 1 AND balance_after = balance + amount)) AS follow
        FROM steps GROUP BY account_id
    ), carry AS (
        UPDATE accounts a SET version = e.version, balance = e.opening + e.moved
        FROM ends e
        WHERE a.account_id = e.account_id AND a.version = e.before AND a.balance = e.opening AND e.follow
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM ends), (SELECT count(*) FROM carry) INTO expected, carried;
    IF carried <> expected THEN
        RAISE EXCEPTION 'an entry does not continue its account' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_chain';
    END IF;
    IF mispaid THEN
        RAISE EXCEPTION 'a sale books what was paid' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_received';
    END IF;
    -- Most batches are sales alone.
    IF others AND EXISTS (
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
    RETURN NULL;
END $$;

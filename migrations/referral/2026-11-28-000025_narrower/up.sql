-- Whoever writes holds the tree lock first: those on their way end before the tables below are altered, and the next ones wait.
SELECT pg_advisory_xact_lock(1, 0);

DROP INDEX commissions_open;

-- As before, in whole numbers: floor(base × rate ÷ 10000) without a product that could overflow. The next migration looks at what
-- is there.
ALTER TABLE commissions DROP CONSTRAINT commissions_amount,
    ADD CONSTRAINT commissions_amount CHECK (amount = base / 10000 * rate_bps + base % 10000 * rate_bps / 10000) NOT VALID;

-- Answers are some kilobytes, and compressed: by what is quick, where the server has it.
DO $$
BEGIN
    ALTER TABLE requests ALTER COLUMN answer SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END $$;

-- As before, looking for what is missing only if something is.
CREATE OR REPLACE FUNCTION open_accounts(purposes text[], owners uuid[], assets text[])
RETURNS TABLE (account_id bigint, purpose text, owner_id uuid, asset text, balance bigint, version bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    ids bigint[];
BEGIN
    FOR attempt IN 1..2 LOOP
        -- Found first, locked by ID alone: a row that another sale moved meanwhile is checked again against the lock's own
        -- condition, and one with a subquery would lose it. Plain equality, so that the unique key finds each.
        ids := ARRAY(
            SELECT p.account_id FROM unnest(purposes, owners, assets) AS w (purpose, owner_id, asset)
            JOIN accounts p ON p.purpose = w.purpose AND p.owner_id = w.owner_id AND p.asset = w.asset
            UNION ALL
            SELECT p.account_id FROM unnest(purposes, owners, assets) AS w (purpose, owner_id, asset)
            JOIN accounts p ON p.purpose = w.purpose AND p.owner_id IS NULL AND p.asset = w.asset
            WHERE w.owner_id IS NULL
        );
        EXIT WHEN attempt = 2 OR cardinality(ids) >= cardinality(purposes);
        -- The platform's accounts are there from the beginning.
        INSERT INTO accounts (purpose, owner_id, asset)
        SELECT w.purpose, w.owner_id, w.asset
        FROM unnest(purposes, owners, assets) AS w (purpose, owner_id, asset)
        WHERE w.owner_id IS NOT NULL AND NOT EXISTS (
            SELECT FROM accounts a
            WHERE a.purpose = w.purpose AND a.owner_id = w.owner_id AND a.asset = w.asset
        )
        ORDER BY 1, 2, 3
        ON CONFLICT (purpose, owner_id, asset) DO NOTHING;
    END LOOP;
    RETURN QUERY
    SELECT a.account_id, a.purpose, a.owner_id, a.asset, a.balance, a.version
    FROM accounts a
    WHERE a.account_id = ANY (ids)
    ORDER BY a.account_id
    FOR NO KEY UPDATE;
END $$;

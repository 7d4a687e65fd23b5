CREATE INDEX commissions_open ON commissions (earner_id, transaction_id, payment_id, level)
    WHERE state = 'AVAILABLE' AND amount - reversed - reserved - paid <> 0;
ALTER TABLE commissions DROP CONSTRAINT commissions_amount,
    ADD CONSTRAINT commissions_amount CHECK (amount = div(base::numeric * rate_bps, 10000));
ALTER TABLE requests ALTER COLUMN answer SET COMPRESSION default;
CREATE OR REPLACE FUNCTION open_accounts(purposes text[], owners uuid[], assets text[])
RETURNS TABLE (account_id bigint, purpose text, owner_id uuid, asset text, balance bigint, version bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    ids bigint[];
BEGIN
    INSERT INTO accounts (purpose, owner_id, asset)
    SELECT w.purpose, w.owner_id, w.asset
    FROM unnest(purposes, owners, assets) AS w (purpose, owner_id, asset)
    -- Plain equality, so that the unique key finds each; the platform's accounts are there from the beginning.
    WHERE w.owner_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM accounts a
        WHERE a.purpose = w.purpose AND a.owner_id = w.owner_id AND a.asset = w.asset
    )
    ORDER BY 1, 2, 3
    ON CONFLICT (purpose, owner_id, asset) DO NOTHING;
    -- Found first, locked by ID alone: a row that another sale moved meanwhile is checked again against the lock's own
    -- condition, and one with a subquery would lose it.
    ids := ARRAY(
        SELECT p.account_id FROM unnest(purposes, owners, assets) AS w (purpose, owner_id, asset)
        JOIN accounts p ON p.purpose = w.purpose AND p.owner_id = w.owner_id AND p.asset = w.asset
        UNION ALL
        SELECT p.account_id FROM unnest(purposes, owners, assets) AS w (purpose, owner_id, asset)
        JOIN accounts p ON p.purpose = w.purpose AND p.owner_id IS NULL AND p.asset = w.asset
        WHERE w.owner_id IS NULL
    );
    RETURN QUERY
    SELECT a.account_id, a.purpose, a.owner_id, a.asset, a.balance, a.version
    FROM accounts a
    WHERE a.account_id = ANY (ids)
    ORDER BY a.account_id
    FOR NO KEY UPDATE;
END $$;

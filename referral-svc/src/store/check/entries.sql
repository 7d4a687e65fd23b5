-- Each entry continues the one before in its account; so a sum over an account is its last entry.
WITH e AS MATERIALIZED (
    SELECT e.account_id, e.version, e.amount, e.balance_after,
        lag(e.version) OVER w AS version_before, lag(e.balance_after) OVER w AS balance_before
    FROM ledger_entries e
    WHERE SLICE(e.account_id, e.version)
    WINDOW w AS (PARTITION BY e.account_id ORDER BY e.version)
), a AS MATERIALIZED (
    SELECT a.account_id FROM (SELECT DISTINCT account_id FROM e) d,
        LATERAL (SELECT * FROM accounts a WHERE a.account_id = d.account_id OFFSET 0) a
)
SELECT 'entries_follow_one_another' AS name, CASE WHEN f.fine THEN '' ELSE e.account_id || ' version ' || e.version END AS who,
    true AS looked, f.fine
FROM e
CROSS JOIN LATERAL (VALUES (
    e.account_id IN (SELECT account_id FROM a) AND e.balance_after - e.amount = CASE
        WHEN e.version = 1 THEN 0
        WHEN e.version_before = e.version - 1 THEN e.balance_before
        -- The one before is in another slice.
        ELSE (SELECT b.balance_after FROM ledger_entries b WHERE b.account_id = e.account_id AND b.version = e.version - 1) END
)) AS f (fine)

-- An account stands where its last entry left it.
SELECT 'balances_equal_entries' AS name, a.account_id::text AS who, true AS looked,
    a.balance = coalesce(e.balance_after, 0) AND a.version = coalesce(e.version, 0) AS fine
FROM accounts a
LEFT JOIN LATERAL (
    SELECT e.version, e.balance_after FROM ledger_entries e
    WHERE e.account_id = a.account_id ORDER BY e.version DESC LIMIT 1
) e ON true
WHERE SLICE(a.account_id)

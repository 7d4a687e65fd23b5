-- What a block sealed is still there.
SELECT 'sealed_transactions_exist' AS name, s.transaction_id::text AS who, true AS looked, t.transaction_id IS NOT NULL AS fine
FROM audit_blocks b
CROSS JOIN unnest(b.transaction_ids) AS s (transaction_id)
LEFT JOIN ledger_transactions t USING (transaction_id)
WHERE SLICE(b.chain_id, b.position)

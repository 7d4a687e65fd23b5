-- What a block sealed is still there, and has the block's time: by that, its seal is found and compared.
WITH s AS MATERIALIZED (
    SELECT b.create_time AS seal_time, id AS transaction_id
    FROM audit_blocks b CROSS JOIN unnest(b.transaction_ids) AS id
    WHERE SLICE(b.chain_id, b.position)
)
SELECT v.name, s.transaction_id::text AS who, v.looked, v.fine
FROM s
LEFT JOIN LATERAL (SELECT * FROM ledger_transactions t WHERE t.transaction_id = s.transaction_id OFFSET 0) t ON true
CROSS JOIN LATERAL (VALUES
    ('sealed_transactions_exist', true, t.transaction_id IS NOT NULL),
    ('transactions_equal_their_seals', t.create_time <> s.seal_time, false)
) AS v (name, looked, fine)

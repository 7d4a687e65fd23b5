-- Each transaction as it was when its block sealed it. What no command booked and no block sealed is from an older version,
-- which may have served beside the new one for a day after the first block; unless the database is as new as the counts are.
WITH t AS MATERIALIZED (
    SELECT t.transaction_id, t.create_time, t.audit_event_id FROM ledger_transactions t WHERE SLICE(t.transaction_id)
), blocks AS MATERIALIZED (
    SELECT b.transaction_ids, b.transaction_hashes || ''::bytea AS hashes
    FROM (SELECT DISTINCT create_time FROM t) d,
        LATERAL (SELECT * FROM audit_blocks b WHERE b.create_time = d.create_time OFFSET 0) b
), sealed AS (
    SELECT s.transaction_id, substring(b.hashes FROM (32 * (s.number - 1) + 1)::int FOR 32) AS hash
    FROM blocks b, unnest(b.transaction_ids) WITH ORDINALITY AS s (transaction_id, number)
    WHERE SLICE(s.transaction_id)
), found AS (
    SELECT t.transaction_id,
        transaction_hash(t, count(e.transaction_id), string_agg(entry_bytes(e), '' ORDER BY e.account_id, e.version)) AS hash
    FROM ledger_transactions t
    LEFT JOIN ledger_entries e ON e.transaction_id = t.transaction_id AND SLICE(e.transaction_id)
    WHERE SLICE(t.transaction_id)
    GROUP BY t.transaction_id
)
SELECT 'transactions_equal_their_seals' AS name, transaction_id::text AS who,
    t.audit_event_id IS NOT NULL OR s.hash IS NOT NULL
        OR t.create_time >= (SELECT min(create_time) FROM audit_blocks) + interval '24 hours'
        OR EXISTS (SELECT FROM outbox_counted WHERE since = '-infinity') AS looked,
    s.hash = f.hash AS fine
FROM t
LEFT JOIN found f USING (transaction_id)
LEFT JOIN sealed s USING (transaction_id)

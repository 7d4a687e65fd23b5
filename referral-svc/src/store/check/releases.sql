-- A release makes available what refunds had left until then of the commissions that name it. What they took before came out
-- of the pending account.
WITH held AS (
    SELECT c.earner_id, c.release_transaction_id AS transaction_id, sum(c.amount - coalesce(k.amount, 0)) AS amount
    FROM commissions c
    LEFT JOIN LATERAL (
        SELECT sum(k.amount) AS amount FROM refunds r,
            LATERAL (SELECT * FROM clawbacks k WHERE k.refund_id = r.refund_id AND k.level = c.level OFFSET 0) k
        WHERE r.payment_id = c.payment_id AND 0 < (
            SELECT count(*) FROM ledger_entries e, LATERAL (SELECT * FROM accounts a WHERE a.account_id = e.account_id OFFSET 0) a
            WHERE e.transaction_id = r.transaction_id AND a.owner_id = c.earner_id AND a.purpose = 'PARTNER_PENDING')
    ) k ON c.reversed > 0
    WHERE SLICE(c.earner_id) AND c.state = 'AVAILABLE' AND c.release_time IS NOT NULL
    GROUP BY c.earner_id, c.release_transaction_id
), booked AS (
    SELECT a.owner_id AS earner_id, t.transaction_id, -e.amount AS amount
    FROM accounts a,
        LATERAL (SELECT * FROM ledger_entries e WHERE e.account_id = a.account_id OFFSET 0) e,
        LATERAL (SELECT * FROM ledger_transactions t WHERE t.transaction_id = e.transaction_id OFFSET 0) t
    WHERE a.purpose = 'PARTNER_PENDING' AND SLICE(a.owner_id) AND t.kind = 'RELEASE'
)
SELECT 'releases_equal_commissions' AS name, coalesce(transaction_id, earner_id)::text AS who, true AS looked,
    -- Without a transaction nothing was left to release.
    CASE WHEN transaction_id IS NULL THEN h.amount = 0 ELSE h.amount = b.amount END AS fine
FROM held h FULL JOIN booked b USING (earner_id, transaction_id)

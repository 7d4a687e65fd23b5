-- A refund's transaction gives back to the buyer what it says, and takes from each earner what its clawback says.
SELECT 'refunds_are_booked' AS name, r.refund_id::text AS who, true AS looked,
    t.kind = 'REFUND' AND t.payment_id = r.payment_id AND p.asset = r.asset
    AND m.clearing = r.amount AND m.revenue = k.amount - r.amount AND m.partners = k.number AND k.fine AS fine
FROM refunds r
LEFT JOIN LATERAL (SELECT * FROM payments p WHERE p.payment_id = r.payment_id OFFSET 0) p ON true
LEFT JOIN LATERAL (SELECT * FROM ledger_transactions t WHERE t.transaction_id = r.transaction_id OFFSET 0) t ON true
CROSS JOIN LATERAL (
    SELECT coalesce(sum(e.amount) FILTER (WHERE a.purpose = 'PLATFORM_CLEARING'), 0) AS clearing,
        coalesce(sum(e.amount) FILTER (WHERE a.purpose = 'PLATFORM_REVENUE'), 0) AS revenue,
        count(a.owner_id) AS partners
    FROM ledger_entries e, LATERAL (SELECT * FROM accounts a WHERE a.account_id = e.account_id OFFSET 0) a
    WHERE e.transaction_id = r.transaction_id
) m
CROSS JOIN LATERAL (
    SELECT coalesce(sum(k.amount), 0) AS amount, count(*) AS number,
        coalesce(bool_and(k.payment_id = r.payment_id AND EXISTS (
            SELECT FROM ledger_entries e, LATERAL (SELECT * FROM accounts a WHERE a.account_id = e.account_id OFFSET 0) a
            WHERE e.transaction_id = r.transaction_id AND a.owner_id = c.earner_id AND e.amount = -k.amount
                AND a.purpose IN ('PARTNER_AVAILABLE', 'PARTNER_PENDING'))), true) AS fine
    FROM clawbacks k
    LEFT JOIN LATERAL (
        SELECT * FROM commissions c WHERE c.payment_id = k.payment_id AND c.level = k.level OFFSET 0
    ) c ON true
    WHERE k.refund_id = r.refund_id
) k
WHERE SLICE(r.refund_id)

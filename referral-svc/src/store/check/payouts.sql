-- A payout is booked as its state says, and its items are its partner's claims and sum to it.
SELECT 'payouts_are_whole' AS name, o.payout_id::text AS who, true AS looked,
    t.kind = 'PAYOUT_RESERVED' AND t.payout_id = o.payout_id
    AND CASE
        WHEN o.state IN ('REQUESTED', 'APPROVED') THEN o.end_transaction_id IS NULL
        ELSE n.payout_id = o.payout_id
            AND n.kind = CASE o.state WHEN 'COMPLETED' THEN 'PAYOUT_PAID' ELSE 'PAYOUT_RETURNED' END END
    AND i.amount = o.amount AND i.fine AS fine
FROM payouts o
LEFT JOIN LATERAL (SELECT * FROM ledger_transactions t WHERE t.transaction_id = o.reserve_transaction_id OFFSET 0) t ON true
LEFT JOIN LATERAL (SELECT * FROM ledger_transactions n WHERE n.transaction_id = o.end_transaction_id OFFSET 0) n ON true
CROSS JOIN LATERAL (
    SELECT sum(i.amount) AS amount, bool_and(coalesce(c.earner_id, j.partner_id) IS NOT DISTINCT FROM o.partner_id) AS fine
    FROM payout_items i
    LEFT JOIN LATERAL (
        SELECT * FROM commissions c WHERE c.payment_id = i.payment_id AND c.level = i.level OFFSET 0
    ) c ON true
    LEFT JOIN LATERAL (SELECT * FROM adjustments j WHERE j.adjustment_id = i.adjustment_id OFFSET 0) j ON true
    WHERE i.payout_id = o.payout_id
) i
WHERE SLICE(o.payout_id)

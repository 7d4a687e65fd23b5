-- An approved adjustment is booked, and reserved and paid as payouts say.
SELECT 'adjustments_are_whole' AS name, j.adjustment_id::text AS who, true AS looked,
    (j.state <> 'APPROVED' OR (t.kind = 'ADJUSTMENT' AND t.adjustment_id = j.adjustment_id))
    AND j.reserved = i.reserved AND j.paid = i.paid AS fine
FROM adjustments j
LEFT JOIN LATERAL (SELECT * FROM ledger_transactions t WHERE t.transaction_id = j.transaction_id OFFSET 0) t ON true
CROSS JOIN LATERAL (
    SELECT coalesce(sum(i.amount) FILTER (WHERE o.state IN ('REQUESTED', 'APPROVED')), 0) AS reserved,
        coalesce(sum(i.amount) FILTER (WHERE o.state = 'COMPLETED'), 0) AS paid
    FROM payouts o, LATERAL (SELECT * FROM payout_items i WHERE i.payout_id = o.payout_id OFFSET 0) i
    WHERE o.partner_id = j.partner_id AND i.adjustment_id = j.adjustment_id
) i
WHERE SLICE(j.adjustment_id)

-- What became of a payment's money: booked, given back, taken back from those who earned on it, paid out to them.
WITH p AS MATERIALIZED (
    SELECT p.* FROM payments p WHERE SLICE(p.payment_id) AND p.state = 'SUCCEEDED'
), taken AS (
    SELECT r.payment_id, k.level, sum(k.amount) AS amount
    FROM refunds r, LATERAL (SELECT * FROM clawbacks k WHERE k.refund_id = r.refund_id OFFSET 0) k
    WHERE SLICE(r.payment_id) GROUP BY r.payment_id, k.level
), items AS (
    SELECT i.payment_id, i.level,
        coalesce(sum(i.amount) FILTER (WHERE o.state IN ('REQUESTED', 'APPROVED')), 0) AS reserved,
        coalesce(sum(i.amount) FILTER (WHERE o.state = 'COMPLETED'), 0) AS paid
    FROM payout_items i, LATERAL (SELECT * FROM payouts o WHERE o.payout_id = i.payout_id OFFSET 0) o
    WHERE SLICE(i.payment_id) GROUP BY i.payment_id, i.level
)
SELECT v.name, CASE WHEN v.fine THEN '' ELSE p.payment_id::text END AS who, true AS looked, v.fine
FROM p
LEFT JOIN LATERAL (SELECT * FROM ledger_transactions t WHERE t.transaction_id = p.transaction_id OFFSET 0) t ON true
CROSS JOIN LATERAL (SELECT sum(r.amount) AS amount FROM refunds r WHERE r.payment_id = p.payment_id) r
CROSS JOIN LATERAL (VALUES
    ('payments_are_booked', t.kind = 'PRO_SALE' AND t.payment_id = p.payment_id),
    ('references_used_once', NOT EXISTS (
        SELECT FROM ton_payments t WHERE t.incoming_ref = p.confirmed_ref AND t.payment_id <> p.payment_id)
        AND NOT EXISTS (
            SELECT FROM ton_payments t, LATERAL (SELECT * FROM payments o WHERE o.confirmed_ref = t.incoming_ref OFFSET 0) o
            WHERE t.payment_id = p.payment_id AND o.payment_id <> p.payment_id)),
    ('refunds_equal_payments', p.refunded = coalesce(r.amount, 0))
) AS v (name, fine)
UNION ALL
SELECT v.name, CASE WHEN v.fine THEN '' ELSE c.payment_id || ' level ' || c.level END, true, v.fine
FROM commissions c
LEFT JOIN p USING (payment_id)
LEFT JOIN taken k ON k.payment_id = c.payment_id AND k.level = c.level
LEFT JOIN items i ON i.payment_id = c.payment_id AND i.level = c.level
CROSS JOIN LATERAL (VALUES
    ('reversals_equal_refunds', c.base = p.amount AND c.reversed = coalesce(k.amount, 0)
        AND c.reversed = CASE WHEN p.refunded = 0 THEN 0 ELSE div(c.amount::numeric * p.refunded, c.base) END),
    ('commissions_equal_payouts', c.reserved = coalesce(i.reserved, 0) AND c.paid = coalesce(i.paid, 0))
) AS v (name, fine)
WHERE SLICE(c.payment_id)

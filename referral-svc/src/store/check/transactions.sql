-- What each transaction moved, against the fact that it is booked for, and what was asked to be told of it.
WITH t AS MATERIALIZED (
    SELECT t.* FROM ledger_transactions t WHERE SLICE(t.transaction_id)
), posted AS MATERIALIZED (
    SELECT e.transaction_id, e.account_id, e.amount FROM ledger_entries e WHERE SLICE(e.transaction_id)
), a AS MATERIALIZED (
    SELECT a.account_id, a.purpose, a.owner_id, a.asset
    FROM (SELECT DISTINCT account_id FROM posted) p,
        LATERAL (SELECT * FROM accounts a WHERE a.account_id = p.account_id OFFSET 0) a
), e AS MATERIALIZED (
    SELECT p.transaction_id, p.amount, a.purpose, a.owner_id, a.asset FROM posted p LEFT JOIN a USING (account_id)
), moved AS MATERIALIZED (
    SELECT transaction_id, asset, count(*) AS entries, sum(amount) AS total,
        coalesce(sum(amount) FILTER (WHERE purpose = 'PLATFORM_CLEARING'), 0) AS clearing,
        coalesce(sum(amount) FILTER (WHERE purpose = 'PLATFORM_REVENUE'), 0) AS revenue,
        coalesce(sum(amount) FILTER (WHERE purpose = 'PLATFORM_ADJUSTMENTS'), 0) AS adjustments,
        coalesce(sum(amount) FILTER (WHERE purpose = 'PARTNER_AVAILABLE'), 0) AS available,
        coalesce(sum(amount) FILTER (WHERE purpose = 'PARTNER_PENDING'), 0) AS pending,
        coalesce(sum(amount) FILTER (WHERE purpose = 'PARTNER_RESERVED'), 0) AS reserved
    FROM e GROUP BY transaction_id, asset
), owned AS (
    -- Of the kinds that are about one partner.
    SELECT transaction_id, min(e.owner_id::text) AS owner, max(e.owner_id::text) AS other
    FROM e JOIN t USING (transaction_id) WHERE t.kind NOT IN ('PRO_SALE', 'REFUND') GROUP BY transaction_id
), c AS MATERIALIZED (
    SELECT t.transaction_id AS sale_id, c.transaction_id, c.payment_id, c.level, c.earner_id, c.asset, c.amount,
        CASE WHEN c.release_time IS NULL THEN 'PARTNER_AVAILABLE' ELSE 'PARTNER_PENDING' END AS purpose
    FROM t, LATERAL (SELECT * FROM commissions c WHERE c.payment_id = t.payment_id OFFSET 0) c WHERE t.kind = 'PRO_SALE'
), earned AS (
    SELECT sale_id, sum(amount) AS earned, count(*) AS levels FROM c GROUP BY sale_id
)
-- Only offenders are named: names cost more than the comparisons.
SELECT v.name, CASE WHEN v.fine THEN '' ELSE v.who::text END, v.looked, v.fine
FROM t
LEFT JOIN moved m ON m.transaction_id = t.transaction_id
LEFT JOIN owned w ON w.transaction_id = t.transaction_id
LEFT JOIN earned n ON n.sale_id = t.transaction_id
LEFT JOIN LATERAL (SELECT * FROM payments p WHERE p.payment_id = t.payment_id OFFSET 0) p ON true
LEFT JOIN LATERAL (SELECT * FROM refunds r WHERE t.kind = 'REFUND' AND r.transaction_id = t.transaction_id OFFSET 0) r ON true
LEFT JOIN LATERAL (SELECT * FROM payouts o WHERE o.payout_id = t.payout_id OFFSET 0) o ON true
LEFT JOIN LATERAL (SELECT * FROM adjustments j WHERE j.adjustment_id = t.adjustment_id OFFSET 0) j ON true
LEFT JOIN LATERAL (SELECT * FROM audit_events d WHERE d.audit_event_id = t.audit_event_id OFFSET 0) d ON true
CROSS JOIN LATERAL (VALUES
    ('entries_belong_to_transactions', t.transaction_id, m.entries IS NOT NULL, true),
    ('transactions_sum_to_zero', t.transaction_id, true, m.total = 0),
    ('transactions_have_facts', t.transaction_id, true, CASE t.kind
        WHEN 'PRO_SALE' THEN p.state = 'SUCCEEDED' AND p.transaction_id = t.transaction_id
        WHEN 'REFUND' THEN r.payment_id = t.payment_id AND r.asset = m.asset AND m.clearing = r.amount
            AND m.available <= 0 AND m.pending <= 0 AND m.reserved = 0
        WHEN 'RELEASE' THEN m.entries = 2 AND w.owner = w.other AND m.pending < 0 AND m.available = -m.pending
        WHEN 'PAYOUT_RESERVED' THEN o.reserve_transaction_id = t.transaction_id AND o.asset = m.asset AND m.entries = 2
            AND w.owner = o.partner_id::text AND w.other = w.owner AND m.reserved = o.amount AND m.available = -o.amount
        WHEN 'PAYOUT_PAID' THEN o.end_transaction_id = t.transaction_id AND o.state = 'COMPLETED' AND o.asset = m.asset
            AND m.entries = 2 AND w.owner = o.partner_id::text AND m.reserved = -o.amount AND m.clearing = o.amount
        WHEN 'PAYOUT_RETURNED' THEN o.end_transaction_id = t.transaction_id AND o.state IN ('FAILED', 'CANCELLED')
            AND o.asset = m.asset AND m.entries = 2 AND w.owner = o.partner_id::text AND w.other = w.owner
            AND m.reserved = -o.amount AND m.available = o.amount
        WHEN 'ADJUSTMENT' THEN j.transaction_id = t.transaction_id AND j.state = 'APPROVED' AND j.asset = m.asset
            AND m.entries = 2 AND w.owner = j.partner_id::text AND m.available = j.amount AND m.adjustments = -j.amount
        END),
    ('sales_are_whole', t.payment_id, t.kind = 'PRO_SALE',
        p.asset = m.asset AND m.clearing = -p.amount AND m.available + m.pending = coalesce(n.earned, 0)
        AND m.revenue = p.amount - coalesce(n.earned, 0)),
    ('facts_have_their_notices', t.transaction_id, t.audit_event_id IS NOT NULL,
        d.audit_event_id IS NOT NULL AND (
            -- None: an older version wrote it.
            d.notices IS NULL
            OR CASE t.kind
                WHEN 'PRO_SALE' THEN d.notices = 1 + coalesce(n.levels, 0)
                WHEN 'REFUND' THEN d.notices = (SELECT count(*) FROM clawbacks k WHERE k.refund_id = r.refund_id)
                WHEN 'RELEASE' THEN true
                WHEN 'ADJUSTMENT' THEN true
                ELSE d.notices = 1 END))
) AS v (name, who, looked, fine)
UNION ALL
SELECT 'entries_belong_to_transactions', m.transaction_id::text, true, false
FROM moved m WHERE m.transaction_id NOT IN (SELECT transaction_id FROM t)
UNION ALL
SELECT 'commissions_are_booked', CASE WHEN f.fine THEN '' ELSE c.payment_id || ' level ' || c.level END, true, f.fine
FROM c
LEFT JOIN e ON e.transaction_id = c.transaction_id AND e.owner_id = c.earner_id
CROSS JOIN LATERAL (VALUES (
    c.transaction_id = c.sale_id
    AND ((e.amount = c.amount AND e.asset = c.asset AND e.purpose = c.purpose) OR (c.amount = 0 AND e.amount IS NULL))
)) AS f (fine)

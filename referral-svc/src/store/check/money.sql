-- A partner's money by its history, and by the accounts.
WITH parts AS (
    SELECT c.earner_id AS partner_id, c.asset, sum(c.amount) AS earned, sum(c.reversed) AS reversed,
        coalesce(sum(c.amount - c.reversed - c.reserved - c.paid) FILTER (WHERE c.state = 'AVAILABLE'), 0) AS claims,
        coalesce(sum(c.amount - c.reversed) FILTER (WHERE c.state = 'PENDING'), 0) AS held,
        0 AS open, 0 AS paid, 0 AS available, 0 AS pending, 0 AS reserved
    FROM commissions c WHERE SLICE(c.earner_id) GROUP BY c.earner_id, c.asset
    UNION ALL
    SELECT j.partner_id, j.asset, sum(j.amount), 0, sum(j.amount - j.reserved - j.paid), 0, 0, 0, 0, 0, 0
    FROM adjustments j WHERE SLICE(j.partner_id) AND j.state = 'APPROVED' GROUP BY j.partner_id, j.asset
    UNION ALL
    SELECT o.partner_id, o.asset, 0, 0, 0, 0, coalesce(sum(o.amount) FILTER (WHERE o.state IN ('REQUESTED', 'APPROVED')), 0),
        coalesce(sum(o.amount) FILTER (WHERE o.state = 'COMPLETED'), 0), 0, 0, 0
    FROM payouts o WHERE SLICE(o.partner_id) GROUP BY o.partner_id, o.asset
    UNION ALL
    SELECT a.owner_id, a.asset, 0, 0, 0, 0, 0, 0,
        CASE a.purpose WHEN 'PARTNER_AVAILABLE' THEN a.balance ELSE 0 END,
        CASE a.purpose WHEN 'PARTNER_PENDING' THEN a.balance ELSE 0 END,
        CASE a.purpose WHEN 'PARTNER_RESERVED' THEN a.balance ELSE 0 END
    FROM accounts a
    WHERE a.purpose IN ('PARTNER_AVAILABLE', 'PARTNER_PENDING', 'PARTNER_RESERVED') AND SLICE(a.owner_id)
), money AS (
    SELECT partner_id, sum(earned) AS earned, sum(reversed) AS reversed, sum(claims) AS claims, sum(held) AS held,
        sum(open) AS open, sum(paid) AS paid, sum(available) AS available, sum(pending) AS pending, sum(reserved) AS reserved
    FROM parts GROUP BY partner_id, asset
)
SELECT v.name, m.partner_id::text AS who, true AS looked, v.fine
FROM money m
CROSS JOIN LATERAL (VALUES
    ('claims_equal_balances', m.claims = m.available),
    ('held_commissions_equal_balances', m.held = m.pending),
    ('payouts_equal_reservations', m.open = m.reserved),
    -- Earned and adjusted: it is somewhere.
    ('partners_add_up', m.earned = m.pending + m.available + m.reserved + m.paid + m.reversed)
) AS v (name, fine)

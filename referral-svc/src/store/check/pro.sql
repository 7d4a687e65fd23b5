-- PRO ends with its last period, and no period begins before the one before has ended.
WITH periods AS (
    SELECT p.partner_id, p.pro_end,
        p.pro_start >= coalesce(lag(p.pro_end) OVER (PARTITION BY p.partner_id ORDER BY p.pro_start, p.pro_end), p.pro_start) AS fine
    FROM payments p WHERE SLICE(p.partner_id) AND p.pro_end IS NOT NULL
), bought AS (
    SELECT partner_id, max(pro_end) AS last, bool_and(fine) AS fine FROM periods GROUP BY partner_id
)
SELECT 'pro_equals_periods' AS name, s.partner_id::text AS who, true AS looked,
    s.pro_expires_at IS NOT DISTINCT FROM b.last AND b.fine IS NOT FALSE AS fine
FROM standings s
LEFT JOIN bought b USING (partner_id)
WHERE SLICE(s.partner_id)

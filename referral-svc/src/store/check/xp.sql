WITH awarded AS (
    SELECT a.partner_id, sum(a.xp) AS xp FROM xp_awards a WHERE SLICE(a.partner_id) GROUP BY a.partner_id
)
SELECT 'xp_equals_awards' AS name, s.partner_id::text AS who, true AS looked, s.xp = coalesce(a.xp, 0) AS fine
FROM standings s
LEFT JOIN awarded a USING (partner_id)
WHERE SLICE(s.partner_id)

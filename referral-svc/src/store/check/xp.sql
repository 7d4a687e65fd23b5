WITH awarded AS (
    SELECT a.partner_id, sum(a.xp) AS xp FROM xp_awards a WHERE SLICE(a.partner_id) GROUP BY a.partner_id
)
SELECT f.name, s.partner_id::text AS who, true AS looked, f.fine
FROM standings s
LEFT JOIN awarded a USING (partner_id)
CROSS JOIN LATERAL (VALUES
    ('xp_equals_awards', s.xp = coalesce(a.xp, 0)),
    ('ranks_equal_standings', EXISTS (SELECT FROM xp_counts c WHERE c.tier = 0 AND c.node = s.xp AND c.partners > 0))
) AS f (name, fine)
WHERE SLICE(s.partner_id)

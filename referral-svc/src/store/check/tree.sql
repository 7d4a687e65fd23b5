-- Depth is the referrer's plus one, so no cycle can be; lineage is the referrer's, moved by one.
SELECT 'lineages_equal_the_tree' AS name, p.partner_id::text AS who, true AS looked,
    CASE WHEN p.referrer_id IS NULL THEN p.depth = 0 AND p.lineage = '{}'
        ELSE p.depth = r.depth + 1 AND p.lineage = (r.partner_id || r.lineage)[1:9] END AS fine
FROM partners p
LEFT JOIN LATERAL (SELECT * FROM partners r WHERE r.partner_id = p.referrer_id OFFSET 0) r ON true
WHERE SLICE(p.partner_id)

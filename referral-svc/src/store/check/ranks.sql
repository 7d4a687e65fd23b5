-- That every partner's XP is counted, the partners' own check says.
SELECT 'ranks_equal_standings' AS name, 'tier ' || c.tier || ', node ' || c.node AS who, true AS looked,
    c.partners = (CASE c.tier
        WHEN 0 THEN (SELECT count(*) FROM standings s WHERE s.xp = c.node)
        ELSE (
            SELECT coalesce(sum(b.partners), 0) FROM xp_counts b
            WHERE b.tier = c.tier - 1 AND b.node >= c.node << 6 AND b.node < c.node + 1 << 6
        )
        END)
    -- And the node above counts it.
    AND (c.tier = 4 OR c.partners = 0 OR EXISTS (
        SELECT FROM xp_counts u WHERE u.tier = c.tier + 1 AND u.node = c.node >> 6)) AS fine
FROM xp_counts c
WHERE SLICE(c.tier, c.node)

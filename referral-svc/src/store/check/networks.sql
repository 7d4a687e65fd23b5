-- Level 1 are the children, level n the children's level n - 1.
WITH below AS (
    SELECT p.referrer_id AS partner_id,
        ARRAY[count(*), sum(s.members[1]), sum(s.members[2]), sum(s.members[3]), sum(s.members[4]), sum(s.members[5]),
            sum(s.members[6]), sum(s.members[7]), sum(s.members[8])]::bigint[] AS members,
        ARRAY[count(*) FILTER (WHERE s.counted_as_pro), sum(s.pro_members[1]), sum(s.pro_members[2]), sum(s.pro_members[3]),
            sum(s.pro_members[4]), sum(s.pro_members[5]), sum(s.pro_members[6]), sum(s.pro_members[7]),
            sum(s.pro_members[8])]::bigint[] AS pro_members
    FROM partners p LEFT JOIN LATERAL (SELECT * FROM standings s WHERE s.partner_id = p.partner_id OFFSET 0) s ON true
    WHERE SLICE(p.referrer_id) GROUP BY p.referrer_id
)
SELECT 'networks_equal_the_tree' AS name, p.partner_id::text AS who, true AS looked,
    s.members = coalesce(b.members, '{0,0,0,0,0,0,0,0,0}') AND s.pro_members = coalesce(b.pro_members, '{0,0,0,0,0,0,0,0,0}') AS fine
FROM partners p
LEFT JOIN LATERAL (SELECT * FROM standings s WHERE s.partner_id = p.partner_id OFFSET 0) s ON true
LEFT JOIN below b ON b.partner_id = p.partner_id
WHERE SLICE(p.partner_id)

-- Whoever got XP for a signup was to be told of it: by the registration, or by the attachment that came later.
SELECT 'signups_have_their_notices' AS name, p.partner_id::text AS who, true AS looked,
    EXISTS (
        SELECT FROM audit_events d
        WHERE d.subject_id = p.partner_id::text AND d.action IN ('RegisterPartner', 'AttachReferrer') AND d.outcome = 'OK'
            AND (
                -- None: an older version wrote it.
                d.notices IS NULL OR d.notices >= cardinality(p.lineage)
                -- Not all who are above now were above then.
                OR d.notices >= (
                    SELECT count(*) FROM unnest(p.lineage) AS above (partner_id),
                        LATERAL (
                            SELECT FROM xp_awards a
                            WHERE a.partner_id = above.partner_id AND a.source_partner_id = p.partner_id OFFSET 0
                        ) a))
    ) AS fine
FROM partners p
WHERE SLICE(p.partner_id) AND p.referrer_id IS NOT NULL

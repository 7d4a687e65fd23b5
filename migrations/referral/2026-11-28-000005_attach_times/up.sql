-- When partners came below their referrers who did so before that was kept: their record says so.
UPDATE partners p SET attach_time = a.create_time
FROM (
    SELECT subject_id::uuid AS partner_id, min(create_time) AS create_time
    FROM audit_events WHERE action = 'AttachReferrer' AND outcome = 'OK' GROUP BY subject_id
) a
WHERE p.partner_id = a.partner_id AND p.referrer_id IS NOT NULL AND p.attach_time IS NULL;

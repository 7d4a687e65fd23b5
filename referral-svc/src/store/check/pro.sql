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
UNION ALL
-- What was said of the present end is on record, by the command that said it. In a database that an older version has written
-- to, what it said, or what it says while it is being replaced, has none.
SELECT 'notices_equal_their_count', s.partner_id::text, true,
    s.pro_expires_at IS NULL OR s.notices_sent <= (
        SELECT count(*) FROM pro_notices n WHERE n.partner_id = s.partner_id AND n.pro_end = s.pro_expires_at)
FROM standings s
WHERE SLICE(s.partner_id)
UNION ALL
SELECT 'notices_equal_their_count', n.partner_id::text, true,
    CASE WHEN n.audit_event_id IS NULL
        THEN EXISTS (SELECT FROM pro_notices_recorded r WHERE n.create_time < r.since)
        ELSE EXISTS (
            SELECT FROM audit_events a
            WHERE a.audit_event_id = n.audit_event_id AND a.action = 'SendProNotices' AND a.outcome = 'OK'
                AND (a.detail LIKE '%' || n.partner_id || '%')) END
FROM pro_notices n
WHERE SLICE(n.partner_id)

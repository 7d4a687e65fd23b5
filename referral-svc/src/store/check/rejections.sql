-- A partner was to be told that a payment was rejected, which books nothing.
SELECT 'facts_have_their_notices' AS name, p.payment_id::text AS who, true AS looked, EXISTS (
    SELECT FROM audit_events d
    WHERE d.subject_id = p.payment_id::text AND d.action = 'RejectPayment' AND d.outcome = 'OK'
        -- None: an older version wrote it.
        AND (d.notices = 1 OR d.notices IS NULL)
) AS fine
FROM payments p
WHERE SLICE(p.payment_id) AND p.state = 'REJECTED'

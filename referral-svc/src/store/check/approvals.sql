-- A partner was to be told that a payout was approved, which books nothing.
SELECT 'facts_have_their_notices' AS name, o.payout_id::text AS who, true AS looked, EXISTS (
    SELECT FROM audit_events d
    WHERE d.subject_id = o.payout_id::text AND d.action = 'ApprovePayout' AND d.outcome = 'OK' AND d.notices = 1
) AS fine
FROM payouts o
WHERE SLICE(o.payout_id) AND o.approver IS NOT NULL

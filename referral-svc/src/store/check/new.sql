WITH blocks AS MATERIALIZED (
    SELECT * FROM audit_blocks WHERE xid >= $1::xid8
), fresh AS MATERIALIZED (
    SELECT DISTINCT id AS transaction_id FROM blocks, unnest(transaction_ids) AS id
), booked AS MATERIALIZED (
    SELECT t.* FROM fresh JOIN ledger_transactions t USING (transaction_id)
), posted AS MATERIALIZED (
    SELECT e.* FROM fresh JOIN ledger_entries e USING (transaction_id)
), owners AS MATERIALIZED (
    SELECT DISTINCT a.owner_id AS partner_id FROM posted JOIN accounts a USING (account_id) WHERE a.owner_id IS NOT NULL
), joined AS MATERIALIZED (
    SELECT DISTINCT p.partner_id, p.lineage
    FROM blocks, unnest(audit_event_ids) AS id
    JOIN audit_events d ON d.audit_event_id = id AND d.action IN ('RegisterPartner', 'AttachReferrer') AND d.outcome = 'OK'
    JOIN partners p ON p.partner_id = d.subject_id::uuid
)

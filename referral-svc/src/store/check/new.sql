-- Some of the new blocks, in the order of their transactions, and what they are about. What is summed up over a partner's whole
-- history isn't once that is long (over 1,000 rows): each new fact is checked by itself, and the rest is no news.
WITH blocks AS MATERIALIZED (
    SELECT * FROM (
        SELECT b.*, sum(1 + cardinality(audit_event_ids)) OVER (ORDER BY xid, chain_id, position) - cardinality(audit_event_ids) AS number
        FROM (
            SELECT xid, chain_id, position, audit_event_ids, transaction_ids FROM audit_blocks
            WHERE xid >= $1::xid8 AND xid < $2::xid8 AND ($3 IS NULL OR (xid >= split_part($3, '/', 1)::xid8
                AND (xid, chain_id, position) > (split_part($3, '/', 1)::xid8, split_part($3, '/', 2)::uuid, split_part($3, '/', 3)::bigint)))
            ORDER BY xid, chain_id, position LIMIT 2000
        ) b
    ) b
    WHERE number <= 2000
), fresh AS MATERIALIZED (
    SELECT DISTINCT id AS transaction_id FROM blocks, unnest(transaction_ids) AS id
), booked AS MATERIALIZED (
    SELECT t.* FROM fresh, LATERAL (SELECT * FROM ledger_transactions t WHERE t.transaction_id = fresh.transaction_id OFFSET 0) t
), posted AS MATERIALIZED (
    SELECT e.* FROM fresh, LATERAL (SELECT * FROM ledger_entries e WHERE e.transaction_id = fresh.transaction_id OFFSET 0) e
), moved AS MATERIALIZED (
    SELECT DISTINCT account_id FROM posted
), owners AS MATERIALIZED (
    SELECT o.partner_id
    FROM (
        SELECT DISTINCT a.owner_id AS partner_id
        FROM moved, LATERAL (SELECT * FROM accounts a WHERE a.account_id = moved.account_id OFFSET 0) a
        WHERE a.owner_id IS NOT NULL
    ) o, LATERAL (
        SELECT sum(a.version) AS entries FROM accounts a
        WHERE a.purpose IN ('PARTNER_AVAILABLE', 'PARTNER_PENDING', 'PARTNER_RESERVED') AND a.owner_id = o.partner_id
    ) a
    WHERE a.entries <= 1000
), events AS MATERIALIZED (
    SELECT DISTINCT d.action, d.subject_id
    FROM blocks, unnest(audit_event_ids) AS id,
        LATERAL (SELECT * FROM audit_events d WHERE d.audit_event_id = id OFFSET 0) d
    WHERE d.action IN ('RegisterPartner', 'AttachReferrer', 'RejectPayment', 'ApprovePayout') AND d.outcome = 'OK'
), joined AS MATERIALIZED (
    SELECT DISTINCT p.partner_id, p.lineage
    FROM events, LATERAL (SELECT * FROM partners p WHERE p.partner_id = events.subject_id::uuid OFFSET 0) p
    WHERE events.action IN ('RegisterPartner', 'AttachReferrer')
), grown AS MATERIALIZED (
    SELECT g.partner_id, s.members
    FROM (SELECT partner_id FROM joined UNION SELECT above FROM joined, unnest(lineage) AS above) g,
        LATERAL (SELECT (SELECT s.members FROM standings s WHERE s.partner_id = g.partner_id) AS members) s
)

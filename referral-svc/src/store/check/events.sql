-- What a chain's commands put in the outbox was settled or waits there. The count goes from block to block, and each
-- command's record says whether it had something to tell.
WITH b AS MATERIALIZED (
    SELECT b.chain_id, b.position, b.events, b.audit_event_ids, p.events AS before, n.position IS NULL AS is_last
    FROM audit_blocks b
    LEFT JOIN LATERAL (
        SELECT * FROM audit_blocks p WHERE p.chain_id = b.chain_id AND p.position = b.position - 1 OFFSET 0
    ) p ON true
    LEFT JOIN LATERAL (
        SELECT * FROM audit_blocks n WHERE n.chain_id = b.chain_id AND n.position = b.position + 1 OFFSET 0
    ) n ON true
    WHERE SLICE(b.chain_id, b.position) AND b.events IS NOT NULL
), waiting AS MATERIALIZED (
    -- However many wait, they are counted where a chain ends, and nowhere else.
    SELECT chain_id, count(*) AS events FROM outbox WHERE (SELECT bool_or(is_last) FROM b) GROUP BY chain_id
)
SELECT 'events_are_settled_or_waiting' AS name, b.chain_id || ' position ' || b.position AS who, true AS looked,
    b.events = coalesce(b.before, 0) + (
        SELECT count(*) FROM audit_events d WHERE d.audit_event_id = ANY (b.audit_event_ids) AND d.notices > 0)
    AND (NOT b.is_last OR first.create_time < c.since OR b.events = coalesce(s.events, 0) + coalesce(w.events, 0)) AS fine
FROM b
CROSS JOIN outbox_counted c
LEFT JOIN LATERAL (SELECT * FROM audit_blocks f WHERE f.chain_id = b.chain_id AND f.position = 1 OFFSET 0) first ON true
LEFT JOIN LATERAL (SELECT * FROM outbox_settled s WHERE s.chain_id = b.chain_id OFFSET 0) s ON true
LEFT JOIN waiting w ON b.is_last AND w.chain_id = b.chain_id

-- Partners $PARTNERS in trees nearly ten deep, and for each 10 of them 9 sales whose nine ancestors earn: what the service would
-- have written. A line with three dashes begins a piece and names it.
--- functions
SET session_replication_role = replica;
SET work_mem = '256MB';
SET maintenance_work_mem = '256MB';
CREATE SCHEMA bench;
-- Ascending in the number, as the service's are in time.
CREATE FUNCTION bench.id(kind text, number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
RETURN (lpad(to_hex(1600000000000 + number), 12, '0') || '7' || kind || '8000' || lpad(to_hex(number), 12, '0'))::uuid;
CREATE FUNCTION bench.number(id uuid) RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN ('x' || right(id::text, 12))::bit(48)::bigint;
-- Sales of one time are one block's.
CREATE FUNCTION bench.sold(number bigint) RETURNS timestamptz LANGUAGE sql STABLE
RETURN now() - interval '1 day' + number / 500 * interval '10 ms';
-- An index that is built at once, of all rows, takes a fraction of the time. What a foreign key refers to stays: the IDs
-- ascend there.
CREATE TABLE bench.indexes AS
SELECT i.indexrelid::regclass::text AS name, i.indrelid::regclass::text AS of, c.conname AS constraint_name,
    CASE WHEN c.oid IS NULL THEN pg_get_indexdef(i.indexrelid)
        ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', i.indrelid::regclass, c.conname, pg_get_constraintdef(c.oid)) END AS definition
FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u')
WHERE i.indrelid::regclass::text IN ('partners', 'xp_awards', 'payments', 'commissions', 'ledger_transactions', 'ledger_entries',
        'standings', 'audit_events')
    AND NOT EXISTS (SELECT FROM pg_constraint f WHERE f.conindid = i.indexrelid AND f.contype = 'f');
DO $$
DECLARE
    i record;
BEGIN
    FOR i IN SELECT * FROM bench.indexes LOOP
        IF i.constraint_name IS NULL THEN
            EXECUTE format('DROP INDEX %s', i.name);
        ELSE
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', i.of, i.constraint_name);
        END IF;
    END LOOP;
END $$;
--- partners
INSERT INTO partners (partner_id, external_id, referral_code, referrer_id, depth, lineage, username, first_name, last_name,
    locale, contacts, create_time)
WITH RECURSIVE tree (number, depth, lineage) AS (
    SELECT n::bigint, 0, '{}'::uuid[] FROM generate_series(1, greatest($PARTNERS / 20000, 1)) AS n
    UNION ALL
    -- Three below each, in the order of their numbers.
    SELECT c.number, t.depth + 1, (bench.id('001', t.number) || t.lineage)[1:9]
    FROM tree t, generate_series(0, 2) AS child,
        LATERAL (SELECT greatest($PARTNERS / 20000, 1) + 3 * (t.number - 1) + child + 1) AS c (number)
    WHERE c.number <= $PARTNERS
)
SELECT bench.id('001', number), 'bench:' || number, 'P2P-' || lpad(number::text, 8, '0'), lineage[1], depth, lineage,
    '', 'Bench', '', 'en', '[]', now() - interval '2 days' + number * interval '1 ms'
FROM tree;
--- awards
INSERT INTO xp_awards (partner_id, source_partner_id, level, multiplier, xp, create_time)
SELECT a.partner_id, p.partner_id, a.level, 1, (ARRAY[35, 10, 1, 1, 1, 1, 1, 1, 1])[a.level], p.create_time
FROM partners p, unnest(p.lineage) WITH ORDINALITY AS a (partner_id, level);
--- payments
INSERT INTO payments (payment_id, partner_id, asset, amount, method, plan_version, state, create_time, expire_time,
    confirmed_ref, confirm_time, pro_start, pro_end, transaction_id)
SELECT bench.id('002', n), bench.id('001', $PARTNERS + 1 - n), 'USDT', 39000000, 'trusted', 1, 'SUCCEEDED', bench.sold(n),
    bench.sold(n) + interval '1 hour', 'bench ' || n, bench.sold(n), bench.sold(n), bench.sold(n) + interval '30 days',
    bench.id('003', n)
FROM generate_series(1, $PARTNERS::bigint * 9 / 10) AS n;
--- transactions
INSERT INTO ledger_transactions (transaction_id, kind, payment_id, create_time, audit_event_id)
SELECT transaction_id, 'PRO_SALE', payment_id, confirm_time, bench.id('004', bench.number(payment_id)) FROM payments;
--- commissions
INSERT INTO commissions (payment_id, level, earner_id, rate_bps, plan_version, asset, base, amount, transaction_id, create_time)
SELECT p.payment_id, a.level, a.earner_id, r.rate, 1, 'USDT', p.amount, div(p.amount::numeric * r.rate, 10000),
    p.transaction_id, p.confirm_time
FROM payments p JOIN partners b USING (partner_id), unnest(b.lineage) WITH ORDINALITY AS a (earner_id, level),
    LATERAL (SELECT (ARRAY[3000, 500, 300, 100, 100, 100, 100, 100, 100])[a.level]) AS r (rate);
--- accounts
INSERT INTO accounts (purpose, owner_id, asset) SELECT 'PARTNER_AVAILABLE', earner_id, 'USDT' FROM commissions GROUP BY earner_id;
--- entries
INSERT INTO ledger_entries (account_id, version, amount, balance_after, transaction_id)
SELECT account_id, row_number() OVER w, amount, sum(amount) OVER w, transaction_id
FROM (
    SELECT a.account_id, c.amount, c.transaction_id
    FROM commissions c JOIN accounts a ON a.owner_id = c.earner_id AND a.purpose = 'PARTNER_AVAILABLE'
    UNION ALL
    SELECT a.account_id, CASE a.purpose WHEN 'PLATFORM_CLEARING' THEN -p.amount ELSE p.amount - coalesce(c.earned, 0) END,
        p.transaction_id
    FROM payments p
    LEFT JOIN (SELECT payment_id, sum(amount) AS earned FROM commissions GROUP BY payment_id) c USING (payment_id)
    JOIN accounts a ON a.purpose IN ('PLATFORM_CLEARING', 'PLATFORM_REVENUE')
) e
WINDOW w AS (PARTITION BY account_id ORDER BY transaction_id)
ORDER BY transaction_id;
UPDATE accounts a SET balance = e.balance, version = e.version
FROM (SELECT account_id, sum(amount) AS balance, count(*) AS version FROM ledger_entries GROUP BY account_id) e
WHERE e.account_id = a.account_id;
--- standings
INSERT INTO standings (partner_id, xp, members, pro_members, counted_as_pro, pro_expires_at)
SELECT p.partner_id, coalesce(x.xp, 0), coalesce(n.members, '{0,0,0,0,0,0,0,0,0}'), coalesce(n.pro_members, '{0,0,0,0,0,0,0,0,0}'),
    b.pro_end IS NOT NULL, b.pro_end
FROM partners p
LEFT JOIN payments b USING (partner_id)
LEFT JOIN (SELECT partner_id, sum(xp) AS xp FROM xp_awards GROUP BY partner_id) x USING (partner_id)
LEFT JOIN (
    SELECT a.partner_id,
        ARRAY[count(*) FILTER (WHERE a.level = 1), count(*) FILTER (WHERE a.level = 2), count(*) FILTER (WHERE a.level = 3),
            count(*) FILTER (WHERE a.level = 4), count(*) FILTER (WHERE a.level = 5), count(*) FILTER (WHERE a.level = 6),
            count(*) FILTER (WHERE a.level = 7), count(*) FILTER (WHERE a.level = 8), count(*) FILTER (WHERE a.level = 9)] AS members,
        ARRAY[count(b.pro_end) FILTER (WHERE a.level = 1), count(b.pro_end) FILTER (WHERE a.level = 2),
            count(b.pro_end) FILTER (WHERE a.level = 3), count(b.pro_end) FILTER (WHERE a.level = 4),
            count(b.pro_end) FILTER (WHERE a.level = 5), count(b.pro_end) FILTER (WHERE a.level = 6),
            count(b.pro_end) FILTER (WHERE a.level = 7), count(b.pro_end) FILTER (WHERE a.level = 8),
            count(b.pro_end) FILTER (WHERE a.level = 9)] AS pro_members
    FROM partners p
    LEFT JOIN payments b USING (partner_id)
    CROSS JOIN unnest(p.lineage) WITH ORDINALITY AS a (partner_id, level)
    GROUP BY a.partner_id
) n USING (partner_id);
SELECT recount_xp();
--- audit events
INSERT INTO audit_events (audit_event_id, create_time, actor, action, subject_id, outcome, trace_id, detail, notices)
SELECT bench.id('005', bench.number(partner_id)), create_time, 'bench', 'RegisterPartner', partner_id::text, 'OK',
    gen_random_uuid(), '', cardinality(lineage)
FROM partners;
INSERT INTO audit_events (audit_event_id, create_time, actor, action, subject_id, outcome, trace_id, detail, notices)
SELECT bench.id('004', bench.number(p.payment_id)), p.confirm_time, 'bench', 'ConfirmPayment', p.payment_id::text, 'OK',
    gen_random_uuid(), '', 1 + cardinality(b.lineage)
FROM payments p JOIN partners b USING (partner_id);
--- blocks
INSERT INTO audit_blocks (chain_id, position, create_time, parent_chains, parent_positions, audit_event_ids, audit_event_hashes,
    transaction_ids, transaction_hashes, hash)
SELECT bench.id('006', 0), row_number() OVER (ORDER BY create_time), create_time, '{}', '{}',
    array_agg(audit_event_id ORDER BY transaction_id), string_agg(sha256(uuid_send(audit_event_id)), '' ORDER BY transaction_id),
    array_agg(transaction_id ORDER BY transaction_id), string_agg(hash, '' ORDER BY transaction_id), sha256('bench')
FROM (
    SELECT t.transaction_id, t.create_time, t.audit_event_id,
        transaction_hash(t, count(e.transaction_id), string_agg(entry_bytes(e), '' ORDER BY e.account_id, e.version)) AS hash
    FROM ledger_transactions t JOIN ledger_entries e USING (transaction_id)
    GROUP BY t.transaction_id
) t
GROUP BY create_time;
--- indexes
DO $$
DECLARE
    i record;
BEGIN
    FOR i IN SELECT * FROM bench.indexes LOOP
        EXECUTE i.definition;
    END LOOP;
END $$;
--- end
DROP SCHEMA bench CASCADE;

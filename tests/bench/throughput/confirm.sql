-- A confirmation, by hand: the rows that the service writes, in one call. What the service encodes is taken from one that it
-- wrote, so that rows are as long.
CREATE TABLE bench.model AS
SELECT r.answer, o.event, r.method, r.caller
FROM requests r CROSS JOIN (SELECT event FROM outbox ORDER BY octet_length(event) DESC LIMIT 1) o
WHERE r.method LIKE '%ConfirmPayment' LIMIT 1;

CREATE FUNCTION bench.id() RETURNS uuid LANGUAGE sql VOLATILE
RETURN (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || substr(gen_random_uuid()::text, 15))::uuid;

CREATE SEQUENCE bench.position;

CREATE FUNCTION bench.confirm(which uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    rates CONSTANT int[] := '{3000,500,300,100,100,100,100,100,100}';
    sale uuid := bench.id();
    record uuid := bench.id();
    payment payments;
    above uuid[];
    expiry timestamptz;
BEGIN
    SELECT * INTO payment FROM payments WHERE payment_id = which AND state = 'PENDING' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such payment is open';
    END IF;
    SELECT lineage INTO above FROM partners WHERE partner_id = payment.partner_id;
    UPDATE standings SET pro_expires_at = greatest(pro_expires_at, now()) + interval '30 days'
    WHERE partner_id = payment.partner_id RETURNING pro_expires_at INTO expiry;
    UPDATE payments
    SET state = 'SUCCEEDED', confirmed_ref = 'sql-' || which, confirm_time = now(), pro_start = expiry - interval '30 days',
        pro_end = expiry, transaction_id = sale
    WHERE payment_id = which;
    INSERT INTO ledger_transactions (transaction_id, kind, payment_id, create_time, audit_event_id)
    VALUES (sale, 'PRO_SALE', which, now(), record);
    INSERT INTO ledger_entries (account_id, version, amount, balance_after, transaction_id)
    SELECT a.account_id, a.version + 1, m.amount, a.balance + m.amount, sale
    FROM open_accounts(
        ARRAY['PLATFORM_CLEARING', 'PLATFORM_REVENUE'] || array_fill('PARTNER_AVAILABLE'::text, ARRAY[cardinality(above)]),
        ARRAY[NULL, NULL]::uuid[] || above, array_fill('USDT'::text, ARRAY[2 + cardinality(above)])) a
    CROSS JOIN LATERAL (SELECT CASE a.purpose
        WHEN 'PLATFORM_CLEARING' THEN -payment.amount
        WHEN 'PLATFORM_REVENUE' THEN payment.amount
            - (SELECT sum(payment.amount * rates[level] / 10000) FROM generate_series(1, cardinality(above)) AS level)
        ELSE payment.amount * rates[array_position(above, a.owner_id)] / 10000 END) AS m (amount);
    INSERT INTO commissions (payment_id, level, earner_id, rate_bps, plan_version, asset, base, amount, transaction_id, create_time)
    SELECT which, level, earner_id, rates[level], 1, 'USDT', payment.amount, payment.amount * rates[level] / 10000, sale, now()
    FROM unnest(above) WITH ORDINALITY AS e (earner_id, level);
    INSERT INTO audit_events (audit_event_id, create_time, actor, action, subject_id, outcome, trace_id, request_id, detail, notices)
    VALUES (record, now(), 'local', 'ConfirmPayment', which::text, 'OK', gen_random_uuid(), which, '', 10);
    INSERT INTO outbox (event_id, create_time, traceparent, event)
    SELECT bench.id(), now(), '00-' || replace(gen_random_uuid()::text, '-', '') || '-00f067aa0ba902b7-01', event FROM bench.model;
    INSERT INTO requests (request_id, caller, method, fingerprint, answer, create_time)
    SELECT gen_random_uuid(), caller, method, sha256(uuid_send(which)), answer, now() FROM bench.model;
    INSERT INTO audit_blocks (chain_id, position, create_time, parent_chains, parent_positions, audit_event_ids,
        audit_event_hashes, transaction_ids, transaction_hashes, hash)
    VALUES ('00000000-0000-7000-8000-000000000000', nextval('bench.position'), now(), '{}', '{}', ARRAY[record],
        sha256(uuid_send(record)), ARRAY[sale], sha256(uuid_send(sale)), sha256(uuid_send(sale)));
END $$;

-- The next of those that wait.
CREATE FUNCTION bench.confirm_next() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    turn bigint := nextval('bench.turn');
BEGIN
    PERFORM bench.confirm(payment_id) FROM bench.pending WHERE number = turn;
END $$;

-- So many open payments, buyer after buyer.
WITH opened AS (
    INSERT INTO payments (payment_id, partner_id, asset, amount, method, plan_version, state, create_time, expire_time)
    SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || substr(gen_random_uuid()::text, 15))::uuid,
        b.partner_id, 'USDT', 39000000, 'trusted', 1, 'PENDING', now(), now() + interval '1 day'
    FROM generate_series(0, $COUNT - 1) AS n JOIN bench.buyers b ON b.number = 1 + n % (SELECT count(*) FROM bench.buyers)
    ORDER BY n
    RETURNING payment_id
)
SELECT payment_id::text FROM opened

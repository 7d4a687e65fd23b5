-- Lines of nine, each with ten below its end who buy.
SET session_replication_role = replica;
CREATE SCHEMA bench;
CREATE TABLE bench.partners AS
SELECT n AS network, place, gen_random_uuid() AS partner_id
FROM generate_series(1, $NETWORKS) AS n, generate_series(0, 18) AS place;
CREATE TABLE bench.members AS
SELECT p.network, p.place, p.partner_id, least(p.place, 9) AS depth, ARRAY(
    SELECT a.partner_id FROM bench.partners a WHERE a.network = p.network AND a.place < least(p.place, 9) ORDER BY a.place DESC
) AS lineage
FROM bench.partners p;
INSERT INTO partners (partner_id, external_id, referral_code, referrer_id, depth, lineage, username, first_name, last_name,
    locale, contacts, create_time)
SELECT partner_id, 'network:' || network || ':' || place, 'P2P-N' || lpad((network * 100 + place)::text, 8, '0'), lineage[1],
    depth, lineage, '', 'Network', '', 'en', '[]', now() - interval '1 day'
FROM bench.members;
INSERT INTO standings (partner_id, members)
SELECT m.partner_id, ARRAY(
    SELECT count(b.partner_id) FROM generate_series(1, 9) AS level
    LEFT JOIN bench.members b ON b.network = m.network AND b.lineage[level] = m.partner_id GROUP BY level ORDER BY level)
FROM bench.members m;
CREATE TABLE bench.buyers AS
SELECT row_number() OVER (ORDER BY place, network) AS number, partner_id FROM bench.members WHERE place >= 9;
DROP TABLE bench.partners, bench.members;
SELECT recount_xp();
SET session_replication_role = origin;
ANALYZE partners, standings;
CREATE TABLE bench.pending (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payment_id uuid NOT NULL);
CREATE SEQUENCE bench.turn;

-- What $COUNT confirmations left, exported; and tables like those that it is in, with their indexes and constraints.
CREATE TABLE bench.sold AS
SELECT p.payment_id, t.transaction_id, t.audit_event_id, ntile($BATCHES) OVER (ORDER BY t.transaction_id) AS batch
FROM (SELECT * FROM payments WHERE confirmed_ref LIKE 'ref-%' ORDER BY transaction_id DESC LIMIT $COUNT) p
JOIN ledger_transactions t USING (transaction_id);
CREATE INDEX ON bench.sold (batch);
ANALYZE bench.sold;

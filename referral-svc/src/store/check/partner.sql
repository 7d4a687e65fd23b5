WITH own AS MATERIALIZED (
    SELECT * FROM accounts
    WHERE purpose IN ('PARTNER_AVAILABLE', 'PARTNER_PENDING', 'PARTNER_RESERVED') AND owner_id = $1::uuid
), posted AS MATERIALIZED (
    SELECT e.* FROM own JOIN ledger_entries e USING (account_id)
), fresh AS MATERIALIZED (
    SELECT transaction_id FROM posted
    UNION SELECT transaction_id FROM payments WHERE partner_id = $1::uuid AND transaction_id IS NOT NULL
    UNION SELECT r.transaction_id FROM payments p JOIN refunds r USING (payment_id) WHERE p.partner_id = $1::uuid
    UNION SELECT release_transaction_id FROM commissions WHERE earner_id = $1::uuid AND release_transaction_id IS NOT NULL
    UNION SELECT unnest(array_remove(ARRAY[reserve_transaction_id, end_transaction_id], NULL)) FROM payouts WHERE partner_id = $1::uuid
    UNION SELECT transaction_id FROM adjustments WHERE partner_id = $1::uuid AND transaction_id IS NOT NULL
), earned_on AS MATERIALIZED (
    SELECT payment_id FROM commissions WHERE earner_id = $1::uuid
    UNION SELECT payment_id FROM payments WHERE partner_id = $1::uuid
    UNION SELECT t.payment_id FROM fresh JOIN ledger_transactions t USING (transaction_id) WHERE t.payment_id IS NOT NULL
)

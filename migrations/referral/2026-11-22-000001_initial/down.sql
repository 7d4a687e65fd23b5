DROP FUNCTION grant_service_rights;
ALTER TABLE payments DROP CONSTRAINT payments_transaction_id_fkey;
DROP TABLE outbox, audit_events, requests, commissions, ledger_entries, ledger_transactions, accounts, late_references,
    payments, xp_awards, standings, partners, plans;
DROP FUNCTION open_accounts, ledger_entries_inserted, ledger_transactions_inserted, payments_success_stays, partners_updated, partners_inserted,
    refuse_change;

DROP FUNCTION grant_service_rights;
DROP TABLE outbox, audit_events, requests, commissions, ledger_entries, ledger_transactions, accounts, late_references,
    payments, xp_awards, standings, partners, plans;
DROP FUNCTION open_accounts, ledger_entries_inserted, payments_success_stays, partners_updated, partners_inserted,
    refuse_change;

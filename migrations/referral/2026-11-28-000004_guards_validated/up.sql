-- The constraints hold for what is new; this looks at what was there, while others read and write.
ALTER TABLE commissions VALIDATE CONSTRAINT commissions_released;
ALTER TABLE ledger_transactions VALIDATE CONSTRAINT ledger_transactions_audit_event_id_fkey;

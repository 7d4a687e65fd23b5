-- More of what must never be: payouts whose items are others' or don't sum to them, refunds that don't sum to what their
-- payment says, releases of something else than their commissions, adjustments at anyone's cost but the platform's, bookings
-- by nobody.
--
-- Sums hold when a transaction commits: its statements write one table after the other. A sale pays for one of these, the
-- foreign key to its audit record: one look into a key where nothing is ever deleted.

-- ── payouts and what they pay ───────────────────────────────────────────────────────────────────────────────────
CREATE FUNCTION payouts_equal_items() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF (SELECT coalesce(sum(i.amount), 0) FROM payout_items i WHERE i.payout_id = NEW.payout_id) <> NEW.amount THEN
        RAISE EXCEPTION 'a payout''s items sum to it' USING ERRCODE = 'check_violation', CONSTRAINT = 'payouts_equal_items';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER payouts_equal_items AFTER INSERT ON payouts DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION payouts_equal_items();

CREATE FUNCTION payout_items_inserted() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    -- Whoever moves a payout on makes it another row version: one that is REQUESTED and this transaction's, it has made.
    IF EXISTS (
        SELECT FROM (SELECT DISTINCT payout_id FROM new_rows) n JOIN payouts p USING (payout_id)
        WHERE p.state <> 'REQUESTED' OR p.xmin <> pg_current_xact_id()::xid
    ) THEN
        RAISE EXCEPTION 'a payout comes with its items' USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_items_at_request';
    END IF;
    IF EXISTS (
        SELECT FROM new_rows n JOIN payouts p USING (payout_id)
        LEFT JOIN commissions c ON c.payment_id = n.payment_id AND c.level = n.level
        LEFT JOIN adjustments j ON j.adjustment_id = n.adjustment_id
        WHERE coalesce(c.earner_id, j.partner_id) <> p.partner_id OR coalesce(c.asset, j.asset) <> p.asset
    ) THEN
        RAISE EXCEPTION 'a payout pays what its partner can claim' USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_items_own_claims';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER payout_items_inserted AFTER INSERT ON payout_items
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION payout_items_inserted();

-- ── refunds ─────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE FUNCTION payments_equal_refunds() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF (SELECT coalesce(sum(r.amount), 0) FROM refunds r WHERE r.payment_id = NEW.payment_id)
        <> (SELECT p.refunded FROM payments p WHERE p.payment_id = NEW.payment_id) THEN
        RAISE EXCEPTION 'refunds sum to what their payment says' USING ERRCODE = 'check_violation', CONSTRAINT = 'payments_equal_refunds';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER refunds_equal_payment AFTER INSERT ON refunds DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION payments_equal_refunds();
-- Of a sale nothing is refunded yet: the condition is looked at, and that is all.
CREATE CONSTRAINT TRIGGER payments_equal_refunds AFTER INSERT OR UPDATE OF refunded ON payments DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.refunded > 0) EXECUTE FUNCTION payments_equal_refunds();

-- ── releases ────────────────────────────────────────────────────────────────────────────────────────────────────
-- What refunds took before the release came out of the pending account.
CREATE FUNCTION releases_equal_commissions() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    released numeric;
    booked numeric;
BEGIN
    SELECT coalesce(sum(c.amount), 0) - coalesce(sum((
        SELECT sum(k.amount) FROM refunds r JOIN clawbacks k ON k.refund_id = r.refund_id AND k.level = c.level
        WHERE r.payment_id = c.payment_id AND EXISTS (
            SELECT FROM ledger_entries e JOIN accounts a USING (account_id)
            WHERE e.transaction_id = r.transaction_id AND a.owner_id = c.earner_id AND a.purpose = 'PARTNER_PENDING')
    )) FILTER (WHERE c.reversed > 0), 0)
    INTO released FROM commissions c WHERE c.release_transaction_id = NEW.transaction_id;
    SELECT coalesce(-sum(e.amount), 0) INTO booked
    FROM ledger_entries e JOIN accounts a USING (account_id)
    WHERE e.transaction_id = NEW.transaction_id AND a.purpose = 'PARTNER_PENDING';
    IF released <> booked OR EXISTS (
        SELECT FROM commissions c JOIN ledger_entries e ON e.transaction_id = c.release_transaction_id
        JOIN accounts a USING (account_id)
        WHERE c.release_transaction_id = NEW.transaction_id AND (a.owner_id, a.asset) IS DISTINCT FROM (c.earner_id, c.asset)
    ) THEN
        RAISE EXCEPTION 'a release moves what is left of its commissions'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'releases_equal_commissions';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER releases_equal_commissions AFTER INSERT ON ledger_transactions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.kind = 'RELEASE') EXECUTE FUNCTION releases_equal_commissions();

-- And no commission joins a release that was booked before.
CREATE FUNCTION commissions_updated() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM new_rows n JOIN old_rows o USING (payment_id, level)
        WHERE n.release_transaction_id IS DISTINCT FROM o.release_transaction_id AND NOT EXISTS (
            SELECT FROM ledger_transactions t
            WHERE t.transaction_id = n.release_transaction_id AND t.kind = 'RELEASE' AND t.xmin = pg_current_xact_id()::xid)
    ) THEN
        RAISE EXCEPTION 'a commission is released by a release of its own'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'commissions_release';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER commissions_updated AFTER UPDATE ON commissions
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION commissions_updated();

-- Only where refunds left nothing is there nothing to book.
ALTER TABLE commissions ADD CONSTRAINT commissions_released CHECK (
    state = 'PENDING' OR release_time IS NULL OR release_transaction_id IS NOT NULL OR reversed = amount) NOT VALID;

-- ── adjustments ─────────────────────────────────────────────────────────────────────────────────────────────────
-- That the partner's side is the adjustment's amount, the entries are checked for when they are booked.
CREATE FUNCTION adjustments_by_platform() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM ledger_entries e JOIN accounts a USING (account_id)
        WHERE e.transaction_id = NEW.transaction_id AND a.purpose = 'PLATFORM_ADJUSTMENTS' AND e.amount = -NEW.amount
    ) THEN
        RAISE EXCEPTION 'an adjustment is at the cost of the platform'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'adjustments_by_platform';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER adjustments_by_platform AFTER INSERT OR UPDATE OF transaction_id ON adjustments
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.state = 'APPROVED') EXECUTE FUNCTION adjustments_by_platform();

-- ── who booked it ───────────────────────────────────────────────────────────────────────────────────────────────
-- Records are written after what they record.
ALTER TABLE ledger_transactions ADD CONSTRAINT ledger_transactions_audit_event_id_fkey
    FOREIGN KEY (audit_event_id) REFERENCES audit_events DEFERRABLE INITIALLY DEFERRED NOT VALID;

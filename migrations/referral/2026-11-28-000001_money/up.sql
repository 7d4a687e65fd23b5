-- Money's whole life: held commissions, refunds, payouts, adjustments, PRO's notices, payments in TON, sealed records.
--
-- Locks go on in the order of the initial schema: …, payments, partners, standings, accounts, and then payouts and
-- adjustments. Whoever changes a commission's state or amounts, or an adjustment's, holds its owner's PARTNER_AVAILABLE
-- account; whoever moves the periods of PRO holds the partner's standing.

-- ── payments: what was given back ───────────────────────────────────────────────────────────────────────────────
ALTER TABLE payments
    ADD COLUMN refunded bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT payments_refunded CHECK (refunded BETWEEN 0 AND amount AND (refunded = 0 OR state = 'SUCCEEDED')),
    -- A period that a refund took back whole is empty.
    DROP CONSTRAINT payments_period,
    ADD CONSTRAINT payments_period CHECK (pro_end > pro_start OR (pro_end = pro_start AND refunded = amount));
CREATE INDEX payments_periods ON payments (partner_id, pro_end) WHERE pro_end IS NOT NULL;
CREATE INDEX payments_refunded ON payments (payment_id) WHERE refunded > 0;
-- A statement's reference that no payment was confirmed with may have been handed in for one.
CREATE INDEX payments_by_submitted_ref ON payments (submitted_ref) WHERE submitted_ref IS NOT NULL;
CREATE INDEX late_references_by_reference ON late_references (external_ref);

-- A refund lets periods begin and end earlier; nothing else of a success ever changes.
DROP TRIGGER payments_success_stays ON payments;
CREATE TRIGGER payments_success_stays BEFORE UPDATE ON payments FOR EACH ROW
    WHEN (OLD.confirmed_ref IS NOT NULL
        AND (NEW.refunded < OLD.refunded OR NEW.pro_start > OLD.pro_start OR NEW.pro_end > OLD.pro_end
            OR (NEW.state, NEW.confirmed_ref, NEW.confirm_time, NEW.transaction_id, NEW.amount, NEW.partner_id,
                    NEW.submitted_ref, NEW.override_reason, NEW.plan_version)
                IS DISTINCT FROM (OLD.state, OLD.confirmed_ref, OLD.confirm_time, OLD.transaction_id, OLD.amount, OLD.partner_id,
                    OLD.submitted_ref, OLD.override_reason, OLD.plan_version)))
    EXECUTE FUNCTION payments_success_stays();

CREATE TABLE refunds (
    refund_id uuid PRIMARY KEY,
    payment_id uuid NOT NULL REFERENCES payments,
    asset text NOT NULL CHECK (asset IN ('USDT')),
    amount bigint NOT NULL CHECK (amount > 0),
    reason text NOT NULL,
    transaction_id uuid NOT NULL UNIQUE,
    create_time timestamptz NOT NULL
);
CREATE INDEX refunds_by_payment ON refunds (payment_id, refund_id);

-- What each refund took of each commission, where it took something.
CREATE TABLE clawbacks (
    refund_id uuid NOT NULL REFERENCES refunds,
    payment_id uuid NOT NULL,
    level smallint NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    PRIMARY KEY (refund_id, level),
    FOREIGN KEY (payment_id, level) REFERENCES commissions
);

-- ── commissions: held, available, reversed, paid ────────────────────────────────────────────────────────────────
-- What a partner can claim of an available commission is amount - reversed - reserved - paid. Below zero it is a debt: it
-- was paid out, and then taken back.
ALTER TABLE commissions
    ADD COLUMN release_time timestamptz,
    ADD COLUMN release_transaction_id uuid REFERENCES ledger_transactions,
    ADD COLUMN reversed bigint NOT NULL DEFAULT 0,
    ADD COLUMN reserved bigint NOT NULL DEFAULT 0,
    ADD COLUMN paid bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT commissions_state_check,
    ADD CONSTRAINT commissions_state CHECK (state IN ('PENDING', 'AVAILABLE')),
    ADD CONSTRAINT commissions_held CHECK (
        CASE state WHEN 'PENDING'
            THEN release_time IS NOT NULL AND release_transaction_id IS NULL AND reserved = 0 AND paid = 0
            ELSE release_time IS NOT NULL OR release_transaction_id IS NULL END),
    ADD CONSTRAINT commissions_reversed CHECK (reversed BETWEEN 0 AND amount),
    -- Below zero: a payout settled a debt of it whose own payout then failed.
    ADD CONSTRAINT commissions_paid CHECK (abs(paid) <= amount AND abs(reserved + paid) <= amount);
CREATE INDEX commissions_due ON commissions (release_time) WHERE state = 'PENDING';
CREATE INDEX commissions_open ON commissions (earner_id, transaction_id, payment_id, level)
    WHERE state = 'AVAILABLE' AND amount - reversed - reserved - paid <> 0;

CREATE FUNCTION commissions_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a commission''s terms stay, and it only goes forward'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'commissions_stay';
END $$;
CREATE TRIGGER commissions_stay BEFORE UPDATE ON commissions FOR EACH ROW
    WHEN (NEW.reversed < OLD.reversed OR (OLD.state = 'AVAILABLE' AND NEW.state <> 'AVAILABLE')
        OR (OLD.release_transaction_id IS NOT NULL AND NEW.release_transaction_id IS DISTINCT FROM OLD.release_transaction_id)
        OR (NEW.payment_id, NEW.level, NEW.earner_id, NEW.rate_bps, NEW.plan_version, NEW.asset, NEW.base, NEW.amount,
                NEW.transaction_id, NEW.create_time, NEW.release_time)
            IS DISTINCT FROM (OLD.payment_id, OLD.level, OLD.earner_id, OLD.rate_bps, OLD.plan_version, OLD.asset, OLD.base,
                OLD.amount, OLD.transaction_id, OLD.create_time, OLD.release_time))
    EXECUTE FUNCTION commissions_stay();

-- ── payouts and adjustments ─────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE payouts (
    payout_id uuid PRIMARY KEY,
    partner_id uuid NOT NULL REFERENCES partners,
    asset text NOT NULL CHECK (asset IN ('USDT')),
    amount bigint NOT NULL CHECK (amount > 0),
    destination text NOT NULL,
    requester text NOT NULL,
    create_time timestamptz NOT NULL,
    reserve_transaction_id uuid NOT NULL UNIQUE,
    state text NOT NULL DEFAULT 'REQUESTED' CHECK (state IN ('REQUESTED', 'APPROVED', 'COMPLETED', 'FAILED', 'CANCELLED')),
    approver text,
    approve_time timestamptz,
    external_ref text UNIQUE,
    reason text,
    end_time timestamptz,
    end_transaction_id uuid UNIQUE,
    CONSTRAINT payouts_four_eyes CHECK (approver <> requester),
    CONSTRAINT payouts_approved CHECK (
        num_nonnulls(approver, approve_time) = CASE WHEN state IN ('APPROVED', 'COMPLETED', 'FAILED') THEN 2 ELSE 0 END),
    CONSTRAINT payouts_ended CHECK (
        num_nonnulls(end_time, end_transaction_id) = CASE WHEN state IN ('REQUESTED', 'APPROVED') THEN 0 ELSE 2 END),
    CONSTRAINT payouts_completed CHECK ((state = 'COMPLETED') = (external_ref IS NOT NULL)),
    CONSTRAINT payouts_returned CHECK ((state IN ('FAILED', 'CANCELLED')) = (reason IS NOT NULL))
) WITH (fillfactor = 80);
CREATE INDEX payouts_by_partner ON payouts (partner_id, payout_id);
CREATE INDEX payouts_open ON payouts (payout_id) WHERE state IN ('REQUESTED', 'APPROVED');

CREATE FUNCTION payouts_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a payout only goes forward' USING ERRCODE = 'check_violation', CONSTRAINT = 'payouts_stay';
END $$;
CREATE TRIGGER payouts_stay BEFORE UPDATE ON payouts FOR EACH ROW
    -- One batch may approve and end it: that it is approved then, payouts_approved says.
    WHEN (NOT ((OLD.state = 'REQUESTED' AND NEW.state <> 'REQUESTED')
            OR (OLD.state = 'APPROVED' AND NEW.state IN ('COMPLETED', 'FAILED')))
        OR (OLD.approver IS NOT NULL AND (NEW.approver, NEW.approve_time) IS DISTINCT FROM (OLD.approver, OLD.approve_time))
        OR (NEW.payout_id, NEW.partner_id, NEW.asset, NEW.amount, NEW.destination, NEW.requester, NEW.create_time,
                NEW.reserve_transaction_id)
            IS DISTINCT FROM (OLD.payout_id, OLD.partner_id, OLD.asset, OLD.amount, OLD.destination, OLD.requester,
                OLD.create_time, OLD.reserve_transaction_id))
    EXECUTE FUNCTION payouts_stay();

CREATE TABLE adjustments (
    adjustment_id uuid PRIMARY KEY,
    partner_id uuid NOT NULL REFERENCES partners,
    asset text NOT NULL CHECK (asset IN ('USDT')),
    amount bigint NOT NULL CHECK (amount <> 0),
    reason text NOT NULL CHECK (reason <> ''),
    proposer text NOT NULL,
    create_time timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'PROPOSED' CHECK (state IN ('PROPOSED', 'APPROVED', 'REJECTED')),
    decider text,
    decide_time timestamptz,
    reject_reason text,
    transaction_id uuid UNIQUE,
    -- Of an approved one, a partner can claim amount - reserved - paid; below zero it is a debt.
    reserved bigint NOT NULL DEFAULT 0,
    paid bigint NOT NULL DEFAULT 0,
    CONSTRAINT adjustments_four_eyes CHECK (state <> 'APPROVED' OR decider <> proposer),
    CONSTRAINT adjustments_decided CHECK (num_nonnulls(decider, decide_time) = CASE state WHEN 'PROPOSED' THEN 0 ELSE 2 END),
    CONSTRAINT adjustments_booked CHECK ((state = 'APPROVED') = (transaction_id IS NOT NULL)),
    CONSTRAINT adjustments_rejected CHECK ((state = 'REJECTED') = (reject_reason IS NOT NULL)),
    CONSTRAINT adjustments_paid CHECK (
        abs(paid) <= abs(amount) AND abs(reserved + paid) <= abs(amount)
        AND (state = 'APPROVED' OR (reserved = 0 AND paid = 0)))
) WITH (fillfactor = 80);
CREATE INDEX adjustments_by_partner ON adjustments (partner_id, adjustment_id);
CREATE INDEX adjustments_open ON adjustments (partner_id, transaction_id)
    WHERE state = 'APPROVED' AND amount - reserved - paid <> 0;
CREATE INDEX adjustments_proposed ON adjustments (adjustment_id) WHERE state = 'PROPOSED';

CREATE FUNCTION adjustments_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an adjustment is decided once, and what it says stays'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'adjustments_stay';
END $$;
CREATE TRIGGER adjustments_stay BEFORE UPDATE ON adjustments FOR EACH ROW
    WHEN ((OLD.state <> 'PROPOSED' AND (NEW.state, NEW.decider, NEW.decide_time, NEW.reject_reason, NEW.transaction_id)
                IS DISTINCT FROM (OLD.state, OLD.decider, OLD.decide_time, OLD.reject_reason, OLD.transaction_id))
        OR (NEW.adjustment_id, NEW.partner_id, NEW.asset, NEW.amount, NEW.reason, NEW.proposer, NEW.create_time)
            IS DISTINCT FROM (OLD.adjustment_id, OLD.partner_id, OLD.asset, OLD.amount, OLD.reason, OLD.proposer, OLD.create_time))
    EXECUTE FUNCTION adjustments_stay();

-- What a payout pays, or settles: claims of the partner, oldest first. They sum to the payout's amount.
CREATE TABLE payout_items (
    payout_id uuid NOT NULL REFERENCES payouts,
    number int NOT NULL CHECK (number > 0),
    payment_id uuid,
    level smallint,
    adjustment_id uuid REFERENCES adjustments,
    amount bigint NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (payout_id, number),
    FOREIGN KEY (payment_id, level) REFERENCES commissions,
    CONSTRAINT payout_items_one_claim CHECK (
        num_nonnulls(payment_id, level) = CASE WHEN adjustment_id IS NULL THEN 2 ELSE 0 END)
);
CREATE INDEX payout_items_by_commission ON payout_items (payment_id, level) WHERE payment_id IS NOT NULL;

-- ── the ledger ──────────────────────────────────────────────────────────────────────────────────────────────────
ALTER TABLE accounts
    DROP CONSTRAINT accounts_purpose_check,
    DROP CONSTRAINT accounts_check,
    ADD CONSTRAINT accounts_purpose CHECK (purpose IN ('PARTNER_AVAILABLE', 'PARTNER_PENDING', 'PARTNER_RESERVED',
        'PLATFORM_CLEARING', 'PLATFORM_REVENUE', 'PLATFORM_ADJUSTMENTS')),
    ADD CONSTRAINT accounts_owner CHECK (starts_with(purpose, 'PARTNER_') = (owner_id IS NOT NULL)),
    -- Only what is available can turn into a debt.
    ADD CONSTRAINT accounts_not_overdrawn CHECK (purpose NOT IN ('PARTNER_PENDING', 'PARTNER_RESERVED') OR balance >= 0);
INSERT INTO accounts (purpose, asset) VALUES ('PLATFORM_ADJUSTMENTS', 'USDT');

ALTER TABLE ledger_transactions
    DROP CONSTRAINT ledger_transactions_kind_check,
    ALTER COLUMN payment_id DROP NOT NULL,
    ADD COLUMN payout_id uuid REFERENCES payouts DEFERRABLE INITIALLY DEFERRED,
    ADD COLUMN adjustment_id uuid REFERENCES adjustments DEFERRABLE INITIALLY DEFERRED,
    -- Who did it: the command's record. None: an older version booked it.
    ADD COLUMN audit_event_id uuid,
    ADD CONSTRAINT ledger_transactions_kind CHECK (kind IN ('PRO_SALE', 'RELEASE', 'REFUND', 'PAYOUT_RESERVED', 'PAYOUT_PAID',
        'PAYOUT_RETURNED', 'ADJUSTMENT')),
    ADD CONSTRAINT ledger_transactions_subject CHECK (
        (payment_id IS NOT NULL) = (kind IN ('PRO_SALE', 'REFUND'))
        AND (payout_id IS NOT NULL) = (kind IN ('PAYOUT_RESERVED', 'PAYOUT_PAID', 'PAYOUT_RETURNED'))
        AND (adjustment_id IS NOT NULL) = (kind = 'ADJUSTMENT'));
CREATE UNIQUE INDEX ledger_transactions_one_reservation ON ledger_transactions (payout_id) WHERE kind = 'PAYOUT_RESERVED';
CREATE UNIQUE INDEX ledger_transactions_one_end ON ledger_transactions (payout_id) WHERE kind IN ('PAYOUT_PAID', 'PAYOUT_RETURNED');
CREATE UNIQUE INDEX ledger_transactions_one_adjustment ON ledger_transactions (adjustment_id) WHERE kind = 'ADJUSTMENT';
ALTER TABLE refunds ADD FOREIGN KEY (transaction_id) REFERENCES ledger_transactions DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE payouts
    ADD FOREIGN KEY (reserve_transaction_id) REFERENCES ledger_transactions DEFERRABLE INITIALLY DEFERRED,
    ADD FOREIGN KEY (end_transaction_id) REFERENCES ledger_transactions DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE adjustments ADD FOREIGN KEY (transaction_id) REFERENCES ledger_transactions DEFERRABLE INITIALLY DEFERRED;

-- Only a fact that names the transaction is booked as it: facts are written first.
CREATE OR REPLACE FUNCTION ledger_transactions_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM new_rows n JOIN payments p USING (payment_id)
        WHERE n.kind = 'PRO_SALE' AND (p.state <> 'SUCCEEDED' OR p.transaction_id <> n.transaction_id)
    ) THEN
        RAISE EXCEPTION 'a sale is booked for a payment that succeeded' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_transactions_paid';
    END IF;
    IF EXISTS (
        SELECT FROM new_rows n
        WHERE CASE n.kind
            WHEN 'REFUND' THEN NOT EXISTS (
                SELECT FROM refunds r WHERE r.transaction_id = n.transaction_id AND r.payment_id = n.payment_id)
            WHEN 'PAYOUT_RESERVED' THEN NOT EXISTS (
                SELECT FROM payouts p WHERE p.payout_id = n.payout_id AND p.reserve_transaction_id = n.transaction_id)
            WHEN 'PAYOUT_PAID' THEN NOT EXISTS (
                SELECT FROM payouts p
                WHERE p.payout_id = n.payout_id AND p.end_transaction_id = n.transaction_id AND p.state = 'COMPLETED')
            WHEN 'PAYOUT_RETURNED' THEN NOT EXISTS (
                SELECT FROM payouts p
                WHERE p.payout_id = n.payout_id AND p.end_transaction_id = n.transaction_id AND p.state IN ('FAILED', 'CANCELLED'))
            WHEN 'ADJUSTMENT' THEN NOT EXISTS (
                SELECT FROM adjustments a
                WHERE a.adjustment_id = n.adjustment_id AND a.transaction_id = n.transaction_id AND a.state = 'APPROVED')
            ELSE false END
    ) THEN
        RAISE EXCEPTION 'a transaction is booked for the fact that names it' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_transactions_named';
    END IF;
    RETURN NULL;
END $$;

-- As before, and each kind of transaction moves what its fact says between the accounts that it is about.
CREATE OR REPLACE FUNCTION ledger_entries_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    expected bigint;
    carried bigint;
BEGIN
    IF EXISTS (
        SELECT FROM new_rows n JOIN accounts a USING (account_id)
        GROUP BY n.transaction_id, a.asset HAVING sum(n.amount) <> 0
    ) THEN
        RAISE EXCEPTION 'a transaction does not sum to zero' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_balance';
    END IF;
    IF EXISTS (
        SELECT FROM (SELECT transaction_id, count(*) AS entries FROM new_rows GROUP BY 1) n
        LEFT JOIN ledger_transactions t USING (transaction_id)
        WHERE t.transaction_id IS NULL
            OR n.entries <> (SELECT count(*) FROM ledger_entries e WHERE e.transaction_id = n.transaction_id)
    ) THEN
        RAISE EXCEPTION 'entries come with their transaction, all at once' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_sealed';
    END IF;
    IF EXISTS (
        SELECT FROM (
            SELECT n.transaction_id, coalesce(sum(n.amount) FILTER (WHERE a.purpose = 'PLATFORM_CLEARING'), 0) AS received
            FROM new_rows n JOIN accounts a USING (account_id) GROUP BY 1
        ) n
        JOIN ledger_transactions t USING (transaction_id) JOIN payments p USING (payment_id)
        WHERE t.kind = 'PRO_SALE' AND n.received <> -p.amount
    ) THEN
        RAISE EXCEPTION 'a sale books what was paid' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_received';
    END IF;
    -- Most batches are sales alone.
    IF EXISTS (
        SELECT FROM (SELECT DISTINCT transaction_id FROM new_rows) n JOIN ledger_transactions t USING (transaction_id)
        WHERE t.kind <> 'PRO_SALE'
    ) AND EXISTS (
        SELECT FROM (
            SELECT n.transaction_id,
                coalesce(sum(n.amount) FILTER (WHERE a.purpose = 'PLATFORM_CLEARING'), 0) AS clearing,
                coalesce(sum(n.amount) FILTER (WHERE a.purpose = 'PARTNER_AVAILABLE'), 0) AS available,
                coalesce(sum(n.amount) FILTER (WHERE a.purpose = 'PARTNER_PENDING'), 0) AS pending,
                coalesce(sum(n.amount) FILTER (WHERE a.purpose = 'PARTNER_RESERVED'), 0) AS reserved,
                count(*) AS entries, count(DISTINCT a.owner_id) AS owners, max(a.owner_id::text) AS owner,
                coalesce(min(n.balance_after) FILTER (WHERE a.purpose = 'PARTNER_AVAILABLE'), 0) AS left_available
            FROM new_rows n JOIN accounts a USING (account_id) GROUP BY 1
        ) n
        JOIN ledger_transactions t USING (transaction_id)
        LEFT JOIN refunds r ON t.kind = 'REFUND' AND r.transaction_id = t.transaction_id
        LEFT JOIN payouts p ON p.payout_id = t.payout_id
        LEFT JOIN adjustments j ON j.adjustment_id = t.adjustment_id
        WHERE t.kind <> 'PRO_SALE' AND NOT coalesce(CASE t.kind
            WHEN 'REFUND' THEN n.clearing = r.amount AND n.available <= 0 AND n.pending <= 0 AND n.reserved = 0
            WHEN 'RELEASE' THEN n.pending < 0 AND n.available = -n.pending AND n.entries = 2 AND n.owners = 1
            WHEN 'PAYOUT_RESERVED' THEN n.reserved = p.amount AND n.available = -p.amount AND n.entries = 2
                AND n.owners = 1 AND n.owner = p.partner_id::text AND n.left_available >= 0
            WHEN 'PAYOUT_PAID' THEN n.reserved = -p.amount AND n.clearing = p.amount AND n.entries = 2
                AND n.owner = p.partner_id::text
            WHEN 'PAYOUT_RETURNED' THEN n.reserved = -p.amount AND n.available = p.amount AND n.entries = 2
                AND n.owners = 1 AND n.owner = p.partner_id::text
            WHEN 'ADJUSTMENT' THEN n.available = j.amount AND n.entries = 2 AND n.owners = 1 AND n.owner = j.partner_id::text
            END, false)
    ) THEN
        RAISE EXCEPTION 'a transaction moves something else than its fact says' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_fact';
    END IF;
    IF EXISTS (
        SELECT FROM (
            SELECT version, amount, balance_after, lag(version) OVER w AS before, lag(balance_after) OVER w AS balance
            FROM new_rows WINDOW w AS (PARTITION BY account_id ORDER BY version)
        ) n
        WHERE before IS NOT NULL AND (version <> before + 1 OR balance_after <> balance + amount)
    ) THEN
        RAISE EXCEPTION 'entries do not follow one another' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_chain';
    END IF;
    WITH ends AS (
        SELECT account_id, min(version) AS first, max(version) AS last, sum(amount) AS moved
        FROM new_rows GROUP BY account_id
    ), tails AS (
        SELECT e.account_id, e.first, e.last, n.balance_after, n.balance_after - e.moved AS opening
        FROM ends e JOIN new_rows n ON n.account_id = e.account_id AND n.version = e.last
    ), carry AS (
        UPDATE accounts a SET version = t.last, balance = t.balance_after
        FROM tails t
        WHERE a.account_id = t.account_id AND a.version = t.first - 1 AND a.balance = t.opening
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM ends), (SELECT count(*) FROM carry) INTO expected, carried;
    IF carried <> expected THEN
        RAISE EXCEPTION 'an entry does not continue its account' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_chain';
    END IF;
    RETURN NULL;
END $$;

-- The last entry of an account that was booked at or before a time (its version; 0: none), by bisection: an account's entries
-- are booked in the order of their versions.
CREATE FUNCTION version_at(account bigint, at timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    low bigint := 0;
    high bigint;
    middle bigint;
BEGIN
    SELECT a.version INTO high FROM accounts a WHERE a.account_id = account;
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        IF (SELECT t.create_time <= at FROM ledger_entries e JOIN ledger_transactions t USING (transaction_id)
            WHERE e.account_id = account AND e.version = middle) THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END $$;

-- ── history of the tree ─────────────────────────────────────────────────────────────────────────────────────────
-- When a partner came below its referrer, if that was after its registration.
ALTER TABLE partners ADD COLUMN attach_time timestamptz;

-- ── PRO's notices ───────────────────────────────────────────────────────────────────────────────────────────────
-- How many of the present expiry's notices were requested: three days before, one day before, at the end.
ALTER TABLE standings ADD COLUMN notices_sent smallint NOT NULL DEFAULT 0 CHECK (notices_sent BETWEEN 0 AND 3);
-- Nobody is told today of what ended long ago.
UPDATE standings SET notices_sent = 3 WHERE pro_expires_at <= now();
CREATE INDEX standings_notices ON standings (notices_sent, pro_expires_at)
    WHERE pro_expires_at IS NOT NULL AND notices_sent < 3;

CREATE FUNCTION standings_new_expiry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.notices_sent := 0;
    RETURN NEW;
END $$;
-- Whoever moves the expiry: a new one has had no notice.
CREATE TRIGGER standings_new_expiry BEFORE UPDATE OF pro_expires_at ON standings FOR EACH ROW
    WHEN (NEW.pro_expires_at IS DISTINCT FROM OLD.pro_expires_at) EXECUTE FUNCTION standings_new_expiry();

-- ── payments in TON ─────────────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE ton_payments (
    payment_id uuid PRIMARY KEY REFERENCES payments DEFERRABLE INITIALLY DEFERRED,
    address text NOT NULL CHECK (address ~ '^-?[0-9]+:[0-9a-f]{64}$'),
    nanotons bigint NOT NULL CHECK (nanotons > 0),
    memo text NOT NULL UNIQUE,
    tolerance_bps int NOT NULL CHECK (tolerance_bps BETWEEN 0 AND 10000),
    rate_minor_units bigint NOT NULL CHECK (rate_minor_units > 0),
    rate_source text NOT NULL CHECK (rate_source <> ''),
    rate_time timestamptz NOT NULL,
    -- How the verification goes of what was handed in last.
    attempts int NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    first_answer_time timestamptz,
    next_attempt_time timestamptz,
    finding text NOT NULL DEFAULT '',
    traceparent text NOT NULL DEFAULT ''
) WITH (fillfactor = 80);
CREATE INDEX ton_payments_due ON ton_payments (next_attempt_time) WHERE next_attempt_time IS NOT NULL;

CREATE FUNCTION ton_terms_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a payment''s terms stay' USING ERRCODE = 'check_violation', CONSTRAINT = 'ton_terms_stay';
END $$;
CREATE TRIGGER ton_terms_stay BEFORE UPDATE ON ton_payments FOR EACH ROW
    WHEN ((NEW.payment_id, NEW.address, NEW.nanotons, NEW.memo, NEW.tolerance_bps, NEW.rate_minor_units, NEW.rate_source, NEW.rate_time)
        IS DISTINCT FROM (OLD.payment_id, OLD.address, OLD.nanotons, OLD.memo, OLD.tolerance_bps, OLD.rate_minor_units,
            OLD.rate_source, OLD.rate_time))
    EXECUTE FUNCTION ton_terms_stay();

-- ── sealed records ──────────────────────────────────────────────────────────────────────────────────────────────
-- How many notices the event of this command asks for; none: an older version wrote it.
ALTER TABLE audit_events ADD COLUMN notices int;
CREATE INDEX audit_events_by_actor ON audit_events (actor, audit_event_id);
CREATE INDEX audit_events_by_action ON audit_events (action, audit_event_id);

-- One block a database transaction of commands: what it recorded and booked, and the hash that covers that and its parents.
CREATE TABLE audit_blocks (
    chain_id uuid NOT NULL,
    position bigint NOT NULL CHECK (position > 0),
    create_time timestamptz NOT NULL,
    -- Of the first block: the heads of other chains, each with its position.
    parent_chains uuid[] NOT NULL,
    parent_positions bigint[] NOT NULL,
    audit_event_ids uuid[] NOT NULL,
    -- 32 bytes each.
    audit_event_hashes bytea NOT NULL,
    transaction_ids uuid[] NOT NULL,
    transaction_hashes bytea NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    -- What is new since a snapshot is found by it.
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (chain_id, position),
    CONSTRAINT audit_blocks_shape CHECK (
        cardinality(parent_chains) = cardinality(parent_positions)
        AND (position = 1 OR cardinality(parent_chains) = 0)
        AND octet_length(audit_event_hashes) = 32 * cardinality(audit_event_ids)
        AND octet_length(transaction_hashes) = 32 * cardinality(transaction_ids))
);
CREATE INDEX audit_blocks_by_xid ON audit_blocks (xid);
-- Events and ledger transactions have their block's time, and are found in it by that.
CREATE INDEX audit_blocks_by_time ON audit_blocks (create_time);

-- What seals a ledger transaction, and how `seal.rs` of the domain computes it too: the SHA-256 of, one after the other,
--   the transaction's ID (16 bytes), the kind's length in bytes (int4) and its UTF-8, create_time (int8: microseconds since
--   2000-01-01 UTC, as PostgreSQL stores it), payment_id, payout_id, adjustment_id and audit_event_id, each as one byte 1 and
--   its 16 bytes or as one byte 0 where there is none, the number of entries (int4), and each entry by account_id (then
--   version): account_id, version, amount, balance_after (int8 each). Integers are big-endian.
-- In a set-based query, with the entries joined and grouped by the transaction:
--   transaction_hash(t, count(e), string_agg(entry_bytes(e), '' ORDER BY e.account_id, e.version))
CREATE FUNCTION optional_bytes(id uuid) RETURNS bytea LANGUAGE sql IMMUTABLE
RETURN coalesce('\x01'::bytea || uuid_send(id), '\x00'::bytea);

CREATE FUNCTION entry_bytes(e ledger_entries) RETURNS bytea LANGUAGE sql IMMUTABLE
RETURN int8send(e.account_id) || int8send(e.version) || int8send(e.amount) || int8send(e.balance_after);

CREATE FUNCTION transaction_hash(t ledger_transactions, entries bigint, bytes bytea) RETURNS bytea LANGUAGE sql STABLE
RETURN sha256(uuid_send(t.transaction_id)
    || int4send(octet_length(convert_to(t.kind, 'UTF8'))) || convert_to(t.kind, 'UTF8')
    || timestamptz_send(t.create_time)
    || optional_bytes(t.payment_id) || optional_bytes(t.payout_id) || optional_bytes(t.adjustment_id)
    || optional_bytes(t.audit_event_id)
    || int4send(entries::int) || coalesce(bytes, ''::bytea));

-- The hash of one transaction; NULL: there is none.
CREATE FUNCTION transaction_hash(id uuid) RETURNS bytea LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT transaction_hash(t, e.entries, e.bytes)
    FROM ledger_transactions t, LATERAL (
        SELECT count(*) AS entries, string_agg(entry_bytes(e), '' ORDER BY e.account_id, e.version) AS bytes
        FROM ledger_entries e WHERE e.transaction_id = t.transaction_id
    ) e
    WHERE t.transaction_id = id
$$;

-- ── what is written once stays ──────────────────────────────────────────────────────────────────────────────────
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON refunds FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clawbacks FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON payout_items FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_blocks FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER stays BEFORE DELETE OR TRUNCATE ON payouts FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER stays BEFORE DELETE OR TRUNCATE ON adjustments FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER stays BEFORE DELETE OR TRUNCATE ON ton_payments FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ── rights ──────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE OR REPLACE FUNCTION grant_service_rights(service_role name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', service_role);
    EXECUTE format('GRANT SELECT, INSERT ON plans, partners, standings, xp_awards, payments, late_references, ledger_transactions,
        ledger_entries, commissions, requests, audit_events, outbox, broadcasts, refunds, clawbacks, payouts, payout_items,
        adjustments, ton_payments, audit_blocks TO %I', service_role);
    EXECUTE format('GRANT SELECT ON accounts TO %I', service_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION open_accounts TO %I', service_role);
    EXECUTE format('GRANT UPDATE (referrer_id, depth, lineage, attach_time, username, first_name, last_name, locale, contacts)
        ON partners TO %I', service_role);
    EXECUTE format('GRANT UPDATE (xp, members, pro_members, counted_as_pro, pro_expires_at, notices_sent)
        ON standings TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, submitted_ref, confirmed_ref, confirm_time, pro_start, pro_end, transaction_id,
        reject_reason, override_reason, refunded) ON payments TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, release_transaction_id, reversed, reserved, paid) ON commissions TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, approver, approve_time, external_ref, reason, end_time, end_transaction_id)
        ON payouts TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, decider, decide_time, reject_reason, transaction_id, reserved, paid)
        ON adjustments TO %I', service_role);
    EXECUTE format('GRANT UPDATE (attempts, first_answer_time, next_attempt_time, finding, traceparent) ON ton_payments TO %I', service_role);
    EXECUTE format('GRANT UPDATE (reject_time, reject_reason, reject_detail), DELETE ON outbox TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, published, progress, next_step_time, end_time, cancel_reason)
        ON broadcasts TO %I', service_role);
END $$;

-- referral-svc: partners, payments, ledger, and what they tell others.
--
-- The schema refuses what must never be, whoever asks: the service's role gets only the rights at the end of this
-- file, and triggers hold even for the owner. Locks, in this order everywhere: tree (advisory 1, 0), key stripes
-- (advisory 2, n, ascending), payments, partners, standings, accounts; rows by ascending key, FOR NO KEY UPDATE, which
-- foreign keys never wait for.

-- ── the plan ────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE plans (
    version int PRIMARY KEY CHECK (version > 0),
    content text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);

-- ── partners and the tree ───────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE partners (
    partner_id uuid PRIMARY KEY,
    external_id text NOT NULL UNIQUE CHECK (octet_length(external_id) BETWEEN 1 AND 128),
    referral_code text NOT NULL UNIQUE CHECK (referral_code ~ '^P2P-[0-9A-Z]{8,}$'),
    referrer_id uuid REFERENCES partners,
    depth int NOT NULL CHECK (depth >= 0),
    -- The referrer first, nine at most.
    lineage uuid[] NOT NULL,
    username text NOT NULL,
    first_name text NOT NULL,
    last_name text NOT NULL,
    locale text NOT NULL,
    contacts jsonb NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT partners_lineage_shape CHECK (
        (referrer_id IS NULL) = (depth = 0)
        AND cardinality(lineage) = least(depth, 9)
        AND lineage[1] IS NOT DISTINCT FROM referrer_id
    )
);
CREATE INDEX partners_by_referrer ON partners (referrer_id, partner_id);

-- Depth is the referrer's plus one, so a cycle cannot be written down; lineage is the referrer's, moved by one.
CREATE FUNCTION partners_inserted() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    -- A snapshot older than the lock would hide what others just moved.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the tree grows under read committed only' USING ERRCODE = 'check_violation', CONSTRAINT = 'partners_tree';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(1, 0);
    IF EXISTS (
        SELECT FROM new_rows n JOIN partners p ON p.partner_id = n.referrer_id
        WHERE n.depth <> p.depth + 1 OR n.lineage <> (p.partner_id || p.lineage)[1:9]
    ) THEN
        RAISE EXCEPTION 'a partner''s depth or lineage does not follow the referrer''s'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'partners_tree';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER partners_inserted AFTER INSERT ON partners
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION partners_inserted();

CREATE FUNCTION partners_updated() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    moved uuid[];
BEGIN
    SELECT array_agg(n.partner_id) INTO moved
    FROM new_rows n JOIN old_rows o USING (partner_id)
    WHERE (n.referrer_id, n.depth, n.lineage) IS DISTINCT FROM (o.referrer_id, o.depth, o.lineage);
    IF moved IS NULL THEN
        RETURN NULL;
    END IF;
    -- A snapshot older than the lock would hide what others just moved.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the tree changes under read committed only' USING ERRCODE = 'check_violation', CONSTRAINT = 'partners_tree';
    END IF;
    PERFORM pg_advisory_xact_lock(1, 0);
    IF EXISTS (
        SELECT FROM new_rows n JOIN old_rows o USING (partner_id)
        WHERE o.referrer_id IS NOT NULL AND n.referrer_id IS DISTINCT FROM o.referrer_id
    ) THEN
        RAISE EXCEPTION 'the first referrer stays' USING ERRCODE = 'check_violation', CONSTRAINT = 'partners_first_referrer';
    END IF;
    IF EXISTS (
        SELECT FROM partners c JOIN partners p ON p.partner_id = c.referrer_id
        WHERE (c.partner_id = ANY (moved) OR c.referrer_id = ANY (moved))
            AND (c.depth <> p.depth + 1 OR c.lineage <> (p.partner_id || p.lineage)[1:9])
    ) THEN
        RAISE EXCEPTION 'a partner''s depth or lineage does not follow the referrer''s'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'partners_tree';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER partners_updated AFTER UPDATE ON partners
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION partners_updated();

-- What changes often about a partner, apart from what hardly ever does: narrow rows are cheap to rewrite.
CREATE TABLE standings (
    partner_id uuid PRIMARY KEY REFERENCES partners,
    xp bigint NOT NULL DEFAULT 0 CHECK (xp >= 0),
    -- Partners by level below, level 1 first.
    members bigint[] NOT NULL DEFAULT '{0,0,0,0,0,0,0,0,0}' CHECK (cardinality(members) = 9 AND 0 <= ALL (members)),
    pro_members bigint[] NOT NULL DEFAULT '{0,0,0,0,0,0,0,0,0}' CHECK (cardinality(pro_members) = 9 AND 0 <= ALL (pro_members)),
    -- Whether the ancestors' pro_members count this partner.
    counted_as_pro boolean NOT NULL DEFAULT false,
    pro_expires_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX standings_by_xp ON standings (xp DESC, partner_id);
CREATE INDEX standings_counted ON standings (pro_expires_at) WHERE counted_as_pro;
CREATE INDEX standings_uncounted ON standings (pro_expires_at) WHERE NOT counted_as_pro AND pro_expires_at IS NOT NULL;

CREATE TABLE xp_awards (
    partner_id uuid NOT NULL REFERENCES partners,
    source_partner_id uuid NOT NULL REFERENCES partners,
    level smallint NOT NULL CHECK (level BETWEEN 1 AND 9),
    multiplier int NOT NULL CHECK (multiplier > 0),
    xp bigint NOT NULL CHECK (xp > 0),
    create_time timestamptz NOT NULL,
    -- One signup awards an ancestor once.
    PRIMARY KEY (partner_id, source_partner_id)
);
CREATE INDEX xp_awards_by_time ON xp_awards (partner_id, create_time, source_partner_id);

-- ── payments ────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE payments (
    payment_id uuid PRIMARY KEY,
    partner_id uuid NOT NULL REFERENCES partners,
    asset text NOT NULL CHECK (asset IN ('USDT')),
    amount bigint NOT NULL CHECK (amount > 0),
    method text NOT NULL CHECK (method IN ('trusted', 'manual', 'ton')),
    plan_version int NOT NULL REFERENCES plans,
    -- A PENDING payment past its expire_time has expired; no row need say so.
    state text NOT NULL CHECK (state IN ('PENDING', 'IN_REVIEW', 'REJECTED', 'SUCCEEDED')),
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL CHECK (expire_time > create_time),
    submitted_ref text,
    -- Set by success alone, and then never again, on any payment.
    confirmed_ref text UNIQUE,
    confirm_time timestamptz,
    pro_start timestamptz,
    pro_end timestamptz,
    transaction_id uuid UNIQUE,
    reject_reason text,
    override_reason text,
    CONSTRAINT payments_in_review CHECK (state <> 'IN_REVIEW' OR submitted_ref IS NOT NULL),
    CONSTRAINT payments_rejected CHECK ((state = 'REJECTED') = (reject_reason IS NOT NULL)),
    CONSTRAINT payments_succeeded CHECK (
        num_nonnulls(confirmed_ref, confirm_time, pro_start, pro_end, transaction_id)
            = CASE state WHEN 'SUCCEEDED' THEN 5 ELSE 0 END
    ),
    CONSTRAINT payments_period CHECK (pro_end > pro_start)
) WITH (fillfactor = 80);
CREATE INDEX payments_by_partner ON payments (partner_id, payment_id);
CREATE INDEX payments_in_review ON payments (payment_id) WHERE state = 'IN_REVIEW';

CREATE FUNCTION payments_success_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a success cannot be undone or changed' USING ERRCODE = 'check_violation', CONSTRAINT = 'payments_success_stays';
END $$;
CREATE TRIGGER payments_success_stays BEFORE UPDATE ON payments FOR EACH ROW
    WHEN (OLD.confirmed_ref IS NOT NULL
        AND (NEW.confirmed_ref, NEW.confirm_time, NEW.transaction_id, NEW.amount, NEW.partner_id, NEW.pro_start, NEW.pro_end,
                NEW.submitted_ref, NEW.override_reason, NEW.plan_version)
            IS DISTINCT FROM (OLD.confirmed_ref, OLD.confirm_time, OLD.transaction_id, OLD.amount, OLD.partner_id, OLD.pro_start,
                OLD.pro_end, OLD.submitted_ref, OLD.override_reason, OLD.plan_version))
    EXECUTE FUNCTION payments_success_stays();

-- References that came for expired or rejected payments: there may be money to be found.
CREATE TABLE late_references (
    payment_id uuid NOT NULL REFERENCES payments,
    external_ref text NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (payment_id, external_ref)
);

-- ── the ledger ──────────────────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE accounts (
    account_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    purpose text NOT NULL CHECK (purpose IN ('PARTNER_AVAILABLE', 'PLATFORM_CLEARING', 'PLATFORM_REVENUE')),
    owner_id uuid REFERENCES partners,
    asset text NOT NULL CHECK (asset IN ('USDT')),
    -- The sum of the entries and their number; kept by the trigger on ledger_entries, by nothing else.
    balance bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 0,
    UNIQUE NULLS NOT DISTINCT (purpose, owner_id, asset),
    CHECK ((purpose = 'PARTNER_AVAILABLE') = (owner_id IS NOT NULL))
) WITH (fillfactor = 50);
INSERT INTO accounts (purpose, asset) VALUES ('PLATFORM_CLEARING', 'USDT'), ('PLATFORM_REVENUE', 'USDT');

CREATE TABLE ledger_transactions (
    transaction_id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('PRO_SALE')),
    payment_id uuid NOT NULL REFERENCES payments,
    create_time timestamptz NOT NULL
);
CREATE UNIQUE INDEX ledger_transactions_one_sale ON ledger_transactions (payment_id) WHERE kind = 'PRO_SALE';
ALTER TABLE payments ADD FOREIGN KEY (transaction_id) REFERENCES ledger_transactions DEFERRABLE INITIALLY DEFERRED;

-- Only a payment that succeeded is booked, and only as the transaction that it names.
CREATE FUNCTION ledger_transactions_inserted() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM new_rows n JOIN payments p USING (payment_id)
        WHERE p.state <> 'SUCCEEDED' OR p.transaction_id <> n.transaction_id
    ) THEN
        RAISE EXCEPTION 'a sale is booked for a payment that succeeded' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_transactions_paid';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_transactions_inserted AFTER INSERT ON ledger_transactions
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION ledger_transactions_inserted();

CREATE TABLE ledger_entries (
    account_id bigint NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    amount bigint NOT NULL CHECK (amount <> 0),
    balance_after bigint NOT NULL,
    transaction_id uuid NOT NULL,
    PRIMARY KEY (account_id, version)
);
CREATE INDEX ledger_entries_by_transaction ON ledger_entries (transaction_id);

-- Refuses what does not balance, continue its account, or belong to a new transaction; then carries the balances on.
CREATE FUNCTION ledger_entries_inserted() RETURNS trigger
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
CREATE TRIGGER ledger_entries_inserted AFTER INSERT ON ledger_entries
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION ledger_entries_inserted();

-- Opens what is missing and locks, both in a fixed order; the service may not write accounts itself.
CREATE FUNCTION open_accounts(purposes text[], owners uuid[], assets text[])
RETURNS TABLE (account_id bigint, purpose text, owner_id uuid, asset text, balance bigint, version bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    ids bigint[];
BEGIN
    INSERT INTO accounts (purpose, owner_id, asset)
    SELECT w.purpose, w.owner_id, w.asset
    FROM unnest(purposes, owners, assets) AS w (purpose, owner_id, asset)
    -- Plain equality, so that the unique key finds each; the platform's accounts are there from the beginning.
    WHERE w.owner_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM accounts a
        WHERE a.purpose = w.purpose AND a.owner_id = w.owner_id AND a.asset = w.asset
    )
    ORDER BY 1, 2, 3
    ON CONFLICT DO NOTHING;
    -- Found first, locked by ID alone: a row that another sale moved meanwhile is checked again against the lock's own
    -- condition, and one with a subquery would lose it.
    ids := ARRAY(
        SELECT p.account_id FROM unnest(purposes, owners, assets) AS w (purpose, owner_id, asset)
        JOIN accounts p ON p.purpose = w.purpose AND p.owner_id = w.owner_id AND p.asset = w.asset
        UNION ALL
        SELECT p.account_id FROM unnest(purposes, owners, assets) AS w (purpose, owner_id, asset)
        JOIN accounts p ON p.purpose = w.purpose AND p.owner_id IS NULL AND p.asset = w.asset
        WHERE w.owner_id IS NULL
    );
    RETURN QUERY
    SELECT a.account_id, a.purpose, a.owner_id, a.asset, a.balance, a.version
    FROM accounts a
    WHERE a.account_id = ANY (ids)
    ORDER BY a.account_id
    FOR NO KEY UPDATE;
END $$;

CREATE TABLE commissions (
    payment_id uuid NOT NULL REFERENCES payments,
    level smallint NOT NULL CHECK (level BETWEEN 1 AND 9),
    earner_id uuid NOT NULL REFERENCES partners,
    rate_bps int NOT NULL CHECK (rate_bps BETWEEN 1 AND 10000),
    plan_version int NOT NULL REFERENCES plans,
    asset text NOT NULL CHECK (asset IN ('USDT')),
    base bigint NOT NULL CHECK (base > 0),
    amount bigint NOT NULL,
    state text NOT NULL DEFAULT 'AVAILABLE' CHECK (state IN ('PENDING', 'AVAILABLE', 'PAID', 'REVERSED')),
    transaction_id uuid NOT NULL REFERENCES ledger_transactions,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (payment_id, level),
    UNIQUE (earner_id, transaction_id),
    CONSTRAINT commissions_amount CHECK (amount = div(base::numeric * rate_bps, 10000))
);

-- ── around every command ────────────────────────────────────────────────────────────────────────────────────────
-- The first answer to each request ID, for ever.
CREATE TABLE requests (
    request_id uuid NOT NULL,
    caller text NOT NULL,
    method text NOT NULL,
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    -- The reason of a refusal; NULL for a success.
    refusal text,
    -- The response message, or the refusal's message.
    answer bytea NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (request_id, caller)
);

CREATE TABLE audit_events (
    audit_event_id uuid PRIMARY KEY,
    create_time timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject_id text NOT NULL,
    outcome text NOT NULL,
    -- 16 bytes, as an ID of that size.
    trace_id uuid NOT NULL,
    request_id uuid,
    detail text NOT NULL
);
CREATE INDEX audit_events_by_subject ON audit_events (subject_id, audit_event_id);
CREATE INDEX audit_events_by_trace ON audit_events (trace_id, audit_event_id);

-- Events not yet acknowledged by notify-svc; an acknowledged row is deleted, a rejected one stays for operators.
CREATE TABLE outbox (
    event_id uuid PRIMARY KEY,
    create_time timestamptz NOT NULL,
    traceparent text NOT NULL,
    event bytea NOT NULL,
    reject_time timestamptz,
    reject_reason text,
    reject_detail text,
    CHECK (num_nonnulls(reject_time, reject_reason, reject_detail) IN (0, 3))
);
CREATE INDEX outbox_unsettled ON outbox (event_id) WHERE reject_time IS NULL;

-- ── what is written once stays ──────────────────────────────────────────────────────────────────────────────────
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: what is written there stays', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_transactions FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON requests FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON plans FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON xp_awards FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER stays BEFORE DELETE OR TRUNCATE ON accounts FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER stays BEFORE DELETE OR TRUNCATE ON commissions FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER stays BEFORE DELETE OR TRUNCATE ON payments FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER stays BEFORE DELETE OR TRUNCATE ON partners FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER entries_alone BEFORE UPDATE ON accounts FOR EACH STATEMENT
    WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse_change();

-- ── rights ──────────────────────────────────────────────────────────────────────────────────────────────────────
REVOKE EXECUTE ON FUNCTION open_accounts FROM PUBLIC;

-- What the serving role may do, and no more. Called after every migration, with the role that serves.
CREATE FUNCTION grant_service_rights(service_role name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', service_role);
    EXECUTE format('GRANT SELECT, INSERT ON plans, partners, standings, xp_awards, payments, late_references, ledger_transactions,
        ledger_entries, commissions, requests, audit_events, outbox TO %I', service_role);
    EXECUTE format('GRANT SELECT ON accounts TO %I', service_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION open_accounts TO %I', service_role);
    EXECUTE format('GRANT UPDATE (referrer_id, depth, lineage, username, first_name, last_name, locale, contacts)
        ON partners TO %I', service_role);
    EXECUTE format('GRANT UPDATE (xp, members, pro_members, counted_as_pro, pro_expires_at) ON standings TO %I', service_role);
    EXECUTE format('GRANT UPDATE (state, submitted_ref, confirmed_ref, confirm_time, pro_start, pro_end, transaction_id,
        reject_reason, override_reason) ON payments TO %I', service_role);
    EXECUTE format('GRANT UPDATE (reject_time, reject_reason, reject_detail), DELETE ON outbox TO %I', service_role);
END $$;
REVOKE EXECUTE ON FUNCTION grant_service_rights FROM PUBLIC;

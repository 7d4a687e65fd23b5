//! The tables that the query builder reads.

diesel::table! {
    partners (partner_id) {
        partner_id -> Uuid,
        external_id -> Text,
        referral_code -> Text,
        referrer_id -> Nullable<Uuid>,
        depth -> Integer,
        lineage -> Array<Uuid>,
        username -> Text,
        first_name -> Text,
        last_name -> Text,
        locale -> Text,
        contacts -> Jsonb,
        create_time -> Timestamptz,
        attach_time -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    standings (partner_id) {
        partner_id -> Uuid,
        xp -> BigInt,
        members -> Array<BigInt>,
        pro_members -> Array<BigInt>,
        counted_as_pro -> Bool,
        pro_expires_at -> Nullable<Timestamptz>,
        notices_sent -> SmallInt,
    }
}

diesel::table! {
    xp_awards (partner_id, source_partner_id) {
        partner_id -> Uuid,
        source_partner_id -> Uuid,
        level -> SmallInt,
        multiplier -> Integer,
        xp -> BigInt,
        create_time -> Timestamptz,
    }
}

diesel::table! {
    payments (payment_id) {
        payment_id -> Uuid,
        partner_id -> Uuid,
        asset -> Text,
        amount -> BigInt,
        method -> Text,
        plan_version -> Integer,
        state -> Text,
        create_time -> Timestamptz,
        expire_time -> Timestamptz,
        submitted_ref -> Nullable<Text>,
        confirmed_ref -> Nullable<Text>,
        confirm_time -> Nullable<Timestamptz>,
        pro_start -> Nullable<Timestamptz>,
        pro_end -> Nullable<Timestamptz>,
        transaction_id -> Nullable<Uuid>,
        reject_reason -> Nullable<Text>,
        override_reason -> Nullable<Text>,
        refunded -> BigInt,
    }
}

diesel::table! {
    late_references (payment_id, external_ref) {
        payment_id -> Uuid,
        external_ref -> Text,
        create_time -> Timestamptz,
        incoming_ref -> Nullable<Text>,
    }
}

diesel::table! {
    commissions (payment_id, level) {
        payment_id -> Uuid,
        level -> SmallInt,
        earner_id -> Uuid,
        rate_bps -> Integer,
        plan_version -> Integer,
        asset -> Text,
        base -> BigInt,
        amount -> BigInt,
        state -> Text,
        transaction_id -> Uuid,
        create_time -> Timestamptz,
        release_time -> Nullable<Timestamptz>,
        release_transaction_id -> Nullable<Uuid>,
        reversed -> BigInt,
        reserved -> BigInt,
        paid -> BigInt,
    }
}

diesel::table! {
    refunds (refund_id) {
        refund_id -> Uuid,
        payment_id -> Uuid,
        asset -> Text,
        amount -> BigInt,
        reason -> Text,
        transaction_id -> Uuid,
        create_time -> Timestamptz,
    }
}

diesel::table! {
    clawbacks (refund_id, level) {
        refund_id -> Uuid,
        payment_id -> Uuid,
        level -> SmallInt,
        amount -> BigInt,
    }
}

diesel::table! {
    payouts (payout_id) {
        payout_id -> Uuid,
        partner_id -> Uuid,
        asset -> Text,
        amount -> BigInt,
        destination -> Text,
        requester -> Text,
        create_time -> Timestamptz,
        reserve_transaction_id -> Uuid,
        state -> Text,
        approver -> Nullable<Text>,
        approve_time -> Nullable<Timestamptz>,
        external_ref -> Nullable<Text>,
        reason -> Nullable<Text>,
        end_time -> Nullable<Timestamptz>,
        end_transaction_id -> Nullable<Uuid>,
    }
}

diesel::table! {
    payout_items (payout_id, number) {
        payout_id -> Uuid,
        number -> Integer,
        payment_id -> Nullable<Uuid>,
        level -> Nullable<SmallInt>,
        adjustment_id -> Nullable<Uuid>,
        amount -> BigInt,
    }
}

diesel::table! {
    adjustments (adjustment_id) {
        adjustment_id -> Uuid,
        partner_id -> Uuid,
        asset -> Text,
        amount -> BigInt,
        reason -> Text,
        proposer -> Text,
        create_time -> Timestamptz,
        state -> Text,
        decider -> Nullable<Text>,
        decide_time -> Nullable<Timestamptz>,
        reject_reason -> Nullable<Text>,
        transaction_id -> Nullable<Uuid>,
        reserved -> BigInt,
        paid -> BigInt,
    }
}

diesel::table! {
    ton_payments (payment_id) {
        payment_id -> Uuid,
        address -> Text,
        nanotons -> BigInt,
        memo -> Text,
        tolerance_bps -> Integer,
        rate_minor_units -> BigInt,
        rate_source -> Text,
        rate_time -> Timestamptz,
        attempts -> Integer,
        first_answer_time -> Nullable<Timestamptz>,
        next_attempt_time -> Nullable<Timestamptz>,
        finding -> Text,
        traceparent -> Text,
        incoming_ref -> Nullable<Text>,
    }
}

diesel::table! {
    accounts (account_id) {
        account_id -> BigInt,
        purpose -> Text,
        owner_id -> Nullable<Uuid>,
        asset -> Text,
        balance -> BigInt,
        version -> BigInt,
    }
}

diesel::table! {
    ledger_transactions (transaction_id) {
        transaction_id -> Uuid,
        kind -> Text,
        payment_id -> Nullable<Uuid>,
        create_time -> Timestamptz,
        payout_id -> Nullable<Uuid>,
        adjustment_id -> Nullable<Uuid>,
        audit_event_id -> Nullable<Uuid>,
    }
}

diesel::table! {
    ledger_entries (account_id, version) {
        account_id -> BigInt,
        version -> BigInt,
        amount -> BigInt,
        balance_after -> BigInt,
        transaction_id -> Uuid,
    }
}

diesel::table! {
    requests (request_id, caller) {
        request_id -> Uuid,
        caller -> Text,
        method -> Text,
        fingerprint -> Binary,
        refusal -> Nullable<Text>,
        answer -> Binary,
        create_time -> Timestamptz,
    }
}

diesel::table! {
    audit_events (audit_event_id) {
        audit_event_id -> Uuid,
        create_time -> Timestamptz,
        actor -> Text,
        action -> Text,
        subject_id -> Text,
        outcome -> Text,
        trace_id -> Uuid,
        request_id -> Nullable<Uuid>,
        detail -> Text,
        notices -> Nullable<Integer>,
    }
}

diesel::table! {
    outbox (event_id) {
        event_id -> Uuid,
        create_time -> Timestamptz,
        traceparent -> Text,
        event -> Binary,
        reject_time -> Nullable<Timestamptz>,
        reject_reason -> Nullable<Text>,
        reject_detail -> Nullable<Text>,
        baggage -> Text,
    }
}

diesel::table! {
    broadcasts (broadcast_id) {
        broadcast_id -> Uuid,
        filter -> Jsonb,
        text -> Text,
        subject -> Text,
        button_label -> Text,
        button_url -> Text,
        expire_time -> Timestamptz,
        recipients_per_second -> Integer,
        matched -> BigInt,
        caller -> Text,
        traceparent -> Text,
        create_time -> Timestamptz,
        state -> Text,
        published -> BigInt,
        progress -> Uuid,
        next_step_time -> Nullable<Timestamptz>,
        end_time -> Nullable<Timestamptz>,
        cancel_reason -> Nullable<Text>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(partners, standings);
diesel::allow_tables_to_appear_in_same_query!(clawbacks, commissions);
diesel::allow_tables_to_appear_in_same_query!(payments, ton_payments);
diesel::allow_tables_to_appear_in_same_query!(ledger_entries, accounts, ledger_transactions);

//! The tables, as the migrations in `migrations/notify` make them.

diesel::table! {
    inbox (producer, event_id) {
        producer -> Text,
        event_id -> Uuid,
        trace_id -> Text,
        occur_time -> Nullable<Timestamptz>,
        receive_time -> Timestamptz,
    }
}

diesel::table! {
    rejected_records (record_id) {
        record_id -> BigInt,
        producer -> Text,
        event_id -> Text,
        event -> Binary,
        traceparent -> Text,
        trace_id -> Text,
        reason -> Text,
        detail -> Text,
        reject_time -> Timestamptz,
    }
}

diesel::table! {
    notifications (notification_id) {
        notification_id -> Uuid,
        producer -> Text,
        source_event_id -> Uuid,
        position -> Integer,
        recipient_id -> Text,
        kind -> Text,
        locale -> Text,
        arguments -> Jsonb,
        contacts -> Jsonb,
        state -> Text,
        trace_id -> Text,
        traceparent -> Text,
        create_time -> Timestamptz,
        expire_time -> Timestamptz,
        settle_time -> Nullable<Timestamptz>,
        baggage -> Text,
        occur_time -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    deliveries (notification_id, position) {
        notification_id -> Uuid,
        position -> Integer,
        channel -> Text,
        address -> Text,
        state -> Text,
        reason -> Text,
        attempt_count -> Integer,
        tries_used -> Integer,
        next_attempt_time -> Nullable<Timestamptz>,
        lease_until -> Nullable<Timestamptz>,
        lease_owner -> Nullable<Text>,
        settle_time -> Nullable<Timestamptz>,
        contact_place -> Nullable<Integer>,
        lane -> SmallInt,
        parked_on -> Nullable<Text>,
        waiting_since -> Nullable<Timestamptz>,
        due_time -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    attempts (notification_id, position, number) {
        notification_id -> Uuid,
        position -> Integer,
        number -> Integer,
        start_time -> Timestamptz,
        end_time -> Nullable<Timestamptz>,
        outcome -> Nullable<Text>,
        reason -> Text,
        trace_id -> Text,
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
        trace_id -> Text,
        request_id -> Text,
        detail -> Text,
    }
}

diesel::table! {
    jobs (job_id) {
        job_id -> Uuid,
        kind -> Text,
        state -> Text,
        filter -> Jsonb,
        per_second -> Integer,
        matched -> BigInt,
        done -> BigInt,
        progress -> Nullable<Uuid>,
        next_step_time -> Nullable<Timestamptz>,
        caller -> Text,
        reason -> Text,
        trace_id -> Text,
        create_time -> Timestamptz,
        end_time -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    requests (caller, request_id) {
        caller -> Text,
        request_id -> Uuid,
        method -> Text,
        content_digest -> Binary,
        response -> Nullable<Binary>,
        refusal_code -> Nullable<Integer>,
        refusal_reason -> Nullable<Text>,
        refusal_message -> Nullable<Text>,
        create_time -> Timestamptz,
    }
}

diesel::table! {
    addresses (channel, address) {
        channel -> Text,
        address -> Text,
        reason -> Text,
        moved_to -> Nullable<Text>,
        mark_time -> Timestamptz,
        notification_id -> Uuid,
    }
}

diesel::table! {
    preferences (recipient_id) {
        recipient_id -> Text,
        mutes -> Jsonb,
        quiet_start -> Nullable<Integer>,
        quiet_end -> Nullable<Integer>,
        time_zone -> Nullable<Text>,
        update_time -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(notifications, deliveries, attempts);

//! Every family of metrics that the services may export, with its labels and what those may say: a second list, independent
//! of the first, which is the code.

use std::{collections::BTreeSet, sync::LazyLock};

use p2phub_proto::notify::v1::NotificationKind;
use p2phub_tests::prometheus::{Labels, Scrape};
use prost::Message;
use prost_types::FileDescriptorSet;

/// In place of whatever isn't known.
const OTHER: &str = "_OTHER";

/// The README has the published table of reasons.
const README: &str = include_str!("../../../README.md");

/// Which service exports a family, and whether it does from its start on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Both,
    Referral,
    Notify,
    /// Both, once something has happened that need not happen.
    Rare,
}

/// What a label may say.
#[derive(Clone, Copy)]
enum Says {
    One(&'static [&'static str]),
    Method,
    Code,
    Reason,
    Kind,
    /// Fixed at the start of the process.
    Fixed,
}

const CHANNEL: (&str, Says) = ("channel", Says::One(&["telegram", "email", "webhook", "slack", "log", OTHER]));
const KIND: (&str, Says) = ("kind", Says::Kind);
const POOL: (&str, Says) = ("db_client_connection_pool_name", Says::Fixed);
const METHOD: (&str, Says) = ("rpc_method", Says::Method);
const STATUS: (&str, Says) = ("rpc_response_status_code", Says::Code);
const SETTLED: (&str, Says) = outcome(&["stored", "duplicate", "rejected"]);

const fn outcome(outcomes: &'static [&'static str]) -> (&'static str, Says) {
    ("outcome", Says::One(outcomes))
}

type Family = (&'static str, Of, &'static [(&'static str, Says)]);

const CATALOGUE: &[Family] = &[
    (
        "target_info",
        Of::Both,
        &[
            ("service_name", Says::Fixed),
            ("service_version", Says::Fixed),
            ("telemetry_sdk_language", Says::Fixed),
            ("telemetry_sdk_name", Says::Fixed),
            ("telemetry_sdk_version", Says::Fixed),
        ],
    ),
    ("rpc_server_call_duration_seconds", Of::Both, &[("rpc_system_name", Says::One(&["grpc"])), METHOD, STATUS]),
    ("p2phub_rpc_errors_total", Of::Both, &[METHOD, STATUS, ("reason", Says::Reason)]),
    ("db_client_connection_count", Of::Both, &[POOL, ("db_client_connection_state", Says::One(&["idle", "used"]))]),
    ("db_client_connection_max", Of::Both, &[POOL]),
    ("db_client_connection_pending_requests", Of::Both, &[POOL]),
    ("db_client_connection_wait_time_seconds", Of::Both, &[POOL]),
    ("db_client_connection_timeouts_total", Of::Rare, &[POOL]),
    (
        "db_client_operation_duration_seconds",
        Of::Both,
        &[("db_system_name", Says::One(&["postgresql"])), ("db_operation_name", Says::Fixed)],
    ),
    ("p2phub_signups_total", Of::Referral, &[("attribution", Says::One(&["attributed", "no_code", "unknown_code"]))]),
    ("p2phub_confirmations_total", Of::Referral, &[outcome(&["succeeded", "refused", "failed"])]),
    (
        "p2phub_upgrades_total",
        Of::Referral,
        &[("type", Says::One(&["new", "renewal"])), ("referred", Says::One(&["true", "false"]))],
    ),
    ("p2phub_commissions_total", Of::Referral, &[("level", Says::One(&["1", "2", "3", "4", "5", "6", "7", "8", "9"]))]),
    ("p2phub_commission_amount_total", Of::Referral, &[("asset", Says::One(&["USDT"]))]),
    (
        "p2phub_verifications_total",
        Of::Rare,
        &[(
            "finding",
            Says::One(&[
                "PAID",
                "TRANSACTION_FAILED",
                "DESTINATION_DIFFERS",
                "MEMO_DIFFERS",
                "TOO_OLD",
                "AMOUNT_DIFFERS",
                "NOT_FOUND",
                "NOT_A_TRANSACTION_HASH",
                "VERIFIER_UNAVAILABLE",
            ]),
        )],
    ),
    ("p2phub_refunds_total", Of::Referral, &[]),
    (
        "p2phub_payouts_total",
        Of::Referral,
        &[("state", Says::One(&["requested", "approved", "completed", "failed", "cancelled"]))],
    ),
    ("p2phub_xp_awarded_total", Of::Referral, &[]),
    ("p2phub_commit_batch_size", Of::Referral, &[]),
    ("p2phub_commit_duration_seconds", Of::Referral, &[outcome(&["committed", "unchanged", "failed"])]),
    ("p2phub_commit_queue_depth", Of::Referral, &[]),
    ("p2phub_outbox_depth", Of::Referral, &[("state", Says::One(&["pending", "rejected"]))]),
    ("p2phub_outbox_oldest_age_seconds", Of::Referral, &[]),
    ("p2phub_outbox_settled_total", Of::Referral, &[SETTLED]),
    (
        "p2phub_sweep_oldest_age_seconds",
        Of::Referral,
        &[("sweep", Says::One(&["CountProMembers", "SendProNotices", "ReleaseCommissions"]))],
    ),
    ("p2phub_stream_connected", Of::Referral, &[]),
    ("p2phub_stream_credits", Of::Referral, &[]),
    ("p2phub_stream_connects_total", Of::Referral, &[outcome(&["opened", "failed"])]),
    ("p2phub_ledger_check_offenders", Of::Referral, &[("check", Says::Fixed)]),
    ("p2phub_ledger_check_time_seconds", Of::Referral, &[]),
    ("p2phub_ledger_check_interval_seconds", Of::Referral, &[]),
    ("p2phub_ledger_check_runs_total", Of::Referral, &[outcome(&["ok", "violated", "failed"])]),
    ("p2phub_ingest_events_total", Of::Notify, &[SETTLED]),
    ("p2phub_ingest_streams", Of::Notify, &[]),
    (
        "p2phub_delivery_attempts_total",
        Of::Notify,
        &[CHANNEL, KIND, outcome(&["delivered", "transient", "address", "content", "configuration", "ambiguous"])],
    ),
    (
        "p2phub_deliveries_total",
        Of::Notify,
        &[CHANNEL, KIND, outcome(&["delivered", "failed", "suppressed", "expired"])],
    ),
    ("p2phub_delivery_retries_total", Of::Rare, &[CHANNEL]),
    ("p2phub_notifications_dead_total", Of::Notify, &[KIND]),
    ("p2phub_delivery_latency_seconds", Of::Notify, &[CHANNEL]),
    ("p2phub_delivery_queue_depth", Of::Notify, &[("state", Says::One(&["due", "waiting", "parked"]))]),
    ("p2phub_delivery_queue_oldest_age_seconds", Of::Notify, &[]),
];

/// A label that a series has only when there is something to say.
const OPTIONAL: &[(&str, &str)] = &[("db_client_operation_duration_seconds", "error_type")];

/// Everything is in the catalogue and as it is there.
pub(super) fn check(scrape: &Scrape) {
    for family in scrape.families() {
        let Some((_, _, labels)) = CATALOGUE.iter().find(|(name, ..)| *name == family) else {
            panic!("{family} is not in the catalogue");
        };
        for series in scrape.series(&family) {
            check_series(&family, labels, series);
        }
    }
}

fn check_series(family: &str, labels: &[(&str, Says)], mut series: Labels) {
    for (_, label) in OPTIONAL.iter().filter(|(of, _)| *of == family) {
        if let Some(value) = series.remove(*label) {
            assert!(value.bytes().all(|byte| byte.is_ascii_graphic()) && value.len() <= 40, "{family} {label}={value}");
        }
    }
    let (found, expected): (BTreeSet<_>, BTreeSet<_>) =
        (series.keys().map(String::as_str).collect(), labels.iter().map(|(name, _)| *name).collect());
    assert_eq!(found, expected, "the labels of {family}");
    for (label, says) in labels {
        let value = series[*label].as_str();
        assert!(may_say(*says, value), "{family}: {label} says {value:?}");
    }
}

/// The service exports every family that it has from its start on.
pub(super) fn check_complete(scrape: &Scrape, service: Of) {
    let families = scrape.families();
    for (family, of, _) in CATALOGUE {
        assert!(!(*of == service || *of == Of::Both) || families.contains(*family), "{family} is not exported");
    }
}

fn may_say(says: Says, value: &str) -> bool {
    match says {
        Says::One(values) => values.contains(&value),
        Says::Method => value == OTHER || METHODS.contains(value),
        Says::Code => CODES.contains(&value),
        Says::Reason => value == OTHER || REASONS.contains(value),
        Says::Kind => value == OTHER || KINDS.contains(value),
        Says::Fixed => !value.is_empty(),
    }
}

static METHODS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(p2phub_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let mut methods = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            let name = |method: &str| format!("{}.{}/{method}", file.package(), service.name());
            methods.extend(service.method.iter().map(|method| name(method.name())));
        }
    }
    methods
});

static REASONS: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
    let words = README.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_');
    words.filter(|word| word.len() > 2).chain(CODES).collect()
});

static KINDS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let kinds = (1..).map_while(|number| NotificationKind::try_from(number).ok());
    kinds.map(|kind| kind.as_str_name().trim_start_matches("NOTIFICATION_KIND_").to_lowercase()).collect()
});

const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

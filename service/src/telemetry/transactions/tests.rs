use opentelemetry::trace::{Link, SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
use proptest::prelude::*;
use sentry::protocol::{Context as SentryContext, EnvelopeItem, SpanStatus, Transaction};
use sentry::{ClientOptions, Envelope, Transport};

use super::*;

/// Keeps what would be sent.
#[derive(Default)]
struct Kept(Mutex<Vec<Envelope>>);

impl Transport for Kept {
    fn send_envelope(&self, envelope: Envelope) {
        self.0.lock().unwrap().push(envelope);
    }
}

fn transactions(rate: f64) -> (Arc<Kept>, Transactions) {
    let kept = Arc::new(Kept::default());
    let mut options = ClientOptions::new().release("test@1").environment("here").transport(kept.clone());
    options.dsn = Some("http://key@localhost/1".parse().unwrap());
    (kept, Transactions::new(Arc::new(Client::from(options)), "test-svc", rate))
}

fn sent(kept: &Kept) -> Vec<Transaction<'static>> {
    let envelopes = kept.0.lock().unwrap();
    let items = envelopes.iter().flat_map(Envelope::items);
    items
        .map(|item| match item {
            EnvelopeItem::Transaction(transaction) => (**transaction).clone(),
            other => panic!("not a transaction: {other:?}"),
        })
        .collect()
}

const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;

fn span(id: u64, kind: SpanKind, name: &'static str, attributes: &[(&'static str, &'static str)]) -> SpanData {
    let context = |trace: u128, span: u64| {
        SpanContext::new(trace.into(), span.into(), TraceFlags::SAMPLED, false, TraceState::default())
    };
    let mut links = SpanLinks::default();
    if kind == SpanKind::Internal && name.ends_with("linked") {
        links.links.push(Link::with_context(context(7, 7)));
    }
    SpanData {
        span_context: context(TRACE, id),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: kind,
        name: name.into(),
        start_time: std::time::UNIX_EPOCH,
        end_time: std::time::UNIX_EPOCH,
        attributes: attributes.iter().map(|(key, value)| KeyValue::new(*key, *value)).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}

fn start(transactions: &Transactions, id: u64, parent: Option<(u64, bool)>) {
    transactions.open().start(id.into(), parent.map(|(id, remote)| (id.into(), remote)));
}

fn trace(transaction: &Transaction<'_>) -> sentry::protocol::TraceContext {
    match &transaction.contexts["trace"] {
        SentryContext::Trace(trace) => (**trace).clone(),
        other => panic!("not a trace: {other:?}"),
    }
}

#[test]
fn a_call_with_its_statement_is_one_transaction() {
    let (kept, transactions) = transactions(1.0);
    start(&transactions, 1, Some((9, true)));
    start(&transactions, 2, Some((1, false)));
    // Its parent came as text, but is under way here.
    start(&transactions, 3, Some((1, true)));
    let query = [
        ("db.system.name", "postgresql"),
        ("db.query.text", "SELECT xp FROM partners WHERE name = 'Ann' OR chat = '100200300'"),
        ("baggage.user", "ann"),
    ];
    transactions.on_end(SpanData { parent_span_id: 1.into(), ..span(2, SpanKind::Client, "SELECT partners", &query) });
    let failed = Status::error("away");
    transactions.on_end(SpanData { status: failed, ..span(3, SpanKind::Internal, "commit", &[]) });
    assert!(sent(&kept).is_empty());
    let call = [("rpc.response.status_code", "INTERNAL"), ("caller", "bot")];
    transactions.on_end(SpanData { parent_span_id: 9.into(), ..span(1, SpanKind::Server, "x.Y/Z", &call) });

    let sent = sent(&kept);
    let [sent] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!((sent.name.as_deref(), sent.release.as_deref()), (Some("x.Y/Z"), Some("test@1")));
    assert_eq!((sent.environment.as_deref(), sent.tags["service"].as_str()), (Some("here"), "test-svc"));
    assert!(sent.sdk.is_some());
    let trace = trace(sent);
    assert_eq!(trace.trace_id.to_string(), format!("{TRACE:032x}"));
    assert_eq!(trace.parent_span_id.map(|id| id.to_string()), Some(format!("{:016x}", 9)));
    assert_eq!((trace.op.as_deref(), trace.status), (Some("grpc.server"), Some(SpanStatus::InternalError)));
    let [statement, commit] = sent.spans.as_slice() else { panic!("{:?}", sent.spans) };
    let written = "SELECT xp FROM partners WHERE name = [scrubbed] OR chat = [scrubbed]";
    assert_eq!((statement.op.as_deref(), statement.description.as_deref()), (Some("db"), Some(written)));
    assert!(!statement.data.contains_key("baggage.user"));
    assert_eq!((commit.op.as_deref(), commit.status), (Some("function"), Some(SpanStatus::InternalError)));
    let open = transactions.open();
    assert!(open.roots.is_empty() && open.root_of.is_empty());
}

#[test]
fn refusals_health_and_idle_jobs_are_no_transactions() {
    let answer = |code| span(1, SpanKind::Server, "x.Y/Z", &[("rpc.response.status_code", code)]);
    let mut refused = span(1, SpanKind::Internal, "commit_batch, linked", &[]);
    refused.attributes.push(KeyValue::new(REFUSED, true));
    for (worth_one, root) in [
        (true, answer("OK")),
        (true, answer("UNKNOWN")),
        (true, answer("DEADLINE_EXCEEDED")),
        (true, answer("UNAVAILABLE")),
        (false, answer("INVALID_ARGUMENT")),
        (false, answer("NOT_FOUND")),
        (false, answer("UNIMPLEMENTED")),
        (false, answer("CANCELLED")),
        (false, answer("RESOURCE_EXHAUSTED")),
        (false, span(1, SpanKind::Server, "grpc.health.v1.Health/Check", &[])),
        (true, span(1, SpanKind::Internal, "commit_batch, linked", &[])),
        (false, refused),
        (false, span(1, SpanKind::Internal, "look", &[])),
        (true, SpanData { parent_span_id: 9.into(), ..span(1, SpanKind::Internal, "deliver", &[]) }),
        (true, span(1, SpanKind::Producer, "publish", &[])),
    ] {
        let (kept, transactions) = transactions(1.0);
        start(&transactions, 1, None);
        start(&transactions, 2, Some((1, false)));
        transactions.on_end(root.clone());
        transactions.on_end(span(2, SpanKind::Internal, "child", &[]));
        assert_eq!(sent(&kept).len(), usize::from(worth_one), "{root:?}");
        assert!(transactions.open().root_of.len() <= usize::from(worth_one));
    }
}

#[test]
fn what_outlasts_its_transaction_becomes_one() {
    let (kept, transactions) = transactions(1.0);
    start(&transactions, 1, None);
    start(&transactions, 2, Some((1, true)));
    transactions.on_end(span(1, SpanKind::Server, "call", &[]));
    transactions.on_end(SpanData { parent_span_id: 1.into(), ..span(2, SpanKind::Producer, "publish", &[]) });
    let names: Vec<_> = sent(&kept).into_iter().filter_map(|sent| sent.name).collect();
    assert_eq!(names, ["call", "publish"]);
}

#[test]
fn what_never_ends_costs_no_more_memory() {
    let (kept, transactions) = transactions(1.0);
    let spans = SPANS_MAX as u64;
    for root in 1..=(ROOTS_MAX as u64 + 50) {
        start(&transactions, root << 32, None);
        (1..=spans + 50).for_each(|child| start(&transactions, (root << 32) + child, Some((root << 32, false))));
        // Nobody follows their parent.
        start(&transactions, (root << 32) + (1 << 31), Some(((root << 32) + spans + 50, false)));
    }
    {
        let open = transactions.open();
        assert_eq!((open.roots.len(), open.root_of.len()), (ROOTS_MAX, ROOTS_MAX * (SPANS_MAX + 1)));
    }
    // The newest one is whole, as far as it goes.
    let newest = (ROOTS_MAX as u64 + 50) << 32;
    (1..=spans + 50).for_each(|child| transactions.on_end(span(newest + child, SpanKind::Internal, "child", &[])));
    transactions.on_end(span(newest, SpanKind::Server, "call", &[]));
    assert_eq!(sent(&kept)[0].spans.len(), SPANS_MAX);
}

proptest! {
    #[test]
    fn a_trace_is_kept_or_not_whatever_its_upper_half(upper: u64, lower: u64, rate in 0.0..=1.0_f64) {
        let id = |upper: u64| TraceId::from((u128::from(upper) << 64) | u128::from(lower));
        prop_assert_eq!(is_kept(id(upper), rate), is_kept(id(0), rate));
        prop_assert!(is_kept(id(upper), 1.0) && !is_kept(id(upper), 0.0));
        // What is kept at a rate is kept at every higher one.
        prop_assert!(!is_kept(id(upper), rate / 2.0) || is_kept(id(upper), rate));
    }
}

#[test]
fn a_tenth_is_a_tenth() {
    let kept = (0..10_000_u64).filter(|n| {
        let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        is_kept(TraceId::from(u128::from(spread)), 0.1)
    });
    let kept = kept.count();
    assert!((900..1100).contains(&kept), "{kept}");
}

//! What every call has, whatever it does: a trace, a caller, a deadline, details on errors; and reflection and health.

use std::collections::BTreeSet;

use http::HeaderMap;
use p2phub_proto::{
    notify::v1::ListNotificationsRequest,
    referral::v1::{GetPartnerRequest, ListAuditEventsRequest, get_partner_request::Key},
};
use p2phub_tests::{
    builders::registration,
    clients::{channel, is_serving},
    hold::Hold,
    pair::{Options, Pair},
    postgres::Role,
    raw::status_of,
    wait,
};
use tonic::{Code, Request, Status, metadata::MetadataValue};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::wrong_input::raw;

const REFERRAL: [&str; 5] = [
    "p2phub.referral.v1.PartnerService",
    "p2phub.referral.v1.PaymentService",
    "p2phub.referral.v1.LedgerService",
    "p2phub.referral.v1.LeaderboardService",
    "p2phub.referral.v1.AuditService",
];
const NOTIFY: [&str; 2] = ["p2phub.notify.v1.NotificationIngestService", "p2phub.notify.v1.NotificationService"];

/// A call with one more line of metadata.
fn with<T>(message: T, name: &'static str, value: &[u8]) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(name, MetadataValue::try_from(value).expect("metadata"));
    request
}

fn trace_id_in(metadata: &tonic::metadata::MetadataMap) -> String {
    metadata.get("trace-id").expect("a trace ID").to_str().expect("text").to_owned()
}

/// The details that every error has.
fn assert_details(what: &str, status: &Status, domain: &str, reason: &str) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{what}: {status:?}"));
    assert_eq!((info.domain.as_str(), info.reason.as_str()), (domain, reason), "{what}");
    let trace_id = trace_id_in(status.metadata());
    assert_eq!(details.request_info().expect(what).request_id, trace_id, "{what}");
}

async fn audited(pair: &Pair, filter: ListAuditEventsRequest) -> Vec<p2phub_proto::referral::v1::AuditEvent> {
    pair.clients.clone().audit.list_audit_events(filter).await.expect("an answer").into_inner().audit_events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_from_the_caller_to_the_last_attempt() {
    let mut pair = Options::default().prepare().await;
    pair.start_referral().await;
    let mut clients = pair.clients.clone();
    let root = clients.register("root", "").await;
    let trace_id = Uuid::new_v4().simple().to_string();
    let traceparent = format!("00-{trace_id}-00f067aa0ba902b7-01");
    let call = with(registration("guest", &root.referral_code), "traceparent", traceparent.as_bytes());
    let answer = clients.partners.register_partner(call).await.expect("a registration");
    assert_eq!(trace_id_in(answer.metadata()), trace_id);

    let filter = ListAuditEventsRequest { trace_id: trace_id.clone(), ..Default::default() };
    let events = audited(&pair, filter).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].trace_id, trace_id);
    let sql = pair.referral_sql(Role::Superuser).await;
    let stored: String = sql.query_one("SELECT traceparent FROM outbox", &[]).await.expect("an event").get(0);
    assert!(stored.contains(&trace_id) && stored != traceparent, "a span of its own in the same trace: {stored}");

    pair.start_notify().await;
    let notifications = wait::until("a delivered notification", async || {
        let filter = ListNotificationsRequest { trace_id: trace_id.clone(), ..Default::default() };
        let answer = pair.clients.clone().notifications.list_notifications(filter).await.expect("an answer");
        let found = answer.into_inner().notifications;
        found.iter().any(|one| one.settle_time.is_some()).then_some(found)
    })
    .await;
    assert_eq!(notifications.len(), 1);
    assert_eq!(notifications[0].recipient_id, root.partner_id);
    assert_eq!(notifications[0].trace_id, trace_id);
    assert_eq!(notifications[0].deliveries[0].attempts[0].trace_id, trace_id);
    let elsewhere = ListNotificationsRequest { trace_id: Uuid::new_v4().simple().to_string(), ..Default::default() };
    let answer = clients.notifications.list_notifications(elsewhere).await.expect("an answer");
    assert!(answer.into_inner().notifications.is_empty());
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_traceparent_begins_a_new_trace() {
    let pair = Pair::start().await;
    let mut clients = pair.clients.clone();
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut seen = BTreeSet::from([id.to_owned(), "0".repeat(32)]);
    for invalid in [
        String::new(),
        "nonsense".to_owned(),
        format!("00-{id}"),
        format!("00-{id}-00f067aa0ba902b7"),
        format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
        format!("00-{id}-{}-01", "0".repeat(16)),
        format!("00-{}-00f067aa0ba902b7-01", id.to_uppercase()),
        format!("ff-{id}-00f067aa0ba902b7-01"),
        format!("00-{id}x-00f067aa0ba902b7-01"),
        format!("00-{id}-00f067aa0ba902b7-01-more"),
    ] {
        let request = GetPartnerRequest { key: Some(Key::ExternalId("nobody".to_owned())) };
        let call = with(request, "traceparent", invalid.as_bytes());
        let status = clients.partners.get_partner(call).await.expect_err("nobody");
        assert_details(&invalid, &status, "referral.p2phub", "PARTNER_NOT_FOUND");
        let new = trace_id_in(status.metadata());
        assert!(new.len() == 32 && new.bytes().all(|byte| b"0123456789abcdef".contains(&byte)), "{new}");
        assert!(seen.insert(new), "{invalid}: not a new trace");
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_refused_with_details() {
    let pair = Pair::start().await;
    for (address, domain, known) in
        [(pair.referral_address, "referral.p2phub", REFERRAL[0]), (pair.notify_address, "notify.p2phub", NOTIFY[1])]
    {
        for path in [format!("/{known}/Nothing"), "/p2phub.nowhere.v1.Service/Get".to_owned(), "/nowhere".to_owned()] {
            let status = raw::call(&channel(address), &path, Request::new(Vec::new())).await.expect_err("a refusal");
            assert_eq!(status.code(), Code::Unimplemented, "{path}");
            assert_details(&path, &status, domain, "METHOD_NOT_FOUND");
        }
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_on_record_by_name() {
    let pair = Pair::start().await;
    let mut clients = pair.clients.clone();
    clients.register("by-default", "").await;
    let call = with(registration("by-name", ""), "p2phub-caller", b"gateway-7");
    clients.partners.register_partner(call).await.expect("a registration");
    for caller in ["local", "gateway-7"] {
        let events = audited(&pair, ListAuditEventsRequest { actor: caller.to_owned(), ..Default::default() }).await;
        assert_eq!(events.len(), 1, "{caller}");
        assert_eq!(events[0].actor, caller);
    }
    let long = [b'x'; 65];
    for bad in [b"".as_slice(), b"two words", b"tab\there", "имя".as_bytes(), &long] {
        let call = with(registration("by-nobody", ""), "p2phub-caller", bad);
        let status = clients.partners.register_partner(call).await.expect_err("a refusal");
        let what = String::from_utf8_lossy(bad);
        assert_eq!(status.code(), Code::InvalidArgument, "{what}");
        assert_details(&what, &status, "referral.p2phub", "INVALID_ARGUMENT");
        let details = status.get_error_details();
        assert_eq!(details.bad_request().expect("fields").field_violations[0].field, "p2phub-caller");
    }
    assert_eq!(audited(&pair, ListAuditEventsRequest::default()).await.len(), 2, "a refused caller did nothing");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_by_service_name() {
    let pair = Pair::start().await;
    for (address, own, others) in
        [(pair.referral_address, REFERRAL.as_slice(), NOTIFY.as_slice()), (pair.notify_address, &NOTIFY, &REFERRAL)]
    {
        for service in own.iter().chain(&[""]) {
            assert!(is_serving(address, service).await, "{service}");
        }
        for service in others.iter().chain(&["nowhere"]) {
            let request = HealthCheckRequest { service: (*service).to_owned() };
            let status = HealthClient::new(channel(address)).check(request).await.expect_err("a refusal");
            assert_eq!(status.code(), Code::NotFound, "{service}");
            assert!(status.get_details_error_info().is_some(), "{service}: {status:?}");
        }
    }
    pair.finish().await;
}

/// Over plain HTTP/2: a gRPC client would end the call by itself at the deadline.
pub(crate) async fn with_deadline(pair: &Pair, timeout: &str) -> (HeaderMap, Status) {
    let message = registration(&Uuid::new_v4().to_string(), "");
    status_of(pair.referral_address, &format!("{}/RegisterPartner", REFERRAL[0]), &message, timeout).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_call_with_details() {
    let pair = Pair::start().await;
    let superuser = pair.referral_sql(Role::Superuser).await;
    let watcher = pair.referral_sql(Role::Superuser).await;
    let hold = Hold::take(superuser, watcher, "LOCK TABLE partners IN EXCLUSIVE MODE").await;
    for timeout in ["0n", "1n", "1u", "300m"] {
        let (headers, status) = with_deadline(&pair, timeout).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{timeout}: {status:?}");
        let info = status.get_details_error_info().unwrap_or_else(|| panic!("{timeout}: {headers:?}"));
        assert_eq!((info.domain.as_str(), info.reason.as_str()), ("referral.p2phub", "DEADLINE_EXCEEDED"));
        let trace_id = headers["trace-id"].to_str().expect("text");
        assert_eq!(status.get_details_request_info().expect("details").request_id, trace_id, "{timeout}");
    }
    hold.release().await;
    pair.finish().await;
}

//! A call that fails for its caller, and the trace ID in the error: it finds all that the call did nevertheless.

use p2phub_proto::{
    notify::v1::{ListNotificationsRequest, NotificationState},
    referral::v1::ListAuditEventsRequest,
};
use p2phub_tests::{
    builders::confirmation, hold::Hold, instance::Instance, pair::Options, postgres::Role, raw::status_of,
    refusal::reason, wait,
};
use serde_json::Value;
use tonic::Code;
use tonic_types::StatusExt;

use crate::PAIR_PROCESS;

/// Ten people hear of a sale with nine ancestors.
const TOLD: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_id_of_an_error_finds_what_the_call_caused() {
    let pair = Options::default().processes(PAIR_PROCESS).variable("LOG_FORMAT", "json").start().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", TOLD).await;
    let payment = clients.open_payment(&chain[TOLD - 1].partner_id).await;

    // Held at its last table, the call runs into its deadline; the transaction then goes through.
    let (holder, watcher) = (pair.referral_sql(Role::Superuser).await, pair.referral_sql(Role::Superuser).await);
    let hold = Hold::take(holder, watcher, "LOCK TABLE requests IN EXCLUSIVE MODE").await;
    let (address, request) = (pair.referral_address, confirmation(&payment.payment_id, "money"));
    let failing = tokio::spawn(async move {
        status_of(address, "p2phub.referral.v1.PaymentService/ConfirmPayment", &request, "2S").await
    });
    hold.blocks_someone().await;
    let (headers, status) = failing.await.expect("an answer");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    let trace_id = headers["trace-id"].to_str().expect("text").to_owned();
    assert_eq!(status.get_details_request_info().expect("details").request_id, trace_id);
    hold.release().await;

    let notifications = wait::until("ten delivered notifications", async || {
        let request = ListNotificationsRequest { trace_id: trace_id.clone(), ..Default::default() };
        let answer = pair.clients.clone().notifications.list_notifications(request).await.expect("an answer");
        let found = answer.into_inner().notifications;
        let delivered = found.iter().filter(|one| one.state() == NotificationState::Delivered).count();
        (delivered == TOLD).then_some(found)
    })
    .await;
    let mut told: Vec<_> = notifications.iter().map(|one| one.recipient_id.as_str()).collect();
    let mut expected: Vec<_> = chain.iter().map(|partner| partner.partner_id.as_str()).collect();
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);

    let request = ListAuditEventsRequest { trace_id: trace_id.clone(), ..Default::default() };
    let answer = pair.clients.clone().audit.list_audit_events(request).await.expect("an answer").into_inner();
    let audited: Vec<_> = answer.audit_events.iter().map(|event| (&*event.action, &*event.subject_id)).collect();
    assert_eq!(audited, [("ConfirmPayment", &*payment.payment_id)]);

    let call = lines(pair.referral.as_ref(), &trace_id, "call");
    assert_eq!(call.len(), 1, "{call:?}");
    assert_eq!(call[0]["code"], "DEADLINE_EXCEEDED");
    let delivered = lines(pair.notify.as_ref(), &trace_id, "notification");
    let ids = |line: &Value| line["notification_id"].as_str().map(str::to_owned);
    for notification in &notifications {
        let id = Some(notification.notification_id.clone());
        assert!(delivered.iter().any(|line| ids(line) == id), "{id:?} is not among {delivered:?}");
    }
    pair.finish().await;
}

/// The lines of one trace with this message.
fn lines(instance: Option<&Instance>, trace_id: &str, message: &str) -> Vec<Value> {
    let log = instance.expect("it runs").log();
    let parsed = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line["trace_id"] == trace_id && line["message"] == message).collect()
}

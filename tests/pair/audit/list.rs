//! ListAuditEvents between two times.

use p2phub_proto::referral::v1::{AuditEvent, ListAuditEventsRequest};
use p2phub_tests::{clients::Clients, pair::Options, refusal::refused};
use prost_types::Timestamp;
use tonic::Code;

async fn list(clients: &Clients, request: ListAuditEventsRequest) -> Vec<AuditEvent> {
    clients.clone().audit.list_audit_events(request).await.expect("an answer").into_inner().audit_events
}

fn later(time: Timestamp, nanos: i32) -> Timestamp {
    Timestamp { nanos: time.nanos + nanos, ..time }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_listed_from_a_time_on_and_until_another() {
    let pair = Options::default().start_alone().await;
    pair.clients.clone().chain("timed", 4).await;
    let all = list(&pair.clients, ListAuditEventsRequest::default()).await;
    let times: Vec<Timestamp> = all.iter().map(|event| event.create_time.expect("a time")).collect();
    assert_eq!(all.len(), 4);
    let between = |start_time, end_time| {
        let request = ListAuditEventsRequest { start_time, end_time, ..Default::default() };
        list(&pair.clients, request)
    };
    assert_eq!(between(Some(times[2]), None).await, all[..3], "the first is among them");
    assert_eq!(between(Some(later(times[2], 1)), None).await, all[..2], "a nanosecond later it isn't");
    assert_eq!(between(None, Some(times[1])).await, all[2..], "the end isn't");
    assert_eq!(between(None, Some(later(times[1], 1))).await, all[1..], "a nanosecond later it is");
    assert_eq!(between(Some(times[2]), Some(times[0])).await, all[1..3]);
    assert_eq!(between(Some(times[0]), Some(times[2])).await, []);
    assert_eq!(between(Some(Timestamp { seconds: -62_135_596_800, nanos: 0 }), None).await, all);

    let request = ListAuditEventsRequest { page_size: 1, start_time: Some(times[2]), ..Default::default() };
    let first = pair.clients.clone().audit.list_audit_events(request.clone()).await.expect("a page").into_inner();
    let second = ListAuditEventsRequest { page_token: first.next_page_token, ..request };
    assert_eq!(list(&pair.clients, second.clone()).await, all[1..2]);
    let other = ListAuditEventsRequest { start_time: Some(times[3]), ..second };
    refused(pair.clients.clone().audit.list_audit_events(other).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    pair.finish().await;
}

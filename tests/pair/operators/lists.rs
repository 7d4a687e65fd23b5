//! Finding and counting: every filter, and the record of what was done.

use p2phub_proto::notify::v1::{
    CountNotificationsRequest, ListAuditEventsRequest, ListGatesRequest, ListNotificationsRequest, NotificationFilter,
    NotificationKind, NotificationRequest, NotificationState, PauseChannelRequest, ResumeChannelRequest,
};
use p2phub_tests::{
    builders::request_id,
    postgres::Role,
    refusal::{fields, refused},
};
use prost_types::Timestamp;
use tonic::{Code, Request, Response};

use super::{Desk, WHY, audit};
use crate::stream::broadcast;

#[tokio::test(flavor = "multi_thread")]
async fn kind_channel_and_time_find_and_count() {
    let mut desk = Desk::open().await;
    let level_up = NotificationRequest {
        kind: NotificationKind::LevelUp.into(),
        arguments: [("level", "2"), ("xp", "300")].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..broadcast("ada")
    };
    let ids = vec![desk.ask(broadcast("ada")).await, desk.ask(level_up).await, desk.ask_webhook("bob").await];
    let mut times = Vec::new();
    for id in &ids {
        let settled = desk.when(id, |one| one.settle_time.is_some()).await;
        assert_eq!(settled.state(), NotificationState::Delivered);
        times.push(settled.create_time);
    }
    let any = NotificationFilter::default;
    let table: [(NotificationFilter, &[usize]); 8] = [
        (any(), &[2, 1, 0]),
        (NotificationFilter { kind: NotificationKind::LevelUp.into(), ..any() }, &[1]),
        (NotificationFilter { channel: "webhook".to_owned(), ..any() }, &[2]),
        (NotificationFilter { channel: "log".to_owned(), recipient_id: "ada".to_owned(), ..any() }, &[1, 0]),
        (NotificationFilter { channel: "slack".to_owned(), ..any() }, &[]),
        (NotificationFilter { start_time: times[1], ..any() }, &[2, 1]),
        (NotificationFilter { start_time: times[0], end_time: times[2], ..any() }, &[1, 0]),
        (NotificationFilter { end_time: times[0], ..any() }, &[]),
    ];
    let mut clients = desk.pair.clients.clone();
    for (filter, places) in table {
        let request = ListNotificationsRequest {
            recipient_id: filter.recipient_id.clone(),
            kind: filter.kind,
            channel: filter.channel.clone(),
            start_time: filter.start_time,
            end_time: filter.end_time,
            ..Default::default()
        };
        let found = clients.notifications.list_notifications(request).await.expect("a list").into_inner();
        let found: Vec<_> = found.notifications.into_iter().map(|one| one.notification_id).collect();
        let expected: Vec<_> = places.iter().map(|place| ids[*place].clone()).collect();
        assert_eq!(found, expected, "{filter:?}");
        let request = CountNotificationsRequest { filter: Some(filter.clone()) };
        let counted = clients.notifications.count_notifications(request).await.expect("counts").into_inner();
        assert_eq!(usize::try_from(counted.total), Ok(places.len()), "{filter:?}");
        let states: Vec<_> = counted.counts.iter().map(|count| count.state()).collect();
        assert_eq!(states, vec![NotificationState::Delivered; usize::from(!places.is_empty())]);
    }
    let backwards = NotificationFilter {
        start_time: Some(Timestamp { seconds: 2, nanos: 0 }),
        end_time: Some(Timestamp { seconds: 1, nanos: 0 }),
        ..any()
    };
    let request = CountNotificationsRequest { filter: Some(backwards) };
    let answer = clients.notifications.count_notifications(request).await;
    assert_eq!(fields(&refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT")), ["filter.end_time"]);
    desk.close().await;
}

fn trace_id<T>(answer: &Response<T>) -> String {
    answer.metadata().get("trace-id").and_then(|id| id.to_str().ok()).expect("a trace").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_is_found_by_every_filter_and_page_by_page() {
    let desk = Desk::open().await;
    let mut operators = desk.pair.clients.operators.clone();
    let mut traces = Vec::new();
    for (caller, channel) in [("ops-1", "slack"), ("ops-2", "email"), ("ops-1", "email")] {
        let pause =
            PauseChannelRequest { request_id: request_id(), channel: channel.to_owned(), reason: WHY.to_owned() };
        let mut request = Request::new(pause);
        request.metadata_mut().insert("p2phub-caller", caller.parse().expect("a name"));
        let answer = operators.pause_channel(request).await.expect("a pause");
        traces.push(trace_id(&answer));
    }
    let resume =
        ResumeChannelRequest { request_id: request_id(), channel: "email".to_owned(), reason: "over".to_owned() };
    let answer = operators.resume_channel(resume.clone()).await.expect("an end");
    traces.push(trace_id(&answer));

    let any = ListAuditEventsRequest::default;
    let table: [(ListAuditEventsRequest, &[usize]); 7] = [
        (any(), &[3, 2, 1, 0]),
        (ListAuditEventsRequest { subject_id: "email".to_owned(), ..any() }, &[3, 2, 1]),
        (ListAuditEventsRequest { actor: "ops-1".to_owned(), ..any() }, &[2, 0]),
        (ListAuditEventsRequest { action: "ResumeChannel".to_owned(), ..any() }, &[3]),
        (ListAuditEventsRequest { trace_id: traces[1].to_uppercase(), ..any() }, &[1]),
        (ListAuditEventsRequest { actor: "ops-1".to_owned(), subject_id: "slack".to_owned(), ..any() }, &[0]),
        (ListAuditEventsRequest { actor: "nobody".to_owned(), ..any() }, &[]),
    ];
    for (filter, places) in table {
        let expected: Vec<_> = places.iter().map(|place| traces[*place].clone()).collect();
        let found: Vec<_> = audit(&desk.pair, filter.clone()).await.into_iter().map(|event| event.trace_id).collect();
        assert_eq!(found, expected, "{filter:?}");
        let mut pages = ListAuditEventsRequest { page_size: 1, ..filter };
        let mut collected = Vec::new();
        loop {
            let page = operators.list_audit_events(pages.clone()).await.expect("a page").into_inner();
            assert!(page.audit_events.len() <= 1);
            collected.extend(page.audit_events.into_iter().map(|event| event.trace_id));
            if page.next_page_token.is_empty() {
                break;
            }
            pages.page_token = page.next_page_token;
        }
        assert_eq!(collected, expected, "{pages:?}");
    }
    let last = audit(&desk.pair, ListAuditEventsRequest { page_size: 1, ..any() }).await.remove(0);
    assert_eq!((last.actor.as_str(), last.action.as_str(), last.outcome.as_str()), ("local", "ResumeChannel", "OK"));
    assert_eq!((last.request_id, last.detail.as_str()), (resume.request_id, "over"));
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_are_listed_page_by_page_those_that_open_last_first() {
    let desk = Desk::open().await;
    let mut operators = desk.pair.clients.operators.clone();
    let gates = "INSERT INTO gates (gate, closed_until, open_time)
                 SELECT 'domain/webhook/' || name, now() + hours * interval '1 hour', now() + hours * interval '1 hour'
                   FROM (VALUES ('c', 1), ('a', 2), ('b', 2), ('d', 2), ('e', 3)) AS g (name, hours)";
    desk.pair.notify_sql(Role::Superuser).await.batch_execute(gates).await.expect("gates");
    let mut pages = ListGatesRequest { page_size: 2, ..Default::default() };
    let mut collected = Vec::new();
    loop {
        let page = operators.list_gates(pages.clone()).await.expect("a page").into_inner();
        collected.extend(page.gates.into_iter().map(|gate| gate.gate));
        if page.next_page_token.is_empty() {
            break;
        }
        pages.page_token = page.next_page_token;
    }
    assert_eq!(collected, ["e", "a", "b", "d", "c"].map(|name| format!("domain/webhook/{name}")));
    let foreign = ListGatesRequest { page_token: "AAAA".to_owned(), ..Default::default() };
    let status = refused(operators.list_gates(foreign).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_eq!(fields(&status), ["page_token"]);
    desk.close().await;
}

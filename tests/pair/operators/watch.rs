//! The watch feed: every change of every instance, and no silent gap.

use p2phub_proto::notify::v1::{
    DeliveryState, NotificationFilter, RedriveNotificationsRequest, WatchDeliveriesRequest, WatchDeliveriesResponse,
    notification_service_client::NotificationServiceClient,
};
use p2phub_tests::{
    builders::request_id,
    clients::channel,
    pair::Options,
    ports,
    postgres::Role,
    refusal::{fields, reason, refused},
    sink::Reply,
    wait,
};
use tonic::{Code, Status, Streaming};

use super::{Desk, WHY, cancellation, secret};
use crate::stream::broadcast;

type Changes = Streaming<WatchDeliveriesResponse>;

async fn watch(address: std::net::SocketAddr, request: WatchDeliveriesRequest) -> Result<Changes, Status> {
    let answer = NotificationServiceClient::new(channel(address)).watch_deliveries(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn next(changes: &mut Changes) -> Result<Option<WatchDeliveriesResponse>, Status> {
    tokio::time::timeout(wait::LIMIT, changes.message()).await.expect("a change in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_instance_changes_watchers_of_all_see() {
    let mut desk = Desk::open().await;
    desk.webhook.otherwise(Reply::status(503).header("retry-after", "3600"));
    let other = desk.pair.another_notify(ports::free()).await;
    let id = desk.ask_webhook("ada").await;
    let waiting = desk.when(&id, |one| one.deliveries[0].attempts.iter().any(|one| one.end_time.is_some())).await;
    let only = |id: &str| WatchDeliveriesRequest {
        notification_id: id.to_owned(),
        states: [DeliveryState::Cancelled, DeliveryState::Queued, DeliveryState::Sending].map(Into::into).to_vec(),
        ..Default::default()
    };
    let mut watchers = [
        watch(desk.pair.notify_address, only(&id)).await.expect("a stream"),
        watch(other.address, only(&id)).await.expect("a stream"),
    ];
    let foreign = watch(other.address, WatchDeliveriesRequest { recipient_id: "bob".to_owned(), ..Default::default() });
    let mut foreign = foreign.await.expect("a stream");
    let mut clients = desk.pair.clients.clone();
    clients.notifications.cancel_notification(cancellation(&id)).await.expect("an answer");
    let redrive = RedriveNotificationsRequest {
        request_id: request_id(),
        filter: Some(NotificationFilter {
            recipient_id: "ada".to_owned(),
            state: p2phub_proto::notify::v1::NotificationState::Cancelled.into(),
            ..Default::default()
        }),
        reason: WHY.to_owned(),
        ..Default::default()
    };
    clients.notifications.redrive_notifications(redrive).await.expect("an answer");
    for changes in &mut watchers {
        for (state, attempt, reason) in [
            (DeliveryState::Cancelled, 1, ""),
            (DeliveryState::Queued, 0, ""),
            (DeliveryState::Sending, 1, ""),
            (DeliveryState::Queued, 1, "HTTP_503"),
        ] {
            let change = next(changes).await.expect("an answer").expect("a change");
            assert_eq!((change.state(), change.attempt), (state, attempt));
            assert_eq!((change.recipient_id.as_str(), change.channel.as_str()), ("ada", "webhook"));
            assert_eq!((&change.notification_id, &change.trace_id), (&id, &waiting.trace_id));
            assert_eq!((change.kind(), change.reason.as_str()), (waiting.kind(), reason));
            assert!(change.change_time.is_some());
        }
    }
    // It got none of these.
    let got = tokio::time::timeout(std::time::Duration::from_millis(100), foreign.message()).await;
    assert!(got.is_err(), "{got:?}");
    other.stop().await;
    let ended = next(&mut watchers[1]).await.expect_err("an end");
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unavailable, "UNAVAILABLE"));
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_tells_while_nobody_watches() {
    let mut desk = Desk::open().await;
    desk.webhook.otherwise(Reply::status(503).header("retry-after", "3600"));
    let listener = desk.pair.notify_sql(Role::Superuser).await;
    let held = async || {
        let query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'
                        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        listener.query_one(query, &[]).await.expect("a count").get::<_, i64>(0)
    };
    assert_eq!(held().await, 0);
    let changes = watch(desk.pair.notify_address, WatchDeliveriesRequest::default()).await.expect("a stream");
    assert!(held().await > 0, "from the answer on everybody tells");
    drop(changes);
    wait::until("the listener to rest", async || (held().await == 0).then_some(())).await;
    let id = desk.ask_webhook("ada").await;
    desk.pair.clients.clone().notifications.cancel_notification(cancellation(&id)).await.expect("an answer");
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_ends_watches_and_the_queue_goes_on() {
    let options = Options::default().proxied().notify(|config| config.webhook_signing_secret = Some(secret()));
    let mut desk = Desk::with(options).await;
    let mut changes = watch(desk.pair.notify_address, WatchDeliveriesRequest::default()).await.expect("a stream");
    desk.pair.proxies().database.cut();
    let ended = next(&mut changes).await.expect_err("an end");
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unavailable, "UNAVAILABLE"));
    let refused_now = watch(desk.pair.notify_address, WatchDeliveriesRequest::default()).await;
    assert_eq!(refused_now.expect_err("a refusal").code(), Code::Unavailable);
    desk.pair.proxies().database.resume();
    desk.producer = crate::stream::Producer::open(&desk.pair.clients, "desk").await;
    let id = desk.ask(broadcast("ada")).await;
    desk.when(&id, |one| one.settle_time.is_some()).await;
    wait::until("the feed to be back", async || {
        watch(desk.pair.notify_address, WatchDeliveriesRequest::default()).await.ok()
    })
    .await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_bounded_and_their_filters_checked() {
    let desk = Desk::open().await;
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(watch(desk.pair.notify_address, WatchDeliveriesRequest::default()).await.expect("a stream"));
    }
    let one_more = watch(desk.pair.notify_address, WatchDeliveriesRequest::default()).await;
    refused(one_more.map(|_| tonic::Response::new(())), Code::ResourceExhausted, "TOO_MANY_STREAMS");
    open.pop();
    wait::until("a place", async || {
        watch(desk.pair.notify_address, WatchDeliveriesRequest::default()).await.ok().map(drop)
    })
    .await;
    for (field, request) in [
        ("channel", WatchDeliveriesRequest { channel: "pigeon".to_owned(), ..Default::default() }),
        ("states", WatchDeliveriesRequest { states: vec![99], ..Default::default() }),
        ("notification_id", WatchDeliveriesRequest { notification_id: "7".to_owned(), ..Default::default() }),
    ] {
        let answer = watch(desk.pair.notify_address, request).await.map(|_| tonic::Response::new(()));
        assert_eq!(fields(&refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT")), [field]);
    }
    desk.close().await;
}

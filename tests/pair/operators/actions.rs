//! Stopping notifications, pausing and resuming channels, forgetting addresses.

use p2phub_proto::notify::v1::{
    Address, AttemptOutcome, ChannelStatus, DeliveryState, GetAddressRequest, ListChannelsRequest, ListGatesRequest,
    NotificationState, PauseChannelRequest, ResetAddressRequest, ResumeChannelRequest,
};
use p2phub_tests::{
    builders::request_id,
    pair::Pair,
    postgres::Role,
    refusal::{fields, refused},
    sink::Reply,
};
use tonic::Code;

use super::{Desk, WHY, cancellation};

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_stopped_and_what_has_ended_is_not() {
    let mut desk = Desk::open().await;
    let mut clients = desk.pair.clients.clone();
    desk.webhook.otherwise(Reply::status(503).header("retry-after", "3600"));
    let id = desk.ask_webhook("ada").await;
    desk.webhook.wait_for(1).await;
    desk.when(&id, |one| one.state() == NotificationState::Queued && one.deliveries[0].attempts.len() == 1).await;
    let answer = clients.notifications.cancel_notification(cancellation(&id)).await.expect("an answer").into_inner();
    let stopped = answer.notification.expect("a notification");
    assert_eq!(stopped, desk.get(&id).await);
    assert_eq!(stopped.state(), NotificationState::Cancelled);
    assert!(stopped.settle_time.is_some());
    let delivery = &stopped.deliveries[0];
    assert_eq!((delivery.state(), delivery.reason.as_str()), (DeliveryState::Cancelled, ""));
    assert!(delivery.next_attempt_time.is_none());
    assert_eq!(delivery.attempts[0].outcome(), AttemptOutcome::Transient, "its end is as it was");

    let again = clients.notifications.cancel_notification(cancellation(&id)).await;
    refused(again, Code::FailedPrecondition, "NOTIFICATION_SETTLED");
    let record = desk.record(&id).await;
    let entry = |outcome: &str| ("CancelNotification".to_owned(), outcome.to_owned(), WHY.to_owned());
    assert_eq!(record, [entry("OK"), entry("NOTIFICATION_SETTLED")]);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_in_flight_is_fenced_off_and_its_attempt_ambiguous() {
    let mut desk = Desk::open().await;
    desk.webhook.otherwise(Reply::status(200).after(std::time::Duration::from_secs(1)));
    let id = desk.ask_webhook("ada").await;
    desk.webhook.wait_for(1).await;
    assert_eq!(desk.get(&id).await.state(), NotificationState::Sending);
    let answer = desk.pair.clients.clone().notifications.cancel_notification(cancellation(&id)).await;
    let stopped = answer.expect("an answer").into_inner().notification.expect("a notification");
    assert_eq!(stopped.state(), NotificationState::Cancelled);
    let attempt = &stopped.deliveries[0].attempts[0];
    assert_eq!((attempt.outcome(), attempt.reason.as_str()), (AttemptOutcome::Ambiguous, "CANCELLED"));
    // The worker comes back, and finds its lease gone; then it takes the next one.
    let next = desk.ask_webhook("bob").await;
    desk.when(&next, |one| one.state() == NotificationState::Delivered).await;
    assert_eq!(desk.get(&id).await, stopped);
    desk.close().await;
}

async fn channel(pair: &Pair, name: &str) -> ChannelStatus {
    let answer = pair.clients.clone().operators.list_channels(ListChannelsRequest {}).await.expect("channels");
    let channels = answer.into_inner().channels;
    let names: Vec<_> = channels.iter().map(|channel| channel.channel.as_str()).collect();
    assert_eq!(names, ["telegram", "email", "webhook", "slack", "log"]);
    channels.into_iter().find(|channel| channel.channel == name).expect("a channel")
}

fn pause(channel: &str, reason: &str) -> PauseChannelRequest {
    PauseChannelRequest { request_id: request_id(), channel: channel.to_owned(), reason: reason.to_owned() }
}

fn resume(channel: &str) -> ResumeChannelRequest {
    ResumeChannelRequest { request_id: request_id(), channel: channel.to_owned(), reason: WHY.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_shown_until_it_is_over() {
    let mut desk = Desk::open().await;
    let mut operators = desk.pair.clients.operators.clone();
    desk.webhook.otherwise(Reply::status(503).header("retry-after", "3600"));
    let id = desk.ask_webhook("ada").await;
    desk.when(&id, |one| one.deliveries[0].next_attempt_time.is_some() && !one.deliveries[0].attempts.is_empty()).await;
    let status = |paused, reason: &str, by: &str| ChannelStatus {
        channel: "webhook".to_owned(),
        on: true,
        paused,
        pause_reason: reason.to_owned(),
        paused_by: by.to_owned(),
        queued: 1,
        held: 0,
    };
    assert_eq!(channel(&desk.pair, "webhook").await, status(false, "", ""));
    assert!(!channel(&desk.pair, "slack").await.on && channel(&desk.pair, "log").await.on);
    for reason in ["first", "second"] {
        let answer = operators.pause_channel(pause("webhook", reason)).await.expect("a pause").into_inner();
        assert_eq!(answer.channel, Some(status(true, reason, "local")));
        assert_eq!(channel(&desk.pair, "webhook").await, status(true, reason, "local"));
    }
    let gates = operators
        .list_gates(ListGatesRequest { page_size: 1, ..Default::default() })
        .await
        .expect("gates")
        .into_inner()
        .gates;
    assert_eq!((gates[0].gate.as_str(), gates[0].reason.as_str()), ("channel/webhook", "PAUSED"));
    assert!(gates[0].open_time.is_some_and(|time| time.seconds > 200_000_000_000));
    for detail in [WHY.to_owned(), format!("was not paused: {WHY}")] {
        let answer = operators.resume_channel(resume("webhook")).await.expect("an end").into_inner();
        assert_eq!(answer.channel, Some(status(false, "", "")));
        assert_eq!(desk.record("webhook").await.pop(), Some(("ResumeChannel".to_owned(), "OK".to_owned(), detail)));
    }
    let gates = operators.list_gates(ListGatesRequest::default()).await.expect("gates").into_inner().gates;
    assert!(gates.iter().all(|gate| gate.gate != "channel/webhook"), "{gates:?}");
    for (field, request) in [("channel", pause("pigeon", WHY)), ("reason", pause("webhook", " "))] {
        let status = refused(operators.pause_channel(request).await, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(fields(&status), [field]);
    }
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_an_address_is_shown_and_forgotten() {
    let desk = Desk::open().await;
    let mut operators = desk.pair.clients.operators.clone();
    let ask =
        |channel: &str, address: &str| GetAddressRequest { channel: channel.to_owned(), address: address.to_owned() };
    let mark = "INSERT INTO addresses (channel, address, reason, moved_to, notification_id)
                VALUES ('telegram', '42', 'TELEGRAM_MOVED', '-10042', gen_random_uuid())";
    desk.pair.notify_sql(Role::Service).await.batch_execute(mark).await.expect("a mark");
    let known = operators.get_address(ask("telegram", "42")).await.expect("an address").into_inner().address;
    let address = known.expect("an address");
    assert_eq!((address.reason.as_str(), address.moved_to.as_str()), ("TELEGRAM_MOVED", "-10042"));
    let reset = ResetAddressRequest {
        request_id: request_id(),
        channel: "telegram".to_owned(),
        address: "42".to_owned(),
        reason: WHY.to_owned(),
    };
    // The answer is kept for ever: nothing in it tells who it was.
    let nameless = Address { address: String::new(), moved_to: String::new(), ..address.clone() };
    assert_eq!(operators.reset_address(reset).await.expect("a reset").into_inner().address, Some(nameless));
    assert_eq!(desk.count("requests WHERE position('10042' in encode(response, 'escape')) > 0").await, 0);
    refused(operators.get_address(ask("telegram", "42")).await, Code::NotFound, "ADDRESS_NOT_MARKED");
    for (field, request) in [("channel", ask("log", "x")), ("address", ask("email", ""))] {
        let status = refused(operators.get_address(request).await, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(fields(&status), [field]);
    }
    desk.close().await;
}

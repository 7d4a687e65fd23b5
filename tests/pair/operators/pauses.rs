//! A paused channel holds what is due for it, and nothing else; resumed, it sends at once.

use p2phub_proto::notify::v1::{
    DeliveryState, ListChannelsRequest, NotificationState, PauseChannelRequest, ResumeChannelRequest,
};
use p2phub_tests::{builders::request_id, ports, postgres::Role, wait};

use super::{Desk, WHY};
use crate::stream::broadcast;

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_channel_holds_what_is_due_until_it_is_resumed_anywhere() {
    let mut desk = Desk::open().await;
    let other = desk.pair.another_notify(ports::free()).await;
    let mut operators = desk.pair.clients.operators.clone();
    let (channel, reason) = ("webhook".to_owned(), WHY.to_owned());
    let pause = PauseChannelRequest { request_id: request_id(), channel: channel.clone(), reason: reason.clone() };
    operators.pause_channel(pause).await.expect("a pause");
    let mut held = Vec::new();
    for recipient_id in ["ada", "bob", "cleo"] {
        held.push(desk.ask_webhook(recipient_id).await);
    }
    for id in &held {
        let one = desk.when(id, |one| !one.deliveries[0].held_by.is_empty()).await;
        assert_eq!(one.state(), NotificationState::Queued);
        let delivery = &one.deliveries[0];
        assert_eq!((delivery.state(), delivery.held_by.as_str()), (DeliveryState::Queued, "channel/webhook"));
        assert!(delivery.attempts.is_empty());
    }
    let free = desk.ask(broadcast("dora")).await;
    desk.when(&free, |one| one.state() == NotificationState::Delivered).await;
    let status = wait::until("the count of what is held", async || {
        let answer = operators.list_channels(ListChannelsRequest {}).await.expect("channels").into_inner();
        answer.channels.into_iter().find(|one| one.channel == "webhook" && one.held == 3)
    })
    .await;
    assert_eq!((status.queued, status.paused), (3, true));
    assert!(desk.webhook.received().is_empty(), "sent over a paused channel");
    let resume = ResumeChannelRequest { request_id: request_id(), channel, reason };
    operators.resume_channel(resume).await.expect("an end");
    for id in &held {
        let one = desk.when(id, |one| one.state() == NotificationState::Delivered).await;
        assert_eq!(one.deliveries[0].held_by, "");
    }
    assert_eq!(desk.webhook.received().len(), 3);
    other.stop().await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_paused_and_resumed_even_while_nothing_can_be_counted() {
    let desk = Desk::open().await;
    let mut operators = desk.pair.clients.operators.clone();
    let (channel, reason) = ("webhook".to_owned(), WHY.to_owned());
    let holder = desk.pair.notify_sql(Role::Superuser).await;
    holder.batch_execute("BEGIN; LOCK TABLE deliveries").await.expect("a lock");
    let pause = PauseChannelRequest { request_id: request_id(), channel: channel.clone(), reason: reason.clone() };
    let paused = operators.pause_channel(pause).await.expect("a pause").into_inner().channel.expect("a channel");
    assert_eq!((paused.paused, paused.pause_reason.as_str(), paused.queued), (true, WHY, 0));
    let resume = ResumeChannelRequest { request_id: request_id(), channel, reason };
    let resumed = operators.resume_channel(resume).await.expect("an end").into_inner().channel.expect("a channel");
    assert!(!resumed.paused);
    holder.batch_execute("ROLLBACK").await.expect("an end");
    desk.close().await;
}

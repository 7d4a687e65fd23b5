//! Each recipient exactly once: with two instances, with kills in the middle, and never someone who came too late.

use std::collections::BTreeSet;

use p2phub_proto::referral::v1::{Broadcast, BroadcastState, CreateBroadcastRequest};
use p2phub_tests::{
    hold::Hold,
    pair::{Options, Pair},
    ports,
    postgres::Role,
    wait,
};

use super::{begin, crowd, ended, everybody, in_outbox, published, recipients};
use crate::PAIR_PROCESS;

/// The whole crowd, each once, in events as small as notify-svc wants them.
async fn assert_once(pair: &Pair, broadcast: &Broadcast, crowd: usize) {
    let done = ended(&pair.clients, broadcast).await;
    let count = i64::try_from(crowd).expect("a count");
    assert_eq!((done.state(), done.matched, done.published), (BroadcastState::Done, count, count));
    let events = in_outbox(pair, broadcast).await;
    assert!(events.iter().all(|event| event.len() <= 100));
    let told = recipients(&events);
    assert_eq!((told.len(), told.iter().collect::<BTreeSet<_>>().len()), (crowd, crowd));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_share_a_broadcast() {
    let pair = Options::default().start_alone().await;
    let other = pair.another_referral(ports::free()).await;
    crowd(&pair, 5_500).await;
    let begun = begin(&pair.clients, everybody("Hello")).await;
    assert_once(&pair, &begun, 5_500).await;
    other.stop().await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_the_event_and_its_commit_repeats_nothing_and_loses_nothing() {
    let mut pair = Options::default().processes(PAIR_PROCESS).start_alone().await;
    crowd(&pair, 1_000).await;
    let request = CreateBroadcastRequest { recipients_per_second: 1_000, ..everybody("Hello") };
    let begun = begin(&pair.clients, request).await;
    for half in [300, 600] {
        published(&pair.clients, &begun, half).await;
        // The event is inserted, the progress isn't written yet.
        let (holder, watcher) = (pair.referral_sql(Role::Superuser).await, pair.referral_sql(Role::Superuser).await);
        let lock = "LOCK TABLE broadcasts IN SHARE MODE";
        let watching = pair.referral_sql(Role::Superuser).await;
        let hold = Hold::take(holder, watcher, lock).await;
        hold.blocks_someone().await;
        let blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                           AND query LIKE 'UPDATE broadcasts%' AND datname = current_database()";
        let blocked: i64 = watching.query_one(blocked, &[]).await.expect("a count").get(0);
        assert_eq!(blocked, 1, "a step waits");
        pair.kill_referral();
        hold.end_waiters().await;
        hold.release().await;
        pair.start_referral().await;
    }
    assert_once(&pair, &begun, 1_000).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_repeat_nothing_at_the_recipients() {
    let mut pair = Options::default().processes(PAIR_PROCESS).start().await;
    crowd(&pair, 2_000).await;
    let request = CreateBroadcastRequest { recipients_per_second: 1_000, ..everybody("Hello") };
    let begun = begin(&pair.clients, request).await;
    for so_far in [1, 400, 800, 1_200] {
        published(&pair.clients, &begun, so_far).await;
        pair.kill_referral();
        pair.start_referral().await;
    }
    let done = ended(&pair.clients, &begun).await;
    assert_eq!((done.state(), done.published), (BroadcastState::Done, 2_000));
    let (referral, notify) = (pair.referral_sql(Role::Superuser).await, pair.notify_sql(Role::Superuser).await);
    wait::until("an empty outbox", async || {
        let left: i64 = referral.query_one("SELECT count(*) FROM outbox", &[]).await.expect("a count").get(0);
        (left == 0).then_some(())
    })
    .await;
    let query = "SELECT count(*), count(DISTINCT recipient_id) FROM notifications WHERE kind = 'OPERATOR_BROADCAST'";
    let row = notify.query_one(query, &[]).await.expect("counts");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2_000, 2_000));
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_registers_later_is_not_meant() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    clients.chain("early", 3).await;
    crowd(&pair, 20).await;
    let begun = begin(&clients, CreateBroadcastRequest { recipients_per_second: 20, ..everybody("Hello") }).await;
    let late = clients.register("late", "").await;
    let done = ended(&clients, &begun).await;
    assert_eq!((done.matched, done.published), (23, 23));
    assert!(!recipients(&in_outbox(&pair, &begun).await).contains(&late.partner_id.as_str()));
    pair.finish().await;
}

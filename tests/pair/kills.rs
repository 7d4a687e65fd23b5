//! Either service killed between every two steps of outbox → stream → inbox → delivery: held there by locks and by the
//! network, never by a switch in the product. Whatever was killed, everything arrives.

use std::collections::HashMap;

use p2phub_proto::{
    notify::v1::{AttemptOutcome, ListNotificationsRequest, Notification},
    referral::v1::{Contact, Partner, RegisterPartnerRequest},
};
use p2phub_tests::{
    builders::registration,
    hold::Hold,
    pair::{Options, Pair},
    postgres::Role,
    sink::{Reply, Sink},
    wait,
};
use tokio_postgres::Client;

use crate::PAIR_PROCESS;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Referral,
    Notify,
}

/// A pair of processes behind proxies, and one partner who hears of each signup below through a webhook.
struct Stage {
    pair: Pair,
    sink: Sink,
    referral: Client,
    notify: Client,
    inviter: Partner,
    signups: i64,
}

impl Stage {
    async fn set() -> Self {
        let sink = Sink::start().await;
        let options = Options::default().processes(PAIR_PROCESS).proxied().variable("WEBHOOK_SIGNING_SECRET", SECRET);
        let pair = options.start().await;
        let contact = Contact { channel: "webhook".to_owned(), address: sink.url("/hook") };
        let request = RegisterPartnerRequest { contacts: vec![contact], ..registration("inviter", "") };
        let answer = pair.clients.clone().partners.register_partner(request).await.expect("a registration");
        let inviter = answer.into_inner().partner.expect("a partner");
        let (referral, notify) = (pair.referral_sql(Role::Superuser).await, pair.notify_sql(Role::Superuser).await);
        Self { pair, sink, referral, notify, inviter, signups: 0 }
    }

    /// A fact: one event with one notification for the inviter.
    async fn signup(&mut self) {
        self.signups += 1;
        let name = format!("guest-{}", self.signups);
        self.pair.clients.clone().register(&name, &self.inviter.referral_code).await;
    }

    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Referral => self.pair.kill_referral(),
            Victim::Notify => self.pair.kill_notify(),
        }
    }

    async fn restart(&mut self) {
        if self.pair.notify.is_none() {
            self.pair.start_notify().await;
        }
        if self.pair.referral.is_none() {
            self.pair.start_referral().await;
        }
    }

    async fn hold_referral(&self, statements: &str) -> Hold {
        let superuser = self.pair.referral_sql(Role::Superuser).await;
        Hold::take(superuser, self.pair.referral_sql(Role::Superuser).await, statements).await
    }

    async fn hold_notify(&self, statements: &str) -> Hold {
        let superuser = self.pair.notify_sql(Role::Superuser).await;
        Hold::take(superuser, self.pair.notify_sql(Role::Superuser).await, statements).await
    }

    async fn in_outbox(&self) -> i64 {
        count(&self.referral, "outbox").await
    }

    async fn in_inbox(&self) -> i64 {
        count(&self.notify, "inbox").await
    }

    async fn notifications(&self) -> Vec<Notification> {
        let recipient_id = self.inviter.partner_id.clone();
        let request = ListNotificationsRequest { recipient_id, page_size: 100, ..Default::default() };
        let answer = self.pair.clients.clone().notifications.list_notifications(request).await;
        answer.expect("notifications").into_inner().notifications
    }

    /// Everything is where it belongs, once; only `repeated` notifications came to the sink a second time.
    async fn arrives(&self, repeated: usize) {
        wait::until("an empty outbox", async || (self.in_outbox().await == 0).then_some(())).await;
        assert_eq!(self.in_inbox().await, self.signups, "events in the inbox");
        self.all_delivered().await;
        assert_eq!(count(&self.notify, "notifications").await, self.signups, "notifications");
        let mut sent: HashMap<String, usize> = HashMap::new();
        for request in self.sink.received() {
            *sent.entry(request.headers["webhook-id"].clone()).or_default() += 1;
        }
        let ids: Vec<_> = self.notifications().await.into_iter().map(|one| one.notification_id).collect();
        assert!(ids.iter().all(|id| sent.contains_key(id)), "delivered without having been sent");
        assert_eq!(sent.values().filter(|times| **times > 1).count(), repeated, "sent again: {sent:?}");
    }

    async fn all_delivered(&self) {
        wait::until("all to be delivered", async || {
            let delivered = count(&self.notify, "notifications WHERE state = 'DELIVERED'").await;
            (delivered == self.signups).then_some(())
        })
        .await;
    }

    /// As if the half minute of every lease had passed.
    async fn let_leases_lapse(&self) {
        let statement = "UPDATE deliveries SET lease_until = now() WHERE state = 'SENDING'";
        self.notify.batch_execute(statement).await.expect("an update");
    }
}

async fn count(client: &Client, what: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {what}"), &[]).await.expect("a count").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_after_the_commit_and_before_any_sending_loses_nothing() {
    let mut stage = Stage::set().await;
    stage.kill(Victim::Notify);
    stage.signup().await;
    assert_eq!(stage.in_outbox().await, 1, "notify-svc is down, so the event waits");
    stage.kill(Victim::Referral);
    stage.restart().await;
    stage.arrives(0).await;

    stage.pair.proxies().stream.pause();
    stage.signup().await;
    assert_eq!((stage.in_outbox().await, stage.in_inbox().await), (1, 1), "nothing passes a paused stream");
    stage.kill(Victim::Referral);
    stage.pair.proxies().stream.cut_once();
    stage.pair.proxies().stream.resume();
    stage.restart().await;
    stage.arrives(0).await;
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_sending_and_storing_loses_nothing() {
    let mut stage = Stage::set().await;
    for victim in [Victim::Notify, Victim::Referral] {
        let before = stage.in_inbox().await;
        let hold = stage.hold_notify("LOCK TABLE inbox IN EXCLUSIVE MODE").await;
        stage.signup().await;
        hold.blocks_someone().await;
        stage.kill(victim);
        assert_eq!((stage.in_outbox().await, stage.in_inbox().await), (1, before), "{victim:?}");
        if victim == Victim::Notify {
            hold.end_waiters().await;
        }
        hold.release().await;
        stage.restart().await;
        stage.arrives(0).await;
    }
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_storing_and_acknowledging_repeats_nothing() {
    let mut stage = Stage::set().await;
    for victim in [Victim::Referral, Victim::Notify] {
        let hold = stage.hold_notify("LOCK TABLE inbox IN EXCLUSIVE MODE").await;
        stage.signup().await;
        hold.blocks_someone().await;
        stage.pair.proxies().stream.pause();
        hold.release().await;
        stage.all_delivered().await;
        assert_eq!(stage.in_outbox().await, 1, "the acknowledgement is held back");
        stage.kill(victim);
        stage.pair.proxies().stream.cut_once();
        stage.pair.proxies().stream.resume();
        stage.restart().await;
        stage.arrives(0).await;
    }
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_the_acknowledgement_and_settling_repeats_nothing() {
    let mut stage = Stage::set().await;
    for victim in [Victim::Referral, Victim::Notify] {
        let unstored = stage.hold_notify("LOCK TABLE inbox IN EXCLUSIVE MODE").await;
        stage.signup().await;
        unstored.blocks_someone().await;
        let unsettled = stage.hold_referral("SELECT FROM outbox FOR UPDATE").await;
        unstored.release().await;
        unsettled.blocks_someone().await;
        stage.all_delivered().await;
        stage.kill(victim);
        if victim == Victim::Referral {
            unsettled.end_waiters().await;
        }
        unsettled.release().await;
        if victim == Victim::Referral {
            assert_eq!(stage.in_outbox().await, 1, "it was not settled");
        }
        stage.restart().await;
        stage.arrives(0).await;
    }
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_queueing_and_claiming_sends_once() {
    let mut stage = Stage::set().await;
    let hold = stage.hold_notify("LOCK TABLE attempts IN SHARE ROW EXCLUSIVE MODE").await;
    stage.signup().await;
    hold.blocks_someone().await;
    stage.kill(Victim::Notify);
    hold.end_waiters().await;
    hold.release().await;
    assert_eq!(count(&stage.notify, "deliveries WHERE state = 'QUEUED'").await, 1);
    assert_eq!(count(&stage.notify, "attempts").await, 0);
    stage.restart().await;
    stage.arrives(0).await;
    assert_eq!(stage.sink.received().len(), 1);
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_in_flight_at_a_kill_is_taken_over_within_thirty_seconds() {
    let mut stage = Stage::set().await;
    stage.sink.then([Reply::hang()]);
    stage.signup().await;
    stage.sink.wait_for(1).await;
    stage.kill(Victim::Notify);
    let killed = std::time::Instant::now();
    stage.restart().await;
    let received = stage.sink.wait_for(2).await;
    let taken_over = received[1].at - killed;
    assert!(taken_over.as_secs() < 30, "taken over after {taken_over:?}");
    assert_eq!(received[0].body, received[1].body, "the same notification, word for word");
    stage.arrives(1).await;
    assert_attempts(&stage).await;
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_sending_and_settling_sends_again_and_says_so() {
    let mut stage = Stage::set().await;
    let unclaimed = stage.hold_notify("LOCK TABLE attempts IN SHARE ROW EXCLUSIVE MODE").await;
    stage.signup().await;
    unclaimed.blocks_someone().await;
    let unsettled = stage.hold_notify("LOCK TABLE notifications IN SHARE MODE").await;
    unclaimed.release().await;
    stage.sink.wait_for(1).await;
    unsettled.blocks_someone().await;
    stage.kill(Victim::Notify);
    unsettled.end_waiters().await;
    unsettled.release().await;
    assert_eq!(count(&stage.notify, "deliveries WHERE state = 'SENDING'").await, 1, "it was not settled");
    stage.let_leases_lapse().await;
    stage.restart().await;
    stage.arrives(1).await;
    assert_attempts(&stage).await;
    stage.pair.finish().await;
}

/// The lost attempt is on record as ambiguous, the next one as delivered.
async fn assert_attempts(stage: &Stage) {
    let notifications = stage.notifications().await;
    let attempts: Vec<_> = notifications[0].deliveries[0].attempts.iter().collect();
    let outcomes: Vec<_> = attempts.iter().map(|one| (one.number, one.outcome(), one.reason.as_str())).collect();
    let expected = [(1, AttemptOutcome::Ambiguous, "LEASE_LOST"), (2, AttemptOutcome::Delivered, "")];
    assert_eq!(outcomes, expected);
    assert!(attempts.iter().all(|one| one.trace_id == notifications[0].trace_id && one.end_time.is_some()));
}

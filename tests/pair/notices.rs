//! PRO's three notices, three days before the end, one day before, at the end: each requested once for each end, by
//! whichever instance, however the clock goes.

mod batches;

use std::collections::BTreeMap;

use chrono::TimeDelta;
use p2phub_proto::{
    notify::v1::{ListNotificationsRequest, NotificationKind, NotificationState},
    referral::v1::Partner,
};
use p2phub_tests::{
    instance::Instance,
    pair::{Options, Pair},
    ports,
    postgres::Role,
    wait,
};
use referral_svc::Clock;

use crate::{concurrency::number, refunds::told};

const THREE_DAYS: NotificationKind = NotificationKind::ProExpiring3Days;
const ONE_DAY: NotificationKind = NotificationKind::ProExpiring1Day;
const ENDED: NotificationKind = NotificationKind::ProExpired;

/// Two instances under one clock, and somebody who has bought PRO once.
struct Stage {
    pair: Pair,
    other: Option<Instance>,
    clock: Clock,
    buyer: Partner,
    payments: Vec<String>,
}

impl Stage {
    async fn set() -> Self {
        let clock = Clock::default();
        let shared = clock.clone();
        let options = Options::default().referral(move |config| config.clock = shared.clone());
        let pair = options.start_alone().await;
        let other = pair.another_referral(ports::free()).await;
        let buyer = pair.clients.clone().register("buyer", "").await;
        let mut stage = Self { pair, other: Some(other), clock, buyer, payments: Vec::new() };
        stage.buy().await;
        stage
    }

    async fn buy(&mut self) {
        self.payments.push(self.pair.clients.clone().buy_pro(&self.buyer.partner_id).await.0.payment_id);
    }

    /// Days and, of a part of one, hours since the purchase; then waits until whatever is due was looked at.
    async fn at(&self, days: i64, hours: i64) {
        self.clock.set_ahead(TimeDelta::days(days) + TimeDelta::hours(hours));
        let sql = self.pair.referral_sql(Role::Owner).await;
        let ahead = days * 24 + hours;
        let due = format!(
            "SELECT count(*) FROM standings, (SELECT clock_timestamp() + interval '{ahead} hours' AS now) c
             WHERE (notices_sent = 0 AND pro_expires_at <= now + interval '3 days')
                 OR (notices_sent = 1 AND pro_expires_at <= now + interval '1 day')
                 OR (notices_sent = 2 AND pro_expires_at <= now)
                 OR counted_as_pro <> (pro_expires_at > now)"
        );
        wait::until("the sweepers", async || (number(&sql, &due).await == 0).then_some(())).await;
    }

    /// What was requested so far, by the end that it is about, each in order.
    async fn notices(&self) -> Vec<Vec<NotificationKind>> {
        let mut by_end: BTreeMap<String, Vec<NotificationKind>> = BTreeMap::new();
        for request in told(&self.pair).await {
            if [THREE_DAYS, ONE_DAY, ENDED].contains(&request.kind()) {
                assert_eq!(request.recipient_id, self.buyer.partner_id);
                by_end.entry(request.arguments["expires"].clone()).or_default().push(request.kind());
            }
        }
        by_end.into_values().collect()
    }

    async fn finish(self) {
        if let Some(other) = self.other {
            other.stop().await;
        }
        self.pair.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_notice_comes_when_it_is_due_and_once() {
    let mut stage = Stage::set().await;
    let mut expected = Vec::new();
    for (days, hours, due) in [
        (0, 1, None),
        (26, 23, None),
        (27, 1, Some(THREE_DAYS)),
        (28, 12, None),
        (29, 1, Some(ONE_DAY)),
        (29, 23, None),
        (30, 1, Some(ENDED)),
        (31, 0, None),
        (400, 0, None),
    ] {
        stage.at(days, hours).await;
        expected.extend(due);
        assert_eq!(stage.notices().await.concat(), expected, "day {days}, hour {hours}");
        // Neither a restart nor another instance's look says it again.
        stage.pair.stop_referral().await;
        stage.pair.start_referral().await;
        stage.at(days, hours).await;
        assert_eq!(stage.notices().await.concat(), expected, "day {days}, hour {hours}, after a restart");
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_end_has_notices_of_its_own() {
    let mut stage = Stage::set().await;
    stage.at(27, 1).await;
    // Renewed in between: what was said of the old end was true, the rest of it isn't said.
    stage.buy().await;
    stage.at(30, 1).await;
    assert_eq!(stage.notices().await, [vec![THREE_DAYS]]);
    stage.at(57, 1).await;
    stage.at(59, 1).await;
    stage.at(60, 1).await;
    assert_eq!(stage.notices().await, [vec![THREE_DAYS], vec![THREE_DAYS, ONE_DAY, ENDED]]);
    // After a gap.
    stage.buy().await;
    stage.at(91, 0).await;
    assert_eq!(stage.notices().await[2], [THREE_DAYS, ONE_DAY, ENDED]);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_comes_back_is_not_told_of_again() {
    let mut stage = Stage::set().await;
    stage.at(27, 2).await;
    assert_eq!(stage.notices().await, [vec![THREE_DAYS]]);
    // A renewal moves the end away, and its refund brings it back: what was said of it was said.
    stage.buy().await;
    stage.at(28, 1).await;
    stage.pair.clients.clone().refund(&stage.payments[1], None).await;
    stage.at(28, 2).await;
    assert_eq!(stage.notices().await, [vec![THREE_DAYS]]);
    stage.at(30, 1).await;
    assert_eq!(stage.notices().await, [vec![THREE_DAYS, ONE_DAY, ENDED]]);
    crate::concurrency::assert_books_balance(&mut stage.pair.clients.clone()).await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_moves_the_end_moves_the_notices() {
    let mut stage = Stage::set().await;
    stage.buy().await;
    stage.at(29, 1).await;
    assert_eq!(stage.notices().await.len(), 0, "two periods: the end is far");
    // Now the second one ends in 30 days from here, and the first one is over.
    let mut clients = stage.pair.clients.clone();
    clients.refund(&stage.payments[0], None).await;
    stage.at(56, 2).await;
    stage.at(57, 1).await;
    assert_eq!(stage.notices().await, [vec![THREE_DAYS]]);
    // And now it has ended: nothing is left to be reminded of.
    clients.refund(&stage.payments[1], None).await;
    stage.at(57, 2).await;
    assert_eq!(stage.notices().await, [vec![THREE_DAYS, ONE_DAY, ENDED], vec![THREE_DAYS]]);
    stage.at(70, 0).await;
    assert_eq!(stage.notices().await.concat().len(), 4);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_does_no_harm_and_what_comes_too_late_is_not_sent() {
    let mut stage = Stage::set().await;
    stage.at(100, 0).await;
    stage.at(1, 0).await;
    stage.at(28, 0).await;
    stage.at(3_000, 0).await;
    stage.at(0, 1).await;
    assert_eq!(stage.notices().await, [vec![THREE_DAYS, ONE_DAY, ENDED]]);
    let requests = told(&stage.pair).await;
    let expiry = |kind| requests.iter().find(|one| one.kind() == kind).expect("a request").expire_time;
    let end = stage.pair.clients.clone().partner(&stage.buyer.partner_id).await.pro_expires_at.expect("an end");
    assert_eq!(expiry(THREE_DAYS).expect("an expiry").seconds, end.seconds - 24 * 60 * 60);
    assert_eq!(expiry(ONE_DAY), Some(end));
    assert_eq!(expiry(ENDED), None);
    // Nothing is said of an end that is ahead again, until there is a new one.
    stage.buy().await;
    stage.at(57, 1).await;
    assert_eq!(stage.notices().await, [vec![THREE_DAYS, ONE_DAY, ENDED], vec![THREE_DAYS]]);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_is_no_longer_true_ends_expired() {
    let clock = Clock::default();
    let shared = clock.clone();
    let pair = Options::default().referral(move |config| config.clock = shared.clone()).start().await;
    let mut clients = pair.clients.clone();
    // Bought long ago, for the notify-svc that has the present time.
    clock.set_ahead(TimeDelta::days(-40));
    let buyer = clients.register("buyer", "").await;
    clients.buy_pro(&buyer.partner_id).await;
    clock.set_ahead(TimeDelta::zero());
    let states = wait::until("four notifications to be settled", async || {
        let request = ListNotificationsRequest { recipient_id: buyer.partner_id.clone(), ..Default::default() };
        let answer = pair.clients.clone().notifications.list_notifications(request).await.expect("an answer");
        let all: BTreeMap<_, _> =
            answer.into_inner().notifications.iter().map(|one| (one.kind(), one.state())).collect();
        let settled =
            all.values().all(|state| [NotificationState::Delivered, NotificationState::Expired].contains(state));
        (all.len() == 4 && settled).then_some(all)
    })
    .await;
    let (sent, late) = (NotificationState::Delivered, NotificationState::Expired);
    let expected = [(NotificationKind::ProWelcome, sent), (THREE_DAYS, late), (ONE_DAY, late), (ENDED, sent)];
    assert_eq!(states, BTreeMap::from(expected));
    pair.finish().await;
}

//! What a refund of the whole payment does to PRO: what is left of its period ends, later ones move up, none is lost.

use std::sync::atomic::{AtomicU32, Ordering};

use chrono::TimeDelta;
use p2phub_proto::referral::v1::{GetPaymentRequest, Partner};
use p2phub_tests::{
    clients::Clients,
    pair::{Options, Pair},
};
use prost_types::Timestamp;
use referral_svc::Clock;

use crate::concurrency::assert_books_balance;

const DAY: i64 = 24 * 60 * 60;

/// A buyer of several periods of PRO, one after the other, under a clock that can be set ahead.
struct Stage {
    pair: Pair,
    clock: Clock,
    clients: Clients,
    buyer: Partner,
    payments: Vec<String>,
    /// When the first period began.
    start: i64,
    people: AtomicU32,
}

impl Stage {
    async fn set() -> Self {
        let clock = Clock::default();
        let shared = clock.clone();
        let pair = Options::default().referral(move |config| config.clock = shared.clone()).start_alone().await;
        let mut clients = pair.clients.clone();
        let buyer = clients.register("buyer", "").await;
        let mut stage =
            Self { pair, clock, clients, buyer, payments: Vec::new(), start: 0, people: AtomicU32::default() };
        for _ in 0..3 {
            stage.buy().await;
        }
        stage.start = stage.period(0).await.0;
        stage
    }

    async fn buy(&mut self) {
        self.payments.push(self.clients.buy_pro(&self.buyer.partner_id).await.0.payment_id);
    }

    /// Start and end of the period that a payment bought, in seconds.
    async fn period(&self, payment: usize) -> (i64, i64) {
        let request = GetPaymentRequest { payment_id: self.payments[payment].clone() };
        let answer = self.clients.clone().payments.get_payment(request).await.expect("an answer").into_inner();
        let payment = answer.payment.expect("a payment");
        (seconds(payment.pro_start_time), seconds(payment.pro_end_time))
    }

    async fn refund(&self, payment: usize, minor_units: Option<i64>) {
        self.clients.clone().refund(&self.payments[payment], minor_units).await;
    }

    /// Periods as days since the first one began, and PRO's end; a moment more or less is none.
    async fn assert_days(&self, expected: &[(i64, i64)], expires: i64) {
        for (payment, expected) in expected.iter().enumerate() {
            let (start, end) = self.period(payment).await;
            assert_eq!((self.days(start), self.days(end)), *expected, "payment {payment}");
        }
        let buyer = self.clients.clone().partner(&self.buyer.partner_id).await;
        assert_eq!(self.days(seconds(buyer.pro_expires_at)), expires);
    }

    fn days(&self, time: i64) -> i64 {
        let days = (time - self.start + DAY / 2).div_euclid(DAY);
        assert!((time - self.start - days * DAY).abs() < 120, "{time} is no whole number of days after {}", self.start);
        days
    }

    fn at_day(&self, day: i64) {
        self.clock.set_ahead(TimeDelta::days(day));
    }

    /// Whether the buyer is PRO in every respect: as shown, and as signups below pay.
    async fn assert_pro(&self, expected: bool) {
        let mut clients = self.clients.clone();
        let before = clients.partner(&self.buyer.partner_id).await;
        assert_eq!(before.pro_active, expected);
        let number = self.people.fetch_add(1, Ordering::SeqCst);
        clients.register(&format!("below-{number}"), &self.buyer.referral_code).await;
        let xp = clients.partner(&self.buyer.partner_id).await.xp - before.xp;
        assert_eq!(xp, if expected { 175 } else { 35 });
    }

    async fn finish(mut self) {
        assert_books_balance(&mut self.clients).await;
        self.pair.finish().await;
    }
}

fn seconds(time: Option<Timestamp>) -> i64 {
    time.expect("a time").seconds
}

#[tokio::test(flavor = "multi_thread")]
async fn the_present_period_ends_now_and_later_ones_move_up() {
    let stage = Stage::set().await;
    stage.at_day(10);
    stage.refund(0, None).await;
    stage.assert_days(&[(0, 10), (10, 40), (40, 70)], 70).await;
    stage.assert_pro(true).await;
    stage.at_day(71);
    stage.assert_pro(false).await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_future_period_vanishes() {
    let stage = Stage::set().await;
    stage.at_day(10);
    stage.refund(1, None).await;
    stage.assert_days(&[(0, 30), (30, 30), (30, 60)], 60).await;
    stage.refund(2, None).await;
    stage.assert_days(&[(0, 30), (30, 30), (30, 30)], 30).await;
    stage.assert_pro(true).await;
    stage.refund(0, None).await;
    stage.assert_days(&[(0, 10), (10, 10), (10, 10)], 10).await;
    stage.assert_pro(false).await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_period_was_had_and_moves_nothing() {
    let mut stage = Stage::set().await;
    stage.at_day(40);
    stage.refund(0, None).await;
    stage.assert_days(&[(0, 30), (30, 60), (60, 90)], 90).await;
    stage.assert_pro(true).await;
    // After a gap, too.
    stage.at_day(200);
    stage.assert_pro(false).await;
    stage.refund(2, None).await;
    stage.assert_days(&[(0, 30), (30, 60), (60, 90)], 90).await;
    stage.buy().await;
    stage.assert_days(&[(0, 30), (30, 60), (60, 90), (200, 230)], 230).await;
    stage.refund(1, None).await;
    stage.assert_days(&[(0, 30), (30, 60), (60, 90), (200, 230)], 230).await;
    stage.assert_pro(true).await;
    stage.refund(3, None).await;
    stage.assert_pro(false).await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_in_part_leaves_the_period_until_nothing_is_left() {
    let stage = Stage::set().await;
    stage.at_day(40);
    stage.refund(1, Some(38_999_999)).await;
    stage.assert_days(&[(0, 30), (30, 60), (60, 90)], 90).await;
    stage.refund(1, Some(1)).await;
    stage.assert_days(&[(0, 30), (30, 40), (40, 70)], 70).await;
    stage.assert_pro(true).await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_buys_after_a_refund_begins_where_the_rest_ends() {
    let mut stage = Stage::set().await;
    stage.at_day(10);
    stage.refund(0, None).await;
    stage.buy().await;
    stage.assert_days(&[(0, 10), (10, 40), (40, 70), (70, 100)], 100).await;
    for payment in 1..4 {
        stage.refund(payment, None).await;
    }
    stage.assert_pro(false).await;
    stage.buy().await;
    stage.assert_days(&[(0, 10), (10, 10), (10, 10), (10, 10), (10, 40)], 40).await;
    stage.assert_pro(true).await;
    stage.finish().await;
}

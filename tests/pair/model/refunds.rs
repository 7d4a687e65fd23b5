//! The rules of refunds and of releases.

use p2phub_proto::{notify::v1::NotificationKind, referral::v1 as pb};
use p2phub_tests::builders::usdt;

use super::{
    bills::PRICE,
    commands::{Answer, Reply},
    notices::Told,
    rules::{Micros, World, micros, missing, timestamp, wrong},
};

impl World {
    pub(super) fn refund(&mut self, ask: &pb::RefundPaymentRequest, now: Micros, answered: &Answer) -> Answer {
        let Some(index) = self.bill(&ask.payment_id) else { return missing("PAYMENT_NOT_FOUND") };
        let bill = &self.bills[index];
        if !bill.succeeded() {
            return wrong("PAYMENT_WRONG_STATE");
        }
        let left = PRICE - bill.refunded;
        let amount = ask.amount.as_ref().map_or(left, |amount| amount.minor_units);
        if left == 0 || amount > left {
            return wrong("REFUND_EXCEEDS_PAYMENT");
        }
        let made = match answered {
            Ok(Reply::Refunded(_, made, _)) => made.clone(),
            _ => pb::Refund::default(),
        };
        let clawbacks = self.take_back(index, amount);
        if amount == left {
            self.end_period(index, now);
        }
        let refund = pb::Refund {
            refund_id: made.refund_id,
            payment_id: ask.payment_id.clone(),
            amount: Some(usdt(amount)),
            reason: ask.reason.clone(),
            create_time: Some(timestamp(now)),
            transaction_id: made.transaction_id,
        };
        let bill = &mut self.bills[index];
        bill.refunds.push(refund.clone());
        Ok(Reply::Refunded(bill.show(now), refund, clawbacks))
    }

    fn take_back(&mut self, index: usize, amount: i64) -> Vec<pb::Clawback> {
        let bill = &mut self.bills[index];
        bill.refunded += amount;
        let mut clawbacks = Vec::new();
        for share in &mut bill.shares {
            let so_far = i128::from(share.amount) * i128::from(bill.refunded) / i128::from(PRICE);
            let taken = i64::try_from(so_far).expect("less than the commission") - share.reversed;
            if taken == 0 {
                continue;
            }
            share.reversed += taken;
            let earner = &mut self.people[share.earner];
            if share.held {
                earner.pending -= taken;
            } else {
                earner.book(-taken);
            }
            self.told.push(Told::amount(NotificationKind::CommissionReversed, &earner.id, taken));
            clawbacks.push(pb::Clawback {
                commission_id: share.shown.commission_id.clone(),
                earner_id: earner.id.clone(),
                amount: Some(usdt(taken)),
            });
        }
        clawbacks
    }

    /// What is left of the period is lost, and whatever the buyer had after it comes so much earlier.
    fn end_period(&mut self, index: usize, now: Micros) {
        let period = |world: &Self, bill: usize| {
            let shown = &world.bills[bill].shown;
            (micros(&shown.pro_start_time.expect("a start")), micros(&shown.pro_end_time.expect("an end")))
        };
        let (start, end) = period(self, index);
        let lost = (end - start.max(now)).max(0);
        let buyer = self.person(&self.bills[index].shown.partner_id).expect("a buyer");
        if lost == 0 {
            return;
        }
        self.bills[index].shown.pro_end_time = Some(timestamp(end - lost));
        for other in self.people[buyer].bought.clone() {
            let (from, until) = period(self, other);
            if other != index && from >= end {
                self.bills[other].shown.pro_start_time = Some(timestamp(from - lost));
                self.bills[other].shown.pro_end_time = Some(timestamp(until - lost));
            }
        }
        let ends = self.people[buyer].bought.iter().map(|bill| period(self, *bill).1);
        let until = ends.max().expect("a period");
        let buyer = &mut self.people[buyer];
        if buyer.pro_until != Some(until) {
            buyer.ends(until);
        }
    }

    /// A job released these: payment, level, and the transaction that booked it.
    pub(super) fn release(&mut self, released: &[(String, i32, String)], now: Micros) {
        let mut by_earner = std::collections::BTreeMap::new();
        for (payment_id, level, transaction_id) in released {
            let bill = self.bill(payment_id).expect("a payment");
            let share = self.bills[bill].shares.iter_mut().find(|share| share.shown.level == *level).expect("a share");
            assert!(share.held, "released twice: {:?}", share.shown);
            assert!(micros(&share.shown.release_time.expect("a time")) <= now, "too early at {now}: {:?}", share.shown);
            share.held = false;
            share.shown.release_transaction_id.clone_from(transaction_id);
            *by_earner.entry(share.earner).or_insert(0) += share.left();
        }
        for (earner, amount) in by_earner {
            self.people[earner].pending -= amount;
            self.people[earner].book(amount);
        }
    }

    /// Nothing is held that should be released.
    pub(super) fn assert_released(&self, now: Micros) {
        for share in self.bills.iter().flat_map(|bill| &bill.shares) {
            let due = micros(&share.shown.release_time.expect("a time")) <= now;
            assert!(!(due && share.held && share.left() > 0), "still held: {:?}", share.shown);
        }
    }
}

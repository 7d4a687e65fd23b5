//! The rules of payments: how they advance, what they pay, and whom.

use p2phub_proto::referral::v1::{self as pb, PaymentState};
use p2phub_tests::builders::usdt;
use tonic::Code;

use super::{
    commands::{Answer, Reply, canonical},
    rules::{DAY, HOUR, Micros, World, micros, missing, refused, timestamp, wrong},
};

const RATES_BPS: [i32; 9] = [3000, 500, 300, 100, 100, 100, 100, 100, 100];
const PRICE: i64 = 39_000_000;

pub(super) struct Bill {
    /// As it would be shown, but for expiry.
    shown: pb::Payment,
    pub(super) commissions: Vec<pb::Commission>,
}

impl Bill {
    pub(super) fn id(&self) -> &str {
        &self.shown.payment_id
    }

    fn state(&self, now: Micros) -> PaymentState {
        let expired = self.shown.expire_time.as_ref().is_some_and(|time| now >= micros(time));
        match self.shown.state() {
            PaymentState::Pending if expired => PaymentState::Expired,
            state => state,
        }
    }

    pub(super) fn show(&self, now: Micros) -> pb::Payment {
        let mut shown = self.shown.clone();
        shown.set_state(self.state(now));
        shown.late_references.sort_by(|one, other| one.external_ref.cmp(&other.external_ref));
        shown
    }

    fn note_late(&mut self, reference: String, now: Micros) {
        if !self.shown.late_references.iter().any(|late| late.external_ref == reference) {
            let late = pb::LateReference { external_ref: reference, create_time: Some(timestamp(now)) };
            self.shown.late_references.push(late);
        }
    }
}

impl World {
    pub(super) fn reject(&mut self, ask: &pb::RejectPaymentRequest, now: Micros) -> Answer {
        let Some(bill) = self.bill(&ask.payment_id) else { return missing("PAYMENT_NOT_FOUND") };
        let bill = &mut self.bills[bill];
        if !matches!(bill.state(now), PaymentState::Pending | PaymentState::InReview) {
            return wrong("PAYMENT_WRONG_STATE");
        }
        bill.shown.set_state(PaymentState::Rejected);
        bill.shown.reject_reason.clone_from(&ask.reason);
        Ok(Reply::Payment(bill.show(now)))
    }

    pub(super) fn open(&mut self, ask: &pb::CreatePaymentRequest, now: Micros, answered: &Answer) -> Answer {
        if self.person(&ask.partner_id).is_none() {
            return missing("PARTNER_NOT_FOUND");
        }
        if ask.method == "ton" {
            return wrong("PAYMENT_METHOD_CLOSED");
        }
        let payment_id = match answered {
            Ok(Reply::Payment(made)) => made.payment_id.clone(),
            _ => String::new(),
        };
        assert!(self.bill(&payment_id).is_none(), "{payment_id} was given out twice");
        let shown = pb::Payment {
            payment_id,
            partner_id: ask.partner_id.clone(),
            product: pb::Product::ProMonthly.into(),
            amount: Some(usdt(PRICE)),
            state: PaymentState::Pending.into(),
            method: ask.method.clone(),
            create_time: Some(timestamp(now)),
            expire_time: Some(timestamp(now + HOUR)),
            plan_version: 1,
            refunded_amount: Some(usdt(0)),
            ..Default::default()
        };
        self.bills.push(Bill { shown: shown.clone(), commissions: Vec::new() });
        Ok(Reply::Payment(shown))
    }

    fn is_used_by_another(&self, reference: &str, payment_id: &str) -> bool {
        self.used.get(reference).is_some_and(|user| user != payment_id)
    }

    pub(super) fn submit(&mut self, ask: &pb::SubmitPaymentRequest, now: Micros) -> Answer {
        let Some(bill) = self.bill(&ask.payment_id) else { return missing("PAYMENT_NOT_FOUND") };
        let reference = canonical(&ask.external_ref);
        let is_used = self.is_used_by_another(&reference, &ask.payment_id);
        let bill = &mut self.bills[bill];
        match bill.state(now) {
            PaymentState::Pending if is_used => refused(Code::AlreadyExists, "EXTERNAL_REF_USED"),
            PaymentState::Pending => {
                bill.shown.set_state(PaymentState::InReview);
                bill.shown.external_ref = reference;
                Ok(Reply::Payment(bill.show(now)))
            }
            PaymentState::Expired | PaymentState::Rejected => {
                bill.note_late(reference, now);
                wrong("PAYMENT_EXPIRED")
            }
            _ => wrong("PAYMENT_WRONG_STATE"),
        }
    }

    pub(super) fn confirm(&mut self, ask: &pb::ConfirmPaymentRequest, now: Micros, answered: &Answer) -> Answer {
        let Some(index) = self.bill(&ask.payment_id) else { return missing("PAYMENT_NOT_FOUND") };
        let reference = match canonical(&ask.external_ref) {
            given if given.is_empty() => self.bills[index].shown.external_ref.clone(),
            given => given,
        };
        if reference.is_empty() {
            return refused(Code::InvalidArgument, "INVALID_ARGUMENT");
        }
        let is_used = self.is_used_by_another(&reference, &ask.payment_id);
        let bill = &mut self.bills[index];
        let overridden = !ask.override_reason.is_empty();
        match bill.state(now) {
            PaymentState::Succeeded if bill.shown.external_ref != reference => wrong("PAYMENT_ALREADY_CONFIRMED"),
            PaymentState::Succeeded => Ok(Reply::Confirmed(bill.show(now), bill.commissions.clone())),
            _ if is_used => refused(Code::AlreadyExists, "EXTERNAL_REF_USED"),
            PaymentState::Expired | PaymentState::Rejected if !overridden => {
                bill.note_late(reference, now);
                wrong("PAYMENT_EXPIRED")
            }
            PaymentState::Pending if bill.shown.method == "manual" && !overridden => wrong("PAYMENT_NOT_SUBMITTED"),
            _ => self.sell(index, reference, &ask.override_reason, now, answered),
        }
    }

    fn sell(&mut self, index: usize, reference: String, reason: &str, now: Micros, answered: &Answer) -> Answer {
        let transaction_id = match answered {
            Ok(Reply::Confirmed(payment, _)) => payment.transaction_id.clone(),
            _ => String::new(),
        };
        let payment_id = self.bills[index].id().to_owned();
        let buyer = self.person(&self.bills[index].shown.partner_id).expect("a buyer");
        let start = self.people[buyer].pro_until.filter(|until| now < *until).unwrap_or(now);
        let end = start + 30 * DAY;
        self.people[buyer].pro_until = Some(end);
        let mut commissions = Vec::new();
        for ((earner, rate_bps), level) in self.above(buyer).into_iter().zip(RATES_BPS).zip(1..) {
            let amount = PRICE * i64::from(rate_bps) / 10_000;
            let earner = &mut self.people[earner];
            earner.balance += amount;
            earner.entries += 1;
            commissions.push(pb::Commission {
                commission_id: String::new(),
                payment_id: payment_id.clone(),
                earner_id: earner.id.clone(),
                level,
                amount: Some(usdt(amount)),
                rate_bps,
                plan_version: 1,
                state: pb::CommissionState::Available.into(),
                base: Some(usdt(PRICE)),
                create_time: Some(timestamp(now)),
                transaction_id: transaction_id.clone(),
                reversed_amount: Some(usdt(0)),
                reserved_amount: Some(usdt(0)),
                paid_amount: Some(usdt(0)),
                ..Default::default()
            });
        }
        self.used.insert(reference.clone(), payment_id);
        let bill = &mut self.bills[index];
        bill.commissions.clone_from(&commissions);
        bill.shown.set_state(PaymentState::Succeeded);
        bill.shown.external_ref = reference;
        bill.shown.confirm_time = Some(timestamp(now));
        bill.shown.pro_start_time = Some(timestamp(start));
        bill.shown.pro_end_time = Some(timestamp(end));
        bill.shown.transaction_id = transaction_id;
        bill.shown.override_reason = reason.to_owned();
        bill.shown.reject_reason.clear();
        Ok(Reply::Confirmed(bill.show(now), commissions))
    }
}

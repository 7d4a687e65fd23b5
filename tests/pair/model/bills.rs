//! The rules of payments: how they advance, what they pay, and whom.

use p2phub_proto::{
    notify::v1::NotificationKind,
    referral::v1::{self as pb, CommissionState, PaymentState},
};
use p2phub_tests::builders::usdt;
use tonic::Code;

use super::{
    HOLDING_DAYS,
    commands::{Answer, Reply, canonical},
    notices::Told,
    rules::{DAY, HOUR, Micros, World, micros, missing, refused, timestamp, wrong},
};

const RATES_BPS: [i32; 9] = [3000, 500, 300, 100, 100, 100, 100, 100, 100];
pub(super) const PRICE: i64 = 39_000_000;
pub(super) const PLAN_VERSION: i32 = 2;

pub(super) struct Bill {
    /// As it would be shown, but for expiry and refunds.
    pub(super) shown: pb::Payment,
    pub(super) shares: Vec<Share>,
    pub(super) refunds: Vec<pb::Refund>,
    pub(super) refunded: i64,
}

/// A commission.
pub(super) struct Share {
    /// As it would be shown, but for what became of it.
    pub(super) shown: pb::Commission,
    pub(super) earner: usize,
    pub(super) amount: i64,
    pub(super) held: bool,
    pub(super) reversed: i64,
    pub(super) reserved: i64,
    pub(super) paid: i64,
}

impl Share {
    pub(super) fn left(&self) -> i64 {
        self.amount - self.reversed
    }

    /// What its earner can claim; below zero, owes.
    pub(super) fn open(&self) -> i64 {
        if self.held { 0 } else { self.left() - self.reserved - self.paid }
    }

    pub(super) fn show(&self) -> pb::Commission {
        let state = if self.left() == 0 {
            CommissionState::Reversed
        } else if self.held {
            CommissionState::Pending
        } else if self.paid == self.left() && self.reserved == 0 {
            CommissionState::Paid
        } else {
            CommissionState::Available
        };
        pb::Commission {
            state: state.into(),
            reversed_amount: Some(usdt(self.reversed)),
            reserved_amount: Some(usdt(self.reserved)),
            paid_amount: Some(usdt(self.paid)),
            ..self.shown.clone()
        }
    }
}

impl Bill {
    pub(super) fn id(&self) -> &str {
        &self.shown.payment_id
    }

    fn state(&self, now: Micros) -> PaymentState {
        let expired = self.shown.expire_time.as_ref().is_some_and(|time| now >= micros(time));
        match self.shown.state() {
            PaymentState::Pending if expired => PaymentState::Expired,
            PaymentState::Succeeded if self.refunded == PRICE => PaymentState::Refunded,
            PaymentState::Succeeded if self.refunded > 0 => PaymentState::PartiallyRefunded,
            state => state,
        }
    }

    pub(super) fn succeeded(&self) -> bool {
        self.shown.state() == PaymentState::Succeeded
    }

    pub(super) fn show(&self, now: Micros) -> pb::Payment {
        let mut shown = self.shown.clone();
        shown.set_state(self.state(now));
        shown.refunded_amount = Some(usdt(self.refunded));
        shown.late_references.sort_by(|one, other| one.external_ref.cmp(&other.external_ref));
        shown
    }

    pub(super) fn commissions(&self) -> Vec<pb::Commission> {
        self.shares.iter().map(Share::show).collect()
    }

    fn note_late(&mut self, reference: String, now: Micros) {
        if !self.shown.late_references.iter().any(|late| late.external_ref == reference) {
            let late =
                pb::LateReference { external_ref: reference, create_time: Some(timestamp(now)), ..Default::default() };
            self.shown.late_references.push(late);
        }
    }
}

impl World {
    pub(super) fn bill(&self, id: &str) -> Option<usize> {
        self.bills_by_id.get(id).copied()
    }

    pub(super) fn reject(&mut self, ask: &pb::RejectPaymentRequest, now: Micros) -> Answer {
        let Some(bill) = self.bill(&ask.payment_id) else { return missing("PAYMENT_NOT_FOUND") };
        let bill = &mut self.bills[bill];
        if !matches!(bill.state(now), PaymentState::Pending | PaymentState::InReview) {
            return wrong("PAYMENT_WRONG_STATE");
        }
        bill.shown.set_state(PaymentState::Rejected);
        bill.shown.reject_reason.clone_from(&ask.reason);
        self.told.push(Told::amount(NotificationKind::PaymentRejected, &bill.shown.partner_id, PRICE));
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
        let shown = pb::Payment {
            payment_id: payment_id.clone(),
            partner_id: ask.partner_id.clone(),
            product: pb::Product::ProMonthly.into(),
            amount: Some(usdt(PRICE)),
            state: PaymentState::Pending.into(),
            method: ask.method.clone(),
            create_time: Some(timestamp(now)),
            expire_time: Some(timestamp(now + HOUR)),
            plan_version: PLAN_VERSION,
            refunded_amount: Some(usdt(0)),
            ..Default::default()
        };
        let twice = self.bills_by_id.insert(payment_id, self.bills.len());
        assert_eq!(twice, None, "{} was given out twice", shown.payment_id);
        self.bills.push(Bill { shown: shown.clone(), shares: Vec::new(), refunds: Vec::new(), refunded: 0 });
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
            _ if bill.succeeded() && bill.shown.external_ref != reference => wrong("PAYMENT_ALREADY_CONFIRMED"),
            _ if bill.succeeded() => Ok(Reply::Confirmed(bill.show(now), bill.commissions())),
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
        let (transaction_id, ids): (_, Vec<_>) = match answered {
            Ok(Reply::Confirmed(payment, commissions)) => (
                payment.transaction_id.clone(),
                commissions.iter().map(|commission| commission.commission_id.clone()).collect(),
            ),
            _ => Default::default(),
        };
        let payment_id = self.bills[index].id().to_owned();
        let buyer = self.person(&self.bills[index].shown.partner_id).expect("a buyer");
        let start = self.people[buyer].pro_until.filter(|until| now < *until).unwrap_or(now);
        let end = start + 30 * DAY;
        self.people[buyer].ends(end);
        self.people[buyer].bought.push(index);
        self.told.push(Told::new(NotificationKind::ProWelcome, &self.people[buyer].id));
        let mut shares = Vec::new();
        for ((earner, rate_bps), level) in self.above(buyer).into_iter().zip(RATES_BPS).zip(1..) {
            let amount = PRICE * i64::from(rate_bps) / 10_000;
            let person = &mut self.people[earner];
            person.pending += amount;
            person.shares.push((index, shares.len()));
            self.told.push(Told::amount(NotificationKind::CommissionReceived, &person.id, amount));
            let shown = pb::Commission {
                commission_id: ids.get(shares.len()).cloned().unwrap_or_default(),
                payment_id: payment_id.clone(),
                earner_id: person.id.clone(),
                level,
                amount: Some(usdt(amount)),
                rate_bps,
                plan_version: PLAN_VERSION,
                base: Some(usdt(PRICE)),
                create_time: Some(timestamp(now)),
                transaction_id: transaction_id.clone(),
                release_time: Some(timestamp(now + HOLDING_DAYS * DAY)),
                ..Default::default()
            };
            let twice = self.shares_by_id.insert(shown.commission_id.clone(), (index, shares.len()));
            assert_eq!(twice, None, "{} was given out twice", shown.commission_id);
            shares.push(Share { shown, earner, amount, held: true, reversed: 0, reserved: 0, paid: 0 });
        }
        self.used.insert(reference.clone(), payment_id);
        let bill = &mut self.bills[index];
        bill.shares = shares;
        bill.shown.set_state(PaymentState::Succeeded);
        bill.shown.external_ref = reference;
        bill.shown.confirm_time = Some(timestamp(now));
        bill.shown.pro_start_time = Some(timestamp(start));
        bill.shown.pro_end_time = Some(timestamp(end));
        bill.shown.transaction_id = transaction_id;
        bill.shown.override_reason = reason.to_owned();
        bill.shown.reject_reason.clear();
        Ok(Reply::Confirmed(bill.show(now), bill.commissions()))
    }
}

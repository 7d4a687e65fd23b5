//! The rules of payouts.

use p2phub_proto::{
    notify::v1::NotificationKind,
    referral::v1::{self as pb, PayoutState},
};
use p2phub_tests::builders::usdt;
use tonic::Code;

use super::{
    commands::{Answer, Reply, canonical},
    notices::Told,
    rules::{Micros, World, missing, refused, timestamp, wrong},
};

const MINIMUM: i64 = 10_000_000;

/// The IDs that the service made up.
fn made(answered: &Answer) -> pb::Payout {
    match answered {
        Ok(Reply::Payout(payout)) => payout.clone(),
        _ => pb::Payout::default(),
    }
}

fn units(amount: &Option<pb::Amount>) -> i64 {
    amount.as_ref().expect("an amount").minor_units
}

impl World {
    pub(super) fn request_payout(
        &mut self,
        ask: &pb::RequestPayoutRequest,
        caller: &str,
        now: Micros,
        answered: &Answer,
    ) -> Answer {
        let Some(person) = self.person(&ask.partner_id) else { return missing("PARTNER_NOT_FOUND") };
        let available = self.people[person].available;
        let amount = match &ask.amount {
            Some(amount) => amount.minor_units,
            None if available <= 0 => return wrong("INSUFFICIENT_BALANCE"),
            None => available,
        };
        if amount < MINIMUM {
            return wrong("PAYOUT_BELOW_MINIMUM");
        }
        if amount > available {
            return wrong("INSUFFICIENT_BALANCE");
        }
        let made = made(answered);
        let payout = pb::Payout {
            payout_id: made.payout_id,
            partner_id: ask.partner_id.clone(),
            amount: Some(usdt(amount)),
            state: PayoutState::Requested.into(),
            destination: ask.destination.clone(),
            requester: caller.to_owned(),
            create_time: Some(timestamp(now)),
            reserve_transaction_id: made.reserve_transaction_id,
            items: self.items(person, amount),
            ..Default::default()
        };
        let twice = self.payouts_by_id.insert(payout.payout_id.clone(), self.payouts.len());
        assert_eq!(twice, None, "{} was given out twice", payout.payout_id);
        self.payouts.push(payout);
        let index = self.payouts.len() - 1;
        self.move_items(index, 1, 0);
        self.people[person].book(-amount);
        self.people[person].reserved += amount;
        self.advanced(index)
    }

    /// All debts, and then the oldest claims until it is enough; told by age.
    fn items(&self, person: usize, amount: i64) -> Vec<pb::PayoutItem> {
        let person = &self.people[person];
        let shares = person.shares.iter().map(|(bill, share)| {
            let share = &self.bills[*bill].shares[*share];
            (&share.shown.transaction_id, share.open(), share.shown.commission_id.clone(), String::new())
        });
        let adjustments = person.adjustments.iter().map(|index| {
            let adjusted = &self.adjustments[*index];
            (&adjusted.shown.transaction_id, adjusted.open(), String::new(), adjusted.shown.adjustment_id.clone())
        });
        let mut claims: Vec<_> = shares.chain(adjustments).filter(|(_, open, ..)| *open != 0).collect();
        claims.sort();
        let owed: i64 = claims.iter().map(|(_, open, ..)| (*open).min(0)).sum();
        let mut wanted = amount - owed;
        let mut items = Vec::new();
        for (_, open, commission_id, adjustment_id) in claims {
            let taken = open.min(wanted);
            wanted -= taken.max(0);
            if taken != 0 {
                items.push(pb::PayoutItem { commission_id, adjustment_id, amount: Some(usdt(taken)) });
            }
        }
        assert_eq!(wanted, 0, "less is open than available");
        items
    }

    /// So many times each item is more reserved, and more paid.
    fn move_items(&mut self, payout: usize, reserved: i64, paid: i64) {
        for item in self.payouts[payout].items.clone() {
            let amount = units(&item.amount);
            let (its_reserved, its_paid) = match self.shares_by_id.get(&item.commission_id) {
                Some((bill, share)) => {
                    let share = &mut self.bills[*bill].shares[*share];
                    (&mut share.reserved, &mut share.paid)
                }
                None => {
                    let adjusted = &mut self.adjustments[self.adjustments_by_id[&item.adjustment_id]];
                    (&mut adjusted.reserved, &mut adjusted.paid)
                }
            };
            *its_reserved += reserved * amount;
            *its_paid += paid * amount;
        }
    }

    fn advanced(&mut self, index: usize) -> Answer {
        let payout = &self.payouts[index];
        let told = Told::amount(NotificationKind::PayoutState, &payout.partner_id, units(&payout.amount));
        self.told.push(told);
        Ok(Reply::Payout(payout.clone()))
    }

    fn payout(&self, id: &str) -> Option<usize> {
        self.payouts_by_id.get(id).copied()
    }

    pub(super) fn approve(&mut self, ask: &pb::ApprovePayoutRequest, caller: &str, now: Micros) -> Answer {
        let Some(index) = self.payout(&ask.payout_id) else { return missing("PAYOUT_NOT_FOUND") };
        let payout = &self.payouts[index];
        if payout.state() != PayoutState::Requested {
            return wrong("PAYOUT_WRONG_STATE");
        }
        if payout.requester == caller {
            return wrong("FOUR_EYES_REQUIRED");
        }
        if self.people[self.person(&payout.partner_id).expect("a partner")].available < 0 {
            return wrong("ACCOUNT_IN_DEBT");
        }
        let payout = &mut self.payouts[index];
        payout.set_state(PayoutState::Approved);
        payout.approver = caller.to_owned();
        payout.approve_time = Some(timestamp(now));
        self.advanced(index)
    }

    pub(super) fn complete(&mut self, ask: &pb::CompletePayoutRequest, now: Micros, answered: &Answer) -> Answer {
        let Some(index) = self.payout(&ask.payout_id) else { return missing("PAYOUT_NOT_FOUND") };
        let reference = canonical(&ask.external_ref);
        let payout = &self.payouts[index];
        if payout.state() == PayoutState::Completed && payout.external_ref == reference {
            return Ok(Reply::Payout(payout.clone()));
        }
        if payout.state() != PayoutState::Approved {
            return wrong("PAYOUT_WRONG_STATE");
        }
        if !self.used_for_payouts.insert(reference.clone()) {
            return refused(Code::AlreadyExists, "EXTERNAL_REF_USED");
        }
        self.payouts[index].external_ref = reference;
        self.end(index, PayoutState::Completed, now, answered)
    }

    pub(super) fn fail(&mut self, ask: &pb::FailPayoutRequest, now: Micros, answered: &Answer) -> Answer {
        let Some(index) = self.payout(&ask.payout_id) else { return missing("PAYOUT_NOT_FOUND") };
        if self.payouts[index].state() != PayoutState::Approved {
            return wrong("PAYOUT_WRONG_STATE");
        }
        self.payouts[index].reason.clone_from(&ask.reason);
        self.end(index, PayoutState::Failed, now, answered)
    }

    pub(super) fn cancel(&mut self, ask: &pb::CancelPayoutRequest, now: Micros, answered: &Answer) -> Answer {
        let Some(index) = self.payout(&ask.payout_id) else { return missing("PAYOUT_NOT_FOUND") };
        if self.payouts[index].state() != PayoutState::Requested {
            return wrong("PAYOUT_WRONG_STATE");
        }
        self.payouts[index].reason.clone_from(&ask.reason);
        self.end(index, PayoutState::Cancelled, now, answered)
    }

    fn end(&mut self, index: usize, state: PayoutState, now: Micros, answered: &Answer) -> Answer {
        let is_paid = state == PayoutState::Completed;
        self.move_items(index, -1, i64::from(is_paid));
        let payout = &mut self.payouts[index];
        payout.set_state(state);
        payout.end_time = Some(timestamp(now));
        payout.end_transaction_id = made(answered).end_transaction_id;
        let (amount, person) = (units(&payout.amount), payout.partner_id.clone());
        let person = self.person(&person).expect("a partner");
        let person = &mut self.people[person];
        person.reserved -= amount;
        if is_paid {
            person.paid += amount;
        } else {
            person.book(amount);
        }
        self.advanced(index)
    }
}

//! The rules of adjustments.

use p2phub_proto::referral::v1::{self as pb, AdjustmentState};

use super::{
    commands::{Answer, Reply},
    rules::{Micros, World, missing, timestamp, wrong},
};

pub(super) struct Adjusted {
    /// As it is shown.
    pub(super) shown: pb::Adjustment,
    pub(super) reserved: i64,
    pub(super) paid: i64,
}

impl Adjusted {
    fn amount(&self) -> i64 {
        self.shown.amount.as_ref().expect("an amount").minor_units
    }

    /// What its partner can claim; below zero, owes.
    pub(super) fn open(&self) -> i64 {
        match self.shown.state() {
            AdjustmentState::Approved => self.amount() - self.reserved - self.paid,
            _ => 0,
        }
    }
}

/// The IDs that the service made up.
fn made(answered: &Answer) -> pb::Adjustment {
    match answered {
        Ok(Reply::Adjustment(adjustment)) => adjustment.clone(),
        _ => pb::Adjustment::default(),
    }
}

impl World {
    pub(super) fn propose(
        &mut self,
        ask: &pb::ProposeAdjustmentRequest,
        caller: &str,
        now: Micros,
        answered: &Answer,
    ) -> Answer {
        let Some(person) = self.person(&ask.partner_id) else { return missing("PARTNER_NOT_FOUND") };
        let shown = pb::Adjustment {
            adjustment_id: made(answered).adjustment_id,
            partner_id: ask.partner_id.clone(),
            amount: ask.amount.clone(),
            reason: ask.reason.clone(),
            state: AdjustmentState::Proposed.into(),
            proposer: caller.to_owned(),
            create_time: Some(timestamp(now)),
            ..Default::default()
        };
        let twice = self.adjustments_by_id.insert(shown.adjustment_id.clone(), self.adjustments.len());
        assert_eq!(twice, None, "{} was given out twice", shown.adjustment_id);
        self.people[person].adjustments.push(self.adjustments.len());
        self.adjustments.push(Adjusted { shown: shown.clone(), reserved: 0, paid: 0 });
        Ok(Reply::Adjustment(shown))
    }

    /// Which one, if nobody decided it yet.
    fn proposed(&self, id: &str) -> Result<usize, Box<Answer>> {
        let index = *self.adjustments_by_id.get(id).ok_or_else(|| Box::new(missing("ADJUSTMENT_NOT_FOUND")))?;
        match self.adjustments[index].shown.state() {
            AdjustmentState::Proposed => Ok(index),
            _ => Err(Box::new(wrong("ADJUSTMENT_DECIDED"))),
        }
    }

    pub(super) fn book(
        &mut self,
        ask: &pb::ApproveAdjustmentRequest,
        caller: &str,
        now: Micros,
        answered: &Answer,
    ) -> Answer {
        let index = match self.proposed(&ask.adjustment_id) {
            Ok(index) => index,
            Err(refusal) => return *refusal,
        };
        if self.adjustments[index].shown.proposer == caller {
            return wrong("FOUR_EYES_REQUIRED");
        }
        let amount = self.adjustments[index].amount();
        let person = self.person(&self.adjustments[index].shown.partner_id).expect("a partner");
        self.people[person].book(amount);
        let shown = &mut self.adjustments[index].shown;
        shown.set_state(AdjustmentState::Approved);
        shown.decider = caller.to_owned();
        shown.decide_time = Some(timestamp(now));
        shown.transaction_id = made(answered).transaction_id;
        Ok(Reply::Adjustment(shown.clone()))
    }

    pub(super) fn decline(&mut self, ask: &pb::RejectAdjustmentRequest, caller: &str, now: Micros) -> Answer {
        let index = match self.proposed(&ask.adjustment_id) {
            Ok(index) => index,
            Err(refusal) => return *refusal,
        };
        let shown = &mut self.adjustments[index].shown;
        shown.set_state(AdjustmentState::Rejected);
        shown.decider = caller.to_owned();
        shown.decide_time = Some(timestamp(now));
        shown.reject_reason.clone_from(&ask.reason);
        Ok(Reply::Adjustment(shown.clone()))
    }
}

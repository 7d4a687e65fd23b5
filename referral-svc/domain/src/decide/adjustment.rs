//! Decisions about adjustments: one caller proposes, another one books.

use super::{Context, Result, Verdict};
use crate::{
    adjustment::{Adjustment, AdjustmentState, Decided, Stage},
    command::{Outcome, Refusal},
    id::{AdjustmentId, IdSource, PartnerId},
    money::Asset,
    posting::{Movement, Subject, Transaction},
    state::{Changes, State},
};

pub(super) fn propose(
    state: &State,
    partner_id: PartnerId,
    asset: Asset,
    amount: i64,
    reason: &str,
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Verdict {
    if !state.partners.contains_key(&partner_id) {
        return Verdict::refused(Refusal::PartnerNotFound);
    }
    let adjustment = Adjustment {
        adjustment_id: ids.make(),
        partner_id,
        asset,
        amount,
        reason: reason.to_owned(),
        proposer: context.caller.to_owned(),
        create_time: context.now,
        stage: Stage::Proposed,
        reserved: 0,
        paid: 0,
    };
    advanced(adjustment, Outcome::AdjustmentProposed, Changes::default())
}

/// The adjustment, new or decided.
fn advanced(adjustment: Adjustment, outcome: fn(Adjustment) -> Outcome, mut changes: Changes) -> Verdict {
    changes.adjustments.push(adjustment.clone());
    Verdict::done(outcome(adjustment), changes)
}

/// The adjustment, if nobody decided it yet.
fn proposed(state: &State, adjustment_id: AdjustmentId) -> Result<&Adjustment, Refusal> {
    let adjustment = state.adjustments.get(&adjustment_id).ok_or(Refusal::AdjustmentNotFound)?;
    match adjustment.state() {
        AdjustmentState::Proposed => Ok(adjustment),
        decided => Err(Refusal::AdjustmentDecided(decided)),
    }
}

fn decided(context: &Context<'_>) -> Decided {
    Decided { decider: context.caller.to_owned(), decide_time: context.now }
}

pub(super) fn approve(
    state: &State,
    adjustment_id: AdjustmentId,
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Result<Verdict> {
    let adjustment = match proposed(state, adjustment_id) {
        Ok(adjustment) if adjustment.proposer == context.caller => {
            return Ok(Verdict::refused(Refusal::FourEyesRequired));
        }
        Ok(adjustment) => adjustment,
        Err(refusal) => return Ok(Verdict::refused(refusal)),
    };
    let movement = Movement::adjustment(adjustment.partner_id, adjustment.asset, adjustment.amount)?;
    let transaction = Transaction {
        transaction_id: ids.make(),
        subject: Subject::Adjustment(adjustment_id),
        create_time: context.now,
        entries: movement.entries(&state.accounts)?,
    };
    let stage = Stage::Approved { decided: decided(context), transaction_id: transaction.transaction_id };
    let changes = Changes { transactions: vec![transaction], ..Changes::default() };
    Ok(advanced(Adjustment { stage, ..adjustment.clone() }, Outcome::AdjustmentApproved, changes))
}

pub(super) fn reject(state: &State, adjustment_id: AdjustmentId, reason: &str, context: &Context<'_>) -> Verdict {
    match proposed(state, adjustment_id) {
        Ok(adjustment) => {
            let stage = Stage::Rejected { decided: decided(context), reason: reason.to_owned() };
            advanced(Adjustment { stage, ..adjustment.clone() }, Outcome::AdjustmentRejected, Changes::default())
        }
        Err(refusal) => Verdict::refused(refusal),
    }
}

//! Decisions about payouts: money is set aside at the request, and then paid or returned once.

use super::{Context, Result, Undecided, Verdict, notice};
use crate::{
    adjustment::Adjustment,
    command::{Outcome, Refusal},
    commission::Commission,
    id::{IdSource, PartnerId, PayoutId},
    money::{Amount, Asset},
    payout::{Approval, Claim, End, OpenClaims, Payout, PayoutItem, Stage},
    posting::{AccountKey, Movement, PostingError, Purpose, Subject, Transaction},
    reference::ExternalRef,
    state::{About, Changes, State},
};

pub(super) fn request(
    state: &State,
    partner_id: PartnerId,
    asked: Option<Amount>,
    destination: &str,
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Result<Verdict> {
    if !state.partners.contains_key(&partner_id) {
        return Ok(Verdict::refused(Refusal::PartnerNotFound));
    }
    let minimum = context.plan.payout_minimum();
    let asset = minimum.asset();
    if asked.is_some_and(|asked| asked.asset() != asset) {
        return Ok(Verdict::refused(Refusal::WrongAsset(asset)));
    }
    let amount = match amount_to_pay(asked, available(state, partner_id, asset)?, minimum) {
        Ok(amount) => amount,
        Err(refusal) => return Ok(Verdict::refused(refusal)),
    };
    let open = open_claims(state, partner_id, asset)?;
    let (amount, items) = match pay(amount, asked.is_some(), minimum, &OpenClaims::new(&open))? {
        Ok(payable) => payable,
        Err(refusal) => return Ok(Verdict::refused(refusal)),
    };
    let payout_id = ids.make();
    let transaction = Transaction {
        transaction_id: ids.make(),
        subject: Subject::PayoutReserved(payout_id),
        create_time: context.now,
        entries: Movement::payout_reserved(partner_id, amount)?.entries(&state.accounts)?,
    };
    let payout = Payout {
        payout_id,
        partner_id,
        amount,
        destination: destination.to_owned(),
        requester: context.caller.to_owned(),
        create_time: context.now,
        reserve_transaction_id: transaction.transaction_id,
        stage: Stage::Requested,
        items,
    };
    let mut changes = Changes { transactions: vec![transaction], ..Changes::default() };
    move_claims(state, &payout.items, Step::Reserve, &mut changes)?;
    advanced(state, payout, Outcome::PayoutRequested, changes)
}

/// All that is available, or what is asked for if there is as much; no less than the minimum.
fn amount_to_pay(asked: Option<Amount>, available: i64, minimum: Amount) -> Result<Amount, Refusal> {
    let amount = asked.or_else(|| Amount::new(minimum.asset(), available)).unwrap_or(Amount::zero(minimum.asset()));
    if asked.is_none() && available <= 0 {
        return Err(Refusal::InsufficientBalance);
    }
    if amount.minor_units() < minimum.minor_units() {
        return Err(Refusal::PayoutBelowMinimum(minimum));
    }
    if amount.minor_units() > available { Err(Refusal::InsufficientBalance) } else { Ok(amount) }
}

/// What is paid, and with which claims: the amount, or as much of it as one payout can name unless it was asked for.
fn pay(
    amount: Amount,
    is_asked: bool,
    minimum: Amount,
    open: &OpenClaims<'_>,
) -> Result<Result<(Amount, Vec<PayoutItem>), Refusal>> {
    if let Some(items) = open.allocate(amount.minor_units()) {
        return Ok(Ok((amount, items)));
    }
    const INCOMPLETE: Undecided = Undecided::Incomplete("claims behind the available balance");
    if !open.exceed_one_payout() {
        return Err(INCOMPLETE);
    }
    let most = if is_asked { open.most() } else { open.most_beside_debts(minimum.minor_units()) };
    let most = Amount::new(amount.asset(), most).ok_or(INCOMPLETE)?;
    if is_asked {
        return Ok(Err(Refusal::PayoutTooManyItems(most)));
    }
    let items = open.allocate(most.minor_units()).ok_or(INCOMPLETE)?;
    Ok(Ok((most, items)))
}

/// A partner's available balance, in minor units; below zero: a debt.
fn available(state: &State, partner_id: PartnerId, asset: Asset) -> Result<i64> {
    let key = AccountKey { purpose: Purpose::PartnerAvailable(partner_id), asset };
    Ok(state.accounts.get(&key).ok_or(PostingError::AccountMissing(key))?.balance)
}

/// What a partner can claim, and owes, by claim: the oldest booking first.
fn open_claims(state: &State, partner_id: PartnerId, asset: Asset) -> Result<Vec<(Claim, i64)>> {
    let claims = state.claims.get(&partner_id).ok_or(Undecided::Incomplete("a partner's claims"))?;
    let mut open = Vec::with_capacity(claims.len());
    for claim in claims {
        let (booked_by, minor_units, claimed) = match claim {
            Claim::Commission(key) => {
                let commission = state.commissions.get(key).ok_or(Undecided::Incomplete("a claimed commission"))?;
                (Some(commission.transaction_id), commission.open(), commission.amount.asset())
            }
            Claim::Adjustment(id) => {
                let adjustment = state.adjustments.get(id).ok_or(Undecided::Incomplete("a claimed adjustment"))?;
                (adjustment.transaction_id(), adjustment.open(), adjustment.asset)
            }
        };
        if minor_units != 0 && claimed == asset {
            open.push((booked_by, *claim, minor_units));
        }
    }
    open.sort_unstable();
    Ok(open.into_iter().map(|(_, claim, minor_units)| (claim, minor_units)).collect())
}

/// What happens to a payout's items.
#[derive(Clone, Copy)]
enum Step {
    /// They are set aside.
    Reserve,
    /// They are paid.
    Pay,
    /// They can be claimed again.
    Return,
}

impl Step {
    /// By how much an item's claim has more reserved, and more paid.
    fn of(self, item: &PayoutItem) -> (i64, i64) {
        match self {
            Self::Reserve => (item.amount, 0),
            Self::Pay => (item.amount.saturating_neg(), item.amount),
            Self::Return => (item.amount.saturating_neg(), 0),
        }
    }
}

/// Takes the step at every claim that the items name.
fn move_claims(state: &State, items: &[PayoutItem], step: Step, changes: &mut Changes) -> Result<()> {
    for item in items {
        let (reserved, paid) = step.of(item);
        match item.claim {
            Claim::Commission(key) => {
                let commission = state.commissions.get(&key).ok_or(Undecided::Incomplete("a paid commission"))?;
                changes.changed_commissions.push(Commission {
                    reserved: commission.reserved.saturating_add(reserved),
                    paid: commission.paid.saturating_add(paid),
                    ..commission.clone()
                });
            }
            Claim::Adjustment(id) => {
                let adjustment = state.adjustments.get(&id).ok_or(Undecided::Incomplete("a paid adjustment"))?;
                changes.adjustments.push(Adjustment {
                    reserved: adjustment.reserved.saturating_add(reserved),
                    paid: adjustment.paid.saturating_add(paid),
                    ..adjustment.clone()
                });
            }
        }
    }
    Ok(())
}

/// The payout, new or moved on, and that its partner hears of it.
fn advanced(state: &State, payout: Payout, outcome: fn(Payout) -> Outcome, mut changes: Changes) -> Result<Verdict> {
    let about = About::Payout { amount: payout.amount, state: payout.state() };
    changes.notices.push(notice(state, payout.partner_id, about)?);
    changes.payout = Some(payout.clone());
    Ok(Verdict::done(outcome(payout), changes))
}

fn wrong_state(payout: &Payout, wanted: &'static str) -> Result<Verdict> {
    Ok(Verdict::refused(Refusal::PayoutWrongState { state: payout.state(), wanted }))
}

pub(super) fn approve(state: &State, payout_id: PayoutId, context: &Context<'_>) -> Result<Verdict> {
    let Some(payout) = state.payouts.get(&payout_id) else {
        return Ok(Verdict::refused(Refusal::PayoutNotFound));
    };
    if payout.stage != Stage::Requested {
        return wrong_state(payout, "only a REQUESTED one can be approved");
    }
    if payout.requester == context.caller {
        return Ok(Verdict::refused(Refusal::FourEyesRequired));
    }
    if available(state, payout.partner_id, payout.amount.asset())? < 0 {
        return Ok(Verdict::refused(Refusal::AccountInDebt));
    }
    let stage = Stage::Approved(Approval { approver: context.caller.to_owned(), approve_time: context.now });
    advanced(state, Payout { stage, ..payout.clone() }, Outcome::PayoutApproved, Changes::default())
}

pub(super) fn complete(
    state: &State,
    payout_id: PayoutId,
    external_ref: &ExternalRef,
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Result<Verdict> {
    let Some(payout) = state.payouts.get(&payout_id) else {
        return Ok(Verdict::refused(Refusal::PayoutNotFound));
    };
    if payout.external_ref() == Some(external_ref) {
        return Ok(Verdict::done(Outcome::PayoutCompleted(payout.clone()), Changes::default()));
    }
    let Stage::Approved(approval) = &payout.stage else {
        return wrong_state(payout, "only an APPROVED one can be completed");
    };
    if state.used_payout_refs.contains_key(external_ref) {
        return Ok(Verdict::refused(Refusal::PayoutRefUsed));
    }
    let (changes, end) = end(state, payout, Step::Pay, context, ids)?;
    let stage = Stage::Completed { approval: approval.clone(), external_ref: external_ref.clone(), end };
    advanced(state, Payout { stage, ..payout.clone() }, Outcome::PayoutCompleted, changes)
}

pub(super) fn fail(
    state: &State,
    payout_id: PayoutId,
    reason: &str,
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Result<Verdict> {
    let Some(payout) = state.payouts.get(&payout_id) else {
        return Ok(Verdict::refused(Refusal::PayoutNotFound));
    };
    let Stage::Approved(approval) = &payout.stage else {
        return wrong_state(payout, "only an APPROVED one can fail");
    };
    let (changes, end) = end(state, payout, Step::Return, context, ids)?;
    let stage = Stage::Failed { approval: approval.clone(), reason: reason.to_owned(), end };
    advanced(state, Payout { stage, ..payout.clone() }, Outcome::PayoutFailed, changes)
}

pub(super) fn cancel(
    state: &State,
    payout_id: PayoutId,
    reason: &str,
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Result<Verdict> {
    let Some(payout) = state.payouts.get(&payout_id) else {
        return Ok(Verdict::refused(Refusal::PayoutNotFound));
    };
    if payout.stage != Stage::Requested {
        return wrong_state(payout, "only a REQUESTED one can be cancelled");
    }
    let (changes, end) = end(state, payout, Step::Return, context, ids)?;
    let stage = Stage::Cancelled { reason: reason.to_owned(), end };
    advanced(state, Payout { stage, ..payout.clone() }, Outcome::PayoutCancelled, changes)
}

/// What was set aside is paid or returned, in the books and at the claims.
fn end(
    state: &State,
    payout: &Payout,
    step: Step,
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Result<(Changes, End)> {
    let (partner_id, amount) = (payout.partner_id, payout.amount);
    let (subject, movement) = match step {
        Step::Pay => (Subject::PayoutPaid(payout.payout_id), Movement::payout_paid(partner_id, amount)?),
        _ => (Subject::PayoutReturned(payout.payout_id), Movement::payout_returned(partner_id, amount)?),
    };
    let transaction = Transaction {
        transaction_id: ids.make(),
        subject,
        create_time: context.now,
        entries: movement.entries(&state.accounts)?,
    };
    let end = End { end_time: context.now, transaction_id: transaction.transaction_id };
    let mut changes = Changes { transactions: vec![transaction], ..Changes::default() };
    move_claims(state, &payout.items, step, &mut changes)?;
    Ok((changes, end))
}

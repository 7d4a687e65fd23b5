//! Refunds: money back to the buyer, the same proportion back from every ancestor, and PRO's period.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Context, Result, Undecided, Verdict, notice};
use crate::{
    command::{Outcome, Refusal},
    commission::Commission,
    id::{IdSource, PaymentId},
    money::Amount,
    payment::{Payment, PaymentState, Progress, Success},
    posting::{Movement, Subject, Transaction},
    refund::{Clawback, Refund},
    state::{About, Changes, State},
};

pub(super) fn refund(
    state: &State,
    payment_id: PaymentId,
    asked: Option<Amount>,
    reason: &str,
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Result<Verdict> {
    let Some(payment) = state.payments.get(&payment_id) else {
        return Ok(Verdict::refused(Refusal::PaymentNotFound));
    };
    let asset = payment.amount.asset();
    if asked.is_some_and(|asked| asked.asset() != asset) {
        return Ok(Verdict::refused(Refusal::WrongAsset(asset)));
    }
    let Some(success) = payment.success() else {
        let wanted = "only one that succeeded can be refunded";
        return Ok(Verdict::refused(Refusal::PaymentWrongState { state: payment.state_at(context.now), wanted }));
    };
    let left = amount(payment, payment.amount.minor_units().saturating_sub(success.refunded))?;
    let amount = asked.unwrap_or(left);
    if payment.state_at(context.now) == PaymentState::Refunded || amount.minor_units() > left.minor_units() {
        return Ok(Verdict::refused(Refusal::RefundExceedsPayment(left)));
    }
    let refunded = success.refunded.saturating_add(amount.minor_units());
    let mut changes = Changes::default();
    let clawbacks = take_back(state, payment, refunded, &mut changes)?;
    let taken: Vec<_> = changes
        .changed_commissions
        .iter()
        .zip(&clawbacks)
        .map(|(commission, clawback)| (commission.earner_id, commission.is_held(), clawback.amount.minor_units()))
        .collect();
    let transaction = Transaction {
        transaction_id: ids.make(),
        subject: Subject::Refund(payment_id),
        create_time: context.now,
        entries: Movement::refund(amount, &taken)?.entries(&state.accounts)?,
    };
    let refund = Refund {
        refund_id: ids.make(),
        payment_id,
        amount,
        reason: reason.to_owned(),
        transaction_id: transaction.transaction_id,
        create_time: context.now,
        clawbacks,
    };
    let payment = with_success(payment, Success { refunded, ..success.clone() });
    if amount == left {
        end_period(state, &payment, context.now, &mut changes)?;
    } else {
        changes.payments.push(payment);
    }
    changes.transactions.push(transaction);
    changes.refund = Some(refund.clone());
    let payment = changes.payments.iter().find(|changed| changed.payment_id == payment_id).cloned();
    let payment = payment.ok_or(Undecided::Incomplete("the refunded payment"))?;
    Ok(Verdict::done(Outcome::Refunded { payment, refund }, changes))
}

fn amount(payment: &Payment, minor_units: i64) -> Result<Amount> {
    Amount::new(payment.amount.asset(), minor_units).ok_or(Undecided::Incomplete("an amount to refund"))
}

/// What each commission loses now that so much was refunded in all; whoever loses something is told.
fn take_back(state: &State, payment: &Payment, refunded: i64, changes: &mut Changes) -> Result<Vec<Clawback>> {
    let mut clawbacks = Vec::new();
    for commission in state.commissions_of(payment.payment_id) {
        let reversed = commission.reversed_by(refunded);
        let taken = amount(payment, reversed.saturating_sub(commission.reversed))?;
        if taken.minor_units() == 0 {
            continue;
        }
        clawbacks.push(Clawback { level: commission.level, earner_id: commission.earner_id, amount: taken });
        changes.changed_commissions.push(Commission { reversed, ..commission.clone() });
        changes.notices.push(notice(state, commission.earner_id, About::CommissionReversed { amount: taken })?);
    }
    Ok(clawbacks)
}

/// What is left of the period that the payment bought ends now; later periods move up by as much, and so does PRO's end.
fn end_period(state: &State, payment: &Payment, now: DateTime<Utc>, changes: &mut Changes) -> Result<()> {
    let success = payment.success().ok_or(Undecided::Incomplete("a success"))?;
    let end = success.pro_end.min(now.max(success.pro_start));
    let cut = success.pro_end.signed_duration_since(end);
    changes.payments.push(with_success(payment, Success { pro_end: end, ..success.clone() }));
    if cut == TimeDelta::zero() {
        return Ok(());
    }
    let earlier = |time: DateTime<Utc>| time.checked_sub_signed(cut).unwrap_or(time);
    let periods = state.periods.get(&payment.partner_id).ok_or(Undecided::Incomplete("a buyer's periods"))?;
    let mut pro_end = end;
    for id in periods.iter().filter(|id| **id != payment.payment_id) {
        let later = state.payments.get(id).ok_or(Undecided::Incomplete("a payment with a period"))?;
        let bought = later.success().ok_or(Undecided::Incomplete("a success"))?;
        let mut moved = bought.clone();
        if bought.pro_start >= success.pro_end {
            (moved.pro_start, moved.pro_end) = (earlier(bought.pro_start), earlier(bought.pro_end));
            changes.payments.push(with_success(later, moved.clone()));
        }
        pro_end = pro_end.max(moved.pro_end);
    }
    changes.pro = Some((payment.partner_id, pro_end));
    Ok(())
}

fn with_success(payment: &Payment, success: Success) -> Payment {
    let progress = Progress::Succeeded { submitted: payment.submitted().cloned(), success };
    Payment { progress, ..payment.clone() }
}

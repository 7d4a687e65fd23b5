//! Decisions about payments: opening, review, and the sale.

use chrono::{DateTime, Utc};

use super::{Context, Result, Undecided, Verdict, later, notice};
use crate::{
    command::{Outcome, Refusal},
    commission::{self, Commission, Hold, Share},
    id::{IdSource, PartnerId, PaymentId},
    payment::{LateReference, Method, Payment, PaymentState, Progress, Success},
    posting::{Movement, Subject, Transaction},
    reference::ExternalRef,
    state::{About, Changes, State},
    ton::{TonPayment, Verification},
};

pub(super) fn create(
    state: &State,
    partner_id: PartnerId,
    method: Method,
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Verdict {
    if !state.partners.contains_key(&partner_id) {
        return Verdict::refused(Refusal::PartnerNotFound);
    }
    if !context.methods.contains(&method) {
        return Verdict::refused(Refusal::PaymentMethodClosed(method));
    }
    let payment_id = ids.make();
    let amount = context.plan.pro_price();
    let ton = match method {
        Method::Ton => {
            let Some(terms) = context.ton.and_then(|offer| offer.terms(payment_id, amount, context.now)) else {
                return Verdict::refused(Refusal::RateUnavailable);
            };
            Some(TonPayment { terms, verification: Verification::default(), incoming_ref: None })
        }
        Method::Trusted | Method::Manual => None,
    };
    let payment = Payment {
        payment_id,
        partner_id,
        amount,
        method,
        plan_version: context.plan.version(),
        create_time: context.now,
        expire_time: later(context.now, context.plan.payment_window()),
        progress: Progress::Pending,
        late_references: Vec::new(),
        ton,
    };
    advanced(payment, Outcome::Opened)
}

/// The payment, new or advanced, as the only change.
fn advanced(payment: Payment, outcome: fn(Payment) -> Outcome) -> Verdict {
    let changes = Changes { payments: vec![payment.clone()], ..Changes::default() };
    Verdict::done(outcome(payment), changes)
}

pub(super) fn submit(
    state: &State,
    payment_id: PaymentId,
    external_ref: &ExternalRef,
    context: &Context<'_>,
) -> Verdict {
    let Some(payment) = state.payments.get(&payment_id) else {
        return Verdict::refused(Refusal::PaymentNotFound);
    };
    match payment.state_at(context.now) {
        PaymentState::Pending if used_by_another(state, payment_id, external_ref) => {
            Verdict::refused(Refusal::ExternalRefUsed)
        }
        PaymentState::Pending => {
            let progress = Progress::InReview { submitted: external_ref.clone() };
            let traceparent = context.traceparent.to_owned();
            let due = Verification { next_attempt_time: Some(context.now), traceparent, ..Verification::default() };
            let ton = payment.ton.clone().map(|ton| TonPayment { verification: due, ..ton });
            advanced(Payment { progress, ton, ..payment.clone() }, Outcome::Submitted)
        }
        state @ (PaymentState::Expired | PaymentState::Rejected) => too_late(payment, state, external_ref, context),
        state => Verdict::refused(Refusal::PaymentWrongState { state, wanted: "only a PENDING one can be submitted" }),
    }
}

pub(super) fn used_by_another(state: &State, payment_id: PaymentId, external_ref: &ExternalRef) -> bool {
    state.used_refs.get(external_ref).is_some_and(|user| *user != payment_id)
}

/// Refused, but on record: somewhere there may be money.
fn too_late(payment: &Payment, state: PaymentState, external_ref: &ExternalRef, context: &Context<'_>) -> Verdict {
    let late_reference = late_reference(payment, external_ref, None, context.now);
    Verdict { outcome: Err(Refusal::PaymentExpired(state)), changes: Changes { late_reference, ..Changes::default() } }
}

/// The record of a reference that was not accepted; none if there is one that says as much.
pub(super) fn late_reference(
    payment: &Payment,
    external_ref: &ExternalRef,
    incoming_ref: Option<&ExternalRef>,
    now: DateTime<Utc>,
) -> Option<LateReference> {
    let says_as_much = |late: &LateReference| late.incoming_ref.is_some() || incoming_ref.is_none();
    let known = payment.late_references.iter().any(|late| late.external_ref == *external_ref && says_as_much(late));
    (!known).then(|| LateReference {
        payment_id: payment.payment_id,
        external_ref: external_ref.clone(),
        incoming_ref: incoming_ref.cloned(),
        create_time: now,
    })
}

pub(super) fn confirm(
    state: &State,
    payment_id: PaymentId,
    external_ref: Option<&ExternalRef>,
    override_reason: Option<&str>,
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Result<Verdict> {
    let Some(payment) = state.payments.get(&payment_id) else {
        return Ok(Verdict::refused(Refusal::PaymentNotFound));
    };
    let Some(external_ref) = external_ref.or_else(|| payment.external_ref()).or_else(|| {
        payment.late_references.first().map(|late| &late.external_ref).filter(|_| override_reason.is_some())
    }) else {
        return Ok(Verdict::refused(Refusal::ExternalRefRequired));
    };
    if payment.success().is_some() {
        if !payment.used_refs().any(|used| used == external_ref) {
            return Ok(Verdict::refused(Refusal::PaymentAlreadyConfirmed));
        }
        let commissions = state.commissions_of(payment_id).cloned().collect();
        let outcome = Outcome::Confirmed { payment: payment.clone(), commissions, already: true };
        return Ok(Verdict::done(outcome, Changes::default()));
    }
    // Whichever of a transfer's two hashes an operator names, it is what was handed in, and the other one.
    let late = payment.late_references.iter().find(|late| late.references().any(|known| known == external_ref));
    let external_ref = late.map_or(external_ref, |late| &late.external_ref);
    let incoming = late.and_then(|late| late.incoming_ref.as_ref());
    if [Some(external_ref), incoming].into_iter().flatten().any(|used| used_by_another(state, payment_id, used)) {
        return Ok(Verdict::refused(Refusal::ExternalRefUsed));
    }
    match payment.state_at(context.now) {
        _ if override_reason.is_some() => {}
        standing @ (PaymentState::Expired | PaymentState::Rejected) => {
            return Ok(too_late(payment, standing, external_ref, context));
        }
        _ if payment.method == Method::Ton => return Ok(Verdict::refused(Refusal::PaymentNotVerified)),
        PaymentState::Pending if payment.method == Method::Manual => {
            return Ok(Verdict::refused(Refusal::PaymentNotSubmitted));
        }
        _ => {}
    }
    let payment =
        Payment { ton: payment.ton.as_ref().map(|ton| past_the_chain(ton, incoming, context)), ..payment.clone() };
    sell(state, &payment, external_ref, override_reason, context, ids)
}

/// An operator knows better than the chain, or before it: it still has to tell by which transaction the money came.
fn past_the_chain(ton: &TonPayment, incoming: Option<&ExternalRef>, context: &Context<'_>) -> TonPayment {
    let verification = Verification {
        next_attempt_time: if incoming.is_none() { Some(context.now) } else { None },
        traceparent: context.traceparent.to_owned(),
        ..Verification::default()
    };
    TonPayment { incoming_ref: incoming.cloned(), verification, ..ton.clone() }
}

/// The sale: PRO, commissions, the books, and who hears of it.
pub(super) fn sell(
    state: &State,
    payment: &Payment,
    external_ref: &ExternalRef,
    override_reason: Option<&str>,
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Result<Verdict> {
    let buyer = state.partners.get(&payment.partner_id).ok_or(Undecided::Incomplete("a buyer"))?;
    let standing = state.standings.get(&payment.partner_id).ok_or(Undecided::Incomplete("a buyer's standing"))?;
    let shares = commission::shares(context.plan, payment.amount, &buyer.lineage);
    let hold = context.plan.holding_period().map(|period| Hold {
        release_time: later(context.now, period),
        is_held: true,
        transaction_id: None,
    });
    let transaction = Transaction {
        transaction_id: ids.make(),
        subject: Subject::Sale(payment.payment_id),
        create_time: context.now,
        entries: Movement::sale(payment.amount, &shares, hold.is_some())?.entries(&state.accounts)?,
    };
    let pro_start = standing.pro_expires_at.filter(|_| standing.is_pro(context.now)).unwrap_or(context.now);
    let pro_end = later(pro_start, context.plan.pro_duration());
    let commissions: Vec<Commission> = shares
        .iter()
        .map(|share| Commission {
            payment_id: payment.payment_id,
            earner_id: share.earner_id,
            level: share.level,
            rate_bps: share.rate_bps,
            plan_version: context.plan.version(),
            base: payment.amount,
            amount: share.amount,
            transaction_id: transaction.transaction_id,
            create_time: context.now,
            hold,
            reversed: 0,
            reserved: 0,
            paid: 0,
        })
        .collect();
    let name = buyer.profile.display_name();
    let mut notices = vec![notice(state, payment.partner_id, About::ProWelcome { expires: pro_end })?];
    for share in &shares {
        let Share { amount, level, rate_bps, .. } = *share;
        let about = About::Commission { amount, level, rate_bps, name: name.to_owned() };
        notices.push(notice(state, share.earner_id, about)?);
    }
    let success = Success {
        external_ref: external_ref.clone(),
        confirm_time: context.now,
        pro_start,
        pro_end,
        transaction_id: transaction.transaction_id,
        override_reason: override_reason.map(str::to_owned),
        refunded: 0,
    };
    let progress = Progress::Succeeded { submitted: payment.submitted().cloned(), success };
    let payment = Payment { progress, ..payment.clone() };
    let changes = Changes {
        pro: Some((payment.partner_id, pro_end)),
        payments: vec![payment.clone()],
        transactions: vec![transaction],
        commissions: commissions.clone(),
        notices,
        ..Changes::default()
    };
    Ok(Verdict::done(Outcome::Confirmed { payment, commissions, already: false }, changes))
}

pub(super) fn reject(state: &State, payment_id: PaymentId, reason: &str, context: &Context<'_>) -> Result<Verdict> {
    let Some(payment) = state.payments.get(&payment_id) else {
        return Ok(Verdict::refused(Refusal::PaymentNotFound));
    };
    let standing = payment.state_at(context.now);
    if !matches!(standing, PaymentState::Pending | PaymentState::InReview) {
        let wanted = "only a PENDING or IN_REVIEW one can be rejected";
        return Ok(Verdict::refused(Refusal::PaymentWrongState { state: standing, wanted }));
    }
    let progress = Progress::Rejected { submitted: payment.submitted().cloned(), reason: reason.to_owned() };
    let about = About::PaymentRejected { amount: payment.amount, reason: reason.to_owned() };
    let payment = Payment { progress, ton: no_longer_asked(payment), ..payment.clone() };
    let changes = Changes {
        notices: vec![notice(state, payment.partner_id, about)?],
        payments: vec![payment.clone()],
        ..Changes::default()
    };
    Ok(Verdict::done(Outcome::Rejected(payment), changes))
}

/// A payment that is decided needs no verification any more.
fn no_longer_asked(payment: &Payment) -> Option<TonPayment> {
    payment.ton.clone().map(|mut ton| {
        ton.verification.next_attempt_time = None;
        ton
    })
}

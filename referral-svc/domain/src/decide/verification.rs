//! What a verifier found about a submitted payment: confirmed, back to PENDING, or asked again later.

use super::{Context, Result, Undecided, Verdict, payment};
use crate::{
    command::Outcome,
    id::{IdSource, PaymentId},
    payment::{Payment, Progress},
    reference::ExternalRef,
    state::{Changes, State},
    ton::{Finding, TonPayment, Verification},
};

/// Takes a finding in, unless somebody decided the payment meanwhile, or another reference was handed in. Of a payment that an
/// operator confirmed, only by which transaction the money came.
pub(super) fn settle(
    state: &State,
    payment_id: PaymentId,
    external_ref: &ExternalRef,
    finding: &Finding,
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Result<Verdict> {
    let looked_at = state.payments.get(&payment_id).ok_or(Undecided::Incomplete("a payment that was verified"))?;
    let Some(ton) = &looked_at.ton else { return Err(Undecided::Incomplete("a payment's terms")) };
    if looked_at.to_verify() != Some(external_ref) {
        return Ok(Verdict::done(Outcome::VerificationSettled, Changes::default()));
    }
    let (is_confirmed, incoming) = (looked_at.success().is_some(), finding.incoming());
    // Whether the payment has, or would have, what came.
    let is_its = is_confirmed || matches!(finding, Finding::Paid(_));
    let is_used = |used: &ExternalRef| payment::used_by_another(state, payment_id, used);
    let is_used = is_its && (is_used(external_ref) || incoming.is_some_and(is_used));
    let verification = Verification {
        attempts: ton.verification.attempts.saturating_add(1),
        // An outage uses up nobody's patience.
        first_answer_time: match finding.is_outage() {
            true => None,
            false => ton.verification.first_answer_time.or(Some(context.now)),
        },
        next_attempt_time: match finding {
            Finding::Later(_, time) => Some(*time),
            Finding::Paid(_) | Finding::NotPaid(..) => None,
        },
        finding: if is_used { "REFERENCE_USED" } else { finding.word() }.to_owned(),
        traceparent: ton.verification.traceparent.clone(),
    };
    let incoming_ref = incoming.filter(|_| is_its && !is_used).cloned();
    let asked = Payment { ton: Some(TonPayment { incoming_ref, verification, ..ton.clone() }), ..looked_at.clone() };
    let changed = match finding {
        _ if is_confirmed || matches!(finding, Finding::Later(..)) => asked,
        Finding::Paid(_) if !is_used => {
            let sold = payment::sell(state, &asked, external_ref, None, context, ids)?;
            return Ok(Verdict { outcome: sold.outcome.map(|_| Outcome::VerificationSettled), ..sold });
        }
        _ => Payment { progress: Progress::Pending, ..asked },
    };
    // Back means: on record, for somewhere there may be money.
    let late_reference = match changed.progress {
        Progress::Pending => payment::late_reference(looked_at, external_ref, incoming, context.now),
        _ => None,
    };
    let changes = Changes { payments: vec![changed], late_reference, ..Changes::default() };
    Ok(Verdict::done(Outcome::VerificationSettled, changes))
}

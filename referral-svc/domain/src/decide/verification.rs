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

/// Takes a finding in, unless somebody decided the payment meanwhile, or another reference was handed in.
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
    if !matches!(&looked_at.progress, Progress::InReview { submitted } if submitted == external_ref) {
        return Ok(Verdict::done(Outcome::VerificationSettled, Changes::default()));
    }
    let verification = Verification {
        attempts: ton.verification.attempts.saturating_add(1),
        // An outage uses up nobody's patience.
        first_answer_time: match finding.is_outage() {
            true => None,
            false => ton.verification.first_answer_time.or(Some(context.now)),
        },
        next_attempt_time: None,
        finding: finding.word().to_owned(),
        traceparent: ton.verification.traceparent.clone(),
    };
    let asked = |verification| Payment { ton: Some(TonPayment { verification, ..ton.clone() }), ..looked_at.clone() };
    let changed = match finding {
        Finding::Paid(incoming)
            if [external_ref, incoming].iter().any(|used| payment::used_by_another(state, payment_id, used)) =>
        {
            let finding = "REFERENCE_USED".to_owned();
            Payment { progress: Progress::Pending, ..asked(Verification { finding, ..verification }) }
        }
        Finding::Paid(incoming) => {
            let mut paid = asked(verification);
            paid.ton = paid.ton.map(|ton| TonPayment { incoming_ref: Some(incoming.clone()), ..ton });
            let sold = payment::sell(state, &paid, external_ref, None, context, ids)?;
            return Ok(Verdict { outcome: sold.outcome.map(|_| Outcome::VerificationSettled), ..sold });
        }
        Finding::NotPaid(_) => Payment { progress: Progress::Pending, ..asked(verification) },
        Finding::Later(_, time) => asked(Verification { next_attempt_time: Some(*time), ..verification }),
    };
    // Back means: on record, for somewhere there may be money.
    let is_back = matches!(changed.progress, Progress::Pending);
    let late_reference = if is_back { payment::late_reference(looked_at, external_ref, context.now) } else { None };
    let changes = Changes { payments: vec![changed], late_reference, ..Changes::default() };
    Ok(Verdict::done(Outcome::VerificationSettled, changes))
}

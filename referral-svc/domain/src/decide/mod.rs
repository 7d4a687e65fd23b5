//! Decides one command on the state that the commands before it left.

mod adjustment;
mod broadcast;
mod notices;
mod partner;
mod payment;
mod payout;
mod refund;
mod release;
#[cfg(test)]
mod tests;
mod verification;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    command::{Command, Outcome, Refusal},
    id::{IdSource, PartnerId},
    payment::Method,
    plan::Plan,
    posting::PostingError,
    state::{About, Changes, Decision, Notice, State},
    ton::{Finding, TonOffer},
};

/// What holds for a whole batch.
pub struct Context<'a> {
    /// The batch's one time: the database's.
    pub now: DateTime<Utc>,
    /// The plan in force.
    pub plan: &'a Plan,
    /// The methods that are open for payments.
    pub methods: &'a [Method],
    /// Who asks.
    pub caller: &'a str,
    /// In which trace: W3C `traceparent`.
    pub traceparent: &'a str,
    /// What a payment in TON is made of, if the method is open.
    pub ton: Option<&'a TonOffer>,
}

/// Why a command could not be decided at all: a defect, never the caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum Undecided {
    /// The books can't take it.
    #[error(transparent)]
    Posting(#[from] PostingError),
    /// The state lacks something that its other rows promise.
    #[error("the state lacks {0}")]
    Incomplete(&'static str),
    /// Every candidate is taken.
    #[error("no referral code is free")]
    NoCodeFree,
}

/// What a command comes to, before it is put on record.
struct Verdict {
    outcome: Result<Outcome, Refusal>,
    changes: Changes,
}

impl Verdict {
    fn done(outcome: Outcome, changes: Changes) -> Self {
        Self { outcome: Ok(outcome), changes }
    }

    fn refused(refusal: Refusal) -> Self {
        Self { outcome: Err(refusal), changes: Changes::default() }
    }
}

/// A notice to a partner whom the state must have.
fn notice(state: &State, recipient_id: PartnerId, about: About) -> Result<Notice> {
    state.notice(recipient_id, about).ok_or(Undecided::Incomplete("a recipient"))
}

/// The time so much later, or the end of time.
fn later(time: DateTime<Utc>, by: TimeDelta) -> DateTime<Utc> {
    time.checked_add_signed(by).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// What a job's command is about: how many, and which.
fn listed(what: &str, items: impl ExactSizeIterator<Item = impl ToString>) -> String {
    let count = items.len();
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    format!("{count} {what}: {}", items.join(", "))
}

type Result<T, E = Undecided> = std::result::Result<T, E>;

/// Decides. The state is only read: applying the changes is the caller's next step.
pub fn decide(state: &State, command: &Command, context: &Context<'_>, ids: &mut IdSource) -> Result<Decision> {
    let (verdict, subject_id, detail) = match command {
        Command::RegisterPartner(registration) => {
            let verdict = partner::register(state, registration, context, ids)?;
            let subject = match &verdict.outcome {
                Ok(Outcome::Registered { view, .. }) => view.partner.partner_id.to_string(),
                _ => String::new(),
            };
            (verdict, subject, String::new())
        }
        Command::AttachReferrer { partner_id, code } => {
            (partner::attach(state, *partner_id, code, context)?, partner_id.to_string(), code.as_str().to_owned())
        }
        Command::UpdatePartner { partner_id, change } => {
            (partner::update(state, *partner_id, change), partner_id.to_string(), String::new())
        }
        Command::CountProMembers { partner_ids } => (
            partner::count_pro(state, partner_ids, context.now)?,
            String::new(),
            listed("partners", partner_ids.iter()),
        ),
        Command::CreatePayment { partner_id, method } => {
            let verdict = payment::create(state, *partner_id, *method, context, ids);
            let subject = match &verdict.outcome {
                Ok(Outcome::Opened(payment)) => payment.payment_id.to_string(),
                _ => partner_id.to_string(),
            };
            (verdict, subject, method.name().to_owned())
        }
        Command::SubmitPayment { payment_id, external_ref } => (
            payment::submit(state, *payment_id, external_ref, context),
            payment_id.to_string(),
            external_ref.as_str().to_owned(),
        ),
        Command::ConfirmPayment { payment_id, external_ref, override_reason } => (
            payment::confirm(state, *payment_id, external_ref.as_ref(), override_reason.as_deref(), context, ids)?,
            payment_id.to_string(),
            external_ref
                .iter()
                .map(|reference| reference.as_str())
                .chain(override_reason.as_deref())
                .collect::<Vec<_>>()
                .join(": "),
        ),
        Command::RejectPayment { payment_id, reason } => {
            (payment::reject(state, *payment_id, reason, context)?, payment_id.to_string(), reason.clone())
        }
        Command::RefundPayment { payment_id, amount, reason } => {
            let verdict = refund::refund(state, *payment_id, *amount, reason, context, ids)?;
            let detail = match &verdict.outcome {
                Ok(Outcome::Refunded { refund, .. }) => format!("{}: {reason}", refund.amount),
                _ => reason.clone(),
            };
            (verdict, payment_id.to_string(), detail)
        }
        Command::SettleVerification { payment_id, external_ref, finding } => (
            verification::settle(state, *payment_id, external_ref, finding, context, ids)?,
            payment_id.to_string(),
            match finding {
                Finding::Paid(incoming) if incoming != external_ref => {
                    format!("{}: {}, received by {}", finding.word(), external_ref.as_str(), incoming.as_str())
                }
                _ => format!("{}: {}", finding.word(), external_ref.as_str()),
            },
        ),
        Command::ReleaseCommissions { commissions } => (
            release::release(state, commissions, context, ids)?,
            String::new(),
            listed("commissions", commissions.iter().map(|(payment_id, level)| format!("{payment_id}.{level}"))),
        ),
        Command::RequestPayout { partner_id, amount, destination } => {
            let verdict = payout::request(state, *partner_id, *amount, destination, context, ids)?;
            let (subject, detail) = match &verdict.outcome {
                Ok(Outcome::PayoutRequested(payout)) => {
                    (payout.payout_id.to_string(), format!("{} to {destination:?}", payout.amount))
                }
                _ => (partner_id.to_string(), destination.clone()),
            };
            (verdict, subject, detail)
        }
        Command::ApprovePayout { payout_id } => {
            (payout::approve(state, *payout_id, context)?, payout_id.to_string(), String::new())
        }
        Command::CompletePayout { payout_id, external_ref } => (
            payout::complete(state, *payout_id, external_ref, context, ids)?,
            payout_id.to_string(),
            external_ref.as_str().to_owned(),
        ),
        Command::FailPayout { payout_id, reason } => {
            (payout::fail(state, *payout_id, reason, context, ids)?, payout_id.to_string(), reason.clone())
        }
        Command::CancelPayout { payout_id, reason } => {
            (payout::cancel(state, *payout_id, reason, context, ids)?, payout_id.to_string(), reason.clone())
        }
        Command::ProposeAdjustment { partner_id, asset, amount, reason } => {
            let verdict = adjustment::propose(state, *partner_id, *asset, *amount, reason, context, ids);
            let subject = match &verdict.outcome {
                Ok(Outcome::AdjustmentProposed(adjustment)) => adjustment.adjustment_id.to_string(),
                _ => partner_id.to_string(),
            };
            let detail = format!("{amount} minor units of {}: {reason}", asset.ticker());
            (verdict, subject, detail)
        }
        Command::ApproveAdjustment { adjustment_id } => {
            (adjustment::approve(state, *adjustment_id, context, ids)?, adjustment_id.to_string(), String::new())
        }
        Command::RejectAdjustment { adjustment_id, reason } => {
            (adjustment::reject(state, *adjustment_id, reason, context), adjustment_id.to_string(), reason.clone())
        }
        Command::SendProNotices { partner_ids } => {
            (notices::send(state, partner_ids, context)?, String::new(), listed("partners", partner_ids.iter()))
        }
        Command::CreateBroadcast(asked) => {
            let verdict = broadcast::create(state, asked, context, ids);
            let subject = match &verdict.outcome {
                Ok(Outcome::BroadcastBegun(broadcast)) => broadcast.broadcast_id.to_string(),
                _ => String::new(),
            };
            (verdict, subject, format!("{} matched", asked.matched))
        }
        Command::CancelBroadcast { broadcast_id, reason } => {
            (broadcast::cancel(state, *broadcast_id, reason, context), broadcast_id.to_string(), reason.clone())
        }
    };
    Ok(Decision { outcome: verdict.outcome, changes: verdict.changes, subject_id, detail })
}

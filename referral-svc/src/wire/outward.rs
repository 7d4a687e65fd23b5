//! Domain types to messages.

use chrono::{DateTime, Utc};
use p2phub_proto::referral::v1 as pb;
use prost::Message;
use prost_types::Timestamp;
use referral_domain::{
    adjustment::{self, Adjustment, AdjustmentState},
    broadcast::{Broadcast, BroadcastState, Ending, Filter, NewBroadcast, Stage},
    command::{Attribution, Outcome, PartnerView},
    commission::{Commission, CommissionKey, CommissionState},
    money::{Amount, Asset},
    partner::{Contact, XpAward},
    payment::{Payment, PaymentState, Progress, Success},
    payout::{Claim, Payout, PayoutState},
    posting::Subject,
    reference::ExternalRef,
    refund::Refund,
    ton::{TonPayment, TonTerms, Verification},
    xp,
};
use service::telemetry;

pub(crate) fn timestamp(time: DateTime<Utc>) -> Option<Timestamp> {
    let nanos = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0);
    Some(Timestamp { seconds: time.timestamp(), nanos })
}

pub(crate) fn amount(amount: Amount) -> Option<pb::Amount> {
    Some(pb::Amount { asset: amount.asset().ticker().to_owned(), minor_units: amount.minor_units() })
}

/// What may be below zero: a balance, an entry, a debt.
pub(crate) fn signed(asset: Asset, minor_units: i64) -> pb::Amount {
    pb::Amount { asset: asset.ticker().to_owned(), minor_units }
}

/// A transaction's kind, and the IDs of payment, payout and adjustment.
pub(crate) fn subject(subject: Subject) -> (pb::TransactionKind, String, String, String) {
    use pb::TransactionKind as Kind;
    let none = String::new;
    match subject {
        Subject::Sale(payment_id) => (Kind::ProSale, payment_id.to_string(), none(), none()),
        Subject::Release => (Kind::Release, none(), none(), none()),
        Subject::Refund(payment_id) => (Kind::Refund, payment_id.to_string(), none(), none()),
        Subject::PayoutReserved(payout_id) => (Kind::PayoutReserved, none(), payout_id.to_string(), none()),
        Subject::PayoutPaid(payout_id) => (Kind::PayoutPaid, none(), payout_id.to_string(), none()),
        Subject::PayoutReturned(payout_id) => (Kind::PayoutReturned, none(), payout_id.to_string(), none()),
        Subject::Adjustment(adjustment_id) => (Kind::Adjustment, none(), none(), adjustment_id.to_string()),
    }
}

fn contact(contact: &Contact) -> pb::Contact {
    pb::Contact { channel: contact.channel.clone(), address: contact.address.clone() }
}

pub(crate) fn partner(view: &PartnerView, now: DateTime<Utc>) -> pb::Partner {
    let PartnerView { partner, standing } = view;
    pb::Partner {
        partner_id: partner.partner_id.to_string(),
        external_id: partner.external_id.clone(),
        referral_code: partner.referral_code.as_str().to_owned(),
        referrer_id: partner.referrer_id.map(|id| id.to_string()).unwrap_or_default(),
        depth: partner.depth,
        xp: standing.xp,
        level: xp::level_of(standing.xp),
        pro_active: standing.is_pro(now),
        pro_expires_at: standing.pro_expires_at.and_then(timestamp),
        direct_referrals: standing.members[0],
        network_size: standing.members.iter().sum(),
        locale: partner.profile.locale.clone(),
        create_time: timestamp(partner.create_time),
        username: partner.profile.username.clone(),
        first_name: partner.profile.first_name.clone(),
        last_name: partner.profile.last_name.clone(),
        contacts: partner.profile.contacts.iter().map(contact).collect(),
    }
}

pub(crate) fn xp_award(award: &XpAward) -> pb::XpAward {
    pb::XpAward {
        source_partner_id: award.source_partner_id.to_string(),
        level: i32::from(award.level),
        multiplier: i32::from(award.multiplier),
        xp: award.xp,
        create_time: timestamp(award.create_time),
    }
}

fn state(state: PaymentState) -> pb::PaymentState {
    match state {
        PaymentState::Pending => pb::PaymentState::Pending,
        PaymentState::InReview => pb::PaymentState::InReview,
        PaymentState::Succeeded => pb::PaymentState::Succeeded,
        PaymentState::Rejected => pb::PaymentState::Rejected,
        PaymentState::Expired => pb::PaymentState::Expired,
        PaymentState::PartiallyRefunded => pb::PaymentState::PartiallyRefunded,
        PaymentState::Refunded => pb::PaymentState::Refunded,
    }
}

pub(crate) fn payment(payment: &Payment, now: DateTime<Utc>) -> pb::Payment {
    let success = payment.success();
    let time = |of: fn(&Success) -> DateTime<Utc>| success.map(of).and_then(timestamp);
    pb::Payment {
        payment_id: payment.payment_id.to_string(),
        partner_id: payment.partner_id.to_string(),
        product: pb::Product::ProMonthly.into(),
        amount: amount(payment.amount),
        state: state(payment.state_at(now)).into(),
        external_ref: reference(payment.external_ref()),
        expire_time: timestamp(payment.expire_time),
        method: payment.method.name().to_owned(),
        create_time: timestamp(payment.create_time),
        confirm_time: time(|success| success.confirm_time),
        plan_version: payment.plan_version,
        pro_start_time: time(|success| success.pro_start),
        pro_end_time: time(|success| success.pro_end),
        reject_reason: match &payment.progress {
            Progress::Rejected { reason, .. } => reason.clone(),
            _ => String::new(),
        },
        override_reason: success.and_then(|success| success.override_reason.clone()).unwrap_or_default(),
        transaction_id: success.map(|success| success.transaction_id.to_string()).unwrap_or_default(),
        late_references: payment
            .late_references
            .iter()
            .map(|late| pb::LateReference {
                incoming_ref: reference(late.incoming_ref.as_ref()),
                external_ref: late.external_ref.as_str().to_owned(),
                create_time: timestamp(late.create_time),
            })
            .collect(),
        refunded_amount: Some(signed(payment.amount.asset(), success.map_or(0, |success| success.refunded))),
        ton: payment.ton.as_ref().map(|ton| ton_terms(&ton.terms)),
        verification: payment.ton.as_ref().and_then(verification),
    }
}

/// Empty: there is none.
fn reference(reference: Option<&ExternalRef>) -> String {
    reference.map(|reference| reference.as_str().to_owned()).unwrap_or_default()
}

fn ton_terms(terms: &TonTerms) -> pb::TonTerms {
    pb::TonTerms {
        address: terms.address.clone(),
        nanotons: terms.nanotons,
        memo: terms.memo.clone(),
        tolerance_bps: i32::from(terms.tolerance_bps),
        rate_minor_units: terms.rate.minor_units,
        rate_source: terms.rate.source.clone(),
        rate_time: timestamp(terms.rate.time),
    }
}

/// None: nothing was handed in yet.
fn verification(ton: &TonPayment) -> Option<pb::Verification> {
    let verification = &ton.verification;
    (*verification != Verification::default()).then(|| pb::Verification {
        attempts: verification.attempts,
        next_attempt_time: verification.next_attempt_time.and_then(timestamp),
        finding: verification.finding.clone(),
        incoming_ref: reference(ton.incoming_ref.as_ref()),
    })
}

pub(crate) fn refund(refund: &Refund) -> pb::Refund {
    pb::Refund {
        refund_id: refund.refund_id.to_string(),
        payment_id: refund.payment_id.to_string(),
        amount: amount(refund.amount),
        reason: refund.reason.clone(),
        create_time: timestamp(refund.create_time),
        transaction_id: refund.transaction_id.to_string(),
    }
}

fn clawbacks(refund: &Refund) -> Vec<pb::Clawback> {
    refund
        .clawbacks
        .iter()
        .map(|clawback| pb::Clawback {
            commission_id: commission_id((refund.payment_id, clawback.level)),
            earner_id: clawback.earner_id.to_string(),
            amount: amount(clawback.amount),
        })
        .collect()
}

/// Permanent, since a payment pays each level once.
pub(crate) fn commission_id((payment_id, level): CommissionKey) -> String {
    format!("{payment_id}.{level}")
}

pub(crate) fn payout(payout: &Payout) -> pb::Payout {
    let (approval, end, asset) = (payout.approval(), payout.end(), payout.amount.asset());
    pb::Payout {
        payout_id: payout.payout_id.to_string(),
        partner_id: payout.partner_id.to_string(),
        amount: amount(payout.amount),
        state: match payout.state() {
            PayoutState::Requested => pb::PayoutState::Requested,
            PayoutState::Approved => pb::PayoutState::Approved,
            PayoutState::Completed => pb::PayoutState::Completed,
            PayoutState::Failed => pb::PayoutState::Failed,
            PayoutState::Cancelled => pb::PayoutState::Cancelled,
        }
        .into(),
        destination: payout.destination.clone(),
        requester: payout.requester.clone(),
        approver: approval.map(|approval| approval.approver.clone()).unwrap_or_default(),
        external_ref: reference(payout.external_ref()),
        reason: payout.reason().unwrap_or_default().to_owned(),
        create_time: timestamp(payout.create_time),
        approve_time: approval.and_then(|approval| timestamp(approval.approve_time)),
        end_time: end.and_then(|end| timestamp(end.end_time)),
        reserve_transaction_id: payout.reserve_transaction_id.to_string(),
        end_transaction_id: end.map(|end| end.transaction_id.to_string()).unwrap_or_default(),
        items: payout
            .items
            .iter()
            .map(|item| pb::PayoutItem {
                commission_id: match item.claim {
                    Claim::Commission(key) => commission_id(key),
                    Claim::Adjustment(_) => String::new(),
                },
                adjustment_id: match item.claim {
                    Claim::Commission(_) => String::new(),
                    Claim::Adjustment(adjustment_id) => adjustment_id.to_string(),
                },
                amount: Some(signed(asset, item.amount)),
            })
            .collect(),
    }
}

pub(crate) fn adjustment(adjustment: &Adjustment) -> pb::Adjustment {
    let decided = adjustment.decided();
    pb::Adjustment {
        adjustment_id: adjustment.adjustment_id.to_string(),
        partner_id: adjustment.partner_id.to_string(),
        amount: Some(signed(adjustment.asset, adjustment.amount)),
        reason: adjustment.reason.clone(),
        state: match adjustment.state() {
            AdjustmentState::Proposed => pb::AdjustmentState::Proposed,
            AdjustmentState::Approved => pb::AdjustmentState::Approved,
            AdjustmentState::Rejected => pb::AdjustmentState::Rejected,
        }
        .into(),
        proposer: adjustment.proposer.clone(),
        decider: decided.map(|decided| decided.decider.clone()).unwrap_or_default(),
        reject_reason: match &adjustment.stage {
            adjustment::Stage::Rejected { reason, .. } => reason.clone(),
            _ => String::new(),
        },
        create_time: timestamp(adjustment.create_time),
        decide_time: decided.and_then(|decided| timestamp(decided.decide_time)),
        transaction_id: adjustment.transaction_id().map(|id| id.to_string()).unwrap_or_default(),
    }
}

pub(crate) fn commission(commission: &Commission) -> pb::Commission {
    let asset = commission.amount.asset();
    pb::Commission {
        commission_id: commission_id(commission.key()),
        payment_id: commission.payment_id.to_string(),
        earner_id: commission.earner_id.to_string(),
        level: i32::from(commission.level),
        amount: amount(commission.amount),
        rate_bps: i32::from(commission.rate_bps),
        plan_version: commission.plan_version,
        state: match commission.state() {
            CommissionState::Pending => pb::CommissionState::Pending,
            CommissionState::Available => pb::CommissionState::Available,
            CommissionState::Paid => pb::CommissionState::Paid,
            CommissionState::Reversed => pb::CommissionState::Reversed,
        }
        .into(),
        base: amount(commission.base),
        create_time: timestamp(commission.create_time),
        transaction_id: commission.transaction_id.to_string(),
        reversed_amount: Some(signed(asset, commission.reversed)),
        reserved_amount: Some(signed(asset, commission.reserved)),
        paid_amount: Some(signed(asset, commission.paid)),
        release_time: commission.hold.and_then(|hold| timestamp(hold.release_time)),
        release_transaction_id: commission
            .hold
            .and_then(|hold| hold.transaction_id)
            .map(|id| id.to_string())
            .unwrap_or_default(),
    }
}

fn filter(filter: &Filter) -> pb::BroadcastFilter {
    pb::BroadcastFilter {
        all: filter.is_everybody(),
        locale: filter.language.clone().unwrap_or_default(),
        pro: match filter.pro {
            None => pb::ProFilter::Unspecified,
            Some(true) => pb::ProFilter::Active,
            Some(false) => pb::ProFilter::NotActive,
        }
        .into(),
        min_level: filter.min_level.unwrap_or_default(),
        ancestor_id: filter.ancestor_id.map(|id| id.to_string()).unwrap_or_default(),
        channel: filter.channel.clone().unwrap_or_default(),
        registered_after: filter.registered_after.and_then(timestamp),
        registered_before: filter.registered_before.and_then(timestamp),
    }
}

/// What is asked for, whether or not it is begun.
pub(crate) fn asked_broadcast(asked: &NewBroadcast) -> pb::Broadcast {
    let button = asked.message.button.as_ref();
    pb::Broadcast {
        filter: Some(filter(&asked.filter)),
        text: asked.message.text.clone(),
        subject: asked.message.subject.clone(),
        button_label: button.map(|button| button.label.clone()).unwrap_or_default(),
        button_url: button.map(|button| button.url.clone()).unwrap_or_default(),
        recipients_per_second: asked.recipients_per_second,
        matched: asked.matched,
        caller: asked.caller.clone(),
        trace_id: telemetry::trace_id_of(&asked.traceparent).unwrap_or_default(),
        ..pb::Broadcast::default()
    }
}

pub(crate) fn broadcast(broadcast: &Broadcast) -> pb::Broadcast {
    pb::Broadcast {
        broadcast_id: broadcast.broadcast_id.to_string(),
        expire_time: timestamp(broadcast.expire_time),
        state: match broadcast.state() {
            BroadcastState::Running => pb::BroadcastState::Running,
            BroadcastState::Done => pb::BroadcastState::Done,
            BroadcastState::Cancelled => pb::BroadcastState::Cancelled,
            BroadcastState::Expired => pb::BroadcastState::Expired,
        }
        .into(),
        published: broadcast.published,
        create_time: timestamp(broadcast.create_time),
        end_time: match &broadcast.stage {
            Stage::Running { .. } => None,
            Stage::Ended { end_time, .. } => timestamp(*end_time),
        },
        cancel_reason: match &broadcast.stage {
            Stage::Ended { ending: Ending::Cancelled { reason }, .. } => reason.clone(),
            _ => String::new(),
        },
        ..asked_broadcast(&broadcast.asked)
    }
}

/// The response message to a command, encoded: what is answered now, and again for the same request ID.
pub(crate) fn response(outcome: &Outcome, now: DateTime<Utc>) -> Vec<u8> {
    match outcome {
        Outcome::Registered { view, attribution } => pb::RegisterPartnerResponse {
            partner: Some(partner(view, now)),
            created: *attribution != Attribution::AlreadyRegistered,
            attribution: match attribution {
                Attribution::Attributed => pb::Attribution::Attributed,
                Attribution::NoCode => pb::Attribution::NoCode,
                Attribution::UnknownCode => pb::Attribution::UnknownCode,
                Attribution::AlreadyRegistered => pb::Attribution::AlreadyRegistered,
            }
            .into(),
        }
        .encode_to_vec(),
        Outcome::Attached(view) => pb::AttachReferrerResponse { partner: Some(partner(view, now)) }.encode_to_vec(),
        Outcome::Updated(view) => pb::UpdatePartnerResponse { partner: Some(partner(view, now)) }.encode_to_vec(),
        Outcome::Opened(opened) => pb::CreatePaymentResponse { payment: Some(payment(opened, now)) }.encode_to_vec(),
        Outcome::Submitted(submitted) => {
            pb::SubmitPaymentResponse { payment: Some(payment(submitted, now)) }.encode_to_vec()
        }
        Outcome::Confirmed { payment: confirmed, commissions, .. } => pb::ConfirmPaymentResponse {
            payment: Some(payment(confirmed, now)),
            commissions: commissions.iter().map(commission).collect(),
        }
        .encode_to_vec(),
        Outcome::Rejected(rejected) => {
            pb::RejectPaymentResponse { payment: Some(payment(rejected, now)) }.encode_to_vec()
        }
        Outcome::BroadcastBegun(begun) => {
            pb::CreateBroadcastResponse { broadcast: Some(broadcast(begun)) }.encode_to_vec()
        }
        Outcome::BroadcastCancelled(cancelled) => {
            pb::CancelBroadcastResponse { broadcast: Some(broadcast(cancelled)) }.encode_to_vec()
        }
        Outcome::Refunded { payment: refunded, refund: made } => pb::RefundPaymentResponse {
            payment: Some(payment(refunded, now)),
            refund: Some(refund(made)),
            clawbacks: clawbacks(made),
        }
        .encode_to_vec(),
        Outcome::PayoutRequested(made) => pb::RequestPayoutResponse { payout: Some(payout(made)) }.encode_to_vec(),
        Outcome::PayoutApproved(made) => pb::ApprovePayoutResponse { payout: Some(payout(made)) }.encode_to_vec(),
        Outcome::PayoutCompleted(made) => pb::CompletePayoutResponse { payout: Some(payout(made)) }.encode_to_vec(),
        Outcome::PayoutFailed(made) => pb::FailPayoutResponse { payout: Some(payout(made)) }.encode_to_vec(),
        Outcome::PayoutCancelled(made) => pb::CancelPayoutResponse { payout: Some(payout(made)) }.encode_to_vec(),
        Outcome::AdjustmentProposed(made) => {
            pb::ProposeAdjustmentResponse { adjustment: Some(adjustment(made)) }.encode_to_vec()
        }
        Outcome::AdjustmentApproved(made) => {
            pb::ApproveAdjustmentResponse { adjustment: Some(adjustment(made)) }.encode_to_vec()
        }
        Outcome::AdjustmentRejected(made) => {
            pb::RejectAdjustmentResponse { adjustment: Some(adjustment(made)) }.encode_to_vec()
        }
        Outcome::Counted | Outcome::Noticed | Outcome::Released | Outcome::VerificationSettled => Vec::new(),
    }
}

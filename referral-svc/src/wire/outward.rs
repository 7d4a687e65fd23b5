//! Domain types to messages.

use chrono::{DateTime, Utc};
use p2phub_proto::referral::v1 as pb;
use prost::Message;
use prost_types::Timestamp;
use referral_domain::{
    broadcast::{Broadcast, BroadcastState, Ending, Filter, NewBroadcast, Stage},
    command::{Attribution, Outcome, PartnerView},
    commission::Commission,
    money::Amount,
    partner::{Contact, XpAward},
    payment::{Payment, PaymentState, Progress, Success},
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
        external_ref: payment.external_ref().map(|reference| reference.as_str().to_owned()).unwrap_or_default(),
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
                external_ref: late.external_ref.as_str().to_owned(),
                create_time: timestamp(late.create_time),
            })
            .collect(),
    }
}

pub(crate) fn commission(commission: &Commission) -> pb::Commission {
    pb::Commission {
        // Permanent, since a payment pays each level once.
        commission_id: format!("{}.{}", commission.payment_id, commission.level),
        payment_id: commission.payment_id.to_string(),
        earner_id: commission.earner_id.to_string(),
        level: i32::from(commission.level),
        amount: amount(commission.amount),
        rate_bps: i32::from(commission.rate_bps),
        plan_version: commission.plan_version,
        state: pb::CommissionState::Available.into(),
        base: amount(commission.base),
        create_time: timestamp(commission.create_time),
        transaction_id: commission.transaction_id.to_string(),
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
        Outcome::Counted => Vec::new(),
    }
}

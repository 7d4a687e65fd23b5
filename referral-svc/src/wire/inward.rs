//! Requests to commands.

use std::collections::BTreeSet;

use p2phub_proto::referral::v1 as pb;
use referral_domain::{
    command::{Command, ProfileChange, RegisterPartner},
    partner::{Contact, Profile, ReferralCode},
    payment::Method,
    reference::ExternalRef,
};
use service::error::Failure;

use super::fields::{self, Checked};

const USERNAME_BYTES_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 256;
const CODE_BYTES_MAX: usize = 64;
const REASON_BYTES_MAX: usize = 500;
const ADDRESS_BYTES_MAX: usize = 512;
const CONTACTS_MAX: usize = 8;
const CHANNELS: [&str; 4] = ["telegram", "email", "webhook", "slack"];

/// `random` gives the bits of the new partner's referral code.
pub(crate) fn register(request: &pb::RegisterPartnerRequest, mut random: impl FnMut() -> u64) -> Checked<Command> {
    let code = fields::text("referral_code", &request.referral_code, CODE_BYTES_MAX)?;
    Ok(Command::RegisterPartner(RegisterPartner {
        external_id: fields::external_id(&request.external_id)?,
        profile: Profile {
            username: fields::text("username", &request.username, USERNAME_BYTES_MAX)?,
            first_name: fields::text("first_name", &request.first_name, NAME_BYTES_MAX)?,
            last_name: fields::text("last_name", &request.last_name, NAME_BYTES_MAX)?,
            locale: fields::locale(&request.locale)?,
            contacts: contacts(&request.contacts)?,
        },
        code: (!code.is_empty()).then(|| ReferralCode::from_input(&code)),
        candidates: [ReferralCode::from_random(random(), 8), ReferralCode::from_random(random(), 12)],
    }))
}

fn contacts(contacts: &[pb::Contact]) -> Checked<Vec<Contact>> {
    if contacts.len() > CONTACTS_MAX {
        return Err(Failure::violation("contacts", format!("must be at most {CONTACTS_MAX}")));
    }
    let mut seen = BTreeSet::new();
    contacts
        .iter()
        .map(|contact| {
            if !CHANNELS.contains(&contact.channel.as_str()) {
                return Err(Failure::violation("contacts.channel", "must be telegram, email, webhook or slack"));
            }
            let address = fields::required_text("contacts.address", &contact.address, ADDRESS_BYTES_MAX)?;
            check_address(&contact.channel, &address)?;
            if !seen.insert((contact.channel.clone(), address.clone())) {
                return Err(Failure::violation("contacts", "must not name the same address twice"));
            }
            Ok(Contact { channel: contact.channel.clone(), address })
        })
        .collect()
}

fn check_address(channel: &str, address: &str) -> Checked<()> {
    let fault = match channel {
        "telegram" if address.parse::<i64>().is_err() || address.starts_with('+') => {
            "must be a chat ID, a whole number"
        }
        "email" if address.split_once('@').is_none_or(|(user, host)| user.is_empty() || host.is_empty()) => {
            "must be an e-mail address"
        }
        "webhook" | "slack" if !is_http_url(address) => "must be an http or https URL",
        _ if address.contains(char::is_whitespace) => "must not contain white space",
        _ => return Ok(()),
    };
    Err(Failure::violation("contacts.address", fault))
}

fn is_http_url(address: &str) -> bool {
    address.split_once("://").is_some_and(|(scheme, rest)| {
        matches!(scheme, "http" | "https") && !rest.is_empty() && !rest.starts_with(['/', '?', '#', ':'])
    })
}

pub(crate) fn attach(request: &pb::AttachReferrerRequest) -> Checked<Command> {
    Ok(Command::AttachReferrer {
        partner_id: fields::id("partner_id", &request.partner_id)?,
        code: ReferralCode::from_input(&fields::required_text(
            "referral_code",
            &request.referral_code,
            CODE_BYTES_MAX,
        )?),
    })
}

pub(crate) fn update(request: &pb::UpdatePartnerRequest) -> Checked<Command> {
    if request.clear_contacts && !request.contacts.is_empty() {
        return Err(Failure::violation("clear_contacts", "must not come together with contacts"));
    }
    let optional = |field, value: &Option<String>, bytes_max| {
        value.as_deref().map(|value| fields::text(field, value, bytes_max)).transpose()
    };
    let change = ProfileChange {
        username: optional("username", &request.username, USERNAME_BYTES_MAX)?,
        first_name: optional("first_name", &request.first_name, NAME_BYTES_MAX)?,
        last_name: optional("last_name", &request.last_name, NAME_BYTES_MAX)?,
        locale: request.locale.as_deref().map(fields::locale).transpose()?,
        contacts: match (request.clear_contacts, request.contacts.as_slice()) {
            (true, _) => Some(Vec::new()),
            (false, []) => None,
            (false, given) => Some(contacts(given)?),
        },
    };
    Ok(Command::UpdatePartner { partner_id: fields::id("partner_id", &request.partner_id)?, change })
}

pub(crate) fn create_payment(request: &pb::CreatePaymentRequest) -> Checked<Command> {
    if request.product() != pb::Product::ProMonthly {
        return Err(Failure::violation("product", "must be PRODUCT_PRO_MONTHLY"));
    }
    Ok(Command::CreatePayment {
        partner_id: fields::id("partner_id", &request.partner_id)?,
        method: Method::from_name(&request.method)
            .ok_or_else(|| Failure::violation("method", "must be trusted, manual or ton"))?,
    })
}

fn external_ref(text: &str) -> Checked<ExternalRef> {
    ExternalRef::normalise(text).map_err(|fault| Failure::violation("external_ref", fault.to_string()))
}

pub(crate) fn submit_payment(request: &pb::SubmitPaymentRequest) -> Checked<Command> {
    Ok(Command::SubmitPayment {
        payment_id: fields::id("payment_id", &request.payment_id)?,
        external_ref: external_ref(&request.external_ref)?,
    })
}

pub(crate) fn confirm_payment(request: &pb::ConfirmPaymentRequest) -> Checked<Command> {
    let reason = fields::text("override_reason", &request.override_reason, REASON_BYTES_MAX)?;
    let reference = request.external_ref.trim();
    Ok(Command::ConfirmPayment {
        payment_id: fields::id("payment_id", &request.payment_id)?,
        external_ref: (!reference.is_empty()).then(|| external_ref(reference)).transpose()?,
        override_reason: (!reason.is_empty()).then_some(reason),
    })
}

pub(crate) fn reject_payment(request: &pb::RejectPaymentRequest) -> Checked<Command> {
    Ok(Command::RejectPayment {
        payment_id: fields::id("payment_id", &request.payment_id)?,
        reason: fields::required_text("reason", &request.reason, REASON_BYTES_MAX)?,
    })
}

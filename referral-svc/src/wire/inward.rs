//! Requests to commands.

pub(crate) mod payouts;

use std::collections::BTreeSet;

use p2phub_proto::referral::v1 as pb;
use referral_domain::{
    LEVELS,
    broadcast::{Button, Filter, Message},
    command::{Command, ProfileChange, RegisterPartner},
    commission::CommissionKey,
    id::PartnerId,
    money::{Amount, Asset},
    partner::{Contact, Profile, ReferralCode},
    payment::Method,
    posting::Purpose,
    reference::ExternalRef,
};
use service::error::Failure;
use uuid::Uuid;

use super::fields::{self, Checked};

const USERNAME_BYTES_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 256;
const CODE_BYTES_MAX: usize = 64;
const REASON_BYTES_MAX: usize = 500;
const ADDRESS_BYTES_MAX: usize = 512;
const CONTACTS_MAX: usize = 8;
const TEXT_BYTES_MAX: usize = 4000;
const SUBJECT_BYTES_MAX: usize = 256;
const BUTTON_LABEL_BYTES_MAX: usize = 128;
const BUTTON_URL_BYTES_MAX: usize = 2000;
const LEVEL_MAX: i32 = 10_000;
const RECIPIENTS_PER_SECOND: i32 = 500;
const RECIPIENTS_PER_SECOND_MAX: i32 = 10_000;
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
            locale: fields::locale("locale", &request.locale)?,
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
        locale: request.locale.as_deref().map(|locale| fields::locale("locale", locale)).transpose()?,
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

/// Money that may be absent: more than zero, of a known asset.
fn optional_amount(given: Option<&pb::Amount>) -> Checked<Option<Amount>> {
    let Some(given) = given else { return Ok(None) };
    let asset = asset("amount.asset", &given.asset)?;
    let amount = Amount::new(asset, given.minor_units).filter(|amount| amount.minor_units() > 0);
    amount.map(Some).ok_or_else(|| Failure::violation("amount.minor_units", "must be more than zero"))
}

pub(crate) fn asset(field: &'static str, ticker: &str) -> Checked<Asset> {
    if ticker.is_empty() {
        return Err(Failure::violation(field, "required"));
    }
    Asset::from_ticker(ticker).ok_or_else(|| Failure::violation(field, "unknown: must be USDT"))
}

/// The stored name of a kind of transaction; none: any.
pub(crate) fn transaction_kind(kind: i32) -> Checked<Option<&'static str>> {
    let kind =
        pb::TransactionKind::try_from(kind).map_err(|_| Failure::violation("kind", "must be a TransactionKind"))?;
    Ok((kind != pb::TransactionKind::Unspecified).then(|| kind.as_str_name().trim_start_matches("TRANSACTION_KIND_")))
}

/// Which of a partner's accounts is meant.
pub(crate) fn partner_purpose(purpose: i32, owner: PartnerId) -> Checked<Purpose> {
    use pb::AccountPurpose as Asked;
    match Asked::try_from(purpose) {
        Ok(Asked::Unspecified | Asked::PartnerAvailable) => Ok(Purpose::PartnerAvailable(owner)),
        Ok(Asked::PartnerPending) => Ok(Purpose::PartnerPending(owner)),
        Ok(Asked::PartnerReserved) => Ok(Purpose::PartnerReserved(owner)),
        _ => Err(Failure::violation("purpose", "must be PARTNER_AVAILABLE, PARTNER_PENDING or PARTNER_RESERVED")),
    }
}

/// A commission's name: its payment and its level.
pub(crate) fn commission_key(text: &str) -> Checked<CommissionKey> {
    const FIELD: &str = "commission_id";
    if text.is_empty() {
        return Err(Failure::violation(FIELD, "required"));
    }
    let parts = text.split_once('.').and_then(|(payment_id, level)| {
        let level = (1_u8..).take(LEVELS).find(|known| known.to_string() == level)?;
        Some((Uuid::try_parse(payment_id).ok()?.into(), level))
    });
    parts.ok_or_else(|| Failure::violation(FIELD, "must be a payment's ID, a dot, and a level of 1 to 9"))
}

pub(crate) fn refund_payment(request: &pb::RefundPaymentRequest) -> Checked<Command> {
    Ok(Command::RefundPayment {
        payment_id: fields::id("payment_id", &request.payment_id)?,
        amount: optional_amount(request.amount.as_ref())?,
        reason: fields::required_text("reason", &request.reason, REASON_BYTES_MAX)?,
    })
}

/// Whom a broadcast goes to: everybody must be meant on purpose.
pub(crate) fn broadcast_filter(filter: Option<&pb::BroadcastFilter>) -> Checked<Filter> {
    let given = filter.ok_or_else(|| Failure::violation("filter", "required"))?;
    let locale = fields::locale("filter.locale", &given.locale)?;
    let language = locale.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    if language.is_empty() && !locale.is_empty() {
        return Err(Failure::violation("filter.locale", "must begin with a language"));
    }
    let channel = Some(given.channel.as_str()).filter(|channel| !channel.is_empty());
    if channel.is_some_and(|channel| !CHANNELS.contains(&channel)) {
        return Err(Failure::violation("filter.channel", "must be telegram, email, webhook or slack"));
    }
    let pro =
        pb::ProFilter::try_from(given.pro).map_err(|_| Failure::violation("filter.pro", "must be a ProFilter"))?;
    let filter = Filter {
        language: Some(language).filter(|language| !language.is_empty()),
        pro: match pro {
            pb::ProFilter::Unspecified => None,
            pb::ProFilter::Active => Some(true),
            pb::ProFilter::NotActive => Some(false),
        },
        min_level: Some(fields::number("filter.min_level", given.min_level, LEVEL_MAX, 0)?).filter(|level| *level > 0),
        ancestor_id: fields::optional_id("filter.ancestor_id", &given.ancestor_id)?,
        channel: channel.map(str::to_owned),
        registered_after: fields::time("filter.registered_after", given.registered_after.as_ref())?,
        registered_before: fields::time("filter.registered_before", given.registered_before.as_ref())?,
    };
    if filter.registered_after.zip(filter.registered_before).is_some_and(|(after, before)| after > before) {
        return Err(Failure::violation("filter.registered_before", "must not be before registered_after"));
    }
    match (given.all, filter.is_everybody()) {
        (true, false) => Err(Failure::violation("filter.all", "must not come together with another field")),
        (false, true) => Err(Failure::violation("filter", "at least one field is required, or all")),
        _ => Ok(filter),
    }
}

pub(crate) fn broadcast_message(request: &pb::CreateBroadcastRequest) -> Checked<Message> {
    let text = fields::lines("text", &request.text, TEXT_BYTES_MAX)?;
    let subject = fields::text("subject", &request.subject, SUBJECT_BYTES_MAX)?;
    let label = fields::text("button_label", &request.button_label, BUTTON_LABEL_BYTES_MAX)?;
    let url = fields::text("button_url", &request.button_url, BUTTON_URL_BYTES_MAX)?;
    let button = match (label.is_empty(), url.is_empty()) {
        (true, true) => None,
        (true, false) => return Err(Failure::violation("button_label", "required, since there is a button_url")),
        (false, true) => return Err(Failure::violation("button_url", "required, since there is a button_label")),
        (false, false) if !is_http_url(&url) || url.contains(char::is_whitespace) => {
            return Err(Failure::violation("button_url", "must be an http or https URL"));
        }
        (false, false) => Some(Button { label, url }),
    };
    Ok(Message { text, subject, button })
}

pub(crate) fn recipients_per_second(value: i32) -> Checked<i32> {
    fields::number("recipients_per_second", value, RECIPIENTS_PER_SECOND_MAX, RECIPIENTS_PER_SECOND)
}

pub(crate) fn cancel_broadcast(request: &pb::CancelBroadcastRequest) -> Checked<Command> {
    Ok(Command::CancelBroadcast {
        broadcast_id: fields::id("broadcast_id", &request.broadcast_id)?,
        reason: fields::required_text("reason", &request.reason, REASON_BYTES_MAX)?,
    })
}

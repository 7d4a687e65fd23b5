//! A command's notices to the one event that tells notify-svc of them all.

use std::collections::BTreeMap;

use chrono::SecondsFormat;
use p2phub_proto::notify::v1 as pb;
use prost::Message;
use referral_domain::{
    broadcast::{Broadcast, Message as Told, Recipient},
    money::Amount,
    partner::Contact,
    state::{About, Notice, ProNotice},
};

use super::outward::timestamp;

/// What notify-svc takes as one event, in bytes.
const EVENT_BYTES_MAX: usize = 256 * 1024;

/// The serialised event, as it travels.
pub(crate) fn encode(notices: &[Notice]) -> Vec<u8> {
    pb::NotificationEvent { requests: notices.iter().map(request).collect() }.encode_to_vec()
}

fn request(notice: &Notice) -> pb::NotificationRequest {
    let (kind, arguments) = content(&notice.about);
    pb::NotificationRequest {
        kind: kind.into(),
        recipient_id: notice.recipient_id.to_string(),
        locale: notice.locale.clone(),
        contacts: contacts(&notice.contacts),
        arguments: arguments.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        expire_time: match &notice.about {
            About::ProEnding { notice, expires } => notice.expires(*expires).and_then(timestamp),
            _ => None,
        },
    }
}

fn contacts(contacts: &[Contact]) -> Vec<pb::RecipientContact> {
    contacts
        .iter()
        .map(|contact| pb::RecipientContact { channel: contact.channel.clone(), address: contact.address.clone() })
        .collect()
}

/// An event for as many of the recipients as one may have, in their order; and how many those are, one at least.
pub(crate) fn of_broadcast(broadcast: &Broadcast, recipients: &[Recipient]) -> (Vec<u8>, usize) {
    let arguments = told(&broadcast.asked.message);
    let mut event = pb::NotificationEvent::default();
    let mut bytes = 0;
    for recipient in recipients {
        let request = pb::NotificationRequest {
            kind: pb::NotificationKind::OperatorBroadcast.into(),
            recipient_id: recipient.partner_id.to_string(),
            locale: recipient.locale.clone(),
            contacts: contacts(&recipient.contacts),
            arguments: arguments.clone(),
            expire_time: timestamp(broadcast.expire_time),
        };
        // Each with the key of its field, one byte, and its length.
        let length = request.encoded_len();
        bytes += 1 + prost::length_delimiter_len(length) + length;
        if bytes > EVENT_BYTES_MAX && !event.requests.is_empty() {
            break;
        }
        event.requests.push(request);
    }
    (event.encode_to_vec(), event.requests.len())
}

fn told(message: &Told) -> BTreeMap<String, String> {
    let subject = Some(("subject", &message.subject)).filter(|(_, subject)| !subject.is_empty());
    let button =
        message.button.iter().flat_map(|button| [("button_label", &button.label), ("button_url", &button.url)]);
    [("text", &message.text)]
        .into_iter()
        .chain(subject)
        .chain(button)
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect()
}

fn content(about: &About) -> (pb::NotificationKind, BTreeMap<&'static str, String>) {
    match about {
        About::Signup { level, name, xp } => {
            let kind = match level {
                1 => pb::NotificationKind::SignupL1,
                2 => pb::NotificationKind::SignupL2,
                _ => pb::NotificationKind::SignupDeeper,
            };
            (kind, BTreeMap::from([("name", name.clone()), ("level", level.to_string()), ("xp", xp.to_string())]))
        }
        About::LevelUp { level, xp } => {
            (pb::NotificationKind::LevelUp, BTreeMap::from([("level", level.to_string()), ("xp", xp.to_string())]))
        }
        About::Commission { amount, level, rate_bps, name } => (
            pb::NotificationKind::CommissionReceived,
            BTreeMap::from([
                ("amount", amount.to_decimal()),
                ("asset", amount.asset().ticker().to_owned()),
                ("level", level.to_string()),
                ("rate", percent(*rate_bps)),
                ("name", name.clone()),
            ]),
        ),
        About::ProWelcome { expires } => (
            pb::NotificationKind::ProWelcome,
            BTreeMap::from([("expires", expires.to_rfc3339_opts(SecondsFormat::Secs, true))]),
        ),
        About::ProEnding { notice, expires } => (
            match notice {
                ProNotice::ThreeDays => pb::NotificationKind::ProExpiring3Days,
                ProNotice::OneDay => pb::NotificationKind::ProExpiring1Day,
                ProNotice::Ended => pb::NotificationKind::ProExpired,
            },
            BTreeMap::from([("expires", expires.to_rfc3339_opts(SecondsFormat::Secs, true))]),
        ),
        About::CommissionReversed { amount } => (pb::NotificationKind::CommissionReversed, money(*amount)),
        About::Payout { amount, state } => {
            let mut arguments = money(*amount);
            arguments.insert("state", state.name().to_lowercase());
            (pb::NotificationKind::PayoutState, arguments)
        }
        About::PaymentRejected { amount, reason } => (
            pb::NotificationKind::PaymentRejected,
            BTreeMap::from([
                ("amount", amount.to_decimal()),
                ("asset", amount.asset().ticker().to_owned()),
                ("reason", reason.clone()),
            ]),
        ),
    }
}

fn money(amount: Amount) -> BTreeMap<&'static str, String> {
    BTreeMap::from([("amount", amount.to_decimal()), ("asset", amount.asset().ticker().to_owned())])
}

/// 3000 → "30", 125 → "1.25".
fn percent(rate_bps: u16) -> String {
    let text = format!("{}.{:02}", rate_bps / 100, rate_bps % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn rates_read_well() {
        assert_eq!([3000, 100, 125, 50, 1010].map(percent), ["30", "1", "1.25", "0.5", "10.1"]);
    }
}

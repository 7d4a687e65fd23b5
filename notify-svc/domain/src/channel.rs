//! Which channels there are, and which of a recipient's contacts is tried when.

use std::collections::BTreeSet;

use crate::{event::Contact, state::named};

named! {
    /// A way to reach a recipient.
    Channel {
        /// Telegram's Bot API; the address is a chat ID.
        Telegram = "telegram",
        /// E-mail.
        Email = "email",
        /// A signed webhook; the address is a URL.
        Webhook = "webhook",
        /// A Slack webhook; the address is a URL.
        Slack = "slack",
        /// The service's own log, for recipients who can't be reached otherwise.
        Log = "log",
    }
}

/// The channels that are switched on; `log` always is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channels(BTreeSet<Channel>);

impl FromIterator<Channel> for Channels {
    fn from_iter<I: IntoIterator<Item = Channel>>(channels: I) -> Self {
        Self(channels.into_iter().collect())
    }
}

impl Channels {
    /// Whether a channel is on.
    pub fn is_on(&self, channel: Channel) -> bool {
        channel == Channel::Log || self.0.contains(&channel)
    }
}

/// A channel to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The contact's place in the recipient's order, from 1.
    pub place: i32,
    /// The channel.
    pub channel: Channel,
    /// The address on it; empty for `log`.
    pub address: String,
}

/// The first channel for a recipient: the first contact whose channel is on, else `log`.
pub fn first(contacts: &[Contact], channels: &Channels) -> Choice {
    after(contacts, 0, |channel| channels.is_on(channel)).unwrap_or_else(|| log(contacts))
}

/// The first contact after a place whose channel may be used.
pub fn after(contacts: &[Contact], place: i32, usable: impl Fn(Channel) -> bool) -> Option<Choice> {
    (1_i32..).zip(contacts).filter(|(own, _)| *own > place).find_map(|(place, contact)| {
        let channel = Channel::parse(&contact.channel).filter(|channel| *channel != Channel::Log)?;
        usable(channel).then(|| Choice { place, channel, address: contact.address.clone() })
    })
}

/// `log`, behind all contacts.
pub fn log(contacts: &[Contact]) -> Choice {
    let behind = i32::try_from(contacts.len()).unwrap_or(i32::MAX).saturating_add(1);
    Choice { place: behind, channel: Channel::Log, address: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contacts(channels: &[&str]) -> Vec<Contact> {
        channels
            .iter()
            .map(|channel| Contact { channel: (*channel).to_owned(), address: format!("@{channel}") })
            .collect()
    }

    #[test]
    fn channels_that_are_off_or_unknown_are_passed_over() {
        let on = Channels::from_iter([Channel::Webhook]);
        let choice = first(&contacts(&["pigeon", "telegram", "webhook"]), &on);
        assert_eq!((choice.place, choice.channel, choice.address.as_str()), (3, Channel::Webhook, "@webhook"));
    }

    #[test]
    fn log_is_for_those_without_a_contact_on_a_channel_that_is_on() {
        let off = Channels::default();
        assert_eq!(
            first(&contacts(&["telegram"]), &off),
            Choice { place: 2, channel: Channel::Log, address: String::new() }
        );
        assert_eq!(first(&[], &off).place, 1);
    }

    #[test]
    fn log_is_no_fallback() {
        let on = Channels::from_iter([Channel::Telegram, Channel::Webhook]);
        let all = contacts(&["telegram", "email", "webhook"]);
        assert_eq!(after(&all, 1, |channel| on.is_on(channel)).map(|choice| choice.place), Some(3));
        assert_eq!(after(&all, 3, |channel| on.is_on(channel)), None);
    }
}

//! The ways out: one sender per channel, behind one small trait.

mod email;
mod http;
mod log;
mod slack;
mod telegram;
mod webhook;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use notify_domain::{
    channel::{Channel, Channels},
    delivery::Outcome,
    kind::Kind,
};
use uuid::Uuid;

use crate::{
    config::Config,
    template::{Button, Locale, Rendered},
};

/// What is sent to whom.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) notification_id: Uuid,
    pub(crate) kind: Kind,
    pub(crate) recipient_id: String,
    pub(crate) address: String,
    pub(crate) locale: Locale,
    /// In plain text: each channel escapes and cuts it as it must.
    pub(crate) rendered: Rendered,
    pub(crate) arguments: BTreeMap<String, String>,
    /// Stops the recipient's e-mail.
    pub(crate) unsubscribe_token: String,
    pub(crate) trace_id: String,
    pub(crate) create_time: DateTime<Utc>,
}

/// A channel that is on.
pub(crate) trait Sender: Send + Sync {
    /// Which one.
    fn channel(&self) -> Channel;

    /// Sends once. Every way to fail is an outcome.
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Outcome>;
}

/// Every channel that is on.
pub(crate) struct Senders(Vec<Box<dyn Sender>>);

impl Senders {
    /// Those that the configuration switches on; an error names the variable that is wrong.
    pub(crate) fn build(config: &Config) -> anyhow::Result<Self> {
        let client = http::client()?;
        let mut senders: Vec<Box<dyn Sender>> = vec![Box::new(log::LogSender::new(config.log_text))];
        // Made even when it is off: a malformed URL stops the start in any case.
        let token = config.telegram_bot_token.as_deref();
        let telegram =
            telegram::TelegramSender::new(client.clone(), &config.telegram_api_url, token.unwrap_or_default())?;
        if token.is_some() {
            senders.push(Box::new(telegram));
        }
        if let Some(webhook) = webhook::WebhookSender::new(config)? {
            senders.push(Box::new(webhook));
        }
        if let Some(email) = email::EmailSender::new(config)? {
            senders.push(Box::new(email));
        }
        if let Some(url) = &config.slack_api_url {
            senders.push(Box::new(slack::SlackSender::new(client, url)?));
        }
        Ok(Self(senders))
    }

    /// Those that a test wants.
    #[cfg(test)]
    pub(crate) fn of(senders: Vec<Box<dyn Sender>>) -> Self {
        Self(senders)
    }

    /// Which they are.
    pub(crate) fn channels(&self) -> Channels {
        self.0.iter().map(|sender| sender.channel()).collect()
    }

    /// The sender of a channel by its stored name; `None` when it is off.
    pub(crate) fn get(&self, channel: &str) -> Option<&dyn Sender> {
        self.0.iter().find(|sender| sender.channel().as_str() == channel).map(AsRef::as_ref)
    }
}

/// The text as a channel carries it, and the button if it takes that along; the channel need not be on.
pub(crate) fn preview(channel: Channel, rendered: &Rendered) -> (String, Option<Button>) {
    match channel {
        Channel::Telegram => (telegram::text(rendered), telegram::button(rendered).cloned()),
        Channel::Slack => (slack::text(rendered), slack::button(rendered).cloned()),
        Channel::Email | Channel::Webhook => (rendered.text.clone(), rendered.button.clone()),
        Channel::Log => (rendered.text.clone(), None),
    }
}

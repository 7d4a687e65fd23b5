//! `log`: a line for those who can't be reached otherwise.

use futures_util::future::{self, BoxFuture, FutureExt};
use notify_domain::{channel::Channel, delivery::Outcome};

use super::{Message, Sender};

/// Writes IDs and kind; the text too if it is told to.
pub(super) struct LogSender {
    with_text: bool,
}

impl LogSender {
    pub(super) fn new(with_text: bool) -> Self {
        Self { with_text }
    }
}

impl Sender for LogSender {
    fn channel(&self) -> Channel {
        Channel::Log
    }

    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Outcome> {
        tracing::info!(
            notification_id = %message.notification_id,
            recipient_id = message.recipient_id,
            kind = message.kind.as_str(),
            text = self.with_text.then_some(message.rendered.text.as_str()),
            "notification"
        );
        future::ready(Outcome::DELIVERED).boxed()
    }
}

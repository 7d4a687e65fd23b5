//! E-mail over SMTP: a message is written, and handed to the server over a connection that is kept for the next one.

mod connection;
mod letter;
mod settings;

use futures_util::future::{BoxFuture, FutureExt};
use notify_domain::{channel::Channel, delivery::Outcome};

use super::{Message, Sender};
use crate::config::Config;
use connection::Connections;
use letter::Letterhead;

/// Sends through one server.
pub(super) struct EmailSender {
    connections: Connections,
    letterhead: Letterhead,
}

impl EmailSender {
    /// `None` when the channel is off. What is set is checked in any case.
    pub(super) fn new(config: &Config) -> anyhow::Result<Option<Self>> {
        let letterhead = settings::letterhead(config)?;
        let server = settings::server(config)?;
        Ok(server.map(|server| Self { connections: Connections::new(server), letterhead }))
    }
}

impl Sender for EmailSender {
    fn channel(&self) -> Channel {
        Channel::Email
    }

    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Outcome> {
        async {
            match self.letterhead.write(message) {
                Ok(letter) => self.connections.send(&letter).await,
                Err(outcome) => outcome,
            }
        }
        .boxed()
    }
}

//! What the suite has to know of a channel.

use notify_svc::Config;
use p2phub_proto::notify::v1::{AttemptOutcome, RecipientContact};

/// A channel with a stand-in for its provider. Contacts are numbered; each number is an address of its own.
pub(super) trait Stand: Sized + Send + Sync + 'static {
    /// The channel's name.
    const CHANNEL: &'static str;

    /// An answer of the provider.
    type Reply;

    /// A stand-in that takes everything.
    async fn start() -> Self;

    /// Switches the channel on, with the stand-in as its provider.
    fn configure(&self) -> impl Fn(&mut Config) + Send + Sync + 'static;

    /// A contact's address.
    fn address(&self, number: usize) -> String;

    /// Has the next message to a contact answered so.
    fn play(&self, number: usize, reply: Self::Reply);

    /// What came for a contact.
    fn received(&self, number: usize) -> Vec<Received>;

    /// Listens no more.
    async fn close(&mut self);

    /// Every answer that the channel tells apart.
    fn table() -> Vec<Row<Self::Reply>>;

    /// No answer, once everything has been said.
    fn hang() -> Self::Reply;

    /// A connection that is closed instead of an answer, once everything has been said.
    fn lost() -> Self::Reply;

    /// An answer that is worth a retry, once everything has been said.
    fn busy() -> Self::Reply;

    /// An answer that the address is dead, and the reason on record.
    fn gone() -> (Self::Reply, &'static str);

    /// Fails unless a message carries a text as the channel demands: safe, and whole as far as it fits.
    fn check_carried(received: &Received, text: &str);

    /// Contacts that are no addresses; what Telegram's chat IDs look like is Telegram's to say.
    fn malformed_addresses() -> &'static [&'static str] {
        &[]
    }

    /// The contact of a number.
    fn contact(&self, number: usize) -> RecipientContact {
        RecipientContact { channel: Self::CHANNEL.to_owned(), address: self.address(number) }
    }
}

/// A message that came.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// By which the recipient's side knows it again; empty if the channel has no such thing.
    pub(super) identity: String,
    /// What it says, as it came.
    pub(super) text: String,
    /// Everything else that came along, in the channel's own form.
    pub(super) whole: String,
}

/// An answer and what has to be on record of it.
pub(super) struct Row<R> {
    pub(super) what: String,
    pub(super) reply: R,
    pub(super) outcome: AttemptOutcome,
    pub(super) reason: String,
}

impl<R> Row<R> {
    pub(super) fn new(what: impl Into<String>, reply: R, outcome: AttemptOutcome, reason: impl Into<String>) -> Self {
        Self { what: what.into(), reply, outcome, reason: reason.into() }
    }
}

//! A validated event: what one command of a producer has to tell, and to whom.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::kind::Kind;

/// Requests in an event.
pub const REQUESTS_MAX: usize = 100;
/// Bytes of a serialised event.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a producer's name.
pub const PRODUCER_BYTES_MAX: usize = 64;
/// Bytes of a recipient's ID.
pub const RECIPIENT_BYTES_MAX: usize = 128;
/// Bytes of a language tag.
pub const LOCALE_BYTES_MAX: usize = 64;
/// Contacts of a recipient.
pub const CONTACTS_MAX: usize = 16;
/// Bytes of a channel's name.
pub const CHANNEL_BYTES_MAX: usize = 32;
/// Bytes of an address.
pub const ADDRESS_BYTES_MAX: usize = 2048;
/// Arguments of a request.
pub const ARGUMENTS_MAX: usize = 32;
/// Bytes of an argument's name.
pub const ARGUMENT_NAME_BYTES_MAX: usize = 64;
/// Bytes of an argument's value.
pub const ARGUMENT_VALUE_BYTES_MAX: usize = 8 * 1024;

/// An event with its requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Unique per producer.
    pub event_id: Uuid,
    /// When the fact was made.
    pub occur_time: Option<DateTime<Utc>>,
    /// The trace of the command that made the fact.
    pub trace: Trace,
    /// One per recipient.
    pub requests: Vec<Request>,
}

/// Where in a trace something belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// 32 lower-case hex digits.
    pub trace_id: String,
    /// W3C context to go on from.
    pub traceparent: String,
    /// W3C baggage that goes along; empty: none.
    pub baggage: String,
}

/// One notification to one recipient.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Decides the template.
    pub kind: Kind,
    /// The partner's ID.
    pub recipient_id: String,
    /// Language tag as it came.
    pub locale: String,
    /// In order of preference.
    pub contacts: Vec<Contact>,
    /// What the template needs.
    pub arguments: BTreeMap<String, String>,
    /// After this it is not worth sending.
    pub expire_time: Option<DateTime<Utc>>,
}

/// An address on a channel. The channel is a free name: one that this version doesn't know is passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// For example "telegram".
    pub channel: String,
    /// The address on it.
    pub address: String,
}

/// Why a request can't be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// A text is longer than its limit.
    #[error("{field} is longer than {limit} bytes")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its limit.
        limit: usize,
    },
    /// A list has more items than its limit.
    #[error("more than {limit} {field}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Its limit.
        limit: usize,
    },
    /// A text is missing.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A text holds a NUL character, which the database can't store.
    #[error("{0} contains a NUL character")]
    Nul(&'static str),
    /// The kind needs an argument that did not come.
    #[error("argument {0} is missing")]
    ArgumentMissing(&'static str),
}

impl Request {
    /// Checks every limit and that the kind's arguments are there.
    pub fn check(&self) -> Result<(), InvalidRequest> {
        text("recipient_id", &self.recipient_id, RECIPIENT_BYTES_MAX)?;
        check_locale(&self.locale)?;
        count("contacts", self.contacts.len(), CONTACTS_MAX)?;
        for contact in &self.contacts {
            text("contacts.channel", &contact.channel, CHANNEL_BYTES_MAX)?;
            text("contacts.address", &contact.address, ADDRESS_BYTES_MAX)?;
        }
        check_arguments(&self.arguments)?;
        match self.kind.arguments().iter().find(|name| !self.arguments.contains_key(**name)) {
            Some(missing) => Err(InvalidRequest::ArgumentMissing(missing)),
            None => Ok(()),
        }
    }
}

/// Checks a language tag's limits; that it is one is not asked.
pub fn check_locale(locale: &str) -> Result<(), InvalidRequest> {
    bounded("locale", locale, LOCALE_BYTES_MAX)
}

/// Checks the arguments' limits, not which of them there are.
pub fn check_arguments(arguments: &BTreeMap<String, String>) -> Result<(), InvalidRequest> {
    count("arguments", arguments.len(), ARGUMENTS_MAX)?;
    for (name, value) in arguments {
        text("an argument's name", name, ARGUMENT_NAME_BYTES_MAX)?;
        bounded("an argument's value", value, ARGUMENT_VALUE_BYTES_MAX)?;
    }
    Ok(())
}

fn text(field: &'static str, value: &str, limit: usize) -> Result<(), InvalidRequest> {
    if value.is_empty() {
        return Err(InvalidRequest::Empty(field));
    }
    bounded(field, value, limit)
}

fn bounded(field: &'static str, value: &str, limit: usize) -> Result<(), InvalidRequest> {
    if value.len() > limit {
        return Err(InvalidRequest::TooLong { field, limit });
    }
    if value.contains('\0') {
        return Err(InvalidRequest::Nul(field));
    }
    Ok(())
}

fn count(field: &'static str, length: usize, limit: usize) -> Result<(), InvalidRequest> {
    if length > limit {
        return Err(InvalidRequest::TooMany { field, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            kind: Kind::LevelUp,
            recipient_id: "r".to_owned(),
            locale: String::new(),
            contacts: vec![Contact { channel: "telegram".to_owned(), address: "1".to_owned() }],
            arguments: [("level", "2"), ("xp", "300")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            expire_time: None,
        }
    }

    #[test]
    fn a_whole_request_passes() {
        assert_eq!(request().check(), Ok(()));
    }

    #[test]
    fn each_fault_is_named() {
        let mut long = request();
        long.recipient_id = "x".repeat(RECIPIENT_BYTES_MAX + 1);
        assert!(matches!(long.check(), Err(InvalidRequest::TooLong { field: "recipient_id", .. })));

        let mut missing = request();
        missing.arguments.remove("xp");
        assert_eq!(missing.check(), Err(InvalidRequest::ArgumentMissing("xp")));

        let mut nul = request();
        nul.arguments.insert("name".to_owned(), "a\0b".to_owned());
        assert_eq!(nul.check(), Err(InvalidRequest::Nul("an argument's value")));

        let mut nobody = request();
        nobody.recipient_id.clear();
        assert_eq!(nobody.check(), Err(InvalidRequest::Empty("recipient_id")));

        let mut many = request();
        many.contacts = vec![many.contacts[0].clone(); CONTACTS_MAX + 1];
        assert!(matches!(many.check(), Err(InvalidRequest::TooMany { field: "contacts", .. })));
    }
}

//! From a record on the wire to a validated event, or the reason why it can never be one.

use chrono::{DateTime, Utc};
use notify_domain::{
    event::{Contact, EVENT_BYTES_MAX, Event, REQUESTS_MAX, Request, Trace},
    kind::Kind,
};
use p2phub_proto::notify::v1::{EventRecord, NotificationEvent, NotificationKind, NotificationRequest};
use prost::Message;
use prost_types::Timestamp;
use uuid::Uuid;

use crate::{convert, store::inbox::RejectedRecord};

/// Bytes kept of a text that came with a rejected record.
const KEPT_TEXT_BYTES_MAX: usize = 256;

/// Why a record is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

impl Rejection {
    pub(super) fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// Of a record that nothing here was ready for.
    pub(super) fn panicked() -> Self {
        Self::new("EVENT_MALFORMED", "the event can't be decoded")
    }

    /// The record as it is kept aside.
    pub(super) fn keep(self, record: &EventRecord, trace: &Trace) -> RejectedRecord {
        RejectedRecord {
            event_id: storable(&record.event_id),
            event: record.event.clone(),
            traceparent: storable(&record.traceparent),
            trace_id: trace.trace_id.clone(),
            reason: self.reason,
            detail: self.detail,
        }
    }
}

/// Decodes and checks one record.
pub(super) fn decode(record: &EventRecord, trace: &Trace) -> Result<Event, Rejection> {
    let event_id = Uuid::try_parse(&record.event_id)
        .map_err(|_| Rejection::new("EVENT_ID_MALFORMED", "event_id is not a UUID"))?;
    if record.event.len() > EVENT_BYTES_MAX {
        let detail = format!("the event has {} bytes, more than {EVENT_BYTES_MAX}", record.event.len());
        return Err(Rejection::new("EVENT_TOO_LARGE", detail));
    }
    let event = NotificationEvent::decode(record.event.as_slice())
        .map_err(|_| Rejection::new("EVENT_MALFORMED", "event is not a serialised NotificationEvent"))?;
    if event.requests.len() > REQUESTS_MAX {
        let detail = format!("{} requests, more than {REQUESTS_MAX}", event.requests.len());
        return Err(Rejection::new("TOO_MANY_REQUESTS", detail));
    }
    let occur_time = record.occur_time.as_ref().map(|at| time(at, "occur_time")).transpose()?;
    let requests =
        (0..).zip(event.requests).map(|(place, request)| self::request(place, request)).collect::<Result<_, _>>()?;
    Ok(Event { event_id, occur_time, trace: trace.clone(), requests })
}

fn request(place: usize, wire: NotificationRequest) -> Result<Request, Rejection> {
    let kind = kind(wire.kind).ok_or_else(|| {
        Rejection::new("KIND_UNKNOWN", format!("requests[{place}].kind: {} is not a known kind", wire.kind))
    })?;
    let contacts = wire
        .contacts
        .into_iter()
        .map(|contact| Contact { channel: contact.channel, address: contact.address })
        .collect();
    let expire_time =
        wire.expire_time.as_ref().map(|at| time(at, &format!("requests[{place}].expire_time"))).transpose()?;
    let request = Request {
        kind,
        recipient_id: wire.recipient_id,
        locale: wire.locale,
        contacts,
        arguments: wire.arguments,
        expire_time,
    };
    request.check().map_err(|invalid| Rejection::new("EVENT_INVALID", format!("requests[{place}]: {invalid}")))?;
    Ok(request)
}

fn kind(number: i32) -> Option<Kind> {
    let kind = NotificationKind::try_from(number).ok()?;
    Kind::parse(kind.as_str_name().strip_prefix(convert::KIND_PREFIX)?)
}

fn time(at: &Timestamp, field: &str) -> Result<DateTime<Utc>, Rejection> {
    convert::time(at).ok_or_else(|| Rejection::new("EVENT_INVALID", format!("{field} is not a valid time")))
}

/// A text cut and cleaned so that the database takes it, whatever it is.
pub(super) fn storable(text: &str) -> String {
    let mut end = text.len().min(KEPT_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace('\0', "\u{fffd}")
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;

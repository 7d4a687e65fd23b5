//! Single fields: what each may hold.

use chrono::{DateTime, Utc};
use notify_domain::{
    channel::Channel,
    event::{ADDRESS_BYTES_MAX, RECIPIENT_BYTES_MAX},
    kind::Kind,
    state::NotificationState,
};
use p2phub_proto::notify::v1 as wire;
use prost_types::Timestamp;
use service::error::Failure;
use uuid::Uuid;

use crate::convert;

const REASON_BYTES_MAX: usize = 500;

/// A required UUID.
pub(super) fn uuid(field: &str, text: &str) -> Result<Uuid, Failure> {
    if text.is_empty() {
        return Err(Failure::violation(field, "required"));
    }
    Uuid::try_parse(text).map_err(|_| Failure::violation(field, "must be a UUID"))
}

/// A UUID that may be absent.
pub(super) fn optional_uuid(field: &str, text: &str) -> Result<Option<Uuid>, Failure> {
    if text.is_empty() { Ok(None) } else { uuid(field, text).map(Some) }
}

/// Why something is done: for people, required.
pub(super) fn reason(field: &str, text: &str) -> Result<String, Failure> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::violation(field, "required"));
    }
    if text.len() > REASON_BYTES_MAX {
        return Err(Failure::violation(field, format!("must be at most {REASON_BYTES_MAX} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Failure::violation(field, "must not contain control characters"));
    }
    Ok(text.to_owned())
}

/// Something to compare with, as it is; empty means absent.
pub(super) fn optional_name(field: &str, text: &str, bytes_max: usize) -> Result<Option<String>, Failure> {
    if text.len() > bytes_max || text.contains('\0') {
        return Err(Failure::violation(field, format!("must be at most {bytes_max} bytes, without NUL")));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// A recipient, required.
pub(super) fn recipient(field: &str, text: &str) -> Result<String, Failure> {
    optional_recipient(field, text)?.ok_or_else(|| Failure::violation(field, "required"))
}

/// A recipient that may be absent.
pub(super) fn optional_recipient(field: &str, text: &str) -> Result<Option<String>, Failure> {
    optional_name(field, text, RECIPIENT_BYTES_MAX)
}

/// A trace ID that may be absent.
pub(super) fn trace_id(field: &str, text: &str) -> Result<Option<String>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::violation(field, "must be 32 hex digits"));
    }
    Ok(Some(text.to_ascii_lowercase()))
}

/// A kind; unspecified means any.
pub(super) fn kind(field: &str, number: i32) -> Result<Option<Kind>, Failure> {
    let kind = wire::NotificationKind::try_from(number);
    kind.map(convert::kind_filter).map_err(|_| Failure::violation(field, "is not a known kind"))
}

/// A notification's state; unspecified means any.
pub(super) fn state(field: &str, number: i32) -> Result<Option<NotificationState>, Failure> {
    let state = wire::NotificationState::try_from(number);
    state.map(convert::state_filter).map_err(|_| Failure::violation(field, "is not a known state"))
}

/// A channel; empty means any.
pub(super) fn optional_channel(field: &str, name: &str) -> Result<Option<Channel>, Failure> {
    if name.is_empty() { Ok(None) } else { channel(field, name).map(Some) }
}

/// A channel, required.
pub(super) fn channel(field: &str, name: &str) -> Result<Channel, Failure> {
    Channel::parse(name)
        .ok_or_else(|| Failure::violation(field, "must be \"telegram\", \"email\", \"webhook\", \"slack\" or \"log\""))
}

/// A channel on which people have addresses, required.
pub(super) fn contact_channel(field: &str, name: &str) -> Result<Channel, Failure> {
    Channel::parse(name)
        .filter(|channel| *channel != Channel::Log)
        .ok_or_else(|| Failure::violation(field, "must be \"telegram\", \"email\", \"webhook\" or \"slack\""))
}

/// An address, required, as it is.
pub(super) fn address(field: &str, text: &str) -> Result<String, Failure> {
    optional_name(field, text, ADDRESS_BYTES_MAX)?.ok_or_else(|| Failure::violation(field, "required"))
}

/// A time that may be absent.
pub(super) fn time(field: &str, at: Option<&Timestamp>) -> Result<Option<DateTime<Utc>>, Failure> {
    let time = |at| convert::time(at).ok_or_else(|| Failure::violation(field, "is not a valid time"));
    at.map(time).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
        result.expect_err("a fault").violations[0].0.clone()
    }

    #[test]
    fn faults_name_their_field() {
        assert_eq!(field(uuid("a", "")), "a");
        assert_eq!(field(uuid("b", "7")), "b");
        for text in ["", "  ", "two\nlines", &"x".repeat(501)] {
            assert_eq!(field(reason("c", text)), "c", "{text}");
        }
        for text in ["", "NUL\0", &"x".repeat(129)] {
            assert_eq!(field(recipient("d", text)), "d", "{text}");
        }
        // Whatever came with an event can be asked for.
        assert!(address("l", &"x".repeat(2048)).is_ok());
        for text in ["", &"x".repeat(2049)] {
            assert_eq!(field(address("l", text)), "l");
        }
        assert_eq!(field(trace_id("e", "xyz")), "e");
        assert_eq!(field(kind("f", 99)), "f");
        assert_eq!(field(state("g", 99)), "g");
        for name in ["", "pigeon", "Email"] {
            assert_eq!(field(channel("h", name)), "h", "{name}");
        }
        assert_eq!(field(contact_channel("i", "log")), "i");
        assert_eq!(field(time("j", Some(&Timestamp { seconds: 0, nanos: -1 }))), "j");
        assert_eq!(reason("k", " why ").expect("a reason"), "why");
    }
}

//! Single fields: what each may hold.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;
use service::error::Failure;
use uuid::Uuid;

pub(crate) type Checked<T> = Result<T, Failure>;

/// A required UUID.
pub(crate) fn id<T: From<Uuid>>(field: &'static str, text: &str) -> Checked<T> {
    if text.is_empty() {
        return Err(Failure::violation(field, "required"));
    }
    Uuid::try_parse(text).map(Into::into).map_err(|_| Failure::violation(field, "must be a UUID"))
}

/// A UUID that may be absent.
pub(crate) fn optional_id<T: From<Uuid>>(field: &'static str, text: &str) -> Checked<Option<T>> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

/// Text for people: trimmed, bounded in bytes, without control characters.
pub(crate) fn text(field: &'static str, text: &str, bytes_max: usize) -> Checked<String> {
    let text = text.trim();
    if text.len() > bytes_max {
        return Err(Failure::violation(field, format!("must be at most {bytes_max} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Failure::violation(field, "must not contain control characters"));
    }
    Ok(text.to_owned())
}

/// Text that must not be empty once trimmed.
pub(crate) fn required_text(field: &'static str, value: &str, bytes_max: usize) -> Checked<String> {
    match text(field, value, bytes_max)? {
        text if text.is_empty() => Err(Failure::violation(field, "required")),
        text => Ok(text),
    }
}

/// Lines of text that must not be empty once trimmed: line feeds are the only control characters in them.
pub(crate) fn lines(field: &'static str, value: &str, bytes_max: usize) -> Checked<String> {
    let value = value.trim();
    if value.len() > bytes_max {
        return Err(Failure::violation(field, format!("must be at most {bytes_max} bytes")));
    }
    for line in value.split('\n') {
        text(field, line, bytes_max)?;
    }
    if value.is_empty() { Err(Failure::violation(field, "required")) } else { Ok(value.to_owned()) }
}

/// An identity elsewhere: taken as it is, or not at all.
pub(crate) fn external_id(text: &str) -> Checked<String> {
    const FIELD: &str = "external_id";
    if text.is_empty() {
        return Err(Failure::violation(FIELD, "required"));
    }
    if text.len() > 128 {
        return Err(Failure::violation(FIELD, "must be at most 128 bytes"));
    }
    if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
        return Err(Failure::violation(FIELD, "must not contain white space or control characters"));
    }
    Ok(text.to_owned())
}

/// A BCP 47 tag, loosely (RFC 5646): letters, digits and hyphens.
pub(crate) fn locale(field: &'static str, text: &str) -> Checked<String> {
    let text = text.trim();
    if text.len() > 35 {
        return Err(Failure::violation(field, "must be at most 35 bytes"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return Err(Failure::violation(field, "must be a language tag such as en or pt-BR"));
    }
    Ok(text.to_owned())
}

/// A trace ID: 32 hex digits.
pub(crate) fn trace_id(field: &'static str, text: &str) -> Checked<Option<Uuid>> {
    match text {
        "" => Ok(None),
        text if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(Uuid::try_parse(text).ok()),
        _ => Err(Failure::violation(field, "must be 32 hex digits")),
    }
}

/// A time that may be absent: of the years 1 to 9999, as `google.protobuf.Timestamp` has it.
pub(crate) fn time(field: &'static str, time: Option<&Timestamp>) -> Checked<Option<DateTime<Utc>>> {
    const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    let Some(Timestamp { seconds, nanos }) = time else {
        return Ok(None);
    };
    u32::try_from(*nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000 && SECONDS.contains(seconds))
        .and_then(|nanos| DateTime::from_timestamp(*seconds, nanos))
        .map(Some)
        .ok_or_else(|| Failure::violation(field, "must be a time of the years 1 to 9999"))
}

/// A number in its bounds; 0 stands for the default.
pub(crate) fn number(field: &'static str, value: i32, max: i32, default: i32) -> Checked<i32> {
    match value {
        0 => Ok(default),
        value if (1..=max).contains(&value) => Ok(value),
        _ => Err(Failure::violation(field, format!("must be 0 to {max}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_their_field() {
        let fault = |result: Checked<String>| result.expect_err("a fault").violations[0].0.clone();
        assert_eq!(fault(required_text("reason", " ", 10)), "reason");
        assert_eq!(fault(text("reason", "a\nb", 10)), "reason");
        assert_eq!(fault(text("reason", "01234567890", 10)), "reason");
        assert_eq!(fault(external_id("a b")), "external_id");
        assert_eq!(fault(locale("locale", "en;")), "locale");
        assert!(id::<Uuid>("partner_id", "7").is_err());
        assert!(trace_id("trace_id", "xyz").is_err());
        assert!(number("pace", 11, 10, 5).is_err() && number("pace", -1, 10, 5).is_err());
        let time = |seconds, nanos| time("start_time", Some(&Timestamp { seconds, nanos }));
        assert!(time(1, 1).is_ok_and(|time| time.is_some()));
        for (seconds, nanos) in [(i64::MAX, 0), (i64::MIN, 0), (0, -1), (0, 1_000_000_000)] {
            assert!(time(seconds, nanos).is_err(), "{seconds} s {nanos} ns");
        }
    }
}

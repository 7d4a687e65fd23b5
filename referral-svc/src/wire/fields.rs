//! Single fields: what each may hold.

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
pub(crate) fn locale(text: &str) -> Checked<String> {
    const FIELD: &str = "locale";
    let text = text.trim();
    if text.len() > 35 {
        return Err(Failure::violation(FIELD, "must be at most 35 bytes"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return Err(Failure::violation(FIELD, "must be a language tag such as en or pt-BR"));
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
        assert_eq!(fault(locale("en;")), "locale");
        assert!(id::<Uuid>("partner_id", "7").is_err());
        assert!(trace_id("trace_id", "xyz").is_err());
    }
}

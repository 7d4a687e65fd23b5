//! W3C baggage: what a caller wants kept with its trace. It goes with the events to notify-svc and onto spans, and nowhere else.

use http::HeaderMap;
use percent_encoding::percent_decode_str;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Far less than the standard's 8 KiB: it is stored with every event and notification.
const BYTES_MAX: usize = 1024;
/// A span shows the first entries only, and the beginnings of their values.
const ATTRIBUTES_MAX: usize = 8;
const VALUE_BYTES_MAX: usize = 128;

/// The baggage as it came, if it is well-formed and at most 1 KiB; otherwise none, which is empty.
pub fn valid_baggage(text: &str) -> &str {
    let valid = text.len() <= BYTES_MAX && text.split(',').all(|member| entry(member).is_some());
    if valid { text } else { "" }
}

/// The baggage that a caller sent. Several lines are one list.
pub(crate) fn baggage_in(headers: &HeaderMap) -> String {
    let lines: Option<Vec<&str>> = headers.get_all("baggage").iter().map(|line| line.to_str().ok()).collect();
    lines.map(|lines| valid_baggage(&lines.join(",")).to_owned()).unwrap_or_default()
}

/// The first entries as the span's attributes `baggage.<key>`. They don't show in logs.
pub fn add_baggage(span: &Span, baggage: &str) {
    if baggage.is_empty() || span.is_disabled() {
        return;
    }
    let mut keys = Vec::with_capacity(ATTRIBUTES_MAX);
    for (key, value) in baggage.split(',').filter_map(entry).take(ATTRIBUTES_MAX) {
        if keys.contains(&key) {
            continue;
        }
        keys.push(key);
        let value = percent_decode_str(value).decode_utf8_lossy();
        let value = &value[..value.floor_char_boundary(VALUE_BYTES_MAX)];
        span.set_attribute(format!("baggage.{key}"), value.to_owned());
    }
}

/// `key=value`, then properties, which nothing here uses; none if that breaks the standard's grammar.
fn entry(member: &str) -> Option<(&str, &str)> {
    let mut parts = member.split(';').map(trim);
    let (key, value) = parts.next()?.split_once('=')?;
    let (key, value) = (trim(key), trim(value));
    let properties = parts.all(|property| match property.split_once('=') {
        Some((key, value)) => is_token(trim(key)) && is_value(trim(value)),
        None => is_token(property),
    });
    (is_token(key) && is_value(value) && properties).then_some((key, value))
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn is_value(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_baggage_is_kept_as_it_came() {
        for valid in ["a=1", "a=1,b=2", "a = 1 ; p ; q=3 , b=%D1%8F", "a=", "user.id=x=y"] {
            assert_eq!(valid_baggage(valid), valid);
        }
    }

    #[test]
    fn malformed_or_long_baggage_is_none() {
        let long = format!("a={}", "x".repeat(BYTES_MAX));
        for invalid in ["", "a", "=1", "a=1,", "a b=1", "a=1 2", "a=\"1\"", "a=я", "a=1;=2", "a=1\n", &long] {
            assert_eq!(valid_baggage(invalid), "", "{invalid}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let mut headers = HeaderMap::new();
        assert_eq!(baggage_in(&headers), "");
        for line in ["a=1", "b=2"] {
            headers.append("baggage", line.parse().unwrap());
        }
        assert_eq!(baggage_in(&headers), "a=1,b=2");
    }
}

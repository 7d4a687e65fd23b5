//! What a provider's answer means: one table per channel.

pub mod slack;
pub mod smtp;
pub mod telegram;
pub mod webhook;

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};

use crate::{delivery::Outcome, state::OutcomeClass};

/// `HTTP_<status>` as a reason.
fn http(class: OutcomeClass, status: u16) -> Outcome {
    Outcome::new(class, format!("HTTP_{status}"))
}

/// The three forms of an HTTP date (RFC 9110, section 5.6.7), the last two of them obsolete.
const DATE_FORMS: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// A `Retry-After` header, in seconds or as a date (RFC 9110, section 10.2.3).
pub fn retry_after(header: Option<&str>, now: DateTime<Utc>) -> Option<Duration> {
    let header = header?.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DATE_FORMS.iter().find_map(|form| NaiveDateTime::parse_from_str(header, form).ok())?;
    Some(date.and_utc().signed_duration_since(now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    #[test]
    fn retry_after_in_seconds() {
        assert_eq!(retry_after(Some(" 7 "), NOW), Some(Duration::from_secs(7)));
        for absent in [None, Some(""), Some("-1"), Some("soon"), Some("Thu, 99 Jan 1970 00:00:07 GMT")] {
            assert_eq!(retry_after(absent, NOW), None, "{absent:?}");
        }
    }

    #[test]
    fn retry_after_as_a_date() {
        for date in ["Thu, 01 Jan 1970 00:01:07 GMT", "Thursday, 01-Jan-70 00:01:07 GMT", "Thu Jan  1 00:01:07 1970"] {
            assert_eq!(retry_after(Some(date), NOW), Some(Duration::from_secs(67)), "{date}");
        }
        let past = retry_after(Some("Wed, 31 Dec 1969 23:59:59 GMT"), NOW);
        assert_eq!(past, Some(Duration::ZERO));
    }
}

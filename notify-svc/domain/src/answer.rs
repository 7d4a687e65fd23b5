//! What a provider's answer means: one table per channel.

pub mod telegram;
pub mod webhook;

use std::time::Duration;

use crate::{delivery::Outcome, state::OutcomeClass};

/// `HTTP_<status>` as a reason.
fn http(class: OutcomeClass, status: u16) -> Outcome {
    Outcome::new(class, format!("HTTP_{status}"))
}

/// A `Retry-After` header in seconds (RFC 9110, section 10.2.3); its date form is rare among APIs and counts as absent.
pub fn retry_after(header: Option<&str>) -> Option<Duration> {
    header?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_seconds() {
        assert_eq!(retry_after(Some(" 7 ")), Some(Duration::from_secs(7)));
        for absent in [None, Some(""), Some("-1"), Some("soon"), Some("Wed, 21 Oct 2026 07:28:00 GMT")] {
            assert_eq!(retry_after(absent), None);
        }
    }
}

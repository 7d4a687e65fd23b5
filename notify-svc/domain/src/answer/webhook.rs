//! What a webhook receiver's answer means.

use std::time::Duration;

use super::http;
use crate::{
    delivery::Outcome,
    state::OutcomeClass::{Address, Content, Transient},
};

/// The meaning of a status code.
///
/// Source: the Standard Webhooks specification (standardwebhooks.com, "Webhook response" and "Operational considerations"):
/// 2xx is success, everything else failure, redirects included; 410 Gone means stop sending there; 429, 502 and 504 mean slow
/// down. That 404 is treated like 410, and other 4xx as a refusal of the content, is this service's choice: sending the
/// same again would end the same.
pub fn classify(status: u16, retry_after: Option<Duration>) -> Outcome {
    match status {
        200..=299 => Outcome::DELIVERED,
        300..=399 | 404 | 410 => http(Address, status),
        408 | 425 | 429 => http(Transient, status).after(retry_after),
        400..=499 => http(Content, status),
        _ => http(Transient, status).after(retry_after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::OutcomeClass;

    #[test]
    fn the_table() {
        let table = [
            (200, OutcomeClass::Delivered),
            (204, OutcomeClass::Delivered),
            (301, Address),
            (307, Address),
            (400, Content),
            (401, Content),
            (404, Address),
            (408, Transient),
            (410, Address),
            (413, Content),
            (425, Transient),
            (429, Transient),
            (500, Transient),
            (503, Transient),
            (504, Transient),
        ];
        for (status, class) in table {
            assert_eq!(classify(status, None).class, class, "{status}");
        }
        assert_eq!(classify(503, None).reason, "HTTP_503");
    }

    #[test]
    fn a_busy_server_sets_the_floor() {
        let wait = Some(Duration::from_secs(9));
        assert_eq!(classify(429, wait).retry_after, wait);
        assert_eq!(classify(503, wait).retry_after, wait);
        assert_eq!(classify(410, wait).retry_after, None);
    }
}

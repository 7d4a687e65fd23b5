//! What an answer of a Slack incoming webhook means.

use std::time::Duration;

use super::http;
use crate::{
    delivery::Outcome,
    state::OutcomeClass::{self, Address, Ambiguous, Configuration, Content, Transient},
};

/// The body of an answer that is no error.
const OK: &str = "ok";

/// The errors that Slack answers with, as the plain text of the body; those about blocks and length are not documented.
const ERRORS: [(&str, OutcomeClass, &str); 18] = [
    ("invalid_payload", Content, "SLACK_INVALID_PAYLOAD"),
    ("invalid_blocks", Content, "SLACK_INVALID_BLOCKS"),
    ("invalid_blocks_format", Content, "SLACK_INVALID_BLOCKS"),
    ("no_text", Content, "SLACK_NO_TEXT"),
    ("too_many_attachments", Content, "SLACK_TOO_MANY_ATTACHMENTS"),
    ("msg_too_long", Content, "SLACK_MESSAGE_TOO_LONG"),
    ("invalid_token", Address, "SLACK_INVALID_TOKEN"),
    ("no_active_hooks", Address, "SLACK_NO_ACTIVE_HOOKS"),
    ("no_service", Address, "SLACK_NO_SERVICE"),
    ("no_service_id", Address, "SLACK_NO_SERVICE_ID"),
    ("no_team", Address, "SLACK_NO_TEAM"),
    ("team_disabled", Address, "SLACK_TEAM_DISABLED"),
    ("user_not_found", Address, "SLACK_USER_NOT_FOUND"),
    ("channel_not_found", Address, "SLACK_CHANNEL_NOT_FOUND"),
    ("channel_is_archived", Address, "SLACK_CHANNEL_IS_ARCHIVED"),
    ("action_prohibited", Address, "SLACK_ACTION_PROHIBITED"),
    ("posting_to_general_channel_denied", Address, "SLACK_POSTING_TO_GENERAL_CHANNEL_DENIED"),
    ("rollup_error", Ambiguous, "SLACK_ROLLUP_ERROR"),
];

/// The meaning of a status code and body; `retry_after` is the header's.
///
/// Source: Slack's documentation of incoming webhooks (docs.slack.dev/messaging/sending-messages-using-incoming-webhooks,
/// "Handling errors"), its change log of 2016-05-17 (which status goes with which error) and its page on rate limits (429 with
/// `Retry-After`, one message per second and webhook). An error's name says more than its status, so it comes first; the
/// older umbrella status 500 is covered by that too. A secret in the URL is all that lets one post, so whatever refuses it or
/// its channel is about the address. A redirect can only come from something in front of Slack that this service was
/// pointed at. After any other 5xx, and after a 2xx without "ok", the message may have arrived: Slack says so of `rollup_error`
/// alone, for the rest it is this service's caution.
pub fn classify(status: u16, body: &str, retry_after: Option<Duration>) -> Outcome {
    let body = body.trim();
    if let 200..=299 = status {
        let delivered = body.eq_ignore_ascii_case(OK);
        return if delivered { Outcome::DELIVERED } else { Outcome::new(Ambiguous, "SLACK_ANSWER_UNREADABLE") };
    }
    if status == 429 {
        return Outcome::new(Transient, "SLACK_RATE_LIMITED").after(retry_after);
    }
    if let Some((_, class, reason)) = ERRORS.iter().find(|(error, ..)| *error == body) {
        return Outcome::new(*class, *reason);
    }
    match status {
        300..=399 => http(Configuration, status),
        401 | 403 | 404 | 410 => http(Address, status),
        408 | 425 => http(Transient, status).after(retry_after),
        400..=499 => http(Content, status),
        _ => http(Ambiguous, status).after(retry_after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::OutcomeClass::Delivered;

    #[test]
    fn the_table() {
        let table: [(u16, &str, OutcomeClass, &str); 32] = [
            (200, "ok", Delivered, ""),
            (200, "ok\n", Delivered, ""),
            (200, "", Ambiguous, "SLACK_ANSWER_UNREADABLE"),
            (200, "<html>", Ambiguous, "SLACK_ANSWER_UNREADABLE"),
            (302, "", Configuration, "HTTP_302"),
            (400, "invalid_payload", Content, "SLACK_INVALID_PAYLOAD"),
            (400, "invalid_blocks", Content, "SLACK_INVALID_BLOCKS"),
            (400, "no_text", Content, "SLACK_NO_TEXT"),
            (400, "too_many_attachments", Content, "SLACK_TOO_MANY_ATTACHMENTS"),
            (400, "user_not_found", Address, "SLACK_USER_NOT_FOUND"),
            (400, "never_seen", Content, "HTTP_400"),
            (401, "", Address, "HTTP_401"),
            (403, "action_prohibited", Address, "SLACK_ACTION_PROHIBITED"),
            (403, "posting_to_general_channel_denied", Address, "SLACK_POSTING_TO_GENERAL_CHANNEL_DENIED"),
            (403, "invalid_token", Address, "SLACK_INVALID_TOKEN"),
            (403, "team_disabled", Address, "SLACK_TEAM_DISABLED"),
            (403, "", Address, "HTTP_403"),
            (404, "channel_not_found", Address, "SLACK_CHANNEL_NOT_FOUND"),
            (404, "no_service", Address, "SLACK_NO_SERVICE"),
            (404, "no_service_id", Address, "SLACK_NO_SERVICE_ID"),
            (404, "no_active_hooks", Address, "SLACK_NO_ACTIVE_HOOKS"),
            (404, "no_team", Address, "SLACK_NO_TEAM"),
            (404, "<html>", Address, "HTTP_404"),
            (408, "", Transient, "HTTP_408"),
            (410, "channel_is_archived", Address, "SLACK_CHANNEL_IS_ARCHIVED"),
            (410, "", Address, "HTTP_410"),
            (413, "", Content, "HTTP_413"),
            (429, "rate_limited", Transient, "SLACK_RATE_LIMITED"),
            (500, "rollup_error", Ambiguous, "SLACK_ROLLUP_ERROR"),
            (500, "no_service", Address, "SLACK_NO_SERVICE"),
            (500, "", Ambiguous, "HTTP_500"),
            (503, "", Ambiguous, "HTTP_503"),
        ];
        for (status, body, class, reason) in table {
            let outcome = classify(status, body, None);
            assert_eq!((outcome.class, outcome.reason.as_ref()), (class, reason), "{status} {body}");
        }
    }

    #[test]
    fn a_webhooks_own_limit_sets_the_floor_and_pauses_nobody_else() {
        let wait = Some(Duration::from_secs(30));
        let outcome = classify(429, "", wait);
        assert_eq!((outcome.retry_after, outcome.pause), (wait, None));
        assert_eq!(classify(503, "", wait).retry_after, wait);
        assert_eq!(classify(404, "", wait).retry_after, None);
    }
}

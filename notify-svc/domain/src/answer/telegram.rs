//! What an answer of Telegram's Bot API means.

use std::time::Duration;

use serde::Deserialize;

use super::http;
use crate::{
    delivery::Outcome,
    state::OutcomeClass::{Address, Ambiguous, Configuration, Content, Transient},
};

/// The body of every answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Whether it was done.
    pub ok: bool,
    /// What is wrong, for a person to read; the only thing that tells one 400 from another.
    pub description: String,
    /// Helps to handle the error.
    pub parameters: Parameters,
}

/// `ResponseParameters`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Parameters {
    /// Seconds to wait before the request can be repeated.
    pub retry_after: Option<u64>,
    /// The group has become a supergroup with this ID.
    pub migrate_to_chat_id: Option<i64>,
}

/// Descriptions of a 400 that mean the chat, not the text.
const ADDRESS_DESCRIPTIONS: [(&str, &str); 5] = [
    ("chat not found", "TELEGRAM_CHAT_NOT_FOUND"),
    ("chat_id is empty", "TELEGRAM_CHAT_NOT_FOUND"),
    ("peer_id_invalid", "TELEGRAM_CHAT_NOT_FOUND"),
    ("user not found", "TELEGRAM_CHAT_NOT_FOUND"),
    ("group chat was upgraded", "TELEGRAM_CHAT_MIGRATED"),
];

/// The meaning of a status code and body (`None`: it couldn't be read); `retry_after` is the header's.
///
/// Source: the Bot API's documentation (core.telegram.org/bots/api, "Making requests" and "ResponseParameters"): `ok`, a
/// human-readable `description`, `error_code` equal to the HTTP status, `parameters.retry_after` when flood control is
/// exceeded, `parameters.migrate_to_chat_id` when a group has moved. 403 is "bot was blocked by the user" and its like. A
/// wrong or revoked token answers 401 or, when it isn't even shaped like one, 404. After a 5xx, which often comes from
/// something in front of Telegram, the message may have arrived.
pub fn classify(status: u16, answer: Option<&Answer>, retry_after: Option<Duration>) -> Outcome {
    let retry_after = answer.and_then(|answer| answer.parameters.retry_after).map(Duration::from_secs).or(retry_after);
    match status {
        200..=299 => match answer {
            Some(answer) if answer.ok => Outcome::DELIVERED,
            _ => Outcome::new(Ambiguous, "TELEGRAM_ANSWER_UNREADABLE"),
        },
        401 | 404 => Outcome::new(Configuration, "TELEGRAM_TOKEN_REFUSED"),
        403 => Outcome::new(Address, "TELEGRAM_BLOCKED"),
        429 => Outcome::new(Transient, "TELEGRAM_FLOOD_CONTROL").after(retry_after),
        408 | 425 => http(Transient, status).after(retry_after),
        400 => bad_request(answer),
        300..=399 => http(Configuration, status),
        401..=499 => http(Content, status),
        _ => http(Ambiguous, status).after(retry_after),
    }
}

fn bad_request(answer: Option<&Answer>) -> Outcome {
    let description = answer.map(|answer| answer.description.to_lowercase()).unwrap_or_default();
    match ADDRESS_DESCRIPTIONS.iter().find(|(part, _)| description.contains(part)) {
        Some((_, reason)) => Outcome::new(Address, *reason),
        None => Outcome::new(Content, "TELEGRAM_BAD_REQUEST"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::OutcomeClass::{self, Delivered};

    fn played(status: u16, body: &str) -> Outcome {
        classify(status, serde_json::from_str(body).ok().as_ref(), None)
    }

    #[test]
    fn the_table() {
        let table: [(u16, &str, OutcomeClass, &str); 15] = [
            (200, r#"{"ok":true,"result":{"message_id":1}}"#, Delivered, ""),
            (200, "<html>", Ambiguous, "TELEGRAM_ANSWER_UNREADABLE"),
            (302, "", Configuration, "HTTP_302"),
            (400, r#"{"ok":false,"description":"Bad Request: chat not found"}"#, Address, "TELEGRAM_CHAT_NOT_FOUND"),
            (
                400,
                r#"{"ok":false,"description":"Bad Request: message text is empty"}"#,
                Content,
                "TELEGRAM_BAD_REQUEST",
            ),
            (
                400,
                r#"{"ok":false,"description":"Bad Request: group chat was upgraded to a supergroup chat","parameters":{"migrate_to_chat_id":-100}}"#,
                Address,
                "TELEGRAM_CHAT_MIGRATED",
            ),
            (401, r#"{"ok":false,"description":"Unauthorized"}"#, Configuration, "TELEGRAM_TOKEN_REFUSED"),
            (
                403,
                r#"{"ok":false,"description":"Forbidden: bot was blocked by the user"}"#,
                Address,
                "TELEGRAM_BLOCKED",
            ),
            (404, r#"{"ok":false,"description":"Not Found"}"#, Configuration, "TELEGRAM_TOKEN_REFUSED"),
            (408, "", Transient, "HTTP_408"),
            (425, "", Transient, "HTTP_425"),
            (409, r#"{"ok":false}"#, Content, "HTTP_409"),
            (429, r#"{"ok":false,"parameters":{"retry_after":3}}"#, Transient, "TELEGRAM_FLOOD_CONTROL"),
            (500, "", Ambiguous, "HTTP_500"),
            (502, "<html>", Ambiguous, "HTTP_502"),
        ];
        for (status, body, class, reason) in table {
            let outcome = played(status, body);
            assert_eq!((outcome.class, outcome.reason.as_ref()), (class, reason), "{status} {body}");
        }
    }

    #[test]
    fn flood_control_sets_the_floor() {
        let outcome = played(429, r#"{"ok":false,"error_code":429,"parameters":{"retry_after":35}}"#);
        assert_eq!(outcome.retry_after, Some(Duration::from_secs(35)));
        let header = Some(Duration::from_secs(7));
        assert_eq!(classify(429, None, header).retry_after, header);
        let answer =
            Answer { parameters: Parameters { retry_after: Some(3), ..Default::default() }, ..Default::default() };
        assert_eq!(classify(429, Some(&answer), header).retry_after, Some(Duration::from_secs(3)));
    }
}

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

/// Seconds to wait after a 429 that doesn't say how many.
const FLOOD_WAIT_DEFAULT: Duration = Duration::from_secs(1);

/// Descriptions of a 400 that mean the chat, not the text.
const ADDRESS_DESCRIPTIONS: [(&str, &str); 8] = [
    ("chat not found", "TELEGRAM_CHAT_NOT_FOUND"),
    ("chat_id is empty", "TELEGRAM_CHAT_NOT_FOUND"),
    ("peer_id_invalid", "TELEGRAM_CHAT_NOT_FOUND"),
    ("user not found", "TELEGRAM_CHAT_NOT_FOUND"),
    ("group chat was upgraded", MIGRATED),
    ("not enough rights", "TELEGRAM_NOT_ALLOWED"),
    ("have no rights", "TELEGRAM_NOT_ALLOWED"),
    ("chat_write_forbidden", "TELEGRAM_NOT_ALLOWED"),
];

/// The group has become a supergroup, under another ID.
const MIGRATED: &str = "TELEGRAM_CHAT_MIGRATED";

/// Descriptions of a 400 that mean one part of the message, which can go without.
const DISPENSABLE_DESCRIPTIONS: [(&str, Dispensable); 4] = [
    ("can't parse entities", Dispensable::Markup),
    ("wrong http url", Dispensable::Button),
    ("button_", Dispensable::Button),
    ("inline keyboard button", Dispensable::Button),
];

/// What a message can go without, so that its text arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispensable {
    /// The text is sent as it is, without a parse mode.
    Markup,
    /// No button.
    Button,
}

/// What Telegram stumbled over, if sending the same without it may help.
pub fn stumbled_over(status: u16, answer: Option<&Answer>) -> Option<Dispensable> {
    let description = answer.filter(|_| status == 400)?.description.to_lowercase();
    DISPENSABLE_DESCRIPTIONS.iter().find(|(part, _)| description.contains(part)).map(|(_, part)| *part)
}

/// The meaning of a status code and body (`None`: it couldn't be read); `retry_after` is the header's.
///
/// Source: the Bot API's documentation (core.telegram.org/bots/api, "Making requests" and "ResponseParameters"): `ok`, a
/// human-readable `description`, `error_code` equal to the HTTP status, `parameters.retry_after` when flood control is
/// exceeded, `parameters.migrate_to_chat_id` when a group has moved. Flood control is the bot's, not the chat's: nothing is
/// sent with its token meanwhile. 403 is "bot was blocked by the user" and its like. A wrong or revoked token answers 401 or,
/// when it isn't even shaped like one, 404. After a 5xx, which often comes from something in front of Telegram, the message
/// may have arrived. The descriptions aren't documented; those in the tables above are what the Bot API's server answers
/// (github.com/tdlib/telegram-bot-api).
pub fn classify(status: u16, answer: Option<&Answer>, retry_after: Option<Duration>) -> Outcome {
    let retry_after = answer.and_then(|answer| answer.parameters.retry_after).map(Duration::from_secs).or(retry_after);
    match status {
        200..=299 => match answer {
            Some(answer) if answer.ok => Outcome::DELIVERED,
            _ => Outcome::new(Ambiguous, "TELEGRAM_ANSWER_UNREADABLE"),
        },
        401 | 404 => Outcome::new(Configuration, "TELEGRAM_TOKEN_REFUSED"),
        403 => Outcome::new(Address, "TELEGRAM_BLOCKED"),
        429 => {
            let wait = Some(retry_after.unwrap_or(FLOOD_WAIT_DEFAULT));
            Outcome { pause: wait, ..Outcome::new(Transient, "TELEGRAM_FLOOD_CONTROL").after(wait) }
        }
        408 | 425 => http(Transient, status).after(retry_after),
        400 => bad_request(answer),
        300..=399 => http(Configuration, status),
        401..=499 => http(Content, status),
        _ => http(Ambiguous, status).after(retry_after),
    }
}

fn bad_request(answer: Option<&Answer>) -> Outcome {
    let moved_to = answer.and_then(|answer| answer.parameters.migrate_to_chat_id);
    if let Some(chat_id) = moved_to {
        return Outcome { moved_to: Some(chat_id.to_string()), ..Outcome::new(Address, MIGRATED) };
    }
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
        let table: [(u16, &str, OutcomeClass, &str); 18] = [
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
            (
                400,
                r#"{"ok":false,"description":"Bad Request: group chat was upgraded to a supergroup chat"}"#,
                Address,
                "TELEGRAM_CHAT_MIGRATED",
            ),
            (
                400,
                r#"{"ok":false,"description":"Bad Request: not enough rights to send text messages to the chat"}"#,
                Address,
                "TELEGRAM_NOT_ALLOWED",
            ),
            (
                400,
                r#"{"ok":false,"description":"Bad Request: can't parse entities: unclosed start tag"}"#,
                Content,
                "TELEGRAM_BAD_REQUEST",
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
    fn flood_control_sets_the_floor_and_pauses_the_token() {
        let header = Some(Duration::from_secs(7));
        let answer = |retry_after| {
            let parameters = Parameters { retry_after, ..Default::default() };
            Some(Answer { parameters, ..Default::default() })
        };
        for (answer, header, seconds) in
            [(answer(Some(35)), header, 35), (answer(None), header, 7), (None, header, 7), (answer(None), None, 1)]
        {
            let (outcome, wait) = (classify(429, answer.as_ref(), header), Some(Duration::from_secs(seconds)));
            assert_eq!((outcome.retry_after, outcome.pause), (wait, wait));
        }
        assert_eq!(classify(500, None, header).pause, None);
    }

    #[test]
    fn a_group_that_has_moved_says_where() {
        let moved = played(400, r#"{"ok":false,"parameters":{"migrate_to_chat_id":-1001234567890}}"#);
        assert_eq!((moved.reason.as_ref(), moved.moved_to.as_deref()), (MIGRATED, Some("-1001234567890")));
        let unknown = played(400, r#"{"ok":false,"description":"Bad Request: group chat was upgraded"}"#);
        assert_eq!((unknown.reason.as_ref(), unknown.moved_to), (MIGRATED, None));
    }

    #[test]
    fn some_parts_can_be_left_out() {
        let stumbled = |status, description: &str| {
            stumbled_over(status, Some(&Answer { description: description.to_owned(), ..Default::default() }))
        };
        let entities = "Bad Request: can't parse entities: Unsupported start tag \"b\" at byte offset 0";
        let button = "Bad Request: inline keyboard button URL 'x://y' is invalid: Unsupported URL protocol";
        assert_eq!(stumbled(400, entities), Some(Dispensable::Markup));
        assert_eq!(stumbled(400, button), Some(Dispensable::Button));
        assert_eq!(stumbled(400, "Bad Request: BUTTON_URL_INVALID"), Some(Dispensable::Button));
        assert_eq!(stumbled(400, "Bad Request: chat not found"), None);
        assert_eq!(stumbled(500, entities), None);
        assert_eq!(stumbled_over(400, None), None);
    }
}

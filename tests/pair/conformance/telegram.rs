//! A stand-in for Telegram's Bot API.

use notify_svc::Config;
use p2phub_proto::notify::v1::AttemptOutcome::{Address, Ambiguous, Configuration, Content, Delivered, Transient};
use p2phub_tests::sink::{Reply, Sink};
use serde_json::json;

use super::stand::{Received, Row, Stand};

/// core.telegram.org/bots/api#sendmessage: characters of a text, counted as UTF-16 does.
const TEXT_UNITS_MAX: usize = 4096;

pub(super) struct Telegram(Sink);

fn chat_id(number: usize) -> String {
    (7_000_000 + number).to_string()
}

fn error(status: u16, description: &str) -> Reply {
    Reply::json(status, &json!({ "ok": false, "error_code": status, "description": description }))
}

impl Stand for Telegram {
    const CHANNEL: &'static str = "telegram";

    type Reply = Reply;

    async fn start() -> Self {
        let sink = Sink::start().await;
        sink.otherwise(Reply::json(200, &json!({ "ok": true, "result": { "message_id": 1 } })));
        Self(sink)
    }

    fn configure(&self) -> impl Fn(&mut Config) + Send + Sync + 'static {
        let url = self.0.url("");
        move |config| {
            config.telegram_bot_token = Some("12345:a-token_x".to_owned());
            config.telegram_api_url = url.clone();
        }
    }

    fn address(&self, number: usize) -> String {
        chat_id(number)
    }

    fn play(&self, number: usize, reply: Reply) {
        self.0.then_with(&format!("\"{}\"", chat_id(number)), [reply]);
    }

    fn received(&self, number: usize) -> Vec<Received> {
        let bodies = self.0.received().into_iter().map(|request| request.json());
        bodies
            .filter(|body| body["chat_id"] == chat_id(number))
            .map(|body| Received {
                identity: String::new(),
                text: body["text"].as_str().expect("a text").to_owned(),
                whole: body.to_string(),
            })
            .collect()
    }

    async fn close(&mut self) {
        self.0.close().await;
    }

    /// What is sent again at once, without what Telegram stumbled over, is played elsewhere.
    fn table() -> Vec<Row<Reply>> {
        let row = |reply, outcome, reason| (reply, outcome, reason);
        let flood = json!({ "ok": false, "error_code": 429, "description": "Too Many Requests: retry after 1",
                            "parameters": { "retry_after": 1 } });
        let moved = json!({ "ok": false, "error_code": 400, "parameters": { "migrate_to_chat_id": -1_001_234 },
                            "description": "Bad Request: group chat was upgraded to a supergroup chat" });
        let rows = [
            row(Reply::json(200, &json!({ "ok": true, "result": {} })), Delivered, ""),
            row(Reply::text(200, "<html>"), Ambiguous, "TELEGRAM_ANSWER_UNREADABLE"),
            row(Reply::json(200, &json!({ "ok": false })), Ambiguous, "TELEGRAM_ANSWER_UNREADABLE"),
            row(Reply::status(302), Configuration, "HTTP_302"),
            row(error(400, "Bad Request: chat not found"), Address, "TELEGRAM_CHAT_NOT_FOUND"),
            row(error(400, "Bad Request: chat_id is empty"), Address, "TELEGRAM_CHAT_NOT_FOUND"),
            row(error(400, "Bad Request: PEER_ID_INVALID"), Address, "TELEGRAM_CHAT_NOT_FOUND"),
            row(error(400, "Bad Request: user not found"), Address, "TELEGRAM_CHAT_NOT_FOUND"),
            row(error(400, "Bad Request: not enough rights to send text messages"), Address, "TELEGRAM_NOT_ALLOWED"),
            row(error(400, "Bad Request: have no rights to send a message"), Address, "TELEGRAM_NOT_ALLOWED"),
            row(error(400, "Bad Request: CHAT_WRITE_FORBIDDEN"), Address, "TELEGRAM_NOT_ALLOWED"),
            row(error(400, "Bad Request: message text is empty"), Content, "TELEGRAM_BAD_REQUEST"),
            row(Reply::status(400), Content, "TELEGRAM_BAD_REQUEST"),
            row(Reply::json(400, &moved), Address, "TELEGRAM_CHAT_MIGRATED"),
            row(error(401, "Unauthorized"), Configuration, "TELEGRAM_TOKEN_REFUSED"),
            row(error(403, "Forbidden: bot was blocked by the user"), Address, "TELEGRAM_BLOCKED"),
            row(error(403, "Forbidden: user is deactivated"), Address, "TELEGRAM_BLOCKED"),
            row(error(404, "Not Found"), Configuration, "TELEGRAM_TOKEN_REFUSED"),
            row(Reply::status(408), Transient, "HTTP_408"),
            row(error(409, "Conflict"), Content, "HTTP_409"),
            row(Reply::json(429, &flood), Transient, "TELEGRAM_FLOOD_CONTROL"),
            row(error(500, "Internal Server Error"), Ambiguous, "HTTP_500"),
            row(Reply::text(502, "<html>"), Ambiguous, "HTTP_502"),
            row(Reply::status(504), Ambiguous, "HTTP_504"),
        ];
        let rows =
            rows.into_iter().map(|(reply, outcome, reason)| Row::new(format!("{reply:?}"), reply, outcome, reason));
        rows.collect()
    }

    fn hang() -> Reply {
        Reply::hang()
    }

    fn lost() -> Reply {
        Reply::lost()
    }

    fn busy() -> Reply {
        Reply::status(408)
    }

    fn gone() -> (Reply, &'static str) {
        (error(403, "Forbidden: bot was blocked by the user"), "TELEGRAM_BLOCKED")
    }

    fn check_carried(received: &Received, text: &str) {
        let carried = &received.text;
        assert!(received.whole.contains("\"parse_mode\":\"HTML\""), "{}", received.whole);
        assert!(!carried.contains(['<', '>']), "{carried}");
        let read = carried.replace("&#x27;", "'").replace("&#39;", "'").replace("&quot;", "\"");
        let read = read.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        assert!(read.encode_utf16().count() <= TEXT_UNITS_MAX, "{} units", read.encode_utf16().count());
        if text.encode_utf16().count() <= TEXT_UNITS_MAX {
            assert_eq!(read, text);
        } else {
            let beginning = read.strip_suffix('…').unwrap_or_else(|| panic!("no ellipsis: {read}"));
            assert!(text.starts_with(beginning) && beginning.encode_utf16().count() > TEXT_UNITS_MAX - 50, "{read}");
        }
    }
}

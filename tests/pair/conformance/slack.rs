//! A stand-in for Slack's incoming webhooks.

use notify_svc::Config;
use p2phub_proto::notify::v1::AttemptOutcome::{Address, Ambiguous, Configuration, Content, Delivered, Transient};
use p2phub_tests::sink::{Reply, Sink};

use super::stand::{Received, Row, Stand};

pub(super) struct Slack(Sink);

fn path(number: usize) -> String {
    format!("/services/T0/B0/x{number:04}")
}

impl Stand for Slack {
    const CHANNEL: &'static str = "slack";

    type Reply = Reply;

    async fn start() -> Self {
        let sink = Sink::start().await;
        sink.otherwise(Reply::text(200, "ok"));
        Self(sink)
    }

    fn configure(&self) -> impl Fn(&mut Config) + Send + Sync + 'static {
        let url = self.0.url("");
        move |config| config.slack_api_url = Some(url.clone())
    }

    /// As Slack gives it out: the stand-in is where the configuration says.
    fn address(&self, number: usize) -> String {
        format!("https://hooks.slack.com{}", path(number))
    }

    fn play(&self, number: usize, reply: Reply) {
        self.0.then_with(&path(number), [reply]);
    }

    fn received(&self, number: usize) -> Vec<Received> {
        let received = self.0.received().into_iter().filter(|request| request.path == path(number));
        received
            .map(|request| Received {
                identity: String::new(),
                text: request.json()["text"].as_str().expect("a text").to_owned(),
                whole: request.json().to_string(),
            })
            .collect()
    }

    async fn close(&mut self) {
        self.0.close().await;
    }

    /// docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, "Handling errors".
    fn table() -> Vec<Row<Reply>> {
        let rows = [
            (200, "ok", Delivered, ""),
            (200, "<html>", Ambiguous, "SLACK_ANSWER_UNREADABLE"),
            (302, "", Configuration, "HTTP_302"),
            (400, "invalid_payload", Content, "SLACK_INVALID_PAYLOAD"),
            (400, "invalid_blocks", Content, "SLACK_INVALID_BLOCKS"),
            (400, "no_text", Content, "SLACK_NO_TEXT"),
            (400, "too_many_attachments", Content, "SLACK_TOO_MANY_ATTACHMENTS"),
            (400, "user_not_found", Address, "SLACK_USER_NOT_FOUND"),
            (400, "never_seen", Content, "HTTP_400"),
            (403, "action_prohibited", Address, "SLACK_ACTION_PROHIBITED"),
            (403, "posting_to_general_channel_denied", Address, "SLACK_POSTING_TO_GENERAL_CHANNEL_DENIED"),
            (403, "invalid_token", Address, "SLACK_INVALID_TOKEN"),
            (403, "team_disabled", Address, "SLACK_TEAM_DISABLED"),
            (404, "channel_not_found", Address, "SLACK_CHANNEL_NOT_FOUND"),
            (404, "no_service", Address, "SLACK_NO_SERVICE"),
            (404, "no_service_id", Address, "SLACK_NO_SERVICE_ID"),
            (404, "no_active_hooks", Address, "SLACK_NO_ACTIVE_HOOKS"),
            (404, "no_team", Address, "SLACK_NO_TEAM"),
            (408, "", Transient, "HTTP_408"),
            (410, "channel_is_archived", Address, "SLACK_CHANNEL_IS_ARCHIVED"),
            (413, "", Content, "HTTP_413"),
            (429, "", Transient, "SLACK_RATE_LIMITED"),
            (500, "rollup_error", Ambiguous, "SLACK_ROLLUP_ERROR"),
            (500, "", Ambiguous, "HTTP_500"),
            (503, "", Ambiguous, "HTTP_503"),
        ];
        let rows = rows.map(|(status, body, outcome, reason)| {
            Row::new(format!("{status} {body}"), Reply::text(status, body), outcome, reason)
        });
        rows.into()
    }

    fn hang() -> Reply {
        Reply::hang()
    }

    fn lost() -> Reply {
        Reply::lost()
    }

    fn busy() -> Reply {
        Reply::status(429)
    }

    fn gone() -> (Reply, &'static str) {
        (Reply::text(404, "no_service"), "SLACK_NO_SERVICE")
    }

    fn malformed_addresses() -> &'static [&'static str] {
        &["services/T0/B0/x", "https://example.org/services/T0/B0/x", "https://hooks.slack.com.example.org/x"]
    }

    /// docs.slack.dev/messaging/formatting-message-text, "Escaping text". Nothing here is longer than what Slack takes.
    fn check_carried(received: &Received, text: &str) {
        let carried = &received.text;
        assert!(!carried.contains(['<', '>']), "{carried}");
        let entities = ["&amp;", "&lt;", "&gt;"];
        let known: usize = entities.iter().map(|entity| carried.matches(entity).count()).sum();
        assert_eq!(carried.matches('&').count(), known, "{carried}");
        assert_eq!(carried.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"), text);
    }
}

//! Slack's incoming webhooks (docs.slack.dev/messaging/sending-messages-using-incoming-webhooks).

use anyhow::{Context, ensure};
use futures_util::future::{BoxFuture, FutureExt};
use notify_domain::{
    answer::slack::classify, channel::Channel, delivery::Outcome, state::OutcomeClass, text as plain_text,
};
use reqwest::Client;
use serde_json::{Value, json};
use url::Url;

use super::{Message, Sender, http};
use crate::template::{Button, Rendered};

/// Where Slack's own webhooks are.
const SLACK: &str = "https://hooks.slack.com";
/// Characters of a message's text; what is longer Slack would cut itself (api.slack.com/changelog/2018-04-truncating-really-long-
/// messages).
const TEXT_UNITS_MAX: usize = 40_000;
/// Characters of a text in a block (docs.slack.dev/reference/block-kit/blocks/section-block).
const BLOCK_TEXT_UNITS_MAX: usize = 3_000;
/// Characters of a button's label and URL (docs.slack.dev/reference/block-kit/block-elements/button-element).
const LABEL_UNITS_MAX: usize = 75;
const URL_UNITS_MAX: usize = 3_000;

/// Sends to any of Slack's webhooks.
pub(super) struct SlackSender {
    client: Client,
    base: Url,
    slack: Url,
}

impl SlackSender {
    pub(super) fn new(client: Client, api_url: &str) -> anyhow::Result<Self> {
        let base = Url::parse(api_url).context("SLACK_API_URL is not a URL")?;
        ensure!(matches!(base.scheme(), "http" | "https"), "SLACK_API_URL is not an http or https URL");
        ensure!(base.query().is_none() && base.fragment().is_none(), "SLACK_API_URL must end with its path");
        Ok(Self { client, base, slack: Url::parse(SLACK)? })
    }

    /// Where an address is sent to: its path at the base, whether it names the base itself or Slack; `None` for any other.
    fn target(&self, address: &str) -> Option<Url> {
        let address = Url::parse(address).ok()?;
        let is_known = [&self.base, &self.slack].iter().any(|known| known.origin() == address.origin());
        let mut target = is_known.then(|| self.base.clone())?;
        let (below, path) = (self.base.path().trim_end_matches('/'), address.path());
        let is_below = path.strip_prefix(below).is_some_and(|rest| rest.starts_with('/'));
        target.set_path(&if is_below { path.to_owned() } else { format!("{below}{path}") });
        target.set_query(address.query());
        Some(target)
    }

    async fn exchange(&self, message: &Message) -> Outcome {
        let Some(target) = self.target(&message.address) else {
            return Outcome::new(OutcomeClass::Address, "ADDRESS_MALFORMED");
        };
        match self.client.post(target).json(&body(&message.rendered)).send().await {
            Err(error) => http::unanswered(&error),
            Ok(response) => {
                let (status, retry_after) = (response.status().as_u16(), http::retry_after(&response));
                classify(status, &String::from_utf8_lossy(&http::body(response).await), retry_after)
            }
        }
    }
}

impl Sender for SlackSender {
    fn channel(&self) -> Channel {
        Channel::Slack
    }

    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Outcome> {
        self.exchange(message).boxed()
    }
}

/// With blocks, the text is what notifications outside of the conversation show.
fn body(rendered: &Rendered) -> Value {
    let text = text(rendered);
    let Some(Button { label, url }) = button(rendered) else {
        return json!({ "text": text });
    };
    let label = plain_text::cut(label, LABEL_UNITS_MAX);
    json!({
        "text": text,
        "blocks": [
            { "type": "section", "text": { "type": "mrkdwn", "text": text } },
            {
                "type": "actions",
                "elements": [{ "type": "button", "text": { "type": "plain_text", "text": label }, "url": url }],
            },
        ],
    })
}

/// As it is carried: cut so that it fits when it is escaped.
pub(super) fn text(rendered: &Rendered) -> String {
    let units_max = if button(rendered).is_some() { BLOCK_TEXT_UNITS_MAX } else { TEXT_UNITS_MAX };
    plain_text::escape_slack(&plain_text::cut_for_slack(&rendered.text, units_max))
}

/// The button, if Slack would take it.
pub(super) fn button(rendered: &Rendered) -> Option<&Button> {
    rendered.button.as_ref().filter(|button| plain_text::utf16_units(&button.url) <= URL_UNITS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(api_url: &str) -> anyhow::Result<SlackSender> {
        SlackSender::new(http::client()?, api_url)
    }

    fn rendered(text: &str, url: Option<&str>) -> Rendered {
        let button = url.map(|url| Button { label: "Go".repeat(40), url: url.to_owned() });
        Rendered { subject: "Subject".to_owned(), text: text.to_owned(), button }
    }

    #[test]
    fn an_address_keeps_its_path_and_is_sent_to_the_base() {
        let table = [
            (
                "https://hooks.slack.com",
                "https://hooks.slack.com/services/T/B/x",
                "https://hooks.slack.com/services/T/B/x",
            ),
            ("http://127.0.0.1:9", "https://hooks.slack.com/services/T/B/x", "http://127.0.0.1:9/services/T/B/x"),
            ("http://127.0.0.1:9/in/", "https://hooks.slack.com/services/x", "http://127.0.0.1:9/in/services/x"),
            ("http://127.0.0.1:9/in", "http://127.0.0.1:9/in/services/x", "http://127.0.0.1:9/in/services/x"),
            ("http://127.0.0.1:9/in", "http://127.0.0.1:9/inside/x", "http://127.0.0.1:9/in/inside/x"),
            ("http://127.0.0.1:9/in", "http://user@127.0.0.1:9/x?a=b#c", "http://127.0.0.1:9/in/x?a=b"),
        ];
        for (base, address, target) in table {
            let sender = sender(base).expect("sound");
            assert_eq!(sender.target(address).as_ref().map(Url::as_str), Some(target), "{base} {address}");
        }
    }

    #[test]
    fn nothing_is_sent_anywhere_else() {
        let sender = sender("http://127.0.0.1:9").expect("sound");
        for address in [
            "",
            "services/T/B/x",
            "http://hooks.slack.com/services/x",
            "https://hooks.slack.com:8443/x",
            "https://hooks.slack.com.example.org/x",
            "https://hooks.slack.com@example.org/x",
            "http://127.0.0.1:10/x",
            "http://localhost:9/x",
            "data:text/plain,x",
        ] {
            assert_eq!(sender.target(address), None, "{address}");
        }
    }

    #[test]
    fn a_malformed_base_is_refused_by_the_variables_name() {
        for base in ["nowhere", "ftp://x", "https://", "https://x/?a=b", "https://x/#a"] {
            let error = sender(base).err().expect("refused").to_string();
            assert!(error.contains("SLACK_API_URL"), "{error}");
        }
    }

    #[test]
    fn a_button_comes_in_blocks_below_the_text() {
        let body = body(&rendered("<a> & b", Some("https://example.org/")));
        assert_eq!(body["text"], "&lt;a&gt; &amp; b");
        assert_eq!(body["blocks"][0]["text"]["text"], body["text"]);
        let button = &body["blocks"][1]["elements"][0];
        assert_eq!((&button["type"], &button["url"]), (&json!("button"), &json!("https://example.org/")));
        assert_eq!(button["text"]["text"].as_str().map(plain_text::utf16_units), Some(LABEL_UNITS_MAX));
    }

    #[test]
    fn the_limits_depend_on_the_button() {
        let long = "&".repeat(TEXT_UNITS_MAX);
        let units = |url| plain_text::utf16_units(&text(&rendered(&long, url)));
        assert_eq!(units(None), TEXT_UNITS_MAX - 4);
        assert_eq!(units(Some("https://example.org/")), BLOCK_TEXT_UNITS_MAX - 4);
        let endless = format!("https://example.org/{}", "x".repeat(URL_UNITS_MAX));
        assert_eq!(body(&rendered("Hi", Some(&endless))), json!({ "text": "Hi" }));
    }
}

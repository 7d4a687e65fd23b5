//! Telegram's Bot API (core.telegram.org/bots/api#sendmessage).

use std::{borrow::Cow, time::Duration};

use anyhow::{Context, ensure};
use futures_util::future::{BoxFuture, FutureExt};
use notify_domain::{
    answer::telegram::{Answer, Dispensable, classify, stumbled_over},
    channel::Channel,
    delivery::Outcome,
    text,
};
use reqwest::Client;
use serde_json::{Value, json};
use url::{Host, Url};

use super::{Message, Sender, http};
use crate::template::{Button, Rendered};

/// UTF-16 code units of a text "after entities parsing" (core.telegram.org/bots/api#sendmessage): before it is escaped. Telegram
/// counts strings so (core.telegram.org/api/entities#entity-length).
const TEXT_UNITS_MAX: usize = 4096;

/// Sends as one bot.
pub(super) struct TelegramSender {
    client: Client,
    /// Holds the token: never shown.
    endpoint: Url,
}

impl TelegramSender {
    pub(super) fn new(client: Client, api_url: &str, token: &str) -> anyhow::Result<Self> {
        let well_formed = |byte: u8| byte.is_ascii_alphanumeric() || b":_-".contains(&byte);
        ensure!(token.bytes().all(well_formed), "TELEGRAM_BOT_TOKEN is not a bot token");
        let endpoint = format!("{}/bot{token}/sendMessage", api_url.trim_end_matches('/'));
        let endpoint = Url::parse(&endpoint).context("TELEGRAM_API_URL is not a URL")?;
        ensure!(matches!(endpoint.scheme(), "http" | "https"), "TELEGRAM_API_URL is not an http or https URL");
        // It is logged as it is.
        let is_bare = endpoint.username().is_empty() && endpoint.password().is_none();
        ensure!(is_bare, "TELEGRAM_API_URL holds a user or a password");
        let is_path = endpoint.query().is_none() && endpoint.fragment().is_none();
        ensure!(is_path, "TELEGRAM_API_URL must end with its path");
        Ok(Self { client, endpoint })
    }

    /// Sends, and at once again without what Telegram stumbles over: that the text arrives matters most.
    async fn exchange(&self, message: &Message) -> Outcome {
        let (mut marked_up, mut button) = (true, button(&message.rendered));
        loop {
            let (status, answer, retry_after) = match self.post(&body(message, marked_up, button)).await {
                Ok(answered) => answered,
                Err(error) => return http::unanswered(&error),
            };
            match stumbled_over(status, answer.as_ref()) {
                Some(Dispensable::Markup) if marked_up => {
                    tracing::warn!("Telegram can't parse the text: sent again as plain text");
                    marked_up = false;
                }
                Some(Dispensable::Button) if button.is_some() => {
                    tracing::warn!("Telegram doesn't take the button: sent again without it");
                    button = None;
                }
                _ => return classify(status, answer.as_ref(), retry_after),
            }
        }
    }

    async fn post(&self, body: &Value) -> Result<(u16, Option<Answer>, Option<Duration>), reqwest::Error> {
        let response = self.client.post(self.endpoint.clone()).json(body).send().await?;
        let (status, retry_after) = (response.status().as_u16(), http::retry_after(&response));
        Ok((status, serde_json::from_slice(&http::body(response).await).ok(), retry_after))
    }
}

impl Sender for TelegramSender {
    fn channel(&self) -> Channel {
        Channel::Telegram
    }

    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Outcome> {
        self.exchange(message).boxed()
    }
}

fn body(message: &Message, marked_up: bool, button: Option<&Button>) -> Value {
    // A name that looks like a link must not bring a page along.
    let mut body = json!({ "chat_id": message.address, "link_preview_options": { "is_disabled": true } });
    if marked_up {
        body["text"] = json!(text(&message.rendered));
        body["parse_mode"] = json!("HTML");
    } else {
        body["text"] = json!(cut(&message.rendered));
    }
    if let Some(Button { label, url }) = button {
        body["reply_markup"] = json!({ "inline_keyboard": [[{ "text": label, "url": url }]] });
    }
    body
}

/// As it is carried: cut, then escaped.
pub(super) fn text(rendered: &Rendered) -> String {
    text::escape_telegram(&cut(rendered))
}

fn cut(rendered: &Rendered) -> Cow<'_, str> {
    text::cut(&rendered.text, TEXT_UNITS_MAX)
}

/// The button, if Telegram would take it: it refuses the whole message for a host without a dot, or an IPv6 address. One that
/// no recipient could reach (a private IPv4 address, a name of the local network alone) is left out too.
pub(super) fn button(rendered: &Rendered) -> Option<&Button> {
    rendered.button.as_ref().filter(|button| {
        Url::parse(&button.url).is_ok_and(|url| match url.host() {
            Some(Host::Domain(name)) => is_public(name),
            Some(Host::Ipv4(ip)) => {
                !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_broadcast())
            }
            Some(Host::Ipv6(_)) | None => false,
        })
    })
}

/// Names that end so never resolve in public: RFC 6761 (localhost), RFC 6762 (local).
fn is_public(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.rsplit_once('.').is_some_and(|(_, last)| !matches!(last, "localhost" | "local"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str, url: &str) -> Rendered {
        let button = Some(Button { label: "Go".to_owned(), url: url.to_owned() });
        Rendered { subject: "Subject".to_owned(), text: text.to_owned(), button }
    }

    #[test]
    fn the_endpoint_is_made_of_base_and_token() {
        let client = http::client().expect("a client");
        let sender = TelegramSender::new(client.clone(), "http://127.0.0.1:9/", "1:a-B_c").expect("sound");
        assert_eq!(sender.endpoint.as_str(), "http://127.0.0.1:9/bot1:a-B_c/sendMessage");
        for (url, token, variable) in [
            ("nowhere", "1:a", "TELEGRAM_API_URL"),
            ("ftp://x", "1:a", "TELEGRAM_API_URL"),
            ("https://user:hidden@x", "1:a", "TELEGRAM_API_URL"),
            ("https://hidden@x", "1:a", "TELEGRAM_API_URL"),
            ("https://:hidden@x", "1:a", "TELEGRAM_API_URL"),
            ("https://user:hidden@", "1:a", "TELEGRAM_API_URL"),
            ("https://x?key=hidden", "1:a", "TELEGRAM_API_URL"),
            ("https://x#hidden", "1:a", "TELEGRAM_API_URL"),
            ("http://x", "1/../a", "TELEGRAM_BOT_TOKEN"),
        ] {
            let error = TelegramSender::new(client.clone(), url, token).err().expect("refused");
            assert!(error.to_string().contains(variable), "{error}");
            assert!(!format!("{error:#}").contains("hidden"), "{error:#}");
        }
    }

    #[test]
    fn a_long_text_is_cut_before_it_is_escaped() {
        let text = text(&rendered(&"&".repeat(TEXT_UNITS_MAX + 1), "https://example.org"));
        assert_eq!(text, "&amp;".repeat(TEXT_UNITS_MAX - 1) + "…");
    }

    #[test]
    fn only_a_button_that_leads_somewhere_is_sent() {
        for (url, is_sent) in [
            ("https://app.example.org/x", true),
            ("http://example.org.:8443/", true),
            ("https://пример.рф/", true),
            ("http://203.0.113.7/", true),
            ("http://localhost/", false),
            ("http://app.localhost:8080/", false),
            ("http://printer.local/", false),
            ("http://intranet/", false),
            ("http://127.0.0.1/", false),
            ("http://10.1.2.3/", false),
            ("http://169.254.1.1/", false),
            ("http://0.0.0.0/", false),
            ("http://[2001:db8::1]/", false),
        ] {
            assert_eq!(button(&rendered("Hi", url)).is_some(), is_sent, "{url}");
        }
    }
}

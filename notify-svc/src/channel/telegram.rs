//! Telegram's Bot API (core.telegram.org/bots/api#sendmessage).

use anyhow::{Context, ensure};
use futures_util::future::{BoxFuture, FutureExt};
use notify_domain::{
    answer::telegram::{Answer, classify},
    channel::Channel,
    delivery::Outcome,
};
use reqwest::Client;
use serde_json::json;
use url::Url;

use super::{Message, Sender, http};

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
        Ok(Self { client, endpoint })
    }

    async fn exchange(&self, message: &Message) -> Outcome {
        let body = json!({ "chat_id": message.address, "text": message.rendered.text, "parse_mode": "HTML" });
        match self.client.post(self.endpoint.clone()).json(&body).send().await {
            Err(error) => http::unanswered(&error),
            Ok(response) => {
                let (status, retry_after) = (response.status().as_u16(), http::retry_after(&response));
                let answer: Option<Answer> = serde_json::from_slice(&http::body(response).await).ok();
                classify(status, answer.as_ref(), retry_after)
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_made_of_base_and_token() {
        let client = http::client().expect("a client");
        let sender = TelegramSender::new(client.clone(), "http://127.0.0.1:9/", "1:a-B_c").expect("sound");
        assert_eq!(sender.endpoint.as_str(), "http://127.0.0.1:9/bot1:a-B_c/sendMessage");
        for (url, token, variable) in [
            ("nowhere", "1:a", "TELEGRAM_API_URL"),
            ("ftp://x", "1:a", "TELEGRAM_API_URL"),
            ("http://x", "1/../a", "TELEGRAM_BOT_TOKEN"),
        ] {
            let error = TelegramSender::new(client.clone(), url, token).err().expect("refused");
            assert!(error.to_string().contains(variable), "{error}");
        }
    }
}

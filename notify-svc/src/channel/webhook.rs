//! Signed webhooks after Standard Webhooks (standardwebhooks.com).

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::Utc;
use futures_util::future::{BoxFuture, FutureExt};
use hmac::{Hmac, KeyInit, Mac};
use notify_domain::{answer::webhook::classify, channel::Channel, delivery::Outcome, state::OutcomeClass};
use reqwest::{Client, header};
use serde_json::json;
use sha2::Sha256;
use url::Url;

use super::{Message, Sender, http};

/// Bytes that the specification allows for a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs with one secret.
pub(super) struct WebhookSender {
    client: Client,
    key: Vec<u8>,
}

impl WebhookSender {
    /// `secret` is `whsec_` and 24 to 64 bytes in base64.
    pub(super) fn new(client: Client, secret: &str) -> anyhow::Result<Self> {
        let encoded = secret.strip_prefix("whsec_").context("WEBHOOK_SIGNING_SECRET does not begin with whsec_")?;
        let key = BASE64_STANDARD.decode(encoded).ok().context("WEBHOOK_SIGNING_SECRET is not base64 after whsec_")?;
        ensure!(SECRET_BYTES.contains(&key.len()), "WEBHOOK_SIGNING_SECRET does not hold 24 to 64 bytes");
        Ok(Self { client, key })
    }

    fn signature(&self, id: &str, timestamp: i64, body: &str) -> Option<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        Some(format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
    }

    async fn exchange(&self, message: &Message) -> Outcome {
        let url = Url::parse(&message.address).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(url) = url else {
            return Outcome::new(OutcomeClass::Address, "ADDRESS_MALFORMED");
        };
        let (id, timestamp, body) = (message.notification_id.to_string(), Utc::now().timestamp(), payload(message));
        let Some(signature) = self.signature(&id, timestamp, &body) else {
            return Outcome::new(OutcomeClass::Configuration, "SIGNING_FAILED");
        };
        let request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body);
        match request.send().await {
            Err(error) => http::unanswered(&error),
            Ok(response) => classify(response.status().as_u16(), http::retry_after(&response)),
        }
    }
}

/// The same for every attempt, so that the receiver can compare.
fn payload(message: &Message) -> String {
    let kind = message.kind.as_str().to_lowercase();
    json!({
        "type": format!("notification.{kind}"),
        "timestamp": message.create_time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        "data": {
            "notification_id": message.notification_id,
            "kind": kind,
            "recipient_id": message.recipient_id,
            "locale": message.locale.as_str(),
            "text": message.rendered.text,
            "arguments": message.arguments,
            "trace_id": message.trace_id,
        },
    })
    .to_string()
}

impl Sender for WebhookSender {
    fn channel(&self) -> Channel {
        Channel::Webhook
    }

    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Outcome> {
        self.exchange(message).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(secret: &str) -> anyhow::Result<WebhookSender> {
        WebhookSender::new(http::client()?, secret)
    }

    /// Computed with `openssl dgst -sha256 -mac HMAC` over the same text.
    #[test]
    fn a_known_signature() {
        let sender = sender("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a sound secret");
        let signature = sender.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn a_bad_secret_is_refused_by_the_variables_name() {
        for secret in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!", "whsec_c2hvcnQ="] {
            let error = sender(secret).err().expect("refused").to_string();
            assert!(
                error.contains("WEBHOOK_SIGNING_SECRET") && (secret.len() < 8 || !error.contains(&secret[6..])),
                "{error}"
            );
        }
    }
}

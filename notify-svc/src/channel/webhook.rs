//! Signed webhooks after Standard Webhooks (standardwebhooks.com).

mod guard;

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::Utc;
use futures_util::future::{BoxFuture, FutureExt};
use hmac::{Hmac, KeyInit, Mac};
use notify_domain::{
    answer::webhook::classify,
    channel::Channel,
    delivery::Outcome,
    state::OutcomeClass,
    target::{PrivateTargets, Reach, reach},
};
use reqwest::{Client, header};
use serde_json::json;
use sha2::Sha256;

use super::{Message, Sender, http};
use crate::{config::Config, template::Button};

/// Bytes that the specification allows for a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// The old one and the new one, while receivers change over.
const SECRETS_MAX: usize = 2;

/// Signs with one secret, or with two.
pub(super) struct WebhookSender {
    client: Client,
    targets: PrivateTargets,
    keys: Vec<Vec<u8>>,
}

impl WebhookSender {
    /// `None` when the channel is off. What is set is checked in any case.
    pub(super) fn new(config: &Config) -> anyhow::Result<Option<Self>> {
        let targets = targets(config)?;
        let Some(secrets) = &config.webhook_signing_secret else {
            return Ok(None);
        };
        Ok(Some(Self { client: guard::client(targets)?, targets, keys: keys(secrets)? }))
    }

    /// One signature for each secret, with a space between: a receiver looks for one that it can verify.
    fn signatures(&self, id: &str, timestamp: i64, body: &str) -> Option<String> {
        let signatures: Option<Vec<_>> = self.keys.iter().map(|key| signature(key, id, timestamp, body)).collect();
        Some(signatures?.join(" "))
    }

    async fn exchange(&self, message: &Message) -> Outcome {
        let url = match guard::url(&message.address, self.targets) {
            Ok(url) => url,
            Err(outcome) => return outcome,
        };
        let (id, timestamp, body) = (message.notification_id.to_string(), Utc::now().timestamp(), payload(message));
        let Some(signatures) = self.signatures(&id, timestamp, &body) else {
            return Outcome::new(OutcomeClass::Configuration, "SIGNING_FAILED");
        };
        let request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures)
            .body(body);
        match request.send().await {
            Err(error) => guard::refused(&error).unwrap_or_else(|| http::unanswered(&error)),
            // The status says it all: whoever sends a body without end sends it to nobody.
            Ok(response) => classify(response.status().as_u16(), http::retry_after(&response)),
        }
    }
}

/// Which private addresses are allowed.
fn targets(config: &Config) -> anyhow::Result<PrivateTargets> {
    match &config.webhook_private_targets {
        Some(text) => PrivateTargets::parse(text).context("WEBHOOK_PRIVATE_TARGETS is neither none, loopback nor all"),
        None if reach(config.listen.ip()) == Reach::Loopback => Ok(PrivateTargets::Loopback),
        None => Ok(PrivateTargets::None),
    }
}

/// The keys of one secret or two, each `whsec_` and 24 to 64 bytes in base64.
fn keys(secrets: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let keys = secrets.split_ascii_whitespace().map(key).collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(!keys.is_empty(), "WEBHOOK_SIGNING_SECRET holds no secret");
    ensure!(keys.len() <= SECRETS_MAX, "WEBHOOK_SIGNING_SECRET holds more than {SECRETS_MAX} secrets");
    Ok(keys)
}

fn key(secret: &str) -> anyhow::Result<Vec<u8>> {
    let encoded = secret.strip_prefix("whsec_").context("WEBHOOK_SIGNING_SECRET does not begin with whsec_")?;
    let key = BASE64_STANDARD.decode(encoded).ok().context("WEBHOOK_SIGNING_SECRET is not base64 after whsec_")?;
    ensure!(SECRET_BYTES.contains(&key.len()), "WEBHOOK_SIGNING_SECRET does not hold 24 to 64 bytes");
    Ok(key)
}

fn signature(key: &[u8], id: &str, timestamp: i64, body: &str) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    Some(format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
}

/// The same for every attempt, so that the receiver can compare.
fn payload(message: &Message) -> String {
    let kind = message.kind.as_str().to_lowercase();
    let mut payload = json!({
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
    });
    if let Some(Button { label, url }) = &message.rendered.button {
        payload["data"]["button"] = json!({ "label": label, "url": url });
    }
    payload.to_string()
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

    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDdkPB5XvGNoM=";

    fn config() -> Config {
        Config::new("postgres://x")
    }

    fn sender(secrets: &str) -> anyhow::Result<WebhookSender> {
        let config = Config { webhook_signing_secret: Some(secrets.to_owned()), ..config() };
        WebhookSender::new(&config).map(|sender| sender.expect("it is on"))
    }

    /// Computed with `openssl dgst -sha256 -mac HMAC` over the same text.
    #[test]
    fn a_known_signature() {
        let signatures = |secrets| {
            let sender = sender(secrets).expect("sound");
            sender.signatures("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}").expect("signed")
        };
        let by_old = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signatures(OLD), by_old);
        let by_new = signatures(NEW);
        assert!(by_new.starts_with("v1,") && by_new != by_old);
        assert_eq!(signatures(&format!("{NEW} {OLD}")), format!("{by_new} {by_old}"));
    }

    #[test]
    fn a_bad_secret_is_refused_by_the_variables_name() {
        let three = format!("{OLD} {NEW} {OLD}");
        let second = format!("{OLD} whsec_c2hvcnQ=");
        for secrets in ["", " ", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!", "whsec_c2hvcnQ=", &second, &three] {
            let error = format!("{:#}", sender(secrets).err().expect("refused"));
            assert!(error.contains("WEBHOOK_SIGNING_SECRET"), "{error}");
            for part in ["MfKQ", "c2hvcnQ", "C2FV"] {
                assert!(!error.contains(part), "{error}");
            }
        }
    }

    #[test]
    fn private_targets_are_as_set_or_as_the_service_listens() {
        for (listen, set, expected) in [
            ("127.0.0.1:50052", None, PrivateTargets::Loopback),
            ("[::1]:50052", None, PrivateTargets::Loopback),
            ("0.0.0.0:50052", None, PrivateTargets::None),
            ("10.0.0.1:50052", None, PrivateTargets::None),
            ("127.0.0.1:50052", Some("none"), PrivateTargets::None),
            ("0.0.0.0:50052", Some("all"), PrivateTargets::All),
        ] {
            let listen = listen.parse().expect("an address");
            let config = Config { listen, webhook_private_targets: set.map(str::to_owned), ..config() };
            assert_eq!(targets(&config).expect("sound"), expected, "{listen} {set:?}");
        }
        for value in ["", "ALL", "some", "none,loopback"] {
            let config = Config { webhook_private_targets: Some(value.to_owned()), ..config() };
            let error = WebhookSender::new(&config).err().expect("refused even when the channel is off").to_string();
            assert!(error.contains("WEBHOOK_PRIVATE_TARGETS"), "{error}");
        }
    }
}

//! A webhook receiver, and what webhooks alone must do.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use notify_svc::Config;
use p2phub_proto::notify::v1::{
    AttemptOutcome::{Address, Ambiguous, Content, Delivered, Transient},
    NotificationKind, RecipientContact,
};
use p2phub_tests::sink::{self, Reply, Sink};
use serde_json::json;
use sha2::Sha256;

use super::{
    desk::{Desk, notice, plain},
    stand::{Received, Row, Stand},
};

const OLD: &[u8] = b"an old secret of thirty-two bytes";
const NEW: &[u8] = b"a new secret of thirty-three bytes";

/// The receiver of every webhook, at a path for each contact.
pub(super) struct Webhook(Sink);

fn path(number: usize) -> String {
    format!("/to/{number:04}")
}

fn secret(key: &[u8]) -> String {
    format!("whsec_{}", BASE64_STANDARD.encode(key))
}

impl Stand for Webhook {
    const CHANNEL: &'static str = "webhook";

    type Reply = Reply;

    async fn start() -> Self {
        Self(Sink::start().await)
    }

    fn configure(&self) -> impl Fn(&mut Config) + Send + Sync + 'static {
        |config| config.webhook_signing_secret = Some(secret(OLD))
    }

    fn address(&self, number: usize) -> String {
        self.0.url(&path(number))
    }

    fn play(&self, number: usize, reply: Reply) {
        self.0.then_with(&path(number), [reply]);
    }

    fn received(&self, number: usize) -> Vec<Received> {
        let received = self.0.received().into_iter().filter(|request| request.path == path(number));
        received
            .map(|request| Received {
                identity: request.headers["webhook-id"].clone(),
                text: request.json()["data"]["text"].as_str().expect("a text").to_owned(),
                whole: format!("{:?}\n\n{}", request.headers, String::from_utf8_lossy(&request.body)),
            })
            .collect()
    }

    async fn close(&mut self) {
        self.0.close().await;
    }

    fn table() -> Vec<Row<Reply>> {
        let busy = [408, 425, 429, 500, 501, 502, 503, 504, 507, 599].map(|status| (status, Transient));
        let dead = [301, 302, 303, 307, 308, 404, 410].map(|status| (status, Address));
        let refused = [400, 401, 403, 405, 406, 409, 411, 413, 415, 422, 451].map(|status| (status, Content));
        let mut rows: Vec<_> = [busy.as_slice(), &dead, &refused]
            .concat()
            .into_iter()
            .map(|(status, outcome)| {
                // Nobody goes there.
                let reply = Reply::status(status).header("location", "http://127.0.0.1:1/");
                Row::new(status.to_string(), reply, outcome, format!("HTTP_{status}"))
            })
            .collect();
        rows.extend(
            [200, 201, 202, 204].map(|status| Row::new(status.to_string(), Reply::status(status), Delivered, "")),
        );
        rows.extend(endless());
        rows
    }

    fn hang() -> Reply {
        Reply::hang()
    }

    fn lost() -> Reply {
        Reply::lost()
    }

    fn busy() -> Reply {
        Reply::status(503)
    }

    fn gone() -> (Reply, &'static str) {
        (Reply::status(410), "HTTP_410")
    }

    fn malformed_addresses() -> &'static [&'static str] {
        &[
            "example.org",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "http://",
            "http://user:password@127.0.0.1/",
            "http://user@127.0.0.1/",
            "http://exa mple.org/",
        ]
    }

    fn check_carried(received: &Received, text: &str) {
        assert_eq!(received.text, text);
    }
}

/// Answers without end hold nothing up: the status is all that counts, and has to come in time.
fn endless() -> [Row<Reply>; 5] {
    let moment = Duration::from_millis(50);
    let row = |head: &'static str, chunk_bytes, interval, outcome, reason| {
        Row::new(head, Reply::endless(head, chunk_bytes, interval), outcome, reason)
    };
    [
        row("HTTP/1.1 200 Fine\r\n\r\n", 1, moment, Delivered, ""),
        row("HTTP/1.1 410 Gone\r\ncontent-length: 1000000000000\r\n\r\n", 65_536, Duration::ZERO, Address, "HTTP_410"),
        row("HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n", 1, moment, Transient, "HTTP_503"),
        row("HTTP/1.1 200 Fine\r\nx-drip: ", 1, moment, Ambiguous, "TIMEOUT"),
        row("HTTP/1.1 200 Fine\r\nx-flood: ", 65_536, Duration::ZERO, Ambiguous, "CONNECTION_LOST"),
    ]
}

fn signature(key: &[u8], request: &sink::Received) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
    mac.update(format!("{}.{}.", request.headers["webhook-id"], request.headers["webhook-timestamp"]).as_bytes());
    mac.update(&request.body);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_secret_is_being_changed_both_sign() {
    let stand = Webhook::start().await;
    let desk = Desk::open(|config| {
        config.webhook_signing_secret = Some(format!("{} {}", secret(NEW), secret(OLD)));
    })
    .await;
    desk.ask(vec![plain("someone", vec![stand.contact(0)])]).await;
    let requests = stand.0.wait_for(1).await;
    let signatures = [signature(NEW, &requests[0]), signature(OLD, &requests[0])].join(" ");
    assert_eq!(requests[0].headers["webhook-signature"], signatures);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_button_comes_along_if_there_is_one_and_is_the_same_at_every_attempt() {
    let stand = Webhook::start().await;
    let configure = stand.configure();
    let desk = Desk::open(move |config| {
        configure(config);
        config.app_url = Some("https://app.example.org/p2p".to_owned());
    })
    .await;
    stand.play(0, Webhook::busy());
    let level_up =
        notice(NotificationKind::LevelUp, "someone", &[("level", "2"), ("xp", "300")], vec![stand.contact(0)]);
    let event = desk.ask(vec![level_up]).await;
    desk.settled(&event).await;
    let button = json!({ "label": "See your network", "url": "https://app.example.org/p2p/network" });
    let requests = stand.0.received();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].json()["data"]["button"], button);
    assert_eq!(requests[0].body, requests[1].body);

    let without = notice(NotificationKind::OperatorBroadcast, "someone", &[("text", "Hi")], vec![stand.contact(1)]);
    let event = desk.ask(vec![without]).await;
    desk.settled(&event).await;
    assert!(stand.0.received()[2].json()["data"].get("button").is_none(), "there is none");
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_into_private_networks() {
    let stand = Webhook::start().await;
    let port = stand.0.url("").rsplit(':').next().expect("a port").to_owned();
    let desk = Desk::open(|config| {
        config.webhook_signing_secret = Some(secret(OLD));
        config.webhook_private_targets = Some("none".to_owned());
    })
    .await;
    let hosts = [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "[::]",
        "169.254.169.254",
        "10.0.0.1",
    ];
    let contacts = hosts.map(|host| RecipientContact {
        channel: "webhook".to_owned(),
        address: format!("http://{host}:{port}/private"),
    });
    let event = desk.ask(vec![plain("someone", contacts.into())]).await;
    let settled = desk.settled(&event).await;
    let deliveries = &settled["someone"].deliveries;
    assert_eq!(deliveries.len(), hosts.len());
    for (delivery, host) in deliveries.iter().zip(hosts) {
        let attempts: Vec<_> =
            delivery.attempts.iter().map(|attempt| (attempt.outcome(), attempt.reason.as_str())).collect();
        assert_eq!(attempts, [(Address, "TARGET_PRIVATE")], "{host}");
    }
    assert_eq!(stand.0.received().len(), 0);
    desk.close().await;

    // Names count as what they resolve to; loopback is allowed here by default, and nothing else that is private.
    let desk = Desk::open(stand.configure()).await;
    let to = |host: &str| RecipientContact {
        channel: "webhook".to_owned(),
        address: format!("http://{host}:{port}/loopback"),
    };
    let event = desk.ask(vec![plain("near", vec![to("localhost")]), plain("far", vec![to("169.254.169.254")])]).await;
    let attempts = desk.first_attempts(&event).await;
    assert_eq!(attempts["near"], (Delivered, String::new()));
    assert_eq!(attempts["far"], (Address, "TARGET_PRIVATE".to_owned()));
    desk.close().await;
}

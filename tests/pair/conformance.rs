//! One suite for every channel: what each must do, over real gRPC and against a stand-in on loopback, as it is on record.

mod desk;
mod email;
mod log;
mod slack;
mod smtp_server;
mod stand;
mod suite;
mod telegram;
mod webhook;

use desk::Desk;
use email::Email;
use slack::Slack;
use stand::Stand;
use telegram::Telegram;
use webhook::Webhook;

/// A stand-in for each channel's provider.
struct Stands {
    telegram: Telegram,
    email: Email,
    webhook: Webhook,
    slack: Slack,
}

impl Stands {
    /// All channels switched on, and where they are asked to send.
    async fn open() -> (Self, Desk) {
        let stands = Self {
            telegram: Telegram::start().await,
            email: Email::start().await,
            webhook: Webhook::start().await,
            slack: Slack::start().await,
        };
        let (telegram, email) = (stands.telegram.configure(), stands.email.configure());
        let (webhook, slack) = (stands.webhook.configure(), stands.slack.configure());
        let desk = Desk::open(move |config| {
            telegram(config);
            email(config);
            webhook(config);
            slack(config);
        });
        let desk = desk.await;
        (stands, desk)
    }
}

/// Says over which channel a check failed: the first one named, the others were only cut short by it.
struct Named(&'static str);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("over the channel {}", self.0);
        }
    }
}

/// Runs a check of the suite over each channel, all at the same time.
macro_rules! over_each {
    ($check:ident, $desk:expr, $stands:expr) => {{
        let (desk, stands): (&Desk, &Stands) = ($desk, $stands);
        tokio::join!(
            suite::$check(desk, &stands.telegram),
            suite::$check(desk, &stands.email),
            suite::$check(desk, &stands.webhook),
            suite::$check(desk, &stands.slack),
        );
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn each_channel_delivers_once_in_the_recipients_language() {
    let (stands, desk) = Stands::open().await;
    over_each!(delivers_once_in_the_recipients_language, &desk, &stands);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_channel_carries_whatever_is_said_safely() {
    let (stands, desk) = Stands::open().await;
    over_each!(carries_whatever_is_said_safely, &desk, &stands);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_channel_puts_every_answer_on_record_as_its_table_says() {
    let (stands, desk) = Stands::open().await;
    over_each!(puts_every_answer_on_record_as_its_table_says, &desk, &stands);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_channel_says_the_same_when_it_tries_again() {
    let (stands, desk) = Stands::open().await;
    over_each!(says_the_same_when_it_tries_again, &desk, &stands);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_channel_leaves_a_dead_address_for_the_next_contact() {
    let (stands, desk) = Stands::open().await;
    over_each!(leaves_a_dead_address_for_the_next_contact, &desk, &stands);
    over_each!(leaves_a_malformed_address_for_the_next_contact, &desk, &stands);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_channel_tries_again_when_nobody_listens() {
    let (mut stands, desk) = Stands::open().await;
    stands.telegram.close().await;
    stands.email.close().await;
    stands.webhook.close().await;
    stands.slack.close().await;
    over_each!(tries_again_when_nobody_listens, &desk, &stands);
    desk.close().await;
}

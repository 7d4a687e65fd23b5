//! What Telegram and Slack are sent, what they refuse of it, and how a notification looks beforehand.

use std::time::Duration;

use p2phub_proto::notify::v1::{
    AttemptOutcome, DeliveryState, NotificationKind, NotificationRequest, RecipientContact, RenderPreviewRequest,
    RenderPreviewResponse,
};
use p2phub_tests::{
    postgres::Role,
    refusal,
    sink::{Received, Reply, Sink},
    wait,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    delivery::{Desk, contact, story, to},
    stream::broadcast,
};

const APP_URL: &str = "https://app.example.org/p2p";

fn with_buttons(config: &mut notify_svc::Config) {
    config.app_url = Some(APP_URL.to_owned());
}

/// An operator's message with these arguments.
fn says(arguments: &[(&str, &str)], to: RecipientContact) -> NotificationRequest {
    let arguments = arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    NotificationRequest { arguments, contacts: vec![to], ..broadcast("someone") }
}

fn chat() -> RecipientContact {
    contact("telegram", "77")
}

fn level_up(locale: &str, contacts: Vec<RecipientContact>) -> NotificationRequest {
    NotificationRequest {
        kind: NotificationKind::LevelUp.into(),
        locale: locale.to_owned(),
        arguments: [("level", "2"), ("xp", "300")].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..to("someone", contacts)
    }
}

fn refused(description: &str) -> Reply {
    Reply::json(400, &json!({ "ok": false, "error_code": 400, "description": description }))
}

/// Delivered at the first attempt.
fn delivered(channel: &str) -> (&str, DeliveryState, &str, Vec<(AttemptOutcome, &str)>) {
    (channel, DeliveryState::Delivered, "", vec![(AttemptOutcome::Delivered, "")])
}

/// What Telegram got, without what it gets with every message.
fn sent_body(request: &Received) -> Value {
    let mut body = request.json();
    let previews = body.as_object_mut().and_then(|body| body.remove("link_preview_options"));
    assert_eq!(previews, Some(json!({ "is_disabled": true })), "a name must bring no page along");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn what_telegram_stumbles_over_is_left_out_within_the_same_attempt() {
    let mut desk = Desk::open_with(with_buttons).await;
    let message = [("text", "1 < 2 & \"so\""), ("button_label", "News"), ("button_url", "news")];
    desk.telegram.then([
        refused("Bad Request: can't parse entities: Unsupported start tag \"\" at byte offset 2"),
        refused("Bad Request: inline keyboard button URL 'x' is invalid: Wrong HTTP URL"),
    ]);
    let event = desk.ask(says(&message, chat())).await;
    assert_eq!(story(&desk.settled(&event).await), [delivered("telegram")]);
    let keyboard = json!({ "inline_keyboard": [[{ "text": "News", "url": format!("{APP_URL}/news") }]] });
    let escaped = "1 &lt; 2 &amp; &quot;so&quot;";
    let sent: Vec<Value> = desk.telegram.received().iter().map(sent_body).collect();
    let expected = [
        json!({ "chat_id": "77", "text": escaped, "parse_mode": "HTML", "reply_markup": keyboard }),
        json!({ "chat_id": "77", "text": message[0].1, "reply_markup": keyboard }),
        json!({ "chat_id": "77", "text": message[0].1 }),
    ];
    assert_eq!(sent, expected);

    // It is left out once: whoever stumbles again doesn't take the content.
    desk.telegram.then([refused("Bad Request: can't parse entities"), refused("Bad Request: can't parse entities")]);
    let event = desk.ask(says(&[("text", "Hi")], chat())).await;
    let attempts = vec![(AttemptOutcome::Content, "TELEGRAM_BAD_REQUEST")];
    let failed = ("telegram", DeliveryState::Failed, "TELEGRAM_BAD_REQUEST", attempts);
    assert_eq!(story(&desk.settled(&event).await), [failed]);
    assert_eq!(desk.telegram.received().len(), 5);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn telegram_gets_a_button_only_if_it_would_take_it() {
    let mut desk = Desk::open_with(with_buttons).await;
    let event = desk.ask(level_up("ru", vec![chat()])).await;
    desk.settled(&event).await;
    let local = [("text", "Hi"), ("button_url", "http://localhost:3000/news")];
    let event = desk.ask(says(&local, chat())).await;
    desk.settled(&event).await;
    let sent = desk.telegram.received();
    let button = json!([[{ "text": "Открыть мою сеть", "url": format!("{APP_URL}/network") }]]);
    assert_eq!(sent[0].json()["reply_markup"], json!({ "inline_keyboard": button }));
    assert_eq!(sent[0].json()["text"], "Поздравляем, вы достигли уровня 2! Всего у вас 300 XP.");
    assert_eq!(sent_body(&sent[1]), json!({ "chat_id": "77", "text": "Hi", "parse_mode": "HTML" }));
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_text_is_cut_on_a_character_to_what_telegram_takes() {
    let mut desk = Desk::open_with(with_buttons).await;
    // In UTF-16 code units: an emoji of two is the first that doesn't fit, and all is well with one unit less before it.
    for (letters, kept) in [(4094, "a".repeat(4094) + "…"), (4093, "a".repeat(4093) + "😀…")] {
        let text = "a".repeat(letters) + "😀😀";
        let event = desk.ask(says(&[("text", &text)], chat())).await;
        assert_eq!(story(&desk.settled(&event).await), [delivered("telegram")]);
        let sent = desk.telegram.received().last().expect("a request").json();
        assert_eq!(sent["text"].as_str(), Some(kept.as_str()), "{letters}");
        assert!(kept.encode_utf16().count() <= 4096);
    }
    let fits = "&".repeat(4094) + "😀";
    let event = desk.ask(says(&[("text", &fits)], chat())).await;
    desk.settled(&event).await;
    let sent = desk.telegram.received().last().expect("a request").json();
    assert_eq!(sent["text"].as_str(), Some((fits.replace('&', "&amp;")).as_str()));
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_became_a_supergroup_is_followed_there_for_good() {
    let mut desk = Desk::open_with(with_buttons).await;
    let moved = json!({
        "ok": false,
        "error_code": 400,
        "description": "Bad Request: group chat was upgraded to a supergroup chat",
        "parameters": { "migrate_to_chat_id": -1_001_234_567_890_i64 },
    });
    desk.telegram.then([Reply::json(400, &moved)]);
    let event = desk.ask(says(&[("text", "Hi")], contact("telegram", "-100"))).await;
    let notification = desk.settled(&event).await;
    let first = &notification.deliveries[0].attempts[0];
    assert_eq!((first.outcome(), first.reason.as_str()), (AttemptOutcome::Address, "TELEGRAM_CHAT_MIGRATED"));
    assert_eq!(notification.deliveries[0].attempts[1].outcome(), AttemptOutcome::Delivered);
    let event = desk.ask(says(&[("text", "Hi")], contact("telegram", "-100"))).await;
    assert_eq!(story(&desk.settled(&event).await), [delivered("telegram")], "the old address is not tried again");
    let chats: Vec<_> = desk.telegram.received().iter().map(|request| request.json()["chat_id"].clone()).collect();
    assert_eq!(chats, ["-100", "-1001234567890", "-1001234567890"]);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_control_pauses_the_whole_token_and_no_other_channel() {
    let mut desk = Desk::open().await;
    let flood = json!({ "ok": false, "error_code": 429, "parameters": { "retry_after": 3 } });
    desk.telegram.then([Reply::json(429, &flood)]);
    desk.ask(says(&[("text", "first")], contact("telegram", "1"))).await;
    let superuser = desk.pair.notify_sql(Role::Superuser).await;
    let paused = "SELECT FROM gates WHERE gate = 'provider/telegram' AND closed_until > now()";
    wait::until("the pause", async || superuser.query_opt(paused, &[]).await.expect("an answer").map(drop)).await;
    let other = desk.ask(says(&[("text", "other")], contact("telegram", "2"))).await;
    let webhook = desk.ask(says(&[("text", "elsewhere")], contact("webhook", &desk.webhook.url("")))).await;
    assert_eq!(story(&desk.settled(&webhook).await), [delivered("webhook")]);
    assert_eq!(desk.telegram.received().len(), 1, "another chat of the same bot waits");
    assert_eq!(story(&desk.settled(&other).await), [delivered("telegram")]);
    let sent = desk.telegram.received();
    let pause = sent[1].at - sent[0].at;
    assert!(pause >= Duration::from_secs(3), "the bot went on after {pause:?}");
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slack_gets_escaped_text_below_the_base_and_its_errors_have_names() {
    let slack = Sink::start().await;
    slack.otherwise(Reply::text(200, "ok"));
    let base = slack.url("/slack");
    let mut desk = Desk::open_with(move |config| {
        with_buttons(config);
        config.slack_api_url = Some(base.clone());
    })
    .await;
    let hook = || contact("slack", "https://hooks.slack.com/services/T0/B0/secret");
    let event = desk.ask(says(&[("text", "<!channel> & *you*")], hook())).await;
    assert_eq!(story(&desk.settled(&event).await), [delivered("slack")]);
    let event = desk.ask(level_up("", vec![contact("slack", &slack.url("/slack/services/T0/B0/other"))])).await;
    desk.settled(&event).await;

    let sent = slack.received();
    assert_eq!((sent[0].method.as_str(), sent[0].path.as_str()), ("POST", "/slack/services/T0/B0/secret"));
    assert_eq!(sent[0].json(), json!({ "text": "&lt;!channel&gt; &amp; *you*" }));
    assert_eq!(sent[1].path, "/slack/services/T0/B0/other");
    let text = "Congratulations, you have reached level 2! You have 300 XP in all.";
    let element = json!({
        "type": "button",
        "text": { "type": "plain_text", "text": "See your network" },
        "url": format!("{APP_URL}/network"),
    });
    let blocks = json!([
        { "type": "section", "text": { "type": "mrkdwn", "text": text } },
        { "type": "actions", "elements": [element] },
    ]);
    assert_eq!(sent[1].json(), json!({ "text": text, "blocks": blocks }));

    slack.then([Reply::text(404, "no_service")]);
    let foreign = contact("slack", "https://example.org/services/T0/B0/secret");
    for (to, reason) in [(hook(), "SLACK_NO_SERVICE"), (foreign, "ADDRESS_MALFORMED")] {
        let event = desk.ask(says(&[("text", "Hi")], to)).await;
        let failed = ("slack", DeliveryState::Failed, reason, vec![(AttemptOutcome::Address, reason)]);
        assert_eq!(story(&desk.settled(&event).await), [failed]);
    }
    assert_eq!(slack.received().len(), 3);
    desk.close().await;
}

async fn preview(desk: &Desk, request: RenderPreviewRequest) -> RenderPreviewResponse {
    let answer = desk.pair.clients.clone().notifications.render_preview(request).await;
    answer.expect("a preview").into_inner()
}

fn look(kind: NotificationKind, locale: &str, channel: &str, arguments: &[(&str, &str)]) -> RenderPreviewRequest {
    RenderPreviewRequest {
        kind: kind.into(),
        locale: locale.to_owned(),
        channel: channel.to_owned(),
        arguments: arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_shows_what_each_channel_would_carry_in_both_languages() {
    let desk = Desk::open_with(with_buttons).await;
    let name = [("name", "A<b>&\"")];
    let html = "A&lt;b&gt;&amp;&quot;";
    let slack = "A&lt;b&gt;&amp;\"";
    for (channel, name_as_carried, has_button) in [
        ("telegram", html, true),
        ("slack", slack, true),
        ("email", name[0].1, true),
        ("webhook", name[0].1, true),
        ("log", name[0].1, false),
    ] {
        for (tag, locale, rest, label) in [
            ("en-GB", "en", "has joined P2PHub by your invitation. You earned 35 XP.", "See your network"),
            ("ru-RU", "ru", "теперь в P2PHub по вашему приглашению. Вам начислено 35 XP.", "Открыть мою сеть"),
            ("tlh", "en", "has joined P2PHub by your invitation. You earned 35 XP.", "See your network"),
        ] {
            let shown = preview(&desk, look(NotificationKind::SignupL1, tag, channel, &name)).await;
            assert_eq!(shown.text, format!("{name_as_carried} {rest}"), "{channel} {tag}");
            assert_eq!(shown.locale, locale);
            assert!(shown.subject.starts_with(name[0].1), "{}", shown.subject);
            let url = format!("{APP_URL}/network");
            let button = if has_button { (label, url.as_str()) } else { ("", "") };
            assert_eq!((shown.button_label.as_str(), shown.button_url.as_str()), button, "{channel}");
        }
    }
    let sample = preview(&desk, look(NotificationKind::CommissionReceived, "", "email", &[])).await;
    assert_eq!(sample.subject, "You earned 11.70 USDT");
    let long = "я".repeat(4_090);
    let shown = preview(&desk, look(NotificationKind::OperatorBroadcast, "", "telegram", &[("text", &long)])).await;
    assert_eq!((shown.text, shown.button_url.as_str()), (long, ""));
    assert!(desk.telegram.received().is_empty(), "a preview was sent");
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_names_what_it_cant_show() {
    let desk = Desk::open_with(with_buttons).await;
    let kind = NotificationKind::LevelUp;
    let long = "x".repeat(8 * 1024 + 1);
    for (field, request) in [
        ("kind", look(NotificationKind::Unspecified, "", "log", &[])),
        ("kind", RenderPreviewRequest { kind: 4_711, ..look(kind, "", "log", &[]) }),
        ("channel", look(kind, "", "", &[])),
        ("channel", look(kind, "", "pigeon", &[])),
        ("locale", look(kind, &"x".repeat(65), "log", &[])),
        ("arguments", look(kind, "", "log", &[("xp", &long)])),
    ] {
        let answer = desk.pair.clients.clone().notifications.render_preview(request).await;
        let status = refusal::refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(refusal::fields(&status), [field]);
    }
    desk.close().await;
}

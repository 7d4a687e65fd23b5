//! What recipients get over each channel, how failures end, and what is on record of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use p2phub_proto::notify::v1::{
    AttemptOutcome, DeliveryState, GetNotificationRequest, ListNotificationsRequest, Notification, NotificationKind,
    NotificationRequest, NotificationState, RecipientContact, RecordOutcome,
};
use p2phub_proto::referral::v1::RegisterPartnerRequest;
use p2phub_tests::{
    builders::registration,
    pair::{Options, Pair},
    postgres::Role,
    sink::{Received, Reply, Sink},
    wait,
};
use serde_json::json;
use sha2::Sha256;

use crate::stream::{Producer, broadcast, message, record};

const KEY: &[u8] = b"a key of thirty-two bytes, known";
const TOKEN: &str = "12345:a-token_x";

pub(crate) fn contact(channel: &str, address: &str) -> RecipientContact {
    RecipientContact { channel: channel.to_owned(), address: address.to_owned() }
}

pub(crate) fn to(recipient_id: &str, contacts: Vec<RecipientContact>) -> NotificationRequest {
    NotificationRequest { contacts, ..broadcast(recipient_id) }
}

/// Webhooks and Telegram are on, e-mail and Slack are off.
fn options(telegram: &Sink) -> Options {
    options_and(telegram, |_| {})
}

/// The same, with more settings.
fn options_and(telegram: &Sink, adjust: impl Fn(&mut notify_svc::Config) + Send + Sync + 'static) -> Options {
    let telegram_api_url = telegram.url("");
    Options::default().notify(move |config| {
        config.webhook_signing_secret = Some(format!("whsec_{}", BASE64_STANDARD.encode(KEY)));
        config.telegram_bot_token = Some(TOKEN.to_owned());
        config.telegram_api_url = telegram_api_url.clone();
        adjust(config);
    })
}

/// notify-svc alone, with a producer, a webhook receiver and a stand-in for Telegram.
pub(crate) struct Desk {
    pub(crate) pair: Pair,
    producer: Producer,
    pub(crate) webhook: Sink,
    pub(crate) telegram: Sink,
}

impl Desk {
    pub(crate) async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    /// With more settings.
    pub(crate) async fn open_with(adjust: impl Fn(&mut notify_svc::Config) + Send + Sync + 'static) -> Self {
        let (webhook, telegram) = (Sink::start().await, Sink::start().await);
        telegram.otherwise(Reply::json(200, &json!({ "ok": true, "result": { "message_id": 1 } })));
        let mut pair = options_and(&telegram, adjust).prepare().await;
        pair.start_notify().await;
        let producer = Producer::open(&pair.clients, "desk").await;
        Self { pair, producer, webhook, telegram }
    }

    /// Asks for a notification; the event's ID.
    pub(crate) async fn ask(&mut self, request: NotificationRequest) -> String {
        let record = record(message(vec![request]));
        assert_eq!(self.producer.publish(std::slice::from_ref(&record)).await, [RecordOutcome::Stored]);
        record.event_id
    }

    async fn list(&self, filter: ListNotificationsRequest) -> Vec<Notification> {
        let answer = self.pair.clients.clone().notifications.list_notifications(filter).await;
        answer.expect("an answer").into_inner().notifications
    }

    /// The event's notification once its fate is decided.
    pub(crate) async fn settled(&self, source_event_id: &str) -> Notification {
        let notification_id = wait::until("a settled notification", async || {
            let filter = ListNotificationsRequest { source_event_id: source_event_id.to_owned(), ..Default::default() };
            let found = self.list(filter).await;
            found.first().filter(|one| one.settle_time.is_some()).map(|one| one.notification_id.clone())
        })
        .await;
        let request = GetNotificationRequest { notification_id };
        let answer = self.pair.clients.clone().notifications.get_notification(request).await;
        answer.expect("an answer").into_inner().notification.expect("a notification")
    }

    pub(crate) async fn close(self) {
        drop(self.producer);
        self.pair.finish().await;
    }
}

/// By channel: how it ended, why, and each attempt.
pub(crate) type Story<'a> = Vec<(&'a str, DeliveryState, &'a str, Vec<(AttemptOutcome, &'a str)>)>;

pub(crate) fn story(notification: &Notification) -> Story<'_> {
    let deliveries = notification.deliveries.iter();
    deliveries
        .map(|one| {
            assert!(one.attempts.iter().zip(1..).all(|(attempt, number)| attempt.number == number));
            let attempts = one.attempts.iter().map(|attempt| (attempt.outcome(), attempt.reason.as_str()));
            (one.channel.as_str(), one.state(), one.reason.as_str(), attempts.collect())
        })
        .collect()
}

fn assert_signed(request: &Received) {
    let header = |name: &str| request.headers[name].as_str();
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).expect("a key");
    mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    mac.update(&request.body);
    let signature = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(header("webhook-signature"), signature);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    assert!(now.abs_diff(header("webhook-timestamp").parse().expect("seconds")) < 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_signed_and_tried_again_with_the_same_content() {
    let mut desk = Desk::open().await;
    let busy = Sink::start().await;
    desk.webhook.then([Reply::status(503)]);
    busy.then([Reply::status(503).header("retry-after", "3"), Reply::lost()]);
    let first = desk.ask(to("first", vec![contact("webhook", &desk.webhook.url("/hook?a=b"))])).await;
    let second = desk.ask(to("second", vec![contact("webhook", &busy.url(""))])).await;

    let requests = desk.webhook.wait_for(2).await;
    let pause = requests[1].at - requests[0].at;
    assert!(pause < Duration::from_millis(2500) && pause >= Duration::from_secs(1), "tried again after {pause:?}");
    assert_eq!(requests[0].body, requests[1].body);
    for request in &requests {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook?a=b"));
        assert_signed(request);
    }
    let notification = desk.settled(&first).await;
    use AttemptOutcome::{Ambiguous, Delivered, Transient};
    let attempts = vec![(Transient, "HTTP_503"), (Delivered, "")];
    assert_eq!(story(&notification), [("webhook", DeliveryState::Delivered, "", attempts)]);
    assert_eq!(requests[0].headers["webhook-id"], notification.notification_id);
    let body = requests[0].json();
    assert_eq!(body["type"], "notification.operator_broadcast");
    assert_eq!((&body["data"]["recipient_id"], &body["data"]["text"]), (&json!("first"), &json!("Hello")));
    assert_eq!(body["data"]["trace_id"], notification.trace_id);

    let requests = busy.wait_for(3).await;
    let pause = requests[1].at - requests[0].at;
    assert!(pause >= Duration::from_secs(3), "earlier than asked for: {pause:?}");
    let notification = desk.settled(&second).await;
    let attempts = vec![(Transient, "HTTP_503"), (Ambiguous, "CONNECTION_LOST"), (Delivered, "")];
    assert_eq!(story(&notification), [("webhook", DeliveryState::Delivered, "", attempts)]);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_gives_up_is_followed_by_the_next_and_the_last_one_ends_it() {
    let mut desk = Desk::open().await;
    desk.webhook.otherwise(Reply::status(410));
    let blocked = json!({ "ok": false, "description": "Forbidden: bot was blocked by the user" });
    // Each its own address: what is gone once isn't tried again.
    let gone = |path: &str| contact("webhook", &desk.webhook.url(path));
    let (one, two, three) = (gone("/1"), gone("/2"), gone("/3"));
    let gone_story = || ("webhook", DeliveryState::Failed, "HTTP_410", vec![(AttemptOutcome::Address, "HTTP_410")]);

    let event = desk.ask(to("one", vec![one])).await;
    let notification = desk.settled(&event).await;
    assert_eq!(notification.state(), NotificationState::Dead);
    assert_eq!(story(&notification), [gone_story()]);

    let event = desk.ask(to("two", vec![two, contact("email", "a@b"), contact("telegram", "77")])).await;
    let notification = desk.settled(&event).await;
    assert_eq!(notification.state(), NotificationState::Delivered);
    let delivered = ("telegram", DeliveryState::Delivered, "", vec![(AttemptOutcome::Delivered, "")]);
    assert_eq!(story(&notification), [gone_story(), delivered]);

    desk.telegram.then([Reply::json(403, &blocked)]);
    let event = desk.ask(to("three", vec![contact("telegram", "78"), three])).await;
    let notification = desk.settled(&event).await;
    assert_eq!(notification.state(), NotificationState::Dead);
    let attempts = vec![(AttemptOutcome::Address, "TELEGRAM_BLOCKED")];
    assert_eq!(story(&notification), [("telegram", DeliveryState::Failed, "TELEGRAM_BLOCKED", attempts), gone_story()]);
    assert_eq!((desk.webhook.received().len(), desk.telegram.received().len()), (3, 2));
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn telegram_gets_the_recipients_language_with_names_made_safe() {
    let telegram = Sink::start().await;
    let flood = json!({ "ok": false, "error_code": 429, "parameters": { "retry_after": 2 } });
    telegram.then([Reply::json(429, &flood)]);
    telegram.otherwise(Reply::json(200, &json!({ "ok": true, "result": {} })));
    let pair = options(&telegram).start().await;
    let mut clients = pair.clients.clone();
    let inviter = RegisterPartnerRequest { locale: "ru-RU".to_owned(), ..registration("telegram:42", "") };
    let inviter = clients.partners.register_partner(inviter).await.expect("an answer").into_inner().partner;
    let code = inviter.expect("a partner").referral_code;
    let guest = RegisterPartnerRequest { first_name: "<b>&".to_owned(), ..registration("guest", &code) };
    clients.partners.register_partner(guest).await.expect("an answer");

    let requests = telegram.wait_for(2).await;
    for request in &requests {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/bot12345:a-token_x/sendMessage"));
        let body = request.json();
        assert_eq!((&body["chat_id"], &body["parse_mode"]), (&json!("42"), &json!("HTML")));
        let text = body["text"].as_str().expect("a text");
        assert_eq!(text, "&lt;b&gt;&amp; теперь в P2PHub по вашему приглашению. Вам начислено 35 XP.");
    }
    let pause = requests[1].at - requests[0].at;
    assert!(pause >= Duration::from_secs(2), "earlier than Telegram asked for: {pause:?}");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_channel_that_is_on_is_left_to_the_log() {
    let mut desk = Desk::open().await;
    for contacts in [
        Vec::new(),
        vec![contact("email", "a@example.org")],
        vec![contact("slack", "https://example.org/x"), contact("email", "a@example.org")],
    ] {
        let event = desk.ask(to("nobody", contacts)).await;
        let notification = desk.settled(&event).await;
        let delivered = ("log", DeliveryState::Delivered, "", vec![(AttemptOutcome::Delivered, "")]);
        assert_eq!(story(&notification), [delivered]);
    }
    assert_eq!(desk.webhook.received().len() + desk.telegram.received().len(), 0);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_are_found_by_every_filter_and_page_by_page() {
    let mut desk = Desk::open().await;
    desk.webhook.otherwise(Reply::status(410));
    let dead = desk.ask(to("alice", vec![contact("webhook", &desk.webhook.url(""))])).await;
    let late = prost_types::Timestamp { seconds: 1_000_000_000, nanos: 0 };
    let late = desk.ask(NotificationRequest { expire_time: Some(late), ..broadcast("alice") }).await;
    let fine = desk.ask(broadcast("bob")).await;
    let mut all = Vec::new();
    for (event, state) in
        [(&dead, NotificationState::Dead), (&late, NotificationState::Expired), (&fine, NotificationState::Delivered)]
    {
        let notification = desk.settled(event).await;
        assert_eq!((notification.state(), notification.kind()), (state, NotificationKind::OperatorBroadcast));
        assert_eq!((&notification.source_event_id, notification.producer.as_str()), (event, "desk"));
        all.push(notification);
    }
    assert!(all[1].deliveries.iter().all(|one| one.attempts.is_empty()), "sent although it had expired");
    let trace_id = all[0].trace_id.clone();
    let any = ListNotificationsRequest::default;
    let alice = || ListNotificationsRequest { recipient_id: "alice".to_owned(), ..any() };
    let table: [(ListNotificationsRequest, &[usize]); 8] = [
        (any(), &[2, 1, 0]),
        (alice(), &[1, 0]),
        (ListNotificationsRequest { state: NotificationState::Dead.into(), ..any() }, &[0]),
        (ListNotificationsRequest { state: NotificationState::Expired.into(), ..alice() }, &[1]),
        (ListNotificationsRequest { state: NotificationState::Delivered.into(), ..alice() }, &[]),
        (ListNotificationsRequest { state: NotificationState::Queued.into(), ..any() }, &[]),
        (ListNotificationsRequest { source_event_id: fine.clone(), ..any() }, &[2]),
        (ListNotificationsRequest { trace_id: trace_id.to_uppercase(), ..any() }, &[2, 1, 0]),
    ];
    for (filter, places) in table {
        let expected: Vec<_> = places.iter().map(|place| all[*place].clone()).collect();
        assert_eq!(desk.list(filter.clone()).await, expected, "{filter:?}");
        // The same, one a page.
        let mut pages = ListNotificationsRequest { page_size: 1, ..filter };
        let mut collected = Vec::new();
        loop {
            let answer = desk.pair.clients.clone().notifications.list_notifications(pages.clone()).await;
            let page = answer.expect("a page").into_inner();
            assert!(page.notifications.len() <= 1);
            collected.extend(page.notifications);
            if page.next_page_token.is_empty() {
                break;
            }
            pages.page_token = page.next_page_token;
        }
        assert_eq!(collected, expected, "{pages:?}");
    }
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_cant_be_claimed_is_put_off_and_holds_nobody_up() {
    let mut desk = Desk::open().await;
    let superuser = desk.pair.notify_sql(Role::Superuser).await;
    let poison = "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
                  BEGIN
                      IF EXISTS (SELECT FROM notifications n
                                  WHERE n.notification_id = NEW.notification_id AND n.recipient_id = 'poison') THEN
                          RAISE 'poison';
                      END IF;
                      RETURN NEW;
                  END $$;
                  CREATE TRIGGER poison BEFORE INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION poison()";
    superuser.batch_execute(poison).await.expect("a trigger");
    desk.ask(broadcast("poison")).await;
    for recipient_id in ["one", "two"] {
        let event = desk.ask(broadcast(recipient_id)).await;
        assert_eq!(desk.settled(&event).await.state(), NotificationState::Delivered);
    }
    let put_off = "SELECT d.due_time > now() + interval '5 minutes' AND d.attempt_count = 0
                     FROM deliveries d JOIN notifications n USING (notification_id) WHERE n.recipient_id = 'poison'";
    assert!(superuser.query_one(put_off, &[]).await.expect("a row").get::<_, bool>(0));
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_uses_up_no_try_and_is_probed_until_it_is_taken_again() {
    let mut desk = Desk::open().await;
    desk.telegram.then([Reply::json(401, &json!({ "ok": false, "description": "Unauthorized" }))]);
    desk.ask(to("one", vec![contact("telegram", "77")])).await;
    let superuser = desk.pair.notify_sql(Role::Superuser).await;
    let held = wait::until("the end of the attempt", async || {
        let query = "SELECT d.tries_used, g.tripped, g.reason, g.open_time > now() + interval '3 seconds'
                       FROM deliveries d JOIN attempts a USING (notification_id, position), gates g
                      WHERE a.outcome = 'CONFIGURATION' AND d.parked_on = g.gate AND g.gate = 'provider/telegram'";
        superuser.query_opt(query, &[]).await.expect("an answer")
    })
    .await;
    assert_eq!((held.get::<_, i32>(0), held.get::<_, bool>(1), held.get::<_, bool>(3)), (0, true, true));
    assert_eq!(held.get::<_, String>(2), "TELEGRAM_TOKEN_REFUSED");
    assert_eq!(desk.telegram.received().len(), 1, "no hurry");
    // The token is good again.
    desk.telegram.wait_for(2).await;
    desk.close().await;
}

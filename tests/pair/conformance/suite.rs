//! What every channel must do.

use p2phub_proto::notify::v1::{
    AttemptOutcome::{Address, Ambiguous, Delivered, Transient},
    Delivery, DeliveryState, NotificationKind, NotificationRequest, NotificationState, RecipientContact,
};

use super::{
    Named,
    desk::{Desk, notice, plain},
    stand::{Row, Stand},
};

/// Who a contact's number belongs to; each check has numbers of its own.
fn recipient<S: Stand>(number: usize) -> String {
    format!("{}-{number}", S::CHANNEL)
}

/// What people may be called, and what operators may write.
fn hostile() -> Vec<String> {
    let mut texts: Vec<String> = [
        "<b>bold</b> & <script>alert(1)</script>",
        "&lt;b&gt; &amp;amp; &#60;",
        "\"quotes\" 'single' `ticks`",
        "first\nsecond\n\nfourth",
        "carriage\r\nreturn",
        "a\r\nBcc: evil@example.org\r\n\r\nbody",
        "one\n.\ntwo\n..\nthree",
        "👩‍👩‍👧‍👦 family 🏳️‍🌈 flag é",
        "שלום עולם, مرحبا",
        "<!channel> <@U12345> <https://example.org|here> *bold* _it_ ~no~",
        "one\n\n[a button of its own](https://evil.example)",
        "[link](https://example.org) \\* % {{ 7 * 7 }} {% raw %} ${x} %s",
        "=?utf-8?q?encoded?=",
    ]
    .map(str::to_owned)
    .into();
    texts.push("Жизнь & <смерть> ".repeat(290));
    texts.push("x".repeat(8 * 1024));
    texts.push("👍🏽".repeat(1024));
    for text in &texts {
        assert!(text.len() <= 8 * 1024, "{} bytes", text.len());
    }
    texts
}

fn only_delivery(deliveries: &[Delivery]) -> &Delivery {
    let [delivery] = deliveries else { panic!("one delivery, not {deliveries:?}") };
    delivery
}

pub(super) async fn delivers_once_in_the_recipients_language<S: Stand>(desk: &Desk, stand: &S) {
    let _named = Named(S::CHANNEL);
    let locales = ["ru-RU", "ru", "en", "en-GB", "pt-BR", ""];
    let arguments = [("name", "<Zoë> & Co"), ("xp", "35")];
    let requests = (0..).zip(locales).map(|(number, locale)| NotificationRequest {
        locale: locale.to_owned(),
        ..notice(NotificationKind::SignupL1, &recipient::<S>(number), &arguments, vec![stand.contact(number)])
    });
    let event = desk.ask(requests.collect()).await;
    let settled = desk.settled(&event).await;
    for (number, locale) in locales.iter().enumerate() {
        let notification = &settled[&recipient::<S>(number)];
        assert_eq!(notification.state(), NotificationState::Delivered, "{locale}");
        let delivery = only_delivery(&notification.deliveries);
        assert_eq!((delivery.channel.as_str(), delivery.state()), (S::CHANNEL, DeliveryState::Delivered));
        assert_eq!(delivery.attempts.len(), 1, "{locale}");
        let received = stand.received(number);
        assert_eq!(received.len(), 1, "{locale}: {received:?}");
        let text = &received[0].text;
        let is_russian = text.chars().any(|character| ('а'..='я').contains(&character));
        assert_eq!(is_russian, locale.starts_with("ru"), "{locale}: {text}");
        assert!(text.contains("35") && text.contains("Zoë"), "{locale}: {text}");
    }
}

pub(super) async fn carries_whatever_is_said_safely<S: Stand>(desk: &Desk, stand: &S) {
    let _named = Named(S::CHANNEL);
    let texts = hostile();
    // One event each: they are long.
    for (number, text) in texts.iter().enumerate() {
        let arguments = [("text", text.as_str())];
        let contacts = vec![stand.contact(number)];
        let request = notice(NotificationKind::OperatorBroadcast, &recipient::<S>(number), &arguments, contacts);
        let event = desk.ask(vec![request]).await;
        let settled = desk.settled(&event).await;
        let received = stand.received(number);
        assert_eq!(settled[&recipient::<S>(number)].state(), NotificationState::Delivered, "{text}");
        assert_eq!(received.len(), 1, "{text}: {received:?}");
        S::check_carried(&received[0], text);
    }
}

pub(super) async fn puts_every_answer_on_record_as_its_table_says<S: Stand>(desk: &Desk, stand: &S) {
    let _named = Named(S::CHANNEL);
    let mut rows = S::table();
    assert!(!rows.is_empty());
    rows.push(Row::new("silence", S::hang(), Ambiguous, "TIMEOUT"));
    rows.push(Row::new("a lost answer", S::lost(), Ambiguous, "CONNECTION_LOST"));
    let mut expected = Vec::new();
    let mut requests = Vec::new();
    for (number, row) in rows.into_iter().enumerate() {
        stand.play(number, row.reply);
        requests.push(plain(&recipient::<S>(number), vec![stand.contact(number)]));
        expected.push((row.what, (row.outcome, row.reason)));
    }
    // All at once: what the first answers change for the provider as a whole comes too late to matter.
    let event = desk.ask(requests).await;
    let attempts = desk.first_attempts(&event).await;
    assert_eq!(attempts.len(), expected.len());
    for (number, (what, expected)) in expected.iter().enumerate() {
        assert_eq!(&attempts[&recipient::<S>(number)], expected, "{what}");
    }
}

pub(super) async fn tries_again_when_nobody_listens<S: Stand>(desk: &Desk, stand: &S) {
    let _named = Named(S::CHANNEL);
    let event = desk.ask(vec![plain(&recipient::<S>(0), vec![stand.contact(0)])]).await;
    let attempts = desk.first_attempts(&event).await;
    assert_eq!(attempts[&recipient::<S>(0)], (Transient, "CONNECT_FAILED".to_owned()));
}

pub(super) async fn says_the_same_when_it_tries_again<S: Stand>(desk: &Desk, stand: &S) {
    let _named = Named(S::CHANNEL);
    stand.play(0, S::busy());
    stand.play(1, S::lost());
    let requests = (0..2).map(|number| plain(&recipient::<S>(number), vec![stand.contact(number)]));
    let event = desk.ask(requests.collect()).await;
    let settled = desk.settled(&event).await;
    for (number, first) in [Transient, Ambiguous].into_iter().enumerate() {
        let notification = &settled[&recipient::<S>(number)];
        let delivery = only_delivery(&notification.deliveries);
        let outcomes: Vec<_> = delivery.attempts.iter().map(|attempt| attempt.outcome()).collect();
        assert_eq!(outcomes, [first, Delivered]);
        let received = stand.received(number);
        assert_eq!(received.len(), 2, "{received:?}");
        assert_eq!((&received[0].identity, &received[0].text), (&received[1].identity, &received[1].text));
        let identity = &received[0].identity;
        assert!(identity.is_empty() || identity.contains(&notification.notification_id), "{identity}");
    }
}

pub(super) async fn leaves_a_dead_address_for_the_next_contact<S: Stand>(desk: &Desk, stand: &S) {
    let _named = Named(S::CHANNEL);
    let (reply, reason) = S::gone();
    stand.play(0, reply);
    let event = desk.ask(vec![plain(&recipient::<S>(0), vec![stand.contact(0), stand.contact(1)])]).await;
    let settled = desk.settled(&event).await;
    let notification = &settled[&recipient::<S>(0)];
    assert_eq!(notification.state(), NotificationState::Delivered);
    let [first, second] = notification.deliveries.as_slice() else { panic!("two deliveries: {notification:?}") };
    assert_eq!((first.state(), first.reason.as_str()), (DeliveryState::Failed, reason));
    assert_eq!((first.attempts.len(), first.attempts[0].outcome()), (1, Address));
    assert_eq!((second.channel.as_str(), second.state()), (S::CHANNEL, DeliveryState::Delivered));
    assert_eq!(stand.received(1).len(), 1);
}

pub(super) async fn leaves_a_malformed_address_for_the_next_contact<S: Stand>(desk: &Desk, stand: &S) {
    let _named = Named(S::CHANNEL);
    let numbers = || (100..).zip(S::malformed_addresses());
    let requests = numbers().map(|(number, address)| {
        let malformed = RecipientContact { channel: S::CHANNEL.to_owned(), address: (*address).to_owned() };
        plain(&recipient::<S>(number), vec![malformed, stand.contact(number)])
    });
    let requests: Vec<_> = requests.collect();
    if requests.is_empty() {
        return;
    }
    let event = desk.ask(requests).await;
    let settled = desk.settled(&event).await;
    for (number, address) in numbers() {
        let notification = &settled[&recipient::<S>(number)];
        assert_eq!(notification.state(), NotificationState::Delivered, "{address}");
        let [first, second] = notification.deliveries.as_slice() else { panic!("{address}: {notification:?}") };
        assert_eq!((first.state(), first.reason.as_str()), (DeliveryState::Failed, "ADDRESS_MALFORMED"), "{address}");
        assert_eq!(first.attempts[0].outcome(), Address, "{address}");
        assert_eq!(second.state(), DeliveryState::Delivered, "{address}");
        assert_eq!(stand.received(number).len(), 1, "{address}");
    }
}

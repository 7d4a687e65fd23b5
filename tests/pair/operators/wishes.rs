//! What recipients want: set, shown, and e-mail stopped with one click.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{Timelike, Utc};
use hmac::{Hmac, KeyInit, Mac};
use p2phub_proto::notify::v1::{
    GetPreferencesRequest, Mute, Notification, NotificationKind, NotificationRequest, NotificationState, Preferences,
    QuietHours, RecipientContact, SetPreferencesRequest, UnsubscribeRequest,
};
use p2phub_tests::{
    builders::request_id,
    pair::Pair,
    postgres::Role,
    refusal::{fields, refused},
};
use sha2::Sha256;
use tonic::Code;

use super::Desk;
use crate::stream::broadcast;

async fn preferences(pair: &Pair, recipient_id: &str) -> Preferences {
    let request = GetPreferencesRequest { recipient_id: recipient_id.to_owned() };
    let answer = pair.clients.clone().notifications.get_preferences(request).await.expect("an answer");
    answer.into_inner().preferences.expect("preferences")
}

fn set(recipient_id: &str, preferences: Preferences) -> SetPreferencesRequest {
    SetPreferencesRequest {
        request_id: request_id(),
        recipient_id: recipient_id.to_owned(),
        preferences: Some(preferences),
    }
}

fn everything() -> Preferences {
    Preferences {
        muted_kinds: vec![NotificationKind::LevelUp.into()],
        mutes: vec![Mute { kind: NotificationKind::SignupL1.into(), channel: "telegram".to_owned() }],
        quiet_hours: Some(QuietHours {
            start: "22:00".to_owned(),
            end: "08:00".to_owned(),
            time_zone: "Europe/Berlin".to_owned(),
        }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_is_shown_and_replaced_as_a_whole() {
    let desk = Desk::open().await;
    let mut clients = desk.pair.clients.clone();
    assert_eq!(preferences(&desk.pair, "ada").await, Preferences::default(), "who never said anything");
    for wanted in [everything(), Preferences::default()] {
        let answer = clients.notifications.set_preferences(set("ada", wanted.clone())).await.expect("an answer");
        assert_eq!(answer.into_inner().preferences, Some(wanted.clone()));
        assert_eq!(preferences(&desk.pair, "ada").await, wanted);
    }
    assert_eq!(desk.record("ada").await.len(), 2);
    let mut money = everything();
    money.muted_kinds.push(NotificationKind::CommissionReceived.into());
    let mut nowhere = everything();
    nowhere.quiet_hours.as_mut().expect("quiet hours").time_zone = "Europe/Atlantis".to_owned();
    for (field, request) in [
        ("recipient_id", set("", everything())),
        ("preferences.muted_kinds", set("ada", money)),
        ("preferences.quiet_hours.time_zone", set("ada", nowhere)),
    ] {
        let answer = clients.notifications.set_preferences(request).await;
        let status = refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(fields(&status), [field]);
    }
    assert_eq!(desk.record("ada").await.len(), 2, "bad input is on no record");
    desk.close().await;
}

/// The token that stops Ada's e-mail.
async fn token(desk: &Desk) -> String {
    let superuser = desk.pair.notify_sql(Role::Superuser).await;
    let key =
        superuser.query_one("SELECT key FROM signing_keys WHERE purpose = 'unsubscribe'", &[]).await.expect("a key");
    let mut mac = Hmac::<Sha256>::new_from_slice(key.get::<_, &[u8]>(0)).expect("a key");
    mac.update(b"ada");
    BASE64_URL_SAFE_NO_PAD.encode([&mac.finalize().into_bytes()[..16], b"ada"].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_click_stops_email_and_another_changes_nothing() {
    let desk = Desk::open().await;
    let mut clients = desk.pair.clients.clone();
    clients.notifications.set_preferences(set("ada", everything())).await.expect("an answer");
    let token = token(&desk).await;
    let mut wanted = everything();
    wanted.mutes.push(Mute { kind: 0, channel: "email".to_owned() });
    let redeem = |token: &str| UnsubscribeRequest { token: token.to_owned(), request_id: request_id() };
    let first = redeem(&token);
    for (request, replay) in [(first.clone(), false), (redeem(&token), false), (first.clone(), true)] {
        let answer = clients.notifications.unsubscribe(request).await.expect("an answer");
        assert_eq!(answer.metadata().get("idempotent-replay").is_some(), replay);
        let answer = answer.into_inner();
        assert_eq!((answer.recipient_id.as_str(), answer.preferences), ("ada", Some(wanted.clone())));
    }
    assert_eq!(preferences(&desk.pair, "ada").await, wanted);
    let record = desk.record("ada").await;
    let details: Vec<_> =
        record.iter().filter(|one| one.0 == "Unsubscribe").map(|(.., detail)| detail.as_str()).collect();
    assert_eq!(details, ["3 mutes, quiet hours", "had been done before"]);
    for token in ["", "AAAA", &token[1..], &"A".repeat(5000)] {
        let answer = clients.notifications.unsubscribe(redeem(token)).await;
        assert_eq!(fields(&refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT")), ["token"]);
    }
    let nameless = UnsubscribeRequest { request_id: String::new(), ..first };
    let answer = clients.notifications.unsubscribe(nameless).await;
    assert_eq!(fields(&refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT")), ["request_id"]);
    desk.close().await;
}

/// Quiet since an hour ago, for another two.
fn quiet_now() -> Preferences {
    const DAY: i64 = 24 * 60;
    let minute = i64::from(Utc::now().num_seconds_from_midnight() / 60);
    let clock = |minutes: i64| {
        let minute = (minute + minutes).rem_euclid(DAY);
        format!("{:02}:{:02}", minute / 60, minute % 60)
    };
    let quiet_hours = QuietHours { start: clock(-60), end: clock(120), time_zone: "UTC".to_owned() };
    Preferences { quiet_hours: Some(quiet_hours), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_quiet_hours_put_off_is_sent_once_they_are_gone() {
    let mut desk = Desk::open().await;
    let mut clients = desk.pair.clients.clone();
    clients.notifications.set_preferences(set("ada", quiet_now())).await.expect("an answer");
    let contact = RecipientContact { channel: "webhook".to_owned(), address: desk.webhook.url("") };
    let signup = NotificationRequest {
        kind: NotificationKind::SignupL1.into(),
        arguments: [("name", "Bob"), ("xp", "35")].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        contacts: vec![contact],
        ..broadcast("ada")
    };
    let id = desk.ask(signup).await;
    let in_an_hour = Utc::now().timestamp() + 3600;
    let is_put_off =
        |one: &Notification| one.deliveries[0].next_attempt_time.is_some_and(|time| time.seconds > in_an_hour);
    desk.when(&id, is_put_off).await;
    // Quiet hours that hold it up as well change nothing.
    let mut other = quiet_now();
    other.muted_kinds = vec![NotificationKind::LevelUp.into()];
    clients.notifications.set_preferences(set("ada", other)).await.expect("an answer");
    let put_off = desk.when(&id, is_put_off).await;
    assert_eq!((put_off.state(), put_off.deliveries[0].attempts.len()), (NotificationState::Queued, 0));
    clients.notifications.set_preferences(set("ada", Preferences::default())).await.expect("an answer");
    desk.when(&id, |one| one.state() == NotificationState::Delivered).await;
    desk.close().await;
}

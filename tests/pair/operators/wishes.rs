//! What recipients want: set, shown, and e-mail stopped with one click.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use p2phub_proto::notify::v1::{
    GetPreferencesRequest, Mute, NotificationKind, Preferences, QuietHours, SetPreferencesRequest, UnsubscribeRequest,
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

#[tokio::test(flavor = "multi_thread")]
async fn one_click_stops_email_and_another_changes_nothing() {
    let desk = Desk::open().await;
    let mut clients = desk.pair.clients.clone();
    clients.notifications.set_preferences(set("ada", everything())).await.expect("an answer");
    let superuser = desk.pair.notify_sql(Role::Superuser).await;
    let key =
        superuser.query_one("SELECT key FROM signing_keys WHERE purpose = 'unsubscribe'", &[]).await.expect("a key");
    let mut mac = Hmac::<Sha256>::new_from_slice(key.get::<_, &[u8]>(0)).expect("a key");
    mac.update(b"ada");
    let token = BASE64_URL_SAFE_NO_PAD.encode([&mac.finalize().into_bytes()[..16], b"ada"].concat());
    let mut wanted = everything();
    wanted.mutes.push(Mute { kind: 0, channel: "email".to_owned() });
    for _ in 0..2 {
        let request = UnsubscribeRequest { token: token.clone() };
        let answer = clients.notifications.unsubscribe(request).await.expect("an answer").into_inner();
        assert_eq!((answer.recipient_id.as_str(), answer.preferences), ("ada", Some(wanted.clone())));
    }
    assert_eq!(preferences(&desk.pair, "ada").await, wanted);
    let record = desk.record("ada").await;
    assert_eq!(record.iter().filter(|(action, ..)| action == "Unsubscribe").count(), 1, "{record:?}");
    for token in ["", "AAAA", &token[1..], &"A".repeat(5000)] {
        let answer = clients.notifications.unsubscribe(UnsubscribeRequest { token: token.to_owned() }).await;
        assert_eq!(fields(&refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT")), ["token"]);
    }
    desk.close().await;
}

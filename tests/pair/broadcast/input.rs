//! What a broadcast must not be: each fault by its field, and nothing remembered of it.

use p2phub_proto::referral::v1::{BroadcastFilter, CancelBroadcastRequest, CreateBroadcastRequest};
use p2phub_tests::{
    pair::Options,
    refusal::{fields, is_marked, refused},
};
use prost_types::Timestamp;
use tonic::Code;

use super::{begin, cancellation, ended, everybody, to};

type Spoil = fn(&mut CreateBroadcastRequest);

fn filter(request: &mut CreateBroadcastRequest) -> &mut BroadcastFilter {
    request.filter.get_or_insert_default()
}

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

const SPOILT: [(&str, Spoil); 29] = [
    ("request_id", |it| it.request_id.clear()),
    ("filter", |it| it.filter = None),
    ("filter", |it| filter(it).all = false),
    ("filter.all", |it| filter(it).min_level = 2),
    ("filter.locale", |it| filter(it).locale = "en;".to_owned()),
    ("filter.locale", |it| filter(it).locale = "-en".to_owned()),
    ("filter.pro", |it| filter(it).pro = 3),
    ("filter.min_level", |it| filter(it).min_level = -1),
    ("filter.min_level", |it| filter(it).min_level = 10_001),
    ("filter.ancestor_id", |it| filter(it).ancestor_id = "somebody".to_owned()),
    ("filter.channel", |it| filter(it).channel = "pigeon".to_owned()),
    ("filter.registered_after", |it| filter(it).registered_after = at(i64::MAX)),
    ("filter.registered_before", |it| filter(it).registered_before = at(i64::MIN)),
    ("filter.registered_before", |it| {
        filter(it).registered_after = at(10);
        filter(it).registered_before = at(9);
    }),
    ("text", |it| it.text = " \n ".to_owned()),
    ("text", |it| it.text = "x".repeat(4001)),
    ("text", |it| it.text = "a\tb".to_owned()),
    ("text", |it| it.text = "a\u{0}b".to_owned()),
    ("subject", |it| it.subject = "a\nb".to_owned()),
    ("subject", |it| it.subject = "x".repeat(257)),
    ("button_url", |it| it.button_url = "example.org".to_owned()),
    ("button_url", |it| it.button_url = "javascript://x".to_owned()),
    ("button_url", |it| it.button_url = "https://exam ple.org".to_owned()),
    ("button_url", |it| it.button_url.clear()),
    ("button_label", |it| it.button_label.clear()),
    ("expire_time", |it| it.expire_time = at(1)),
    ("expire_time", |it| it.expire_time = at(253_402_300_799)),
    ("recipients_per_second", |it| it.recipients_per_second = -1),
    ("recipients_per_second", |it| it.recipients_per_second = 10_001),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_names_its_field_and_is_not_remembered() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let good = CreateBroadcastRequest {
        subject: "News".to_owned(),
        button_label: "Read".to_owned(),
        button_url: "https://example.org/news?id=1".to_owned(),
        ..everybody("Hello")
    };
    for dry_run in [false, true] {
        for (number, (field, spoil)) in SPOILT.iter().enumerate() {
            let mut request = CreateBroadcastRequest { dry_run, ..good.clone() };
            spoil(&mut request);
            let answer = clients.broadcasts.create_broadcast(request).await;
            let status = refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
            assert_eq!(fields(&status), [*field], "case {number}: {status}");
        }
    }
    let answer = clients.broadcasts.create_broadcast(good).await.expect("a broadcast");
    assert!(!is_marked(&answer, "idempotent-replay"));

    let begun = answer.into_inner().broadcast.expect("a broadcast");
    let good = cancellation(&begun);
    for (field, request) in [
        ("request_id", CancelBroadcastRequest { request_id: "1".to_owned(), ..good.clone() }),
        ("broadcast_id", CancelBroadcastRequest { broadcast_id: "1".to_owned(), ..good.clone() }),
        ("reason", CancelBroadcastRequest { reason: String::new(), ..good.clone() }),
        ("reason", CancelBroadcastRequest { reason: "x".repeat(501), ..good }),
    ] {
        let status =
            refused(clients.broadcasts.cancel_broadcast(request).await, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(fields(&status), [field]);
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_has_its_default_and_comes_back_as_it_was_understood() {
    let pair = Options::default().start_alone().await;
    let clients = pair.clients.clone();
    let filter = BroadcastFilter { locale: "PT-br".to_owned(), ..Default::default() };
    let request = CreateBroadcastRequest { recipients_per_second: 0, ..to(filter, "  Olá  ") };
    let begun = begin(&clients, request).await;
    assert_eq!((begun.text.as_str(), begun.recipients_per_second), ("Olá", 500));
    assert_eq!(begun.filter, Some(BroadcastFilter { locale: "pt".to_owned(), ..Default::default() }));
    let seconds = |time: &Option<Timestamp>| time.as_ref().expect("a time").seconds;
    assert_eq!(seconds(&begun.expire_time) - seconds(&begun.create_time), 7 * 24 * 3600);
    assert_eq!((begun.caller.as_str(), begun.trace_id.len()), ("local", 32));
    assert_eq!(ended(&clients, &begun).await.published, 0, "nobody speaks it");
    pair.finish().await;
}

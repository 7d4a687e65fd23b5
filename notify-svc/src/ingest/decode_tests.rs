//! Every way in which a record can be wrong, and one in which it is right.

use p2phub_proto::notify::v1::RecipientContact;

use super::*;

fn trace() -> Trace {
    Trace { trace_id: "0".repeat(31) + "1", traceparent: String::new(), baggage: String::new() }
}

fn level_up() -> NotificationRequest {
    NotificationRequest {
        kind: NotificationKind::LevelUp.into(),
        recipient_id: "partner".to_owned(),
        locale: "ru".to_owned(),
        contacts: vec![RecipientContact { channel: "telegram".to_owned(), address: "1".to_owned() }],
        arguments: [("level", "2"), ("xp", "300")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        expire_time: None,
    }
}

fn record(requests: Vec<NotificationRequest>) -> EventRecord {
    EventRecord {
        event_id: Uuid::nil().to_string(),
        event: NotificationEvent { requests }.encode_to_vec(),
        ..Default::default()
    }
}

fn reason(record: &EventRecord) -> &'static str {
    decode(record, &trace()).expect_err("rejected").reason
}

#[test]
fn a_whole_record_is_decoded() {
    let event = decode(&record(vec![level_up()]), &trace()).expect("decoded");
    assert_eq!(event.requests[0].kind, Kind::LevelUp);
    assert_eq!(event.requests[0].contacts[0].address, "1");
}

#[test]
fn each_fault_has_its_reason() {
    let mut no_uuid = record(vec![]);
    no_uuid.event_id = "1".to_owned();
    assert_eq!(reason(&no_uuid), "EVENT_ID_MALFORMED");

    let mut garbage = record(vec![]);
    garbage.event = vec![0xff; 9];
    assert_eq!(reason(&garbage), "EVENT_MALFORMED");

    let mut large = record(vec![]);
    large.event = vec![0; EVENT_BYTES_MAX + 1];
    assert_eq!(reason(&large), "EVENT_TOO_LARGE");

    assert_eq!(reason(&record(vec![level_up(); 101])), "TOO_MANY_REQUESTS");

    for number in [0, 99, -1] {
        assert_eq!(reason(&record(vec![NotificationRequest { kind: number, ..level_up() }])), "KIND_UNKNOWN");
    }

    let nobody = NotificationRequest { recipient_id: String::new(), ..level_up() };
    assert_eq!(reason(&record(vec![level_up(), nobody])), "EVENT_INVALID");

    let never = NotificationRequest { expire_time: Some(Timestamp { seconds: i64::MAX, nanos: 0 }), ..level_up() };
    assert_eq!(reason(&record(vec![never])), "EVENT_INVALID");
}

#[test]
fn every_kind_of_the_contract_is_known() {
    for kind in Kind::ALL {
        let name = format!("{}{}", convert::KIND_PREFIX, kind.as_str());
        let number = NotificationKind::from_str_name(&name).expect("in the contract");
        assert_eq!(super::kind(number.into()), Some(*kind));
    }
}

#[test]
fn what_is_kept_of_a_rejected_record_can_be_stored() {
    let text = "a\0".to_owned() + &"ж".repeat(500);
    let kept = storable(&text);
    assert!(kept.len() <= KEPT_TEXT_BYTES_MAX + 4 && !kept.contains('\0'));
}

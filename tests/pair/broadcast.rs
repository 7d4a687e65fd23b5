//! Broadcasts: whom a filter means, what is refused, and how a broadcast begins, goes on and ends.

mod flow;
mod input;
mod once;

use std::collections::BTreeSet;

use p2phub_proto::{
    notify::v1::{NotificationEvent, NotificationRequest},
    referral::v1::{
        Broadcast, BroadcastFilter, BroadcastState, CancelBroadcastRequest, Contact, CreateBroadcastRequest,
        GetBroadcastRequest, ListAuditEventsRequest, ListBroadcastsRequest, Partner, ProFilter, RegisterPartnerRequest,
    },
};
use p2phub_tests::{
    builders::{registration, request_id},
    clients::Clients,
    pair::{Options, Pair},
    postgres::Role,
    refusal::{is_marked, refused},
    wait,
};
use prost::Message;
use tonic::Code;

/// To everybody, as fast as it goes.
fn everybody(text: &str) -> CreateBroadcastRequest {
    to(BroadcastFilter { all: true, ..Default::default() }, text)
}

fn to(filter: BroadcastFilter, text: &str) -> CreateBroadcastRequest {
    CreateBroadcastRequest {
        request_id: request_id(),
        filter: Some(filter),
        text: text.to_owned(),
        recipients_per_second: 10_000,
        ..Default::default()
    }
}

async fn begin(clients: &Clients, request: CreateBroadcastRequest) -> Broadcast {
    let answer = clients.broadcasts.clone().create_broadcast(request).await.expect("a broadcast");
    answer.into_inner().broadcast.expect("a broadcast")
}

async fn get(clients: &Clients, broadcast: &Broadcast) -> Broadcast {
    let request = GetBroadcastRequest { broadcast_id: broadcast.broadcast_id.clone() };
    let answer = clients.broadcasts.clone().get_broadcast(request).await.expect("a broadcast");
    answer.into_inner().broadcast.expect("a broadcast")
}

async fn ended(clients: &Clients, broadcast: &Broadcast) -> Broadcast {
    wait::until("the broadcast's end", async || {
        let broadcast = get(clients, broadcast).await;
        (broadcast.state() != BroadcastState::Running).then_some(broadcast)
    })
    .await
}

/// Waits until it was published to that many.
async fn published(clients: &Clients, broadcast: &Broadcast, recipients: i64) -> Broadcast {
    wait::until(&format!("{recipients} recipients"), async || {
        let broadcast = get(clients, broadcast).await;
        (broadcast.published >= recipients).then_some(broadcast)
    })
    .await
}

fn cancellation(broadcast: &Broadcast) -> CancelBroadcastRequest {
    CancelBroadcastRequest {
        request_id: request_id(),
        broadcast_id: broadcast.broadcast_id.clone(),
        reason: "a wrong date".to_owned(),
    }
}

/// What a broadcast has put into the outbox, event by event; notify-svc must be away.
async fn in_outbox(pair: &Pair, broadcast: &Broadcast) -> Vec<Vec<NotificationRequest>> {
    let client = pair.referral_sql(Role::Superuser).await;
    let query = "SELECT event FROM outbox WHERE bulk AND traceparent LIKE '%' || $1 || '%' ORDER BY event_id";
    let rows = client.query(query, &[&broadcast.trace_id]).await.expect("rows");
    let event = |row: &tokio_postgres::Row| NotificationEvent::decode(row.get::<_, &[u8]>(0)).expect("an event");
    rows.iter().map(|row| event(row).requests).collect()
}

fn recipients(events: &[Vec<NotificationRequest>]) -> Vec<&str> {
    events.iter().flatten().map(|request| request.recipient_id.as_str()).collect()
}

/// Many partners at once, without a referrer, with IDs in no order.
async fn crowd(pair: &Pair, partners: i32) {
    let client = pair.referral_sql(Role::Superuser).await;
    let insert = "INSERT INTO partners (partner_id, external_id, referral_code, depth, lineage, username, first_name,
                      last_name, locale, contacts, create_time)
                  SELECT gen_random_uuid(), 'crowd:' || n, 'P2P-' || lpad(n::text, 8, '0'), 0, '{}', '', '', '', 'en',
                      '[]', now() - interval '1 hour'
                  FROM generate_series(1, $1) AS n";
    client.execute(insert, &[&partners]).await.expect("a crowd");
    let insert = "INSERT INTO standings (partner_id) SELECT partner_id FROM partners WHERE external_id LIKE 'crowd:%'";
    client.batch_execute(insert).await.expect("their standings");
}

async fn register(clients: &mut Clients, name: &str, code: &str, locale: &str, channel: Option<&str>) -> Partner {
    let contacts = channel.map(|channel| Contact {
        channel: channel.to_owned(),
        address: if channel == "email" { "someone@example.org" } else { "12345" }.to_owned(),
    });
    let request = RegisterPartnerRequest {
        locale: locale.to_owned(),
        contacts: contacts.into_iter().collect(),
        ..registration(name, code)
    };
    let answer = clients.partners.register_partner(request).await.expect("a registration");
    answer.into_inner().partner.expect("a partner")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_means_those_who_match_all_of_it() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let root = register(&mut clients, "root", "", "ru-RU", Some("telegram")).await;
    let child = register(&mut clients, "child", &root.referral_code, "pt_BR", Some("email")).await;
    let grand = register(&mut clients, "grand", &child.referral_code, "", None).await;
    let second = register(&mut clients, "second", &root.referral_code, "RU", Some("email")).await;
    let third = register(&mut clients, "third", &root.referral_code, "en", None).await;
    clients.buy_pro(&child.partner_id).await;
    assert_eq!(clients.partner(&root.partner_id).await.level, 2, "root has the XP of four signups");
    // The order of time is that of registration, and the boundary itself is "after".
    let at = second.create_time;

    let none = BroadcastFilter::default;
    let (active, not_active) = (ProFilter::Active.into(), ProFilter::NotActive.into());
    let below = root.partner_id.clone();
    let cases: [(BroadcastFilter, &[&Partner]); 14] = [
        (BroadcastFilter { all: true, ..none() }, &[&root, &child, &grand, &second, &third]),
        (BroadcastFilter { locale: "ru".to_owned(), ..none() }, &[&root, &second]),
        (BroadcastFilter { locale: "PT-pt".to_owned(), ..none() }, &[&child]),
        (BroadcastFilter { locale: "de".to_owned(), ..none() }, &[]),
        (BroadcastFilter { pro: active, ..none() }, &[&child]),
        (BroadcastFilter { pro: not_active, ..none() }, &[&root, &grand, &second, &third]),
        (BroadcastFilter { min_level: 2, ..none() }, &[&root]),
        (BroadcastFilter { min_level: 3, ..none() }, &[]),
        (BroadcastFilter { ancestor_id: below.clone(), ..none() }, &[&child, &grand, &second, &third]),
        (BroadcastFilter { ancestor_id: grand.partner_id.clone(), ..none() }, &[]),
        (BroadcastFilter { channel: "email".to_owned(), ..none() }, &[&child, &second]),
        (BroadcastFilter { registered_after: at, ..none() }, &[&second, &third]),
        (BroadcastFilter { registered_before: at, ..none() }, &[&root, &child, &grand]),
        (
            BroadcastFilter {
                ancestor_id: below,
                channel: "email".to_owned(),
                pro: not_active,
                registered_after: at,
                locale: "ru".to_owned(),
                min_level: 1,
                ..none()
            },
            &[&second],
        ),
    ];
    for (filter, meant) in cases {
        let meant: BTreeSet<_> = meant.iter().map(|partner| partner.partner_id.as_str()).collect();
        let count = i64::try_from(meant.len()).expect("a count");
        let dry = begin(&clients, CreateBroadcastRequest { dry_run: true, ..to(filter.clone(), "Hello") }).await;
        assert_eq!((dry.matched, dry.broadcast_id.as_str()), (count, ""), "{filter:?}");
        let begun = begin(&clients, to(filter.clone(), "Hello")).await;
        assert_eq!((begun.matched, begun.state()), (count, BroadcastState::Running), "{filter:?}");
        let done = ended(&clients, &begun).await;
        assert_eq!((done.published, done.state()), (count, BroadcastState::Done), "{filter:?}");
        let events = in_outbox(&pair, &begun).await;
        assert_eq!(recipients(&events).into_iter().collect::<BTreeSet<_>>(), meant, "{filter:?}");
        assert_eq!(recipients(&events).len(), meant.len(), "{filter:?}");
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_and_leaves_nothing() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    clients.chain("chain", 3).await;
    let sql = pair.referral_sql(Role::Superuser).await;
    let rows = async || {
        let query = "SELECT (SELECT count(*) FROM broadcasts), (SELECT count(*) FROM requests),
                         (SELECT count(*) FROM audit_events), (SELECT count(*) FROM outbox)";
        let row = sql.query_one(query, &[]).await.expect("counts");
        [0, 1, 2, 3].map(|column| row.get::<_, i64>(column))
    };
    let before = rows().await;
    let request = CreateBroadcastRequest { dry_run: true, ..everybody("Hello") };
    for _ in 0..2 {
        let answer = clients.broadcasts.create_broadcast(request.clone()).await.expect("a count");
        assert!(!is_marked(&answer, "idempotent-replay"));
        let counted = answer.into_inner().broadcast.expect("a broadcast");
        assert_eq!((counted.matched, counted.state()), (3, BroadcastState::Unspecified));
        assert!(counted.create_time.is_none() && counted.broadcast_id.is_empty());
    }
    assert_eq!(rows().await, before);
    // What would be refused is refused in a dry run, too.
    let nobody = BroadcastFilter { ancestor_id: request_id(), ..Default::default() };
    let unknown = CreateBroadcastRequest { dry_run: true, ..to(nobody, "Hello") };
    refused(clients.broadcasts.create_broadcast(unknown.clone()).await, Code::NotFound, "PARTNER_NOT_FOUND");
    assert_eq!(rows().await, before);
    let unknown = CreateBroadcastRequest { dry_run: false, ..unknown };
    refused(clients.broadcasts.create_broadcast(unknown).await, Code::NotFound, "PARTNER_NOT_FOUND");
    // The request ID is free still.
    let begun = begin(&clients, CreateBroadcastRequest { dry_run: false, ..request }).await;
    assert_eq!(ended(&clients, &begun).await.published, 3);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_is_begun_once_for_its_request_id_and_is_on_record() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    clients.register("somebody", "").await;
    let request = everybody("Hello\nand welcome");
    let begun = begin(&clients, request.clone()).await;
    ended(&clients, &begun).await;
    let again = clients.broadcasts.create_broadcast(request.clone()).await.expect("the first answer");
    assert!(is_marked(&again, "idempotent-replay"));
    assert_eq!(again.into_inner().broadcast, Some(begun.clone()), "as it was when it began");
    let other = CreateBroadcastRequest { text: "Bye".to_owned(), ..request.clone() };
    refused(clients.broadcasts.create_broadcast(other).await, Code::AlreadyExists, "REQUEST_ID_REUSED");

    let list = ListBroadcastsRequest { state: BroadcastState::Done.into(), ..Default::default() };
    let listed = clients.broadcasts.list_broadcasts(list).await.expect("a list").into_inner().broadcasts;
    assert_eq!(listed, [get(&clients, &begun).await]);
    let list = ListBroadcastsRequest { state: BroadcastState::Running.into(), ..Default::default() };
    assert!(clients.broadcasts.list_broadcasts(list).await.expect("a list").into_inner().broadcasts.is_empty());

    let events = ListAuditEventsRequest { subject_id: begun.broadcast_id.clone(), ..Default::default() };
    let events = clients.audit.list_audit_events(events).await.expect("records").into_inner().audit_events;
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((event.action.as_str(), event.outcome.as_str()), ("CreateBroadcast", "OK"));
    assert_eq!((&event.trace_id, &event.request_id), (&begun.trace_id, &request.request_id));
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_broadcasts_has_pages() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let mut begun = Vec::new();
    for number in 0..5 {
        begun.insert(0, begin(&clients, everybody(&format!("Number {number}"))).await.broadcast_id);
    }
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListBroadcastsRequest { page_size: 2, page_token, ..Default::default() };
        let page = clients.broadcasts.list_broadcasts(request).await.expect("a page").into_inner();
        listed.extend(page.broadcasts.into_iter().map(|broadcast| broadcast.broadcast_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, begun);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_broadcast_goes_no_further() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    crowd(&pair, 300).await;
    let begun = begin(&clients, CreateBroadcastRequest { recipients_per_second: 20, ..everybody("Hello") }).await;
    published(&clients, &begun, 1).await;
    let request = cancellation(&begun);
    let answer = clients.broadcasts.cancel_broadcast(request.clone()).await.expect("a cancellation");
    let cancelled = answer.into_inner().broadcast.expect("a broadcast");
    assert_eq!((cancelled.state(), cancelled.cancel_reason.as_str()), (BroadcastState::Cancelled, "a wrong date"));
    assert!(cancelled.end_time.is_some() && (1..300).contains(&cancelled.published), "{cancelled:?}");
    // The same runner does all of another one meanwhile.
    let other = begin(&clients, everybody("Hello again")).await;
    assert_eq!(ended(&clients, &other).await.published, 300);
    assert_eq!(get(&clients, &begun).await, cancelled);
    let events = in_outbox(&pair, &begun).await;
    assert_eq!(i64::try_from(recipients(&events).len()), Ok(cancelled.published));

    let again = clients.broadcasts.cancel_broadcast(request).await.expect("the first answer");
    assert!(is_marked(&again, "idempotent-replay"));
    let answer = clients.broadcasts.cancel_broadcast(cancellation(&begun)).await;
    refused(answer, Code::FailedPrecondition, "BROADCAST_ENDED");
    let unknown = Broadcast { broadcast_id: request_id(), ..Default::default() };
    let request = cancellation(&unknown);
    for _ in 0..2 {
        let answer = clients.broadcasts.cancel_broadcast(request.clone()).await;
        refused(answer, Code::NotFound, "BROADCAST_NOT_FOUND");
    }
    let request = GetBroadcastRequest { broadcast_id: unknown.broadcast_id };
    refused(clients.broadcasts.get_broadcast(request).await, Code::NotFound, "BROADCAST_NOT_FOUND");

    let events = ListAuditEventsRequest { subject_id: begun.broadcast_id.clone(), ..Default::default() };
    let events = clients.audit.list_audit_events(events).await.expect("records").into_inner().audit_events;
    let seen: Vec<_> = events.iter().map(|one| [&*one.action, &*one.outcome, &*one.detail]).collect();
    let cancel = "CancelBroadcast";
    let expected = [[cancel, "BROADCAST_ENDED", "a wrong date"], [cancel, "OK", "a wrong date"]];
    assert_eq!((&seen[..2], seen[2][0]), (&expected[..], "CreateBroadcast"));
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broadcast_said_stays_and_its_progress_goes_forward() {
    let pair = Options::default().start_alone().await;
    let clients = pair.clients.clone();
    crowd(&pair, 100).await;
    let running = begin(&clients, CreateBroadcastRequest { recipients_per_second: 1, ..everybody("Hello") }).await;
    published(&clients, &running, 1).await;
    let done = ended(&clients, &begin(&clients, everybody("Hello")).await).await;
    let (running, done) = (&running.broadcast_id, &done.broadcast_id);
    let refused = "23514";
    for (role, sql, state) in [
        (Role::Service, format!("UPDATE broadcasts SET text = 'Bye' WHERE broadcast_id = '{running}'"), "42501"),
        (Role::Owner, format!("UPDATE broadcasts SET text = 'Bye' WHERE broadcast_id = '{running}'"), refused),
        (Role::Owner, format!("UPDATE broadcasts SET matched = 7 WHERE broadcast_id = '{running}'"), refused),
        (Role::Service, format!("UPDATE broadcasts SET published = 0 WHERE broadcast_id = '{running}'"), refused),
        (Role::Service, format!("UPDATE broadcasts SET state = 'DONE' WHERE broadcast_id = '{running}'"), refused),
        (Role::Service, format!("UPDATE broadcasts SET published = 200 WHERE broadcast_id = '{done}'"), refused),
        (
            Role::Service,
            format!(
                "UPDATE broadcasts SET state = 'RUNNING', end_time = NULL, next_step_time = now()
                 WHERE broadcast_id = '{done}'"
            ),
            refused,
        ),
        (Role::Service, "DELETE FROM broadcasts".to_owned(), "42501"),
        (Role::Owner, "DELETE FROM broadcasts".to_owned(), "42501"),
        (Role::Owner, "TRUNCATE broadcasts".to_owned(), "42501"),
    ] {
        let client = pair.referral_sql(role).await;
        let fault = client.batch_execute(&sql).await.expect_err("a refusal");
        assert_eq!(fault.as_db_error().map(|fault| fault.code().code()), Some(state), "as {role:?}: {sql}");
    }
    pair.finish().await;
}

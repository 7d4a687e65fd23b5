//! What went wrong in the system before this one, failure by failure: none can come back unnoticed.

mod contract;
mod faults;

use chrono::TimeDelta;
use p2phub_proto::{
    notify::v1::{ListNotificationsRequest, Notification, NotificationKind, NotificationState},
    referral::v1::{AttachReferrerRequest, ListAuditEventsRequest, ListXpAwardsRequest},
};
use p2phub_tests::{
    builders::{confirmation, registration, request_id},
    clients::Clients,
    pair::{Options, Pair},
    postgres::Role,
    refusal::{is_marked, refused},
    wait,
};
use referral_svc::Clock;
use tokio_postgres::Client;
use tonic::{Code, Request};

/// What a partner was told so far.
async fn notifications(clients: &mut Clients, recipient_id: &str) -> Vec<Notification> {
    let request = ListNotificationsRequest { recipient_id: recipient_id.to_owned(), ..Default::default() };
    clients.notifications.list_notifications(request).await.expect("an answer").into_inner().notifications
}

/// Waits until a partner has been told of something.
async fn told(clients: &mut Clients, recipient_id: &str, kind: NotificationKind) -> Notification {
    wait::until(&format!("{kind:?} to be delivered"), async || {
        let found = notifications(clients, recipient_id).await;
        found.into_iter().find(|one| one.kind() == kind && one.state() == NotificationState::Delivered)
    })
    .await
}

/// Waits until notify-svc has acknowledged everything.
async fn outbox_empties(referral: &Client) {
    wait::until("the outbox to empty", async || {
        let row = referral.query_one("SELECT count(*) FROM outbox", &[]).await.expect("a row");
        (row.get::<_, i64>(0) == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_direct_referrer_gets_commission_and_xp() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let (_, commissions) = clients.buy_pro(&chain[1].partner_id).await;
    assert_eq!(commissions.len(), 1);
    let first = &commissions[0];
    assert_eq!((first.level, first.rate_bps, first.earner_id.as_str()), (1, 3000, chain[0].partner_id.as_str()));
    assert_eq!(clients.balance(&chain[0].partner_id).await, 11_700_000);
    let request = ListXpAwardsRequest { partner_id: chain[0].partner_id.clone(), ..Default::default() };
    let awards = clients.partners.list_xp_awards(request).await.expect("an answer").into_inner().xp_awards;
    assert_eq!(awards.len(), 1);
    assert_eq!((awards[0].level, awards[0].xp, &awards[0].source_partner_id), (1, 35, &chain[1].partner_id));
    assert_eq!(clients.partner(&chain[0].partner_id).await.xp, 35);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_payment_is_redeemed_once() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let payment = clients.open_payment(&chain[1].partner_id).await;
    let mut calls = Vec::new();
    for _ in 0..8 {
        let (mut payments, request) = (clients.payments.clone(), confirmation(&payment.payment_id, "money"));
        calls.push(tokio::spawn(async move { payments.confirm_payment(request).await }));
    }
    let mut upgrades = 0;
    for call in calls {
        let answer = call.await.expect("no panic").expect("a confirmation");
        upgrades += usize::from(!is_marked(&answer, "already-confirmed"));
    }
    assert_eq!(upgrades, 1);
    // Nor does the same money pay for another payment.
    let second = clients.open_payment(&chain[1].partner_id).await;
    let answer = clients.payments.confirm_payment(confirmation(&second.payment_id, "money")).await;
    refused(answer, Code::AlreadyExists, "EXTERNAL_REF_USED");
    assert_eq!(clients.balance(&chain[0].partner_id).await, 11_700_000);
    let buyer = clients.partner(&chain[1].partner_id).await;
    let month = buyer.pro_expires_at.expect("PRO").seconds - payment.create_time.expect("a time").seconds;
    assert!((30 * 86_400..30 * 86_400 + 3_600).contains(&month), "{month} seconds of PRO");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cycle_pays_a_buyer_for_their_own_purchase() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 3).await;
    for target in &chain {
        let request = AttachReferrerRequest {
            request_id: request_id(),
            partner_id: chain[0].partner_id.clone(),
            referral_code: target.referral_code.clone(),
        };
        let answer = clients.partners.attach_referrer(request).await;
        refused(answer, Code::FailedPrecondition, "REFERRAL_CYCLE");
    }
    for (buyer, earners) in chain.iter().zip(0..) {
        let (_, commissions) = clients.buy_pro(&buyer.partner_id).await;
        assert_eq!(commissions.len(), earners);
        assert!(commissions.iter().all(|commission| commission.earner_id != buyer.partner_id));
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_are_sent_even_if_nobody_listened_at_the_time() {
    let mut pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    clients.buy_pro(&chain[1].partner_id).await;
    let sql = pair.referral_sql(Role::Service).await;
    let waiting: i64 = sql.query_one("SELECT count(*) FROM outbox", &[]).await.expect("a row").get(0);
    assert_eq!(waiting, 2, "a signup and a sale");
    // Gone and back before anyone listened.
    pair.stop_referral().await;
    pair.start_notify().await;
    pair.start_referral().await;
    told(&mut clients, &chain[0].partner_id, NotificationKind::SignupL1).await;
    told(&mut clients, &chain[0].partner_id, NotificationKind::CommissionReceived).await;
    told(&mut clients, &chain[1].partner_id, NotificationKind::ProWelcome).await;
    outbox_empties(&sql).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_expire() {
    let clock = Clock::default();
    let shared = clock.clone();
    let pair = Options::default().referral(move |config| config.clock = shared.clone()).start_alone().await;
    let mut clients = pair.clients.clone();
    let root = clients.register("root", "").await;
    let (first, _) = clients.buy_pro(&root.partner_id).await;
    clients.register("during", &root.referral_code).await;
    let during = clients.partner(&root.partner_id).await;
    assert!(during.pro_active);
    assert_eq!(during.xp, 175);

    // No job ends it: time does, even where nothing has run since.
    clock.set_ahead(TimeDelta::days(30));
    assert!(!clients.partner(&root.partner_id).await.pro_active);
    clients.register("after", &root.referral_code).await;
    assert_eq!(clients.partner(&root.partner_id).await.xp, 175 + 35);
    let (second, _) = clients.buy_pro(&root.partner_id).await;
    assert_eq!(second.pro_start_time, second.confirm_time);
    assert_ne!(second.pro_start_time, first.pro_end_time);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_id_reaches_everything_that_a_call_caused() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let pair = Pair::start().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let payment = clients.open_payment(&chain[1].partner_id).await;
    let mut request = Request::new(confirmation(&payment.payment_id, "money"));
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    request.metadata_mut().insert("traceparent", traceparent.parse().expect("a header"));
    let request_id = request.get_ref().request_id.clone();
    let answer = clients.payments.confirm_payment(request).await.expect("a confirmation");
    assert_eq!(answer.metadata().get("trace-id").expect("a trace"), TRACE);

    let request = ListAuditEventsRequest { trace_id: TRACE.to_owned(), ..Default::default() };
    let events = clients.audit.list_audit_events(request).await.expect("an answer").into_inner().audit_events;
    let record: Vec<_> = events.iter().map(|event| (event.action.as_str(), event.request_id.as_str())).collect();
    assert_eq!(record, [("ConfirmPayment", request_id.as_str())]);

    // Over the process border: both who bought and who earned, and each attempt to tell them.
    for (partner, kind) in [(1, NotificationKind::ProWelcome), (0, NotificationKind::CommissionReceived)] {
        let told = told(&mut clients, &chain[partner].partner_id, kind).await;
        assert_eq!(told.trace_id, TRACE, "{kind:?}");
        let attempts: Vec<_> = told.deliveries.iter().flat_map(|delivery| &delivery.attempts).collect();
        assert!(!attempts.is_empty() && attempts.iter().all(|attempt| attempt.trace_id == TRACE), "{attempts:?}");
    }
    // A refusal carries it too.
    let mut refusal = Request::new(registration("some body", ""));
    refusal.metadata_mut().insert("traceparent", traceparent.parse().expect("a header"));
    let answer = clients.partners.register_partner(refusal).await;
    let status = refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_eq!(status.metadata().get("trace-id").expect("a trace"), TRACE);
    pair.finish().await;
}

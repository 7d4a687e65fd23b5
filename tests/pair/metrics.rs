//! What the services measure, as Prometheus reads it: exact figures for a few calls, the labels of every family, and that no
//! caller can add a series.

mod catalogue;
mod given_up;
mod hostile;
mod ledger;

use std::net::SocketAddr;

use p2phub_proto::{
    notify::v1::{GetNotificationRequest, ListNotificationsRequest, NotificationState},
    referral::v1::{ConfirmPaymentRequest, Partner},
};
use p2phub_tests::{
    builders::{confirmation, registration, request_id},
    clients::channel,
    instance::Instance,
    pair::{Options, Pair},
    postgres::Role,
    prometheus::Scrape,
    refusal::{is_marked, refused},
    wait,
};
use tonic::{Code, Request};

use self::catalogue::Of;
use crate::{PAIR_PROCESS, concurrency::number, outage::commit::Held, wrong_input::raw};

const PARTNERS: &str = "p2phub.referral.v1.PartnerService";

async fn processes() -> Pair {
    Options::default().processes(PAIR_PROCESS).start().await
}

/// Where a service's metrics are.
fn http(instance: &Option<Instance>) -> SocketAddr {
    instance.as_ref().expect("it runs").http
}

async fn of_referral(pair: &Pair) -> Scrape {
    Scrape::of(http(&pair.referral)).await
}

async fn of_notify(pair: &Pair) -> Scrape {
    Scrape::of(http(&pair.notify)).await
}

/// Waits until a series of referral-svc has this value.
async fn until_it_says(pair: &Pair, name: &str, labels: &[(&str, &str)], expected: f64) -> Scrape {
    let what = format!("{name} {labels:?} to be {expected}");
    let says = |scrape: &Scrape| scrape.value(name, labels) == Some(expected);
    wait::until(&what, async || Some(of_referral(pair).await).filter(says)).await
}

/// A name with labels, and what it must say.
type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

#[track_caller]
fn assert_says(scrape: &Scrape, expected: &[Expected<'_>]) {
    for (name, labels, value) in expected {
        assert_eq!(scrape.value(name, labels), Some(*value), "{name} {labels:?}");
    }
}

/// Nothing is queued or on its way to a recipient any more.
async fn until_all_is_delivered(pair: &Pair) {
    let sql = pair.notify_sql(Role::Superuser).await;
    let waiting = "SELECT count(*) FROM notifications WHERE state IN ('QUEUED', 'SENDING')";
    wait::until("everything to be delivered", async || (number(&sql, waiting).await == 0).then_some(())).await;
}

/// A chain of ten and one sale by the last of them, whose confirmation it returns.
async fn chain_and_sale(pair: &Pair) -> (Vec<Partner>, ConfirmPaymentRequest) {
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 10).await;
    let payment = clients.open_payment(&chain[9].partner_id).await;
    let request = confirmation(&payment.payment_id, "the one");
    clients.payments.confirm_payment(request.clone()).await.expect("a confirmation");
    (chain, request)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_counted_to_the_unit() {
    let pair = processes().await;
    let mut clients = pair.clients.clone();
    let (_, confirmed) = chain_and_sale(&pair).await;

    // The same again counts nothing: by the request's ID, and by the payment's.
    let replay = clients.payments.confirm_payment(confirmed.clone()).await.expect("an answer");
    assert!(is_marked(&replay, "idempotent-replay"));
    let again = ConfirmPaymentRequest { request_id: request_id(), ..confirmed.clone() };
    let again = clients.payments.confirm_payment(again).await.expect("an answer");
    assert!(is_marked(&again, "already-confirmed"));
    let other =
        ConfirmPaymentRequest { request_id: request_id(), external_ref: "another".to_owned(), ..confirmed.clone() };
    for _ in 0..2 {
        // The second time it is a replay.
        let answer = clients.payments.confirm_payment(other.clone()).await;
        refused(answer, Code::FailedPrecondition, "PAYMENT_ALREADY_CONFIRMED");
    }
    refused(clients.partners.register_partner(registration("", "")).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    let unknown = raw::call(&channel(pair.referral_address), "/made.up/Method", Request::new(Vec::new())).await;
    refused(unknown, Code::Unimplemented, "METHOD_NOT_FOUND");

    let scrape = until_it_says(&pair, "p2phub_outbox_settled_total", &[("outcome", "stored")], 10.0).await;
    let register = [("rpc_method", &*format!("{PARTNERS}/RegisterPartner")), ("rpc_response_status_code", "OK")];
    let bad = [register[0], ("rpc_response_status_code", "INVALID_ARGUMENT"), ("reason", "INVALID_ARGUMENT")];
    let made_up = [("rpc_method", "_OTHER"), ("rpc_response_status_code", "UNIMPLEMENTED")];
    assert_says(
        &scrape,
        &[
            ("p2phub_signups_total", &[("attribution", "no_code")], 1.0),
            ("p2phub_signups_total", &[("attribution", "attributed")], 9.0),
            ("p2phub_signups_total", &[("attribution", "unknown_code")], 0.0),
            // Nine direct referrers, eight above them, and twenty-eight further up.
            ("p2phub_xp_awarded_total", &[], 9.0 * 35.0 + 8.0 * 10.0 + 28.0),
            ("p2phub_confirmations_total", &[("outcome", "succeeded")], 1.0),
            ("p2phub_confirmations_total", &[("outcome", "refused")], 1.0),
            ("p2phub_confirmations_total", &[("outcome", "failed")], 0.0),
            ("p2phub_upgrades_total", &[("type", "new"), ("referred", "true")], 1.0),
            ("p2phub_upgrades_total", &[], 1.0),
            ("p2phub_commissions_total", &[("level", "1")], 1.0),
            ("p2phub_commissions_total", &[("level", "9")], 1.0),
            ("p2phub_commissions_total", &[], 9.0),
            ("p2phub_commission_amount_total", &[("asset", "USDT")], 17_160_000.0),
            ("p2phub_outbox_settled_total", &[], 10.0),
            ("p2phub_stream_connected", &[], 1.0),
            ("p2phub_stream_connects_total", &[("outcome", "opened")], 1.0),
            ("p2phub_commit_queue_depth", &[], 0.0),
            ("rpc_server_call_duration_seconds_count", &register, 10.0),
            ("p2phub_rpc_errors_total", &bad, 1.0),
            ("p2phub_rpc_errors_total", &made_up, 1.0),
            ("rpc_server_call_duration_seconds_count", &made_up, 1.0),
        ],
    );
    assert!(scrape.value("p2phub_stream_credits", &[]).is_some_and(|credits| credits > 0.0));
    // Ten signups, a payment, a confirmation, one again, and a refusal, none of them at the same time as another. Other
    // commands are the replays, and what jobs do.
    let committed = scrape.value("p2phub_commit_duration_seconds_count", &[("outcome", "committed")]);
    assert!(committed.is_some_and(|batches| batches >= 14.0), "{committed:?}");
    let (batches, commands) =
        ["_count", "_sum"].map(|of| scrape.value(&format!("p2phub_commit_batch_size{of}"), &[])).into();
    assert!(batches >= committed && commands >= batches, "{commands:?} commands in {batches:?} batches");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_has_the_labels_of_the_catalogue_and_no_others() {
    let pair = processes().await;
    let mut clients = pair.clients.clone();
    let (chain, _) = chain_and_sale(&pair).await;
    until_all_is_delivered(&pair).await;
    let nobody = GetNotificationRequest { notification_id: request_id() };
    refused(clients.notifications.get_notification(nobody).await, Code::NotFound, "NOTIFICATION_NOT_FOUND");
    let request = ListNotificationsRequest {
        recipient_id: chain[0].partner_id.clone(),
        state: NotificationState::Delivered.into(),
        ..Default::default()
    };
    clients.notifications.list_notifications(request).await.expect("a list");
    let unknown = raw::call(&channel(pair.referral_address), "/made.up/Method", Request::new(Vec::new())).await;
    refused(unknown, Code::Unimplemented, "METHOD_NOT_FOUND");

    // The samplers and the first check of the books take a few seconds.
    until_it_says(&pair, "p2phub_ledger_check_runs_total", &[("outcome", "ok")], 1.0).await;
    wait::until("a look at the queue", async || of_notify(&pair).await.value("p2phub_delivery_queue_depth", &[])).await;
    for (scrape, service) in [(of_referral(&pair).await, Of::Referral), (of_notify(&pair).await, Of::Notify)] {
        catalogue::check(&scrape);
        catalogue::check_complete(&scrape, service);
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_outbox_is_told_and_nothing_is_while_the_database_is_away() {
    let mut pair = Options::default().processes(PAIR_PROCESS).proxied().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 4).await;
    let open = clients.open_payment(&chain[3].partner_id).await;
    let (pending, rejected) = ([("state", "pending")], [("state", "rejected")]);
    let scrape = until_it_says(&pair, "p2phub_outbox_depth", &pending, 3.0).await;
    let age = scrape.value("p2phub_outbox_oldest_age_seconds", &[]).expect("an age");
    assert!(age > 0.0 && age < 30.0, "{age}");
    assert_says(&scrape, &[("p2phub_outbox_depth", &rejected, 0.0), ("p2phub_stream_connected", &[], 0.0)]);
    assert!(scrape.value("p2phub_stream_connects_total", &[("outcome", "failed")]).is_some_and(|failed| failed >= 1.0));

    // An operator looks into one that was rejected; the others are taken.
    let sql = pair.referral_sql(Role::Superuser).await;
    let reject = "UPDATE outbox SET reject_time = now(), reject_reason = 'X', reject_detail = 'x'
        WHERE event_id = (SELECT min(event_id::text)::uuid FROM outbox)";
    sql.batch_execute(reject).await.expect("a rejection");
    pair.start_notify().await;
    let scrape = until_it_says(&pair, "p2phub_outbox_depth", &pending, 0.0).await;
    assert_says(
        &scrape,
        &[
            ("p2phub_outbox_depth", &rejected, 1.0),
            ("p2phub_outbox_oldest_age_seconds", &[], 0.0),
            ("p2phub_stream_connected", &[], 1.0),
            ("p2phub_outbox_settled_total", &[("outcome", "stored")], 2.0),
        ],
    );

    pair.proxies().database.cut();
    let failed = clients.payments.confirm_payment(confirmation(&open.payment_id, "lost")).await;
    refused(failed, Code::Unavailable, "UNAVAILABLE");
    let gone = |scrape: &Scrape| scrape.value("p2phub_outbox_depth", &[]).is_none();
    let scrape = wait::until("no figures", async || Some(of_referral(&pair).await).filter(gone)).await;
    assert_eq!(scrape.value("p2phub_outbox_oldest_age_seconds", &[]), None);
    assert_says(&scrape, &[("p2phub_confirmations_total", &[("outcome", "failed")], 1.0)]);
    let failed = [("outcome", "failed")];
    assert!(scrape.value("p2phub_commit_duration_seconds_count", &failed).is_some_and(|failed| failed >= 1.0));

    pair.proxies().database.resume();
    until_it_says(&pair, "p2phub_outbox_depth", &rejected, 1.0).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_counted_once() {
    let mut held = Held::with(Options::default().processes(PAIR_PROCESS)).await;
    held.pair.proxies().database.cut_once();
    held.release().await;
    (&mut held.call).await.expect("no panic").expect("an answer in spite of it");
    let scrape = of_referral(&held.pair).await;
    let signups = "p2phub_signups_total";
    assert_says(
        &scrape,
        &[
            (signups, &[("attribution", "no_code")], 1.0),
            (signups, &[("attribution", "attributed")], 1.0),
            ("p2phub_xp_awarded_total", &[], 35.0),
        ],
    );
    let failed = scrape.value("p2phub_commit_duration_seconds_count", &[("outcome", "failed")]);
    assert!(failed.is_some_and(|failed| failed >= 1.0), "{failed:?}");
    held.finish().await;
}

//! ReconcilePayments: somebody else's statement against the payments, over real gRPC.

mod rules;

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::TimeDelta;
use p2phub_proto::referral::v1::{
    CreatePaymentRequest, Payment, Product, ReconcileFinding, ReconcileKind, ReconcileOpen, ReconcilePaymentsRequest,
    ReconcileSummary, StatementLine, SubmitPaymentRequest, reconcile_payments_request::Frame,
    reconcile_payments_response::Result as Found,
};
use p2phub_tests::{
    builders::{confirmation, request_id, usdt},
    clients::Clients,
    refusal::refused,
};
use referral_svc::Clock;
use tonic::{Code, Status};

use crate::history::{micros, refund, start, timestamp};

fn frame(frame: Frame) -> ReconcilePaymentsRequest {
    ReconcilePaymentsRequest { frame: Some(frame) }
}

fn open() -> ReconcilePaymentsRequest {
    frame(Frame::Open(ReconcileOpen::default()))
}

fn line(external_ref: &str, minor_units: i64) -> ReconcilePaymentsRequest {
    let external_ref = external_ref.to_owned();
    frame(Frame::Line(StatementLine { external_ref, amount: Some(usdt(minor_units)), time: None }))
}

fn csv(bytes: &[u8]) -> ReconcilePaymentsRequest {
    frame(Frame::Csv(bytes.to_vec()))
}

/// All findings, and the summary, which must come last.
async fn reconcile(
    clients: &mut Clients,
    frames: Vec<ReconcilePaymentsRequest>,
) -> Result<(Vec<ReconcileFinding>, ReconcileSummary), Status> {
    let mut answers = clients.payments.reconcile_payments(tokio_stream::iter(frames)).await?.into_inner();
    let mut findings = Vec::new();
    while let Some(answer) = answers.message().await? {
        match answer.result.expect("a result") {
            Found::Finding(finding) => findings.push(finding),
            Found::Summary(summary) => {
                assert_eq!(answers.message().await?, None, "the summary is the last");
                return Ok((findings, summary));
            }
        }
    }
    panic!("no summary");
}

/// A statement of one CSV file.
pub(crate) async fn reconcile_csv(clients: &mut Clients, file: &[u8]) -> (Vec<ReconcileFinding>, ReconcileSummary) {
    reconcile(clients, vec![open(), csv(file)]).await.expect("an answer")
}

/// What of a finding is the same however the statement came.
fn brief(finding: &ReconcileFinding) -> (ReconcileKind, i64, &str, &str, Option<i64>, Option<i64>) {
    let units = |amount: &Option<p2phub_proto::referral::v1::Amount>| amount.as_ref().map(|amount| amount.minor_units);
    (
        finding.kind(),
        finding.line,
        &finding.external_ref,
        &finding.payment_id,
        units(&finding.stated),
        units(&finding.booked),
    )
}

async fn buy(clients: &mut Clients, partner_id: &str, reference: &str) -> Payment {
    let payment = clients.open_payment(partner_id).await;
    let request = confirmation(&payment.payment_id, reference);
    let answer = clients.payments.confirm_payment(request).await.expect("a confirmation");
    answer.into_inner().payment.expect("a payment")
}

/// A manual payment whose reference was handed in.
async fn submit(clients: &mut Clients, partner_id: &str, reference: &str) -> Payment {
    let request = CreatePaymentRequest {
        request_id: request_id(),
        partner_id: partner_id.to_owned(),
        product: Product::ProMonthly.into(),
        method: "manual".to_owned(),
    };
    let payment = clients.payments.create_payment(request).await.expect("a payment").into_inner().payment;
    let request = SubmitPaymentRequest {
        request_id: request_id(),
        payment_id: payment.expect("a payment").payment_id,
        external_ref: reference.to_owned(),
    };
    clients.payments.submit_payment(request).await.expect("a submission").into_inner().payment.expect("a payment")
}

const PRICE: i64 = 39_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_and_the_payments_are_compared_both_ways() {
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let buyer = clients.register("buyer", "").await.partner_id;
    let hash = [0xab_u8; 32];
    let hex = "ab".repeat(32);
    let _same = buy(&mut clients, &buyer, &hex).await;
    let differs = buy(&mut clients, &buyer, "differs").await;
    let gross = buy(&mut clients, &buyer, "gross").await;
    let parts = buy(&mut clients, &buyer, "parts").await;
    let lacking = buy(&mut clients, &buyer, "lacking").await;
    let review = submit(&mut clients, &buyer, "in review").await;
    let other = submit(&mut clients, &buyer, "first try").await;
    let settled = clients.payments.confirm_payment(confirmation(&other.payment_id, "second, try")).await;
    settled.expect("a confirmation");
    let late = clients.open_payment(&buyer).await;
    for payment in [&differs, &gross] {
        refund(&mut clients, payment, Some(10_000_000)).await;
    }
    refund(&mut clients, &parts, None).await;
    clock.set_ahead(TimeDelta::hours(2));
    let answer = clients.payments.confirm_payment(confirmation(&late.payment_id, "too late")).await;
    refused(answer, Code::FailedPrecondition, "PAYMENT_EXPIRED");

    let dress = BASE64_STANDARD.encode(hash);
    let stated = [
        (dress.as_str(), PRICE),
        ("differs", PRICE - 1),
        ("gross", PRICE),
        ("parts", 30_000_000),
        ("unknown", 5),
        ("in review", PRICE),
        (" ", 1),
        ("parts", 9_000_000),
        ("first try", PRICE),
        ("second, try", PRICE),
        ("parts", -PRICE),
        ("too late", PRICE),
        ("unknown", 6),
    ];
    use ReconcileKind::{AmountDiffers, MissingHere, MissingThere, NotConfirmed, Unreadable};
    let expected = [
        (Unreadable, 7, "", "", None, None),
        (AmountDiffers, 2, "differs", &*differs.payment_id, Some(PRICE - 1), Some(29_000_000)),
        // The statement lists refunds, but not this one's.
        (AmountDiffers, 3, "gross", &*gross.payment_id, Some(PRICE), Some(29_000_000)),
        (MissingHere, 5, "unknown", "", Some(11), None),
        (NotConfirmed, 6, "in review", &review.payment_id, Some(PRICE), None),
        (MissingHere, 9, "first try", &other.payment_id, Some(PRICE), None),
        (NotConfirmed, 12, "too late", &late.payment_id, Some(PRICE), None),
        (MissingThere, 0, "lacking", &lacking.payment_id, None, Some(PRICE)),
    ];
    let lines: Vec<_> = [open()].into_iter().chain(stated.map(|(reference, units)| line(reference, units))).collect();
    let mut file = "\u{feff}Minor_Units;ignored,EXTERNAL_REF\r\n".replace(';', ",");
    for (reference, units) in stated {
        file += &format!("{units},\"a\nnote\",\"{reference}\"\r\n");
    }
    for size in [1, 7, 4096] {
        let pieces: Vec<_> = [open()].into_iter().chain(file.as_bytes().chunks(size).map(csv)).collect();
        for frames in [&lines, &pieces] {
            let (findings, summary) = reconcile(&mut clients, frames.clone()).await.expect("a comparison");
            assert_eq!(findings.iter().map(brief).collect::<Vec<_>>(), expected, "{findings:?}");
            assert!(findings.iter().all(|finding| !finding.detail.is_empty()));
            let total = stated.iter().map(|(_, units)| units).sum::<i64>() - 1;
            let wanted = ReconcileSummary {
                ok: false,
                lines: 13,
                matched: 3,
                differing: 2,
                missing_here: 4,
                missing_there: 1,
                unreadable: 1,
                stated: vec![usdt(total)],
                booked: vec![usdt(6 * PRICE - 20_000_000 - PRICE)],
            };
            assert_eq!(summary, wanted);
        }
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_expected_is_of_a_time_and_a_method() {
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let buyer = clients.register("buyer", "").await.partner_id;
    let first = buy(&mut clients, &buyer, "first").await;
    clock.set_ahead(TimeDelta::days(40));
    let second = buy(&mut clients, &buyer, "second").await;
    let manual = submit(&mut clients, &buyer, "manual").await;
    let answer = clients.payments.confirm_payment(confirmation(&manual.payment_id, "")).await;
    let manual = answer.expect("a confirmation").into_inner().payment.expect("a payment");
    refund(&mut clients, &first, None).await;

    let (one, two) = (micros(&first.confirm_time), micros(&second.confirm_time));
    let three = micros(&manual.confirm_time);
    for (method, start_time, end_time, stated, missing) in [
        ("", None, None, vec![], vec!["first", "second", "manual"]),
        ("", None, None, vec![("first", PRICE), ("second", PRICE), ("manual", PRICE)], vec![]),
        ("trusted", None, None, vec![], vec!["first", "second"]),
        ("manual", None, None, vec![("first", PRICE)], vec!["manual"]),
        ("ton", None, None, vec![], vec![]),
        ("", Some(one), Some(two), vec![], vec!["first"]),
        ("", Some(one + 1), Some(two + 1), vec![], vec!["second"]),
        ("", Some(two), Some(three), vec![], vec!["second"]),
        ("", Some(two), None, vec![("second", PRICE), ("manual", PRICE), ("first", -PRICE)], vec![]),
    ] {
        let method = method.to_owned();
        let [start_time, end_time] = [start_time, end_time].map(|time| time.map(timestamp));
        let open = frame(Frame::Open(ReconcileOpen { method, start_time, end_time, ..Default::default() }));
        let lines = stated.iter().map(|(reference, units)| line(reference, *units));
        let frames = [open.clone()].into_iter().chain(lines).collect();
        let (findings, summary) = reconcile(&mut clients, frames).await.expect("a comparison");
        let found: Vec<&str> = findings.iter().map(|finding| finding.external_ref.as_str()).collect();
        assert_eq!(found, missing, "{open:?}");
        assert!(findings.iter().all(|finding| finding.kind() == ReconcileKind::MissingThere));
        assert_eq!(summary.ok, missing.is_empty());
        assert_eq!(usize::try_from(summary.matched), Ok(stated.len()));
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_are_expected_in_the_time_in_which_they_were_made() {
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let buyer = clients.register("buyer", "").await.partner_id;
    let parts = buy(&mut clients, &buyer, "parts").await;
    let silent = buy(&mut clients, &buyer, "silent").await;
    refund(&mut clients, &parts, Some(10_000_000)).await;
    clock.set_ahead(TimeDelta::days(20));
    let between = micros(&clients.register("later", "").await.create_time);
    refund(&mut clients, &parts, None).await;
    refund(&mut clients, &silent, Some(1_000_000)).await;

    let first = [("parts", PRICE), ("parts", -10_000_000), ("silent", PRICE)];
    let second = [("parts", -29_000_000), ("silent", -1_000_000)];
    let of = |lines: &[(&'static str, i64)], kept: usize| lines[..kept].to_vec();
    for (is_first, stated, with_refunds, findings) in [
        (true, of(&first, 3), false, vec![]),
        (false, of(&second, 2), false, vec![]),
        // The processor never sent one of them.
        (false, of(&second, 1), false, vec![(ReconcileKind::MissingThere, "silent")]),
        (false, vec![], true, vec![(ReconcileKind::MissingThere, "parts"), (ReconcileKind::MissingThere, "silent")]),
        // Nothing says that it lists refunds.
        (false, vec![], false, vec![]),
        (true, vec![("parts", PRICE), ("silent", PRICE)], false, vec![]),
        (true, vec![("parts", PRICE), ("silent", PRICE)], true, vec![(ReconcileKind::AmountDiffers, "parts")]),
        // Of the other month.
        (
            false,
            vec![("parts", -39_000_000), ("silent", -1_000_000)],
            false,
            vec![(ReconcileKind::AmountDiffers, "parts")],
        ),
    ] {
        let [start_time, end_time] =
            if is_first { [None, Some(between)] } else { [Some(between), None] }.map(|time| time.map(timestamp));
        let open = frame(Frame::Open(ReconcileOpen { start_time, end_time, with_refunds, ..Default::default() }));
        let lines = stated.iter().map(|(reference, units)| line(reference, *units));
        let frames = [open].into_iter().chain(lines).collect();
        let (told, summary) = reconcile(&mut clients, frames).await.expect("a comparison");
        let found: Vec<_> = told.iter().map(|told| (told.kind(), told.external_ref.as_str())).collect();
        assert_eq!(found, findings, "{stated:?} {with_refunds}: {told:?}");
        assert_eq!(summary.ok, findings.is_empty());
        let booked = if is_first { 2 * PRICE - 10_000_000 } else { -30_000_000 };
        assert_eq!(summary.booked, [usdt(booked)], "{stated:?}");
    }
    pair.finish().await;
}

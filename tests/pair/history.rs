//! What was, at any time since: balances, entries, the network, and what is behind one commission.

mod balances;
mod clock;
mod entries;
mod explanations;
mod network;

use chrono::{DateTime, Utc};
use p2phub_proto::referral::v1::{
    GetBalanceRequest, GetBalanceResponse, ListPaymentsRequest, Payment, PaymentState, RefundPaymentRequest,
    RefundPaymentResponse,
};
use p2phub_tests::{
    builders::{ASSET, request_id, usdt},
    clients::Clients,
    pair::{Options, Pair},
};
use prost_types::Timestamp;
use referral_svc::Clock;
use tokio_postgres::Client;
use tonic::Status;

use crate::concurrency::number;

/// referral-svc under a clock that a test can set ahead.
pub(crate) async fn start(clock: &Clock) -> Pair {
    let clock = clock.clone();
    Options::default().referral(move |config| config.clock = clock.clone()).start_alone().await
}

/// Gives back so many minor units, or all that is left.
pub(crate) async fn refund(
    clients: &mut Clients,
    payment: &Payment,
    minor_units: Option<i64>,
) -> RefundPaymentResponse {
    let request = RefundPaymentRequest {
        request_id: request_id(),
        payment_id: payment.payment_id.clone(),
        amount: minor_units.map(usdt),
        reason: "asked for".to_owned(),
    };
    clients.payments.refund_payment(request).await.expect("a refund").into_inner()
}

/// A time on the wire.
pub(crate) fn timestamp(micros: i64) -> Timestamp {
    let time = DateTime::from_timestamp_micros(micros).expect("a time");
    let nanos = i32::try_from(time.timestamp_subsec_nanos()).expect("nanoseconds");
    Timestamp { seconds: time.timestamp(), nanos }
}

/// A time off the wire, in microseconds.
pub(crate) fn micros(time: &Option<Timestamp>) -> i64 {
    let time = time.as_ref().expect("a time");
    let nanos = u32::try_from(time.nanos).expect("nanoseconds");
    DateTime::<Utc>::from_timestamp(time.seconds, nanos).expect("a time").timestamp_micros()
}

/// The service's time, in microseconds, if its clock is so many ahead.
pub(crate) async fn now(sql: &Client, ahead: i64) -> i64 {
    number(sql, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").await + ahead
}

async fn balance_at(
    clients: &mut Clients,
    partner_id: &str,
    time: Option<Timestamp>,
) -> Result<GetBalanceResponse, Status> {
    let request = GetBalanceRequest { partner_id: partner_id.to_owned(), asset: ASSET.to_owned(), at_time: time };
    Ok(clients.ledger.get_balance(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_are_listed_by_what_was_given_back() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let (first, second) = (clients.register("first", "").await, clients.register("second", "").await);
    let mut payments = Vec::new();
    for partner in [&first, &first, &first, &second] {
        payments.push(clients.buy_pro(&partner.partner_id).await.0);
    }
    refund(&mut clients, &payments[0], Some(1)).await;
    for payment in [&payments[1], &payments[3]] {
        refund(&mut clients, payment, Some(5)).await;
        refund(&mut clients, payment, None).await;
    }
    for (partner_id, state, expected) in [
        ("", PaymentState::PartiallyRefunded, vec![0]),
        ("", PaymentState::Refunded, vec![3, 1]),
        ("", PaymentState::Succeeded, vec![2]),
        (first.partner_id.as_str(), PaymentState::Refunded, vec![1]),
        (second.partner_id.as_str(), PaymentState::PartiallyRefunded, vec![]),
    ] {
        let request =
            ListPaymentsRequest { partner_id: partner_id.to_owned(), state: state.into(), ..Default::default() };
        let listed = clients.payments.list_payments(request).await.expect("a page").into_inner().payments;
        let expected: Vec<&str> = expected.iter().map(|index: &usize| payments[*index].payment_id.as_str()).collect();
        let found: Vec<&str> = listed.iter().map(|payment| payment.payment_id.as_str()).collect();
        assert_eq!(found, expected, "{state:?}");
        assert!(listed.iter().all(|payment| payment.state() == state));
    }
    pair.finish().await;
}

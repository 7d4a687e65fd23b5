//! Payouts and adjustments over gRPC: who may do what and when, what it does to the books, and who hears of it.

mod adjustments;
mod bounds;
mod claims;
mod guards;
mod lists;
mod racing;
mod transitions;

use p2phub_proto::{
    notify::v1::{NotificationEvent, NotificationKind},
    referral::v1::{
        ApprovePayoutRequest, ApprovePayoutResponse, CancelPayoutRequest, CancelPayoutResponse, CompletePayoutResponse,
        FailPayoutRequest, FailPayoutResponse, GetTransactionRequest, ListCommissionsRequest, RequestPayoutResponse,
        TransactionKind,
    },
};
use p2phub_tests::{
    builders::{by, payout_completion, payout_request, request_id},
    clients::Clients,
    pair::Pair,
    postgres::Role,
};
use prost::Message;
use tonic::{Response, Status};

/// What a sale gives its direct referrer.
const SHARE: i64 = 11_700_000;

type Answer<T> = Result<Response<T>, Status>;

async fn request(
    clients: &mut Clients,
    caller: &str,
    partner_id: &str,
    units: Option<i64>,
) -> Answer<RequestPayoutResponse> {
    clients.payouts.request_payout(by(caller, payout_request(partner_id, units))).await
}

async fn approve(clients: &mut Clients, caller: &str, payout_id: &str) -> Answer<ApprovePayoutResponse> {
    let request = ApprovePayoutRequest { request_id: request_id(), payout_id: payout_id.to_owned() };
    clients.payouts.approve_payout(by(caller, request)).await
}

async fn complete(clients: &mut Clients, payout_id: &str, external_ref: &str) -> Answer<CompletePayoutResponse> {
    clients.payouts.complete_payout(payout_completion(payout_id, external_ref)).await
}

async fn fail(clients: &mut Clients, payout_id: &str) -> Answer<FailPayoutResponse> {
    let (payout_id, reason) = (payout_id.to_owned(), "the address is closed".to_owned());
    clients.payouts.fail_payout(FailPayoutRequest { request_id: request_id(), payout_id, reason }).await
}

async fn cancel(clients: &mut Clients, payout_id: &str) -> Answer<CancelPayoutResponse> {
    let (payout_id, reason) = (payout_id.to_owned(), "a wrong address".to_owned());
    clients.payouts.cancel_payout(CancelPayoutRequest { request_id: request_id(), payout_id, reason }).await
}

/// Someone who earned a share of this many sales; the sales' payments, oldest first.
async fn earner(clients: &mut Clients, name: &str, sales: usize) -> (String, Vec<String>) {
    let chain = clients.chain(name, 2).await;
    let mut payments = Vec::new();
    for _ in 0..sales {
        payments.push(clients.buy_pro(&chain[1].partner_id).await.0.payment_id);
    }
    (chain[0].partner_id.clone(), payments)
}

/// A partner's balances: available, and reserved.
async fn balances(pair: &Pair, partner_id: &str) -> (i64, i64) {
    let [available, _, reserved, _] = pair.clients.clone().balances(partner_id).await;
    (available, reserved)
}

/// A transaction's kind, the payout or adjustment behind it, and the amounts of its entries by (purpose, partner).
async fn booked(clients: &mut Clients, transaction_id: &str) -> (TransactionKind, String, Vec<(String, i64)>) {
    let request = GetTransactionRequest { transaction_id: transaction_id.to_owned() };
    let transaction = clients.ledger.get_transaction(request).await.expect("an answer").into_inner().transaction;
    let transaction = transaction.expect("a transaction");
    let entries = transaction.entries.iter().map(|entry| {
        let purpose = entry.purpose().as_str_name().trim_start_matches("ACCOUNT_PURPOSE_").to_owned();
        (purpose, entry.amount.as_ref().expect("an amount").minor_units)
    });
    let kind = transaction.kind();
    (kind, format!("{}{}", transaction.payout_id, transaction.adjustment_id), entries.collect())
}

/// What a partner was told of payouts, oldest first: amount and state. Only while notify-svc doesn't run.
async fn told(pair: &Pair, partner_id: &str) -> Vec<String> {
    let sql = pair.referral_sql(Role::Service).await;
    let rows = sql.query("SELECT event FROM outbox ORDER BY event_id", &[]).await.expect("events");
    let events = rows.iter().map(|row| NotificationEvent::decode(row.get::<_, &[u8]>(0)).expect("an event"));
    events
        .flat_map(|event| event.requests)
        .filter(|request| request.recipient_id == partner_id && request.kind() == NotificationKind::PayoutState)
        .map(|request| {
            format!("{} {} {}", request.arguments["amount"], request.arguments["asset"], request.arguments["state"])
        })
        .collect()
}

/// Of an earner's commissions, oldest first: state, reversed, reserved, paid.
async fn commissions(clients: &mut Clients, earner_id: &str) -> Vec<(String, i64, i64, i64)> {
    let request = ListCommissionsRequest { earner_id: earner_id.to_owned(), ..Default::default() };
    let mut found = clients.payments.list_commissions(request).await.expect("an answer").into_inner().commissions;
    found.reverse();
    let units = |amount: &Option<p2phub_proto::referral::v1::Amount>| amount.as_ref().expect("an amount").minor_units;
    found
        .iter()
        .map(|one| {
            let state = one.state().as_str_name().trim_start_matches("COMMISSION_STATE_").to_owned();
            (state, units(&one.reversed_amount), units(&one.reserved_amount), units(&one.paid_amount))
        })
        .collect()
}

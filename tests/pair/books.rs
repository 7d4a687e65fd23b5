//! The proof of the books: what it says of a long history, what it finds of what was tampered with, and of how much.

mod course;
pub(crate) mod history;
mod scopes;
mod tampering;

use p2phub_proto::referral::v1::{Check, CheckLedgerRequest, CheckLedgerResponse};
use p2phub_tests::clients::Clients;

/// Everything.
async fn check(clients: &mut Clients) -> CheckLedgerResponse {
    ask(clients, CheckLedgerRequest::default()).await
}

async fn check_partner(clients: &mut Clients, partner_id: &str) -> CheckLedgerResponse {
    ask(clients, CheckLedgerRequest { partner_id: partner_id.to_owned(), ..Default::default() }).await
}

async fn check_since(clients: &mut Clients, checkpoint: &str) -> CheckLedgerResponse {
    ask(clients, CheckLedgerRequest { checkpoint: checkpoint.to_owned(), ..Default::default() }).await
}

async fn ask(clients: &mut Clients, request: CheckLedgerRequest) -> CheckLedgerResponse {
    let answer = clients.ledger.check_ledger(request).await.expect("an answer").into_inner();
    assert_eq!(answer.ok, answer.checks.iter().all(|check| check.ok));
    assert!(answer.checks.iter().all(|check| check.ok == check.detail.is_empty()), "{answer:?}");
    answer
}

/// The names of the checks that found something, sorted.
fn violated(answer: &CheckLedgerResponse) -> Vec<&str> {
    let mut names: Vec<_> = answer.checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn named<'a>(answer: &'a CheckLedgerResponse, name: &str) -> &'a Check {
    answer.checks.iter().find(|check| check.name == name).expect("a check of this name")
}

#[track_caller]
fn assert_fine(answer: &CheckLedgerResponse) {
    assert!(answer.ok, "{:?}", answer.checks.iter().filter(|check| !check.ok).collect::<Vec<_>>());
}

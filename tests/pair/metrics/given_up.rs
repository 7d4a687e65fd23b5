//! Confirmations whose callers gave up are counted all the same, by what became of them.

use std::time::Duration;

use p2phub_proto::referral::v1::ConfirmPaymentRequest;
use p2phub_tests::{builders::confirmation, hold::Hold, pair::Pair, postgres::Role};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status};

use super::{assert_says, processes, until_it_says};

const CONFIRMATIONS: &str = "p2phub_confirmations_total";
/// Longer than it takes to get a command held up.
const DEADLINE: Duration = Duration::from_secs(3);

/// A confirmation that is given up at its deadline.
fn confirm(pair: &Pair, request: ConfirmPaymentRequest) -> JoinHandle<Result<(), Status>> {
    let mut clients = pair.clients.clone();
    let mut request = Request::new(request);
    request.set_timeout(DEADLINE);
    tokio::spawn(async move { clients.payments.confirm_payment(request).await.map(drop) })
}

async fn give_up(calls: [JoinHandle<Result<(), Status>>; 2]) {
    for call in calls {
        let code = call.await.expect("no panic").expect_err("no answer").code();
        assert!(matches!(code, Code::Cancelled | Code::DeadlineExceeded), "{code:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_whose_caller_gave_up_is_counted_once_by_what_became_of_it() {
    let pair = processes().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 4).await;
    let mut requests = Vec::new();
    for partner in &chain {
        let payment = clients.open_payment(&partner.partner_id).await;
        requests.push(confirmation(&payment.payment_id, &payment.payment_id));
    }
    let [late, dropped, lost, dropped_too] = <[ConfirmPaymentRequest; 4]>::try_from(requests).expect("four");
    // One is in the batch, the other one waits behind it.
    let held_up = async |first, second| {
        let superuser = pair.referral_sql(Role::Superuser).await;
        let watcher = pair.referral_sql(Role::Superuser).await;
        let hold = Hold::take(superuser, watcher, "LOCK TABLE payments IN EXCLUSIVE MODE").await;
        let first = confirm(&pair, first);
        hold.blocks_someone().await;
        give_up([first, confirm(&pair, second)]).await;
        hold
    };

    held_up(late, dropped.clone()).await.release().await;
    until_it_says(&pair, CONFIRMATIONS, &[("outcome", "failed")], 1.0).await;
    let scrape = until_it_says(&pair, CONFIRMATIONS, &[("outcome", "succeeded")], 1.0).await;
    assert_says(&scrape, &[(CONFIRMATIONS, &[], 2.0)]);

    held_up(lost, dropped_too).await.end_waiters().await;
    let scrape = until_it_says(&pair, CONFIRMATIONS, &[("outcome", "failed")], 3.0).await;
    assert_says(&scrape, &[(CONFIRMATIONS, &[], 4.0)]);
    clients.payments.confirm_payment(dropped).await.expect("an answer once it is asked again");
    until_it_says(&pair, CONFIRMATIONS, &[("outcome", "succeeded")], 2.0).await;
    pair.finish().await;
}

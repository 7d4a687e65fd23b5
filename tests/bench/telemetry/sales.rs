//! A network in which every sale pays nine, and payments to confirm in it.

use std::convert::Infallible;

use futures_util::{StreamExt, TryStreamExt, stream};
use p2phub_tests::{builders::confirmation, clients::Clients};
use tokio::time::Instant;

const NETWORKS: usize = 10;
const LINE: usize = 9;
const BUYERS: usize = 10;
/// Payments opened at once.
const OPENING: usize = 64;

/// The IDs of buyers with nine ancestors each.
pub(super) async fn buyers(clients: &Clients) -> Vec<String> {
    let mut clients = clients.clone();
    let mut buyers = Vec::new();
    for network in 0..NETWORKS {
        let line = clients.chain(&format!("line-{network}"), LINE).await;
        let code = line.last().expect("a line").referral_code.clone();
        for buyer in 0..BUYERS {
            buyers.push(clients.register(&format!("buyer-{network}-{buyer}"), &code).await.partner_id);
        }
    }
    buyers
}

/// The IDs of as many open payments, buyer after buyer.
pub(super) async fn payments(clients: &Clients, buyers: &[String], count: usize) -> Vec<String> {
    let opening = buyers.iter().cycle().take(count).map(|buyer| {
        let mut clients = clients.clone();
        async move { Ok::<_, Infallible>(clients.open_payment(buyer).await.payment_id) }
    });
    let Ok(payments) = stream::iter(opening).buffer_unordered(OPENING).try_collect().await;
    payments
}

/// Confirms a payment, with every ancestor's commission.
pub(super) async fn confirm(mut clients: Clients, payment_id: String) {
    let request = confirmation(&payment_id, &format!("ref-{payment_id}"));
    let answer = clients.payments.confirm_payment(request).await.expect("a confirmation").into_inner();
    assert_eq!(answer.commissions.len(), LINE);
}

/// Sales a second, so many at once.
pub(super) async fn per_second(clients: &Clients, payments: Vec<String>, at_once: usize) -> f64 {
    let (start, count) = (Instant::now(), payments.len());
    let selling = payments.into_iter().map(|payment_id| confirm(clients.clone(), payment_id));
    stream::iter(selling).buffer_unordered(at_once).collect::<Vec<()>>().await;
    count as f64 / start.elapsed().as_secs_f64()
}

//! The chain of ten and its one sale, figure by figure.

use p2phub_proto::{
    notify::v1::{ListNotificationsRequest, NotificationState},
    referral::v1::{AccountPurpose, CheckLedgerRequest, GetTransactionRequest},
};
use p2phub_tests::{
    builders::usdt,
    pair::{Options, Pair},
    wait,
};

use crate::PAIR_PROCESS;

/// By level, nearest first: minor units.
const SHARES: [i64; 9] = [11_700_000, 1_950_000, 1_170_000, 390_000, 390_000, 390_000, 390_000, 390_000, 390_000];

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_below_nine_pays_nine_in_one_process() {
    sale_pays_nine(Pair::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_below_nine_pays_nine_in_two_processes() {
    sale_pays_nine(Options::default().processes(PAIR_PROCESS).start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_below_nine_pays_nine_through_proxies() {
    sale_pays_nine(Options::default().proxied().start().await).await;
}

async fn sale_pays_nine(pair: Pair) {
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 10).await;
    let (payment, commissions) = clients.buy_pro(&chain[9].partner_id).await;
    assert_eq!(payment.amount, Some(usdt(39_000_000)));

    let amounts: Vec<_> = commissions.iter().map(|one| one.amount.clone().expect("an amount").minor_units).collect();
    assert_eq!(amounts, SHARES);
    assert_eq!(amounts.iter().sum::<i64>(), 17_160_000);
    for (commission, earner) in commissions.iter().zip(chain.iter().rev().skip(1)) {
        assert_eq!(commission.earner_id, earner.partner_id);
        assert_eq!(
            clients.balance(&earner.partner_id).await,
            commission.amount.clone().expect("an amount").minor_units
        );
    }

    let request = GetTransactionRequest { transaction_id: payment.transaction_id.clone() };
    let transaction = clients.ledger.get_transaction(request).await.expect("an answer").into_inner();
    let entries = transaction.transaction.expect("a transaction").entries;
    assert_eq!(entries.len(), 11);
    let units = |purpose| {
        let mut matching = entries.iter().filter(|entry| entry.purpose() == purpose);
        matching.next().and_then(|entry| entry.amount.clone()).map(|amount| amount.minor_units)
    };
    assert_eq!(units(AccountPurpose::PlatformRevenue), Some(21_840_000));
    assert_eq!(units(AccountPurpose::PlatformClearing), Some(-39_000_000));
    let check = clients.ledger.check_ledger(CheckLedgerRequest::default()).await.expect("an answer").into_inner();
    assert!(check.ok, "{:?}", check.checks);

    // Every one of the ten hears of the sale, besides what the signups told them.
    for person in &chain {
        wait::until(&format!("news for {}", person.external_id), async || {
            let request = ListNotificationsRequest { recipient_id: person.partner_id.clone(), ..Default::default() };
            let found = pair.clients.clone().notifications.list_notifications(request).await.expect("an answer");
            let found = found.into_inner().notifications;
            let delivered = found.iter().all(|one| one.state() == NotificationState::Delivered);
            (!found.is_empty() && delivered).then_some(())
        })
        .await;
    }
    pair.finish().await;
}

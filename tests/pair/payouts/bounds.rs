//! One payout names a thousand claims at most, and says how much they come to.

use futures_util::{StreamExt, stream};
use p2phub_tests::{builders::FIRST_CALLER, pair::Options, refusal::refused};
use tonic::Code;

use super::{SHARE, balances, earner, request};
use crate::concurrency::assert_books_balance;

const ITEMS_MAX: usize = 1_000;
const SALES: usize = ITEMS_MAX + 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_names_the_thousand_oldest_claims_and_the_next_one_the_rest() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let (partner_id, first) = earner(&mut clients, "earns-much", 3).await;
    let code = clients.partner(&partner_id).await.referral_code;
    let buyers: Vec<_> = stream::iter(0..32)
        .then(|number| {
            let (mut clients, code) = (clients.clone(), code.clone());
            async move { clients.register(&format!("buyer-{number}"), &code).await.partner_id }
        })
        .collect()
        .await;
    stream::iter(buyers.iter().cycle().take(SALES - first.len()))
        .for_each_concurrent(buyers.len(), |buyer| {
            let mut clients = clients.clone();
            async move {
                clients.buy_pro(buyer).await;
            }
        })
        .await;
    let share_of = |sales: usize| SHARE * i64::try_from(sales).expect("a count");
    assert_eq!(balances(&pair, &partner_id).await, (share_of(SALES), 0));

    // More than a thousand come to is refused, and the message says how much they come to.
    let refusal = request(&mut clients, FIRST_CALLER, &partner_id, Some(share_of(ITEMS_MAX) + 1)).await;
    let refusal = refused(refusal, Code::FailedPrecondition, "PAYOUT_TOO_MANY_ITEMS");
    assert!(refusal.message().contains("1000") && refusal.message().contains("11700.00 USDT"), "{refusal}");
    assert_eq!(balances(&pair, &partner_id).await, (share_of(SALES), 0));

    // A debt is one of the thousand. It is the oldest, and what is paid are the next ones.
    let paid = clients.pay_out(&partner_id, Some(SHARE)).await;
    assert_eq!(paid.items[0].commission_id, format!("{}.1", first[0]));
    clients.refund(&first[0], None).await;
    let payout = clients.request_payout(&partner_id, None).await;
    assert_eq!(payout.amount.as_ref().expect("an amount").minor_units, share_of(ITEMS_MAX - 2));
    let amounts: Vec<i64> =
        payout.items.iter().map(|item| item.amount.as_ref().expect("an amount").minor_units).collect();
    assert_eq!((amounts.len(), amounts[0], amounts.iter().sum()), (ITEMS_MAX, -SHARE, share_of(ITEMS_MAX - 2)));
    let ids = |range: std::ops::Range<usize>| first[range].iter().map(|sale| format!("{sale}.1")).collect::<Vec<_>>();
    let named: Vec<_> = payout.items.iter().map(|item| item.commission_id.clone()).collect();
    assert_eq!(named[..3], ids(0..3));

    // The rest is for the next one, whether the first one is paid or not.
    let rest = SALES - 1 - (ITEMS_MAX - 1);
    let second = clients.request_payout(&partner_id, None).await;
    assert_eq!(second.amount.as_ref().expect("an amount").minor_units, share_of(rest));
    assert_eq!(second.items.len(), rest);
    clients.approve_payout(&payout.payout_id).await;
    clients.fail_payout(&payout.payout_id).await;
    clients.cancel_payout(&second.payout_id).await;
    let again = clients.pay_out(&partner_id, None).await;
    assert_eq!(again.items.iter().map(|item| item.commission_id.clone()).collect::<Vec<_>>(), named);
    assert_eq!(balances(&pair, &partner_id).await, (share_of(rest), 0));
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}

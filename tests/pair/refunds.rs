//! Refunds: money back, the same proportion back from every ancestor, to the last unit; and PRO's periods.

mod held;
mod periods;
mod refused;

use std::collections::BTreeMap;

use p2phub_proto::{
    notify::v1::{NotificationEvent, NotificationKind, NotificationRequest},
    referral::v1::{
        AccountPurpose, Commission, CommissionState, GetPaymentRequest, GetTransactionRequest, ListPaymentsRequest,
        PaymentState, TransactionKind,
    },
};
use p2phub_tests::{
    builders::{refund, usdt},
    clients::Clients,
    pair::{Options, Pair},
    postgres::Role,
};
use prost::Message;

use crate::concurrency::{assert_books_balance, has_flag};

const PRICE: i64 = 39_000_000;

/// All that was requested to be told so far, in the order of the facts; nothing takes it away while notify-svc is down.
pub(crate) async fn told(pair: &Pair) -> Vec<NotificationRequest> {
    let sql = pair.referral_sql(Role::Superuser).await;
    let rows = sql.query("SELECT event FROM outbox ORDER BY event_id", &[]).await.expect("rows");
    let event = |row: &tokio_postgres::Row| NotificationEvent::decode(row.get::<_, &[u8]>(0)).expect("an event");
    rows.iter().flat_map(|row| event(row).requests).collect()
}

/// Decimal USDT in minor units.
fn units(decimal: &str) -> i64 {
    let (whole, fraction) = decimal.split_once('.').expect("a decimal");
    format!("{whole}{fraction:0<6}").parse().expect("digits")
}

/// What refunds took back of a commission, in minor units.
fn reversed(commission: &Commission) -> i64 {
    commission.reversed_amount.as_ref().expect("an amount").minor_units
}

fn earned(commission: &Commission) -> i64 {
    commission.amount.as_ref().expect("an amount").minor_units
}

async fn states(clients: &mut Clients, partner_id: &str, payment_id: &str) -> Vec<PaymentState> {
    let mut found = Vec::new();
    for state in (0..=7).map(|state| PaymentState::try_from(state).expect("a state")).skip(1) {
        let request =
            ListPaymentsRequest { partner_id: partner_id.to_owned(), state: state.into(), ..Default::default() };
        let payments = clients.payments.list_payments(request).await.expect("an answer").into_inner().payments;
        if let Some(payment) = payments.iter().find(|payment| payment.payment_id == payment_id) {
            assert_eq!(payment.state(), state);
            found.push(state);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refund_takes_back_its_proportion_and_the_last_one_all_that_is_left() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("refund", 11).await;
    let buyer = &chain[10].partner_id;
    let (payment, sold) = clients.buy_pro(buyer).await;
    assert_eq!(sold.len(), 9);
    let mut refunded = 0;
    let mut before = vec![0; 9];
    let mut expected_notices = Vec::new();
    // One unit takes nothing of anybody; the next ones whatever has become due meanwhile.
    for asked in [Some(1), Some(1), Some(7), Some(12_345_678), Some(999_999), Some(13_000_001), None] {
        let amount = asked.unwrap_or(PRICE - refunded);
        refunded += amount;
        let answer = clients.refund(&payment.payment_id, asked).await;

        let shown = answer.payment.expect("a payment");
        let state = if refunded == PRICE { PaymentState::Refunded } else { PaymentState::PartiallyRefunded };
        assert_eq!((shown.state(), &shown.refunded_amount), (state, &Some(usdt(refunded))));
        assert_eq!(states(&mut clients, buyer, &payment.payment_id).await, [state]);
        let commissions = clients.commissions(&payment.payment_id).await;
        let mut expected = Vec::new();
        for (commission, before) in commissions.iter().zip(&mut before) {
            let share = i128::from(earned(commission)) * i128::from(refunded) / i128::from(PRICE);
            let taken = i64::try_from(share).expect("less than the commission") - *before;
            *before += taken;
            assert_eq!(reversed(commission), *before, "level {}", commission.level);
            assert_eq!(clients.balance(&commission.earner_id).await, earned(commission) - *before);
            if taken > 0 {
                expected.push((commission.commission_id.clone(), commission.earner_id.clone(), Some(usdt(taken))));
                expected_notices.push((commission.earner_id.clone(), taken));
            }
        }
        let clawbacks = answer.clawbacks.into_iter().map(|one| (one.commission_id, one.earner_id, one.amount));
        assert_eq!(clawbacks.collect::<Vec<_>>(), expected);

        let made = answer.refund.expect("a refund");
        let taken: i64 = expected.iter().map(|(_, _, amount)| amount.as_ref().expect("an amount").minor_units).sum();
        let booked = BTreeMap::from([
            (AccountPurpose::PlatformClearing, amount),
            (AccountPurpose::PlatformRevenue, taken - amount),
            (AccountPurpose::PartnerAvailable, -taken),
        ]);
        let sums = sums(&mut clients, &made.transaction_id).await;
        assert_eq!(sums, booked.into_iter().filter(|(_, sum)| *sum != 0).collect(), "what was booked of {amount}");
        let request = GetPaymentRequest { payment_id: payment.payment_id.clone() };
        let whole = clients.payments.get_payment(request).await.expect("an answer").into_inner();
        assert_eq!((whole.payment.as_ref(), whole.refunds.last()), (Some(&shown), Some(&made)));
        assert_eq!(
            whole.refunds.iter().map(|one| one.amount.clone().expect("an amount").minor_units).sum::<i64>(),
            refunded
        );
    }
    let commissions = clients.commissions(&payment.payment_id).await;
    assert!(commissions.iter().all(|one| reversed(one) == earned(one) && one.state() == CommissionState::Reversed));
    let notices: Vec<_> = told(&pair)
        .await
        .into_iter()
        .filter(|request| request.kind() == NotificationKind::CommissionReversed)
        .map(|request| (request.recipient_id, units(&request.arguments["amount"])))
        .collect();
    assert_eq!(notices, expected_notices);
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}

/// What a refund's transaction moved, by the purpose of the accounts.
async fn sums(clients: &mut Clients, transaction_id: &str) -> BTreeMap<AccountPurpose, i64> {
    let request = GetTransactionRequest { transaction_id: transaction_id.to_owned() };
    let answer = clients.ledger.get_transaction(request).await.expect("an answer").into_inner();
    let transaction = answer.transaction.expect("a transaction");
    assert_eq!(transaction.kind(), TransactionKind::Refund);
    let mut sums = BTreeMap::new();
    for entry in transaction.entries {
        let purpose = entry.purpose();
        *sums.entry(purpose).or_default() += entry.amount.expect("an amount").minor_units;
    }
    sums
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_asked_for_again_is_the_same_refund() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("again", 2).await;
    let (payment, _) = clients.buy_pro(&chain[1].partner_id).await;
    for amount in [Some(10_000_000), None] {
        let request = refund(&payment.payment_id, amount);
        let first = clients.payments.refund_payment(request.clone()).await.expect("a refund");
        let second = clients.payments.refund_payment(request).await.expect("the first answer");
        assert!(!has_flag(&first, "idempotent-replay") && has_flag(&second, "idempotent-replay"));
        assert_eq!(first.get_ref(), second.get_ref());
    }
    assert_eq!(clients.balance(&chain[0].partner_id).await, 0);
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commission_taken_back_is_a_debt_of_whoever_has_nothing_else() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("two-sales", 2).await;
    let (first, _) = clients.buy_pro(&chain[1].partner_id).await;
    let (second, _) = clients.buy_pro(&chain[1].partner_id).await;
    // One payment's refund takes of its own commissions alone.
    clients.refund(&first.payment_id, Some(19_500_000)).await;
    assert_eq!(clients.balance(&chain[0].partner_id).await, 5_850_000 + 11_700_000);
    clients.refund(&second.payment_id, None).await;
    let left = clients.commissions(&first.payment_id).await;
    assert_eq!((reversed(&left[0]), left[0].state()), (5_850_000, CommissionState::Available));
    assert_eq!(clients.balance(&chain[0].partner_id).await, 5_850_000);
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}

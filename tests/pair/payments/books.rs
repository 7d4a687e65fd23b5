//! What a sale leaves in the books, entry by entry.

use p2phub_proto::referral::v1::{
    AccountPurpose, CheckLedgerRequest, Entry, GetBalanceRequest, GetTransactionRequest, ListCommissionsRequest,
    ListEntriesRequest, TransactionKind,
};
use p2phub_tests::{
    builders::{ASSET, usdt},
    clients::Clients,
    refusal::refused,
};
use referral_svc::Clock;
use tonic::Code;

use super::start;

/// A partner's entries, newest first, read two at a time.
async fn entries(clients: &mut Clients, partner_id: &str) -> Vec<Entry> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListEntriesRequest {
            partner_id: partner_id.to_owned(),
            asset: ASSET.to_owned(),
            page_size: 2,
            page_token,
            ..Default::default()
        };
        let page = clients.ledger.list_entries(request).await.expect("a page").into_inner();
        assert!(page.entries.len() <= 2 && found.len() < 100);
        found.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

fn units(amount: &Option<p2phub_proto::referral::v1::Amount>) -> i64 {
    let amount = amount.as_ref().expect("an amount");
    assert_eq!(amount.asset, ASSET);
    amount.minor_units
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sale_sums_to_zero_and_every_balance_is_the_sum_of_its_entries() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 3).await;
    // By buyer: the root pays nobody, the second one, the third both, twice.
    let sales =
        [(0, vec![]), (1, vec![11_700_000]), (2, vec![11_700_000, 1_950_000]), (2, vec![11_700_000, 1_950_000])];
    let (mut clearing, mut revenue) = (0, 0);
    for (buyer, shares) in sales {
        let (payment, commissions) = clients.buy_pro(&chain[buyer].partner_id).await;
        let paid: Vec<_> = commissions.iter().map(|commission| units(&commission.amount)).collect();
        assert_eq!(paid, shares);
        assert!(commissions.iter().all(|commission| commission.transaction_id == payment.transaction_id));
        let request = GetTransactionRequest { transaction_id: payment.transaction_id.clone() };
        let transaction = clients.ledger.get_transaction(request).await.expect("an answer").into_inner();
        let transaction = transaction.transaction.expect("a transaction");
        assert_eq!(transaction.kind(), TransactionKind::ProSale);
        assert_eq!(transaction.payment_id, payment.payment_id);
        assert_eq!(transaction.entries.len(), 2 + shares.len());
        assert_eq!(transaction.entries.iter().map(|entry| units(&entry.amount)).sum::<i64>(), 0);

        clearing -= 39_000_000;
        revenue += 39_000_000 - shares.iter().sum::<i64>();
        let platform = |purpose| {
            let entry = transaction.entries.iter().find(|entry| entry.purpose() == purpose).expect("an entry");
            assert_eq!(entry.partner_id, "");
            (units(&entry.amount), units(&entry.balance_after))
        };
        assert_eq!(platform(AccountPurpose::PlatformClearing), (-39_000_000, clearing));
        assert_eq!(platform(AccountPurpose::PlatformRevenue), (39_000_000 - shares.iter().sum::<i64>(), revenue));

        // The same entries, as the earners see them.
        for commission in &commissions {
            let newest = entries(&mut clients, &commission.earner_id).await.remove(0);
            assert!(transaction.entries.contains(&newest), "{newest:?}");
            assert_eq!(newest.amount, commission.amount);
        }
    }

    for (index, expected) in [(0, vec![11_700_000, 1_950_000, 1_950_000]), (1, vec![11_700_000; 2]), (2, vec![])] {
        let mut history = entries(&mut clients, &chain[index].partner_id).await;
        history.reverse();
        let mut sum = 0;
        for ((entry, amount), version) in history.iter().zip(&expected).zip(1..) {
            sum += amount;
            assert_eq!((units(&entry.amount), units(&entry.balance_after), entry.version), (*amount, sum, version));
            assert_eq!(entry.partner_id, chain[index].partner_id);
        }
        assert_eq!(history.len(), expected.len());
        let request = GetBalanceRequest {
            partner_id: chain[index].partner_id.clone(),
            asset: ASSET.to_owned(),
            ..Default::default()
        };
        let balance = clients.ledger.get_balance(request).await.expect("a balance").into_inner();
        assert_eq!(balance.available, Some(usdt(sum)));
        assert_eq!(balance.pending, Some(usdt(0)));
        assert_eq!(usize::try_from(balance.version), Ok(expected.len()));
        let request = ListCommissionsRequest { earner_id: chain[index].partner_id.clone(), ..Default::default() };
        let earned = clients.payments.list_commissions(request).await.expect("an answer").into_inner().commissions;
        assert_eq!(earned.iter().map(|commission| units(&commission.amount)).sum::<i64>(), sum);
    }

    let check = clients.ledger.check_ledger(CheckLedgerRequest::default()).await.expect("an answer").into_inner();
    assert!(check.ok && !check.checks.is_empty() && check.checks.iter().all(|one| one.ok), "{check:?}");
    assert!(check.checks.iter().any(|one| one.rows > 0), "{check:?}");
    let unknown = GetTransactionRequest { transaction_id: p2phub_tests::builders::request_id() };
    refused(clients.ledger.get_transaction(unknown).await, Code::NotFound, "TRANSACTION_NOT_FOUND");
    pair.finish().await;
}

/// A check that never finds anything proves nothing: spoil the books past every guard, and see it told.
#[tokio::test(flavor = "multi_thread")]
async fn the_check_finds_books_that_were_spoilt() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    clients.buy_pro(&chain[1].partner_id).await;
    let superuser = pair.referral_sql(p2phub_tests::postgres::Role::Superuser).await;
    for (spoil, mend) in [
        (
            "UPDATE accounts SET balance = balance + 1 WHERE owner_id IS NOT NULL",
            "UPDATE accounts SET balance = balance - 1 WHERE owner_id IS NOT NULL",
        ),
        (
            "UPDATE ledger_entries SET amount = amount + 1 WHERE amount = 11700000",
            "UPDATE ledger_entries SET amount = amount - 1 WHERE amount = 11700001",
        ),
        (
            "UPDATE ledger_entries SET balance_after = balance_after + 1",
            "UPDATE ledger_entries SET balance_after = balance_after - 1",
        ),
        ("UPDATE accounts SET version = version + 1", "UPDATE accounts SET version = version - 1"),
    ] {
        for (sql, sound) in [(spoil, false), (mend, true)] {
            let sql = format!("SET session_replication_role = replica; {sql}");
            superuser.batch_execute(&sql).await.expect("a change past the triggers");
            let check =
                clients.ledger.check_ledger(CheckLedgerRequest::default()).await.expect("an answer").into_inner();
            assert_eq!(check.ok, sound, "{sql}: {check:?}");
            assert_eq!(check.checks.iter().all(|one| one.ok && one.detail.is_empty()), sound, "{sql}: {check:?}");
        }
    }
    pair.finish().await;
}

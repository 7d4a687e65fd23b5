//! How much is looked at: everything, one partner, or what is new.

use p2phub_proto::referral::v1::CheckLedgerRequest;
use p2phub_tests::{
    builders::request_id,
    pair::{Options, Pair},
    postgres::Role,
    refusal::{fields, refused},
    wait,
};
use tonic::Code;

use super::{assert_fine, check, check_partner, check_since, history, named, violated};

pub(super) async fn spoil(pair: &Pair, change: &str) {
    let sql = pair.referral_sql(Role::Superuser).await;
    let spoil = format!("SET session_replication_role = replica; {change}");
    sql.batch_execute(&spoil).await.expect("a change past the triggers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_with_a_bit_of_everything_is_fine_in_every_scope() {
    let history = history::mixed().await;
    let mut clients = history.pair.clients.clone();
    let whole = check(&mut clients).await;
    assert_fine(&whole);
    // Nothing was passed over.
    assert!(whole.checks.iter().all(|check| check.rows > 0 || check.name == "releases_equal_commissions"), "{whole:?}");
    assert!(!whole.checkpoint.is_empty());
    for partner in history.chain.iter().chain([&history.apart]) {
        let answer = check_partner(&mut clients, &partner.partner_id).await;
        assert_fine(&answer);
        assert_eq!(answer.checkpoint, "");
        assert_eq!(named(&answer, "xp_equals_awards").rows, 1);
    }
    history.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_released_and_refunded_commissions_are_fine_and_a_wrong_release_is_found() {
    let history = history::held().await;
    let mut clients = history.pair.clients.clone();
    let whole = check(&mut clients).await;
    assert_fine(&whole);
    assert!(named(&whole, "releases_equal_commissions").rows >= 3, "{whole:?}");
    for partner in &history.chain {
        assert_fine(&check_partner(&mut clients, &partner.partner_id).await);
    }
    // Released, but no transaction says so.
    let forgotten = "ALTER TABLE commissions DROP CONSTRAINT commissions_released;
        UPDATE commissions SET release_transaction_id = NULL
        WHERE (payment_id, level) = (SELECT payment_id, level FROM commissions WHERE release_transaction_id IS NOT NULL LIMIT 1)";
    spoil(&history.pair, forgotten).await;
    assert_eq!(violated(&check(&mut clients).await), ["releases_equal_commissions"]);
    history.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_partners_check_finds_what_is_that_partners() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 3).await;
    let other = clients.chain("other", 3).await;
    clients.buy_pro(&chain[2].partner_id).await;
    clients.buy_pro(&other[2].partner_id).await;
    spoil(&pair, &format!("UPDATE standings SET xp = xp + 1 WHERE partner_id = '{}'", other[0].partner_id)).await;
    spoil(&pair, &format!("UPDATE accounts SET balance = balance + 1 WHERE owner_id = '{}'", other[1].partner_id))
        .await;
    for partner in &chain {
        assert_fine(&check_partner(&mut clients, &partner.partner_id).await);
    }
    let found = check_partner(&mut clients, &other[0].partner_id).await;
    assert_eq!(violated(&found), ["ranks_equal_standings", "xp_equals_awards"]);
    let of_money = ["balances_equal_entries", "claims_equal_balances", "partners_add_up"];
    assert_eq!(violated(&check_partner(&mut clients, &other[1].partner_id).await), of_money);
    assert_fine(&check_partner(&mut clients, &other[2].partner_id).await);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyers_check_finds_what_is_wrong_with_a_refund_and_a_check_of_what_is_new_what_hides_from_its_block() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let buyer = &chain[1].partner_id;
    let (payment, _) = clients.buy_pro(buyer).await;
    let before = check(&mut clients).await;
    clients.refund(&payment.payment_id, Some(1_000_000)).await;
    assert_fine(&check_partner(&mut clients, buyer).await);
    spoil(
        &pair,
        "UPDATE ledger_transactions SET create_time = create_time - interval '1 second' WHERE kind = 'REFUND'",
    )
    .await;
    assert_eq!(violated(&check_partner(&mut clients, buyer).await), ["transactions_equal_their_seals"]);
    spoil(&pair, "UPDATE ledger_transactions SET audit_event_id = NULL WHERE kind = 'REFUND'").await;
    assert_eq!(violated(&check_since(&mut clients, &before.checkpoint).await), ["transactions_equal_their_seals"]);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_is_looked_at_and_nothing_else() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 3).await;
    clients.buy_pro(&chain[2].partner_id).await;
    let whole = check(&mut clients).await;
    assert_fine(&whole);

    // A transaction that ran somewhere on the server meanwhile makes the checkpoint an earlier one.
    let mut since = whole.checkpoint;
    let nothing = wait::until("nothing to be new", async || {
        let answer = check_since(&mut clients, &since).await;
        assert_fine(&answer);
        since.clone_from(&answer.checkpoint);
        let looked_at = ["transactions_sum_to_zero", "networks_equal_the_tree", "lineages_equal_the_tree"];
        looked_at.iter().all(|name| named(&answer, name).rows == 0).then_some(answer)
    })
    .await;

    let other = clients.chain("other", 2).await;
    clients.buy_pro(&other[1].partner_id).await;
    let new = check_since(&mut clients, &nothing.checkpoint).await;
    assert_fine(&new);
    for (name, rows) in [
        ("transactions_sum_to_zero", 1),
        ("transactions_equal_their_seals", 1),
        ("sealed_transactions_exist", 1),
        ("sales_are_whole", 1),
        ("commissions_are_booked", 1),
        ("entries_follow_one_another", 3),
        ("balances_equal_entries", 3),
        ("claims_equal_balances", 1),
        ("pro_equals_periods", 1),
        ("networks_equal_the_tree", 2),
        ("lineages_equal_the_tree", 2),
        ("signups_have_their_notices", 1),
    ] {
        assert_eq!(named(&new, name).rows, rows, "{name}");
    }

    // What was looked at before isn't again; what is new is found.
    let of_old = format!("UPDATE standings SET xp = xp + 1 WHERE partner_id = '{}'", chain[0].partner_id);
    spoil(&pair, &of_old).await;
    assert_fine(&check_since(&mut clients, &nothing.checkpoint).await);
    let whose = &other[0].partner_id;
    for (change, finds) in [
        (
            format!("UPDATE standings SET xp = xp + 1 WHERE partner_id = '{whose}'"),
            vec!["ranks_equal_standings", "xp_equals_awards"],
        ),
        (
            format!(
                "DELETE FROM ledger_transactions WHERE transaction_id IN (SELECT transaction_id FROM commissions WHERE earner_id = '{whose}')"
            ),
            vec![
                "entries_belong_to_transactions",
                "ranks_equal_standings",
                "sealed_transactions_exist",
                "xp_equals_awards",
            ],
        ),
    ] {
        spoil(&pair, &change).await;
        let found = check_since(&mut clients, &nothing.checkpoint).await;
        assert_eq!(violated(&found), finds, "{change}: {found:?}");
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_books_nothing_is_among_what_is_new() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let partner = clients.register("paid", "").await;
    clients.adjust(&partner.partner_id, 50_000_000).await;
    let payout = clients.request_payout(&partner.partner_id, None).await;
    let before = check(&mut clients).await;
    clients.approve_payout(&payout.payout_id).await;
    assert_fine(&check_since(&mut clients, &before.checkpoint).await);
    spoil(&pair, "UPDATE audit_events SET notices = 2 WHERE action = 'ApprovePayout'").await;
    assert_eq!(violated(&check_since(&mut clients, &before.checkpoint).await), ["facts_have_their_notices"]);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_wrongly_is_refused() {
    let pair = Options::default().start_alone().await;
    let mut ledger = pair.clients.clone().ledger;
    let unknown = CheckLedgerRequest { partner_id: request_id(), ..Default::default() };
    refused(ledger.check_ledger(unknown).await, Code::NotFound, "PARTNER_NOT_FOUND");
    let malformed = CheckLedgerRequest { partner_id: "me".to_owned(), ..Default::default() };
    let status = refused(ledger.check_ledger(malformed).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_eq!(fields(&status), ["partner_id"]);
    // No base64, another version, another length, and one of another database.
    for checkpoint in ["*", "AQAAAAAAAAAB", "AgAAAAAB", "AgAAAAAAAAABNy8x"] {
        let request = CheckLedgerRequest { checkpoint: checkpoint.to_owned(), ..Default::default() };
        let status = refused(ledger.check_ledger(request).await, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(fields(&status), ["checkpoint"], "{checkpoint}");
    }
    let known = ledger.check_ledger(CheckLedgerRequest::default()).await.expect("an answer").into_inner();
    let both = CheckLedgerRequest { partner_id: request_id(), checkpoint: known.checkpoint, ..Default::default() };
    let status = refused(ledger.check_ledger(both).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_eq!(fields(&status), ["checkpoint"]);
    pair.finish().await;
}

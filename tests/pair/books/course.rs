//! The course of a check: cut short and gone on with, one at a time, page after page, and how much it holds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use p2phub_proto::referral::v1::{CheckLedgerRequest, CheckLedgerResponse};
use p2phub_tests::{
    clients::Clients,
    pair::Options,
    postgres::Role,
    refusal::{fields, reason, refused},
    wait,
};
use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::{assert_fine, check, check_since, history, named, scopes::spoil, violated};

/// Asks for as long as the service has time; none: the time was up between two answers.
async fn check_within(
    clients: &mut Clients,
    request: CheckLedgerRequest,
    time: Duration,
) -> Option<CheckLedgerResponse> {
    let mut request = Request::new(request);
    request.set_timeout(time);
    match clients.ledger.check_ledger(request).await {
        Ok(answer) => Some(answer.into_inner()),
        Err(status) if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => None,
        // The one before is still ending.
        Err(status) if reason(&status) == "CHECK_IN_PROGRESS" => None,
        Err(status) => panic!("{status:?}"),
    }
}

/// The answer of a check whose time is up before its end.
async fn suspended(clients: &mut Clients, request: CheckLedgerRequest) -> CheckLedgerResponse {
    let mut time = Duration::from_millis(60);
    wait::until("a check that is cut short", async || {
        let answer = check_within(clients, request.clone(), time).await;
        // Too short for a slice, or long enough for all of them.
        time = match &answer {
            None => time * 5 / 4,
            Some(_) => time * 3 / 4,
        };
        answer.filter(|answer| !answer.resume_token.is_empty())
    })
    .await
}

async fn resume(clients: &mut Clients, resume_token: &str) -> CheckLedgerResponse {
    let request = CheckLedgerRequest { resume_token: resume_token.to_owned(), ..Default::default() };
    wait::until("the check's end", async || check_within(clients, request.clone(), Duration::from_secs(60)).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_cut_short_goes_on_where_it_ended_and_finds_the_same() {
    let history = history::mixed().await;
    let mut clients = history.pair.clients.clone();
    let whole = check(&mut clients).await;
    assert_fine(&whole);
    spoil(&history.pair, "UPDATE ledger_entries SET balance_after = balance_after + 1 WHERE version = 1").await;
    let spoilt = check(&mut clients).await;
    // While others write it rests, so that there is a time that is too short.
    let sql = history.pair.referral_sql(Role::Superuser).await;
    sql.batch_execute("CREATE TABLE elsewhere (number int)").await.expect("a table");
    let end = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&end);
    let writing = tokio::spawn(async move {
        while !ended.load(Ordering::Relaxed) {
            sql.execute("INSERT INTO elsewhere VALUES (1)", &[]).await.expect("a row");
        }
    });
    let first = suspended(&mut clients, CheckLedgerRequest::default()).await;
    assert!(!first.ok && first.checkpoint.is_empty(), "{first:?}");
    let new = suspended(&mut clients, CheckLedgerRequest { checkpoint: whole.checkpoint, ..Default::default() }).await;
    assert!(!new.ok && new.checkpoint.is_empty(), "{new:?}");
    end.store(true, Ordering::Relaxed);
    writing.await.expect("a writer that ended");

    let second = resume(&mut clients, &first.resume_token).await;
    assert_eq!(second.checks, spoilt.checks);
    assert!(!second.checkpoint.is_empty());
    assert_fine(&check_since(&mut clients, &second.checkpoint).await);
    assert_fine(&resume(&mut clients, &new.resume_token).await);

    let mut other = BASE64_URL_SAFE_NO_PAD.decode(&first.resume_token).expect("a token");
    let place = other.windows(10).position(|text| text == b"\"history\":").expect("its history") + 11;
    other[place] = if other[place] == b'9' { b'8' } else { b'9' };
    for token in ["*", "AQ", &BASE64_URL_SAFE_NO_PAD.encode(&other)] {
        let request = CheckLedgerRequest { resume_token: token.to_owned(), ..Default::default() };
        let status = refused(clients.ledger.check_ledger(request).await, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(fields(&status), ["resume_token"], "{token}");
    }
    history.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_check_is_refused_at_once_and_one_of_a_part_is_not() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    clients.register("partner", "").await;
    let since = check(&mut clients).await.checkpoint;
    let sql = pair.referral_sql(Role::Superuser).await;
    sql.batch_execute("BEGIN; LOCK TABLE adjustments").await.expect("a lock");
    let mut others = pair.clients.clone();
    let first = tokio::spawn(async move { check(&mut others).await });
    let waits = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'adjustments'::regclass LIMIT 1";
    let watch = pair.referral_sql(Role::Superuser).await;
    wait::until("the first check to wait", async || watch.query_opt(waits, &[]).await.expect("an answer").map(|_| ()))
        .await;
    let status = refused(
        clients.ledger.check_ledger(CheckLedgerRequest::default()).await,
        Code::ResourceExhausted,
        "CHECK_IN_PROGRESS",
    );
    assert!(status.get_details_retry_info().is_some(), "{status:?}");
    // Nothing of what is new has to do with the lock.
    assert_fine(&check_since(&mut clients, &since).await);
    sql.batch_execute("COMMIT").await.expect("the lock's end");
    assert_fine(&first.await.expect("an answer"));
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_one_databases_alone() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let own = BASE64_URL_SAFE_NO_PAD.decode(check(&mut clients).await.checkpoint).expect("a token");
    let mut later = own.clone();
    later[1..9].fill(255);
    let mut earlier = own.clone();
    earlier[1..9].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 3]);
    let elsewhere = [&earlier[..9], b"7/1"].concat();
    for (token, fits) in [(own, true), (earlier, true), (later, false), (elsewhere, false)] {
        let request = CheckLedgerRequest { checkpoint: BASE64_URL_SAFE_NO_PAD.encode(token), ..Default::default() };
        let answer = clients.ledger.check_ledger(request).await;
        if fits {
            assert_fine(&answer.expect("an answer").into_inner());
        } else {
            let status = refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
            assert_eq!(fields(&status), ["checkpoint"]);
        }
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_is_looked_at_page_after_page_and_of_long_histories_only_the_new() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let since = check(&mut clients).await.checkpoint;
    // More blocks than one page has, and what is new behind them all.
    spoil(
        &pair,
        "INSERT INTO audit_blocks (chain_id, position, create_time, parent_chains, parent_positions, audit_event_ids,
             audit_event_hashes, transaction_ids, transaction_hashes, hash)
         SELECT gen_random_uuid(), 1, now(), '{}', '{}', '{}', '', '{}', '', sha256('') FROM generate_series(1, 4500)",
    )
    .await;
    clients.buy_pro(&chain[1].partner_id).await;
    let new = check_since(&mut clients, &since).await;
    assert_fine(&new);
    for (name, rows) in [("transactions_sum_to_zero", 1), ("commissions_are_booked", 1), ("claims_equal_balances", 1)] {
        assert_eq!(named(&new, name).rows, rows, "{name}");
    }
    spoil(&pair, "UPDATE accounts SET version = version + 1000 WHERE purpose = 'PARTNER_AVAILABLE'").await;
    let new = check_since(&mut clients, &since).await;
    assert_eq!(violated(&new), ["balances_equal_entries"]);
    assert_eq!(named(&new, "claims_equal_balances").rows, 0);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_whom_too_much_concerns_is_refused() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let partner = clients.register("partner", "").await;
    let adjustments = format!(
        "INSERT INTO adjustments (adjustment_id, partner_id, asset, amount, reason, proposer, create_time)
         SELECT gen_random_uuid(), '{}', 'USDT', 1, 'a gift', 'ann', now() FROM generate_series(1, 200001)",
        partner.partner_id
    );
    spoil(&pair, &adjustments).await;
    let request = CheckLedgerRequest { partner_id: partner.partner_id, ..Default::default() };
    let answer = clients.ledger.check_ledger(request).await;
    refused(answer, Code::FailedPrecondition, "PARTNER_TOO_LARGE");
    pair.finish().await;
}

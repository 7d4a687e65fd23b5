//! The books are checked by the service itself, and what it finds is told: in figures and in one line.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use p2phub_proto::referral::v1::CheckLedgerRequest;
use p2phub_tests::{pair::Options, postgres::Role, wait};
use serde_json::json;
use uuid::Uuid;

use super::{assert_says, of_referral, until_it_says};
use crate::PAIR_PROCESS;

const RUNS: &str = "p2phub_ledger_check_runs_total";
const OFFENDERS: &str = "p2phub_ledger_check_offenders";
const INTERVAL: &str = "p2phub_ledger_check_interval_seconds";

/// A check as of this checkpoint that has only its last statement before it.
fn near_the_end(checkpoint: &str) -> String {
    let checkpoint = BASE64_URL_SAFE_NO_PAD.decode(checkpoint).expect("a token");
    let (number, history) = checkpoint[1..].split_first_chunk().expect("a number");
    let way = json!({ "Everything": { "pass": "pro.sql", "key": Uuid::nil() } });
    let history = String::from_utf8_lossy(history);
    let progress = json!({ "number": u64::from_be_bytes(*number), "history": history, "course": way, "found": {} });
    BASE64_URL_SAFE_NO_PAD.encode([&[1][..], progress.to_string().as_bytes()].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_are_checked_without_being_asked_and_when_asked() {
    let options = Options::default().processes(PAIR_PROCESS).variable("LOG_FORMAT", "json");
    let mut pair = options.start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 3).await;
    clients.buy_pro(&chain[2].partner_id).await;
    let scrape = until_it_says(&pair, RUNS, &[("outcome", "ok")], 1.0).await;
    assert_says(&scrape, &[(OFFENDERS, &[], 0.0), (RUNS, &[("outcome", "violated")], 0.0), (RUNS, &[], 1.0)]);
    assert_says(&scrape, &[(INTERVAL, &[], 3600.0)]);
    let time = scrape.value("p2phub_ledger_check_time_seconds", &[]).expect("a time");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs_f64();
    assert!(time <= now && now - time < 60.0, "{time} {now}");

    // Two accounts, with the ledger's versions of both.
    let sql = pair.referral_sql(Role::Superuser).await;
    let spoil = "SET session_replication_role = replica;
        UPDATE accounts SET balance = balance + 1 WHERE owner_id IS NOT NULL";
    sql.batch_execute(spoil).await.expect("a change past the triggers");
    let check = clients.ledger.check_ledger(CheckLedgerRequest::default()).await.expect("an answer").into_inner();
    assert!(!check.ok);
    let scrape = of_referral(&pair).await;
    let balances = [("check", "balances_equal_entries")];
    assert_says(&scrape, &[(OFFENDERS, &balances, 2.0), (RUNS, &[("outcome", "violated")], 1.0), (RUNS, &[], 2.0)]);
    assert_eq!(scrape.series(OFFENDERS).len(), check.checks.len(), "every check is told");

    // What a caller says was looked at before is nothing that this service vouches for.
    let made_up = CheckLedgerRequest { resume_token: near_the_end(&check.checkpoint), ..Default::default() };
    let resumed = clients.ledger.check_ledger(made_up).await.expect("an answer").into_inner();
    assert!(resumed.ok, "the caller's own loss: {resumed:?}");
    let scrape = of_referral(&pair).await;
    assert_says(&scrape, &[(OFFENDERS, &balances, 2.0), (RUNS, &[("outcome", "ok")], 1.0), (RUNS, &[], 2.0)]);

    // Another start finds it by itself, and says it once a check.
    pair.stop_referral().await;
    pair.start_referral().await;
    let scrape = until_it_says(&pair, RUNS, &[("outcome", "violated")], 1.0).await;
    assert_says(&scrape, &[(OFFENDERS, &balances, 2.0)]);
    let wrong: Vec<_> = check.checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect();
    let log = pair.referral.as_ref().expect("it runs").log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("the books do not balance")).collect();
    assert_eq!(lines.len(), wrong.len(), "{log}");
    for (line, check) in lines.iter().zip(wrong) {
        assert!(line.contains("ERROR") && line.contains(&format!("\"{check}\"")), "{line}");
        assert!(line.contains("\"offenders\":2"), "{line}");
        let named = chain.iter().find(|partner| line.contains(&partner.partner_id));
        assert!(named.is_none(), "it names somebody: {line}");
    }
    pair.finish().await;
}

/// A check that comes to no end is no check: it says so, and is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_cannot_be_done_is_told_as_failed() {
    let pair = Options::default().processes(PAIR_PROCESS).start_alone().await;
    let sql = pair.referral_sql(Role::Superuser).await;
    sql.batch_execute("ALTER TABLE xp_awards RENAME TO elsewhere").await.expect("a table that is gone");
    let scrape = until_it_says(&pair, RUNS, &[("outcome", "failed")], 1.0).await;
    assert_says(&scrape, &[(RUNS, &[], 1.0)]);
    assert_eq!(scrape.value("p2phub_ledger_check_time_seconds", &[]), None);
    let log = pair.referral.as_ref().expect("it runs").log();
    assert!(log.contains("the books could not be checked"), "{log}");
    sql.batch_execute("ALTER TABLE elsewhere RENAME TO xp_awards").await.expect("a table that is back");
    pair.finish().await;
}

/// Rules have to tell books that are never checked from those whose check is missing.
#[tokio::test(flavor = "multi_thread")]
async fn that_the_books_are_never_checked_is_told() {
    let options = Options::default().processes(PAIR_PROCESS).variable("LEDGER_CHECK_INTERVAL_MINUTES", "0");
    let pair = options.start_alone().await;
    until_it_says(&pair, INTERVAL, &[], 0.0).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_checks_the_books_at_a_time() {
    let options = Options::default().processes(PAIR_PROCESS).variable("RUST_LOG", "info,referral_svc=debug");
    let mut pair = options.prepare().await;
    // The turn is a session's, whoever's it is.
    let other = pair.referral_sql(Role::Superuser).await;
    other.batch_execute("SELECT pg_advisory_lock(4, 0)").await.expect("the turn");
    pair.start_referral().await;
    wait::until("its turn not to come", async || {
        let log = pair.referral.as_ref().expect("it runs").log();
        log.contains("another instance checks the books").then_some(())
    })
    .await;
    assert_says(&of_referral(&pair).await, &[(RUNS, &[], 0.0)]);
    pair.finish().await;
}

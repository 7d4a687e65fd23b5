//! Migrations run while an older version serves: one that waits for a lock lets others pass, and what it fills in is right.

use std::time::Duration;

use p2phub_proto::referral::v1::{AttachReferrerRequest, GetNetworkRequest};
use p2phub_tests::{builders::request_id, hold::Hold, pair::Options, ports, postgres::Role, wait};
use tokio::time::timeout;

use crate::{concurrency::number, history};

/// A migration that alters tables, and one that fills in what was not kept.
const GUARDS: (&str, &str) =
    ("20261128000003", include_str!("../../migrations/referral/2026-11-28-000003_guards/down.sql"));
const ATTACH_TIMES: &str = "20261128000005";

fn forget(version: &str) -> String {
    format!("DELETE FROM __diesel_schema_migrations WHERE version = '{version}'")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_lets_others_pass_and_goes_on_once_it_can() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("serves", 2).await;
    let sql = pair.referral_sql(Role::Owner).await;
    let (version, undo) = GUARDS;
    sql.batch_execute(&format!("BEGIN; {undo}; {}; COMMIT", forget(version))).await.expect("the schema of before");

    // A report reads what the migration alters.
    let (reader, watcher) = (pair.referral_sql(Role::Owner).await, pair.referral_sql(Role::Superuser).await);
    let hold = Hold::take(reader, watcher, "SELECT count(*) FROM commissions").await;
    let starting = pair.another_referral(ports::free());
    let others = async {
        for _ in 0..3 {
            hold.blocks_someone().await;
            let sale = timeout(Duration::from_secs(8), clients.buy_pro(&chain[1].partner_id)).await;
            assert_eq!(sale.expect("a sale behind a waiting migration").1.len(), 1);
        }
        let run = format!("SELECT count(*) FROM __diesel_schema_migrations WHERE version = '{version}'");
        assert_eq!(number(&sql, &run).await, 0, "it can't have its lock yet");
        hold.release().await;
        run
    };
    let (other, run) = tokio::join!(starting, others);
    assert_eq!(number(&sql, &run).await, 1);
    let guarded = "SELECT count(*) FROM pg_trigger WHERE tgname = 'payouts_equal_items'";
    assert_eq!(number(&sql, guarded).await, 1);
    other.stop().await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_attached_before_that_was_kept_is_known_from_the_record() {
    let mut pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let top = clients.register("top", "").await;
    let below = clients.register("below", "").await;
    let sql = pair.referral_sql(Role::Owner).await;
    let before = history::now(&sql, 0).await;
    let request = AttachReferrerRequest {
        request_id: request_id(),
        partner_id: below.partner_id.clone(),
        referral_code: top.referral_code.clone(),
    };
    clients.partners.attach_referrer(request).await.expect("an attachment");
    let at_signup = clients.register("at-signup", &top.referral_code).await;
    let after = history::now(&sql, 0).await;
    pair.stop_referral().await;
    sql.batch_execute(&format!("UPDATE partners SET attach_time = NULL; {}", forget(ATTACH_TIMES)))
        .await
        .expect("the state of before");

    pair.start_referral().await;
    let clients = pair.clients.clone();
    let members = async |time: i64| {
        let at_time = Some(history::timestamp(time));
        let request = GetNetworkRequest { partner_id: top.partner_id.clone(), at_time };
        wait::until("an answer", async || clients.clone().partners.get_network(request.clone()).await.ok())
            .await
            .into_inner()
            .levels[0]
            .members
    };
    assert_eq!((members(before).await, members(after).await), (0, 2));
    let attached = "SELECT count(*) FROM partners WHERE attach_time IS NOT NULL AND partner_id = ";
    assert_eq!(number(&sql, &format!("{attached} '{}'", below.partner_id)).await, 1);
    assert_eq!(number(&sql, &format!("{attached} '{}'", at_signup.partner_id)).await, 0);
    pair.finish().await;
}

//! The chains as they grow: under load, on two instances, through kills and lost commits.

use p2phub_proto::referral::v1::{VerifyAuditChainRequest, VerifyAuditChainResponse};
use p2phub_tests::{
    builders::registration,
    clients::Clients,
    pair::{Options, Pair},
    ports,
    postgres::Role,
    refusal::refused,
    wait,
};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::{AuditFaultKind, KEY, export, found, verify};
use crate::{PAIR_PROCESS, outage::commit::Held};

async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.expect("a row").get(0)
}

/// Signs people up until it is enough, whatever fails meanwhile; returns how many were.
async fn traffic(clients: Clients, name: String, enough: CancellationToken) -> usize {
    let mut done = 0;
    for number in 0.. {
        let request = registration(&format!("{name}-{number}"), "");
        done += usize::from(clients.clone().partners.register_partner(request).await.is_ok());
        if enough.is_cancelled() {
            break;
        }
    }
    done
}

/// Each event is in one block, and each that a block covers is there.
async fn assert_every_event_is_sealed_once(sql: &Client) {
    let query = "SELECT coalesce(b.id, e.id)::text FROM (SELECT unnest(audit_event_ids) AS id FROM audit_blocks) b
        FULL JOIN (SELECT audit_event_id AS id FROM audit_events) e ON e.id = b.id
        GROUP BY 1 HAVING count(b.id) <> 1 OR count(e.id) <> 1";
    let rows = sql.query(query, &[]).await.expect("rows");
    assert!(rows.is_empty(), "{}", rows[0].get::<_, String>(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_and_sql_seal_a_ledger_transaction_alike() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("seal", 4).await;
    for partner in &chain {
        clients.buy_pro(&partner.partner_id).await;
    }
    let sql = pair.referral_sql(Role::Service).await;
    let query = "SELECT count(*), count(*) FILTER (WHERE transaction_hash(id) = substring(b.transaction_hashes FROM 32 * n::int - 31 FOR 32)),
            count(*) FILTER (WHERE s.hash = transaction_hash(id)), (SELECT count(*) FROM ledger_transactions)
        FROM audit_blocks b, unnest(b.transaction_ids) WITH ORDINALITY AS t (id, n)
        JOIN (SELECT t.transaction_id, transaction_hash(t, count(e), string_agg(entry_bytes(e), '' ORDER BY e.account_id, e.version)) AS hash
              FROM ledger_transactions t LEFT JOIN ledger_entries e USING (transaction_id) GROUP BY t.transaction_id) s
            ON s.transaction_id = t.id";
    let row = sql.query_one(query, &[]).await.expect("a row");
    let counts: [i64; 4] = std::array::from_fn(|column| row.get(column));
    assert_eq!(counts, [4; 4], "sealed, as SQL computes it, as a set, booked");
    let superuser = pair.referral_sql(Role::Superuser).await;
    let altered = "SET session_replication_role = replica;
        UPDATE ledger_entries SET balance_after = balance_after + 1 WHERE account_id = 1 AND version = 1";
    superuser.batch_execute(altered).await.expect("an edit");
    let row = sql.query_one(query, &[]).await.expect("a row");
    assert_eq!((row.get::<_, i64>(1), row.get::<_, i64>(2)), (3, 4), "the edited one has another hash, either way");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_came_of_makes_no_block() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let sql = pair.referral_sql(Role::Service).await;
    let request = registration("once", "");
    clients.partners.register_partner(request.clone()).await.expect("a registration");
    clients.partners.register_partner(request).await.expect("the same answer");
    clients.register("twice", "").await;
    let rows = sql.query("SELECT position, cardinality(audit_event_ids) FROM audit_blocks ORDER BY 1", &[]).await;
    let rows: Vec<(i64, i32)> = rows.expect("blocks").iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(rows, [(1, 1), (2, 1)], "the same again changes nothing, and the chain goes on");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_prove_true_under_load_on_two_instances_through_kills() {
    let options = Options::default().processes(PAIR_PROCESS).variable("AUDIT_SIGNING_KEY", KEY);
    let mut pair = options.start_alone().await;
    let other = pair.another_referral(ports::free()).await;
    let other_clients = Clients::new(other.address, pair.notify_address);
    let enough = CancellationToken::new();
    let traffic: Vec<_> = [&pair.clients, &pair.clients, &other_clients, &other_clients]
        .into_iter()
        .enumerate()
        .map(|(number, clients)| tokio::spawn(traffic(clients.clone(), format!("t{number}"), enough.clone())))
        .collect();
    let sql = pair.referral_sql(Role::Superuser).await;
    let (mut anchors, mut checkpoint) = (Vec::new(), String::new());
    for _ in 0..4 {
        let before = number(&sql, "SELECT count(*) FROM audit_blocks").await;
        wait::until("blocks", async || {
            (number(&sql, "SELECT count(*) FROM audit_blocks").await > before + 20).then_some(())
        })
        .await;
        pair.kill_referral();
        pair.start_referral().await;
        anchors.push(export(&other_clients).await);
        let full = verify(&other_clients, &anchors, "").await;
        assert_eq!(found(&full), []);
        assert!(full.blocks >= before && full.audit_events >= full.blocks, "{full:?}");
        let news = verify(&pair.clients, &anchors, &checkpoint).await;
        assert_eq!(found(&news), []);
        checkpoint = news.checkpoint;
    }
    enough.cancel();
    let mut done = 0;
    for traffic in traffic {
        done += traffic.await.expect("no panic");
    }
    let last = verify(&other_clients, &anchors, "").await;
    assert_eq!(found(&last), []);
    assert_eq!(last.unsealed, 0);
    assert!(usize::try_from(last.audit_events).expect("a count") >= done && done > 80, "{done} {last:?}");
    assert_eq!(last.audit_events, number(&sql, "SELECT count(*) FROM audit_events").await);
    assert_eq!(last.blocks, number(&sql, "SELECT count(*) FROM audit_blocks").await);
    assert_every_event_is_sealed_once(&sql).await;
    assert_eq!(number(&sql, "SELECT count(DISTINCT chain_id) FROM audit_blocks").await, 6, "one chain a process");
    other.stop().await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_ends_the_chain_and_breaks_none() {
    let pair = Options::default().proxied().start_alone().await;
    let enough = CancellationToken::new();
    let traffic: Vec<_> = (0..4)
        .map(|number| tokio::spawn(traffic(pair.clients.clone(), format!("t{number}"), enough.clone())))
        .collect();
    let sql = pair.referral_sql(Role::Superuser).await;
    for _ in 0..5 {
        let before = number(&sql, "SELECT count(*) FROM audit_blocks").await;
        wait::until("blocks", async || {
            (number(&sql, "SELECT count(*) FROM audit_blocks").await > before + 5).then_some(())
        })
        .await;
        pair.proxies().database.cut_once();
    }
    enough.cancel();
    for traffic in traffic {
        traffic.await.expect("no panic");
    }
    assert_eq!(found(&wait_and_verify(&pair).await), []);
    assert_every_event_is_sealed_once(&sql).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_answer_a_new_chain_follows_what_was_committed() {
    let mut held = Held::with(Options::default()).await;
    held.pair.proxies().database.cut_once();
    held.release().await;
    let answer = (&mut held.call).await.expect("no panic").expect("an answer").into_inner();
    held.pair.clients.clone().open_payment(&answer.partner.expect("a partner").partner_id).await;
    let sql = held.pair.referral_sql(Role::Service).await;
    let query = "SELECT position, parent_positions FROM audit_blocks ORDER BY create_time";
    let blocks: Vec<(i64, Vec<i64>)> =
        sql.query(query, &[]).await.expect("blocks").iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(blocks, [(1, vec![]), (2, vec![]), (1, vec![2])]);
    assert_eq!(found(&verify(&held.pair.clients, &[], "").await), []);
    held.finish().await;
}

/// The database may have been away a moment ago.
async fn wait_and_verify(pair: &Pair) -> VerifyAuditChainResponse {
    wait::until("a proof", async || {
        let request = VerifyAuditChainRequest::default();
        pair.clients.clone().audit.verify_audit_chain(request).await.ok()
    })
    .await
    .into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_leaves_what_was_proved_and_finds_what_is_new() {
    let mut pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    clients.chain("before", 4).await;
    let first = verify(&clients, &[], "").await;
    assert_eq!((first.ok, first.blocks, first.audit_events), (true, 4, 4));
    let none = verify(&clients, &[], &first.checkpoint).await;
    assert_eq!((none.ok, none.blocks), (true, 0));
    clients.register("after", "").await;
    pair.stop_referral().await;
    pair.start_referral().await;
    clients.register("another-chain", "").await;
    let news = verify(&clients, &[], &first.checkpoint).await;
    assert_eq!((news.ok, news.blocks, news.audit_events), (true, 2, 2));
    // What is new hangs on what is not.
    let superuser = pair.referral_sql(Role::Superuser).await;
    let altered = "SET session_replication_role = replica;
        UPDATE audit_blocks SET hash = sha256('') WHERE position = 4";
    superuser.batch_execute(altered).await.expect("an edit");
    let broken = verify(&clients, &[], &first.checkpoint).await;
    assert_eq!(broken.faults.len(), 1, "{broken:?}");
    assert_eq!((broken.faults[0].kind(), broken.faults[0].position), (AuditFaultKind::BlockBroken, 5));
    for nonsense in ["x", "MQ"] {
        let request = VerifyAuditChainRequest { checkpoint: nonsense.to_owned(), ..Default::default() };
        refused(clients.audit.verify_audit_chain(request).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    }
    pair.finish().await;
}

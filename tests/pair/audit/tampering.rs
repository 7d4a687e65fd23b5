//! A superuser gets round every guard of the database; the proof names what was done.

use p2phub_proto::referral::v1::{
    AuditFaultKind::{BlockBroken, BlockMissing, CutOff, Deleted, Edited, Inserted, Rewritten},
    AuditHead,
};
use p2phub_tests::{
    pair::{Options, Pair},
    postgres::Role,
};
use referral_domain::seal::{Block, EventFields};
use tokio_postgres::Client;
use uuid::Uuid;

use super::{KEY, export, found, verify};

/// An older chain of five blocks, which a newer one of three follows; each block covers one event.
struct Scene {
    pair: Pair,
    superuser: Client,
    older: String,
    newer: String,
    anchor: AuditHead,
}

impl Scene {
    async fn set() -> Self {
        let options = Options::default().referral(|config| config.audit_signing_key = Some(KEY.to_owned()));
        let mut pair = options.start_alone().await;
        let superuser = pair.referral_sql(Role::Superuser).await;
        let mut clients = pair.clients.clone();
        let chain = clients.chain("older", 3).await;
        let payment = clients.buy_pro(&chain[2].partner_id).await.0;
        assert!(!payment.transaction_id.is_empty());
        let older = chain_ids(&superuser).await.remove(0);
        pair.stop_referral().await;
        pair.start_referral().await;
        clients.chain("newer", 3).await;
        let newer = chain_ids(&superuser).await.into_iter().find(|chain| *chain != older).expect("a new chain");
        let anchor = export(&clients).await;
        assert!(anchor.payload.contains(&newer) && !anchor.payload.contains(&older));
        superuser
            .batch_execute(
                "SET session_replication_role = replica;
                 ALTER TABLE ledger_transactions DROP CONSTRAINT ledger_transactions_audit_event_id_fkey;
                 CREATE TABLE kept_events AS TABLE audit_events; CREATE TABLE kept_blocks AS TABLE audit_blocks",
            )
            .await
            .expect("copies");
        Self { pair, superuser, older, newer, anchor }
    }

    /// The event that a block covers.
    async fn event(&self, chain: &str, position: i64) -> String {
        let query = "SELECT audit_event_ids[1]::text FROM kept_blocks WHERE chain_id::text = $1 AND position = $2";
        self.superuser.query_one(query, &[&chain, &position]).await.expect("a block").get(0)
    }

    /// What a proof finds after this was done, without the anchor and with it; then everything is as before.
    async fn after(&self, sql: &str) -> [Vec<(super::AuditFaultKind, String)>; 2] {
        self.superuser.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let without = found(&verify(&self.pair.clients, &[], "").await);
        let with = found(&verify(&self.pair.clients, std::slice::from_ref(&self.anchor), "").await);
        self.superuser
            .batch_execute(
                "TRUNCATE audit_events, audit_blocks;
                 INSERT INTO audit_events TABLE kept_events; INSERT INTO audit_blocks TABLE kept_blocks",
            )
            .await
            .expect("everything as before");
        assert!(verify(&self.pair.clients, std::slice::from_ref(&self.anchor), "").await.ok, "not as before: {sql}");
        [without, with]
    }
}

async fn chain_ids(client: &Client) -> Vec<String> {
    let rows = client.query("SELECT DISTINCT chain_id::text FROM audit_blocks", &[]).await.expect("chains");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_a_record_is_named() {
    let scene = Scene::set().await;
    let event = scene.event(&scene.older, 2).await;
    for change in [
        "create_time = create_time + interval '1 microsecond'",
        "actor = actor || 'x'",
        "action = 'RejectPayment'",
        "subject_id = ''",
        "outcome = 'PARTNER_NOT_FOUND'",
        "trace_id = gen_random_uuid()",
        "request_id = NULL",
        "detail = 'nothing'",
        "notices = notices + 1",
        "notices = NULL",
    ] {
        let sql = format!("UPDATE audit_events SET {change} WHERE audit_event_id = '{event}'");
        for found in scene.after(&sql).await {
            assert_eq!(found, [(Edited, event.clone())], "{change}");
        }
    }
    let delete = format!("DELETE FROM audit_events WHERE audit_event_id = '{event}'");
    for found in scene.after(&delete).await {
        assert_eq!(found, [(Deleted, event.clone())]);
    }
    let new = "01900000-0000-7000-8000-000000000001";
    let columns = "actor, action, subject_id, outcome, trace_id, request_id, detail";
    for (time, notices) in
        [("create_time", "notices"), ("create_time", "NULL"), ("create_time + interval '2 days'", "NULL")]
    {
        let insert = format!(
            "INSERT INTO audit_events (audit_event_id, create_time, {columns}, notices)
             SELECT '{new}', {time}, {columns}, {notices} FROM audit_events WHERE audit_event_id = '{event}'"
        );
        for found in scene.after(&insert).await {
            assert_eq!(found, [(Inserted, new.to_owned())], "{time} {notices}");
        }
    }
    // As if another had been there from the start: one is gone, and one is new.
    let renamed = format!("UPDATE audit_events SET audit_event_id = '{new}' WHERE audit_event_id = '{event}'");
    for found in scene.after(&renamed).await {
        assert_eq!(found, [(Deleted, event.clone()), (Inserted, new.to_owned())]);
    }
    scene.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_a_block_is_named() {
    let scene = Scene::set().await;
    let (older, newer) = (scene.older.as_str(), scene.newer.as_str());
    let of = |chain: &str, position: i64| format!("chain_id = '{chain}' AND position = {position}");
    let name = |chain: &str, position: i64| format!("{chain} {position}");
    for change in [
        "create_time = create_time + interval '1 microsecond'",
        "transaction_ids = '{}', transaction_hashes = ''",
        "transaction_hashes = sha256('')",
        "audit_event_ids = '{}', audit_event_hashes = ''",
    ] {
        let found = scene.after(&format!("UPDATE audit_blocks SET {change} WHERE {}", of(older, 5))).await;
        for found in found {
            assert_eq!(found[0], (BlockBroken, name(older, 5)), "{change}: {found:?}");
        }
    }
    // What follows a block has its hash in its own.
    let other_hash = format!("UPDATE audit_blocks SET hash = sha256('') WHERE {}", of(older, 2));
    for found in scene.after(&other_hash).await {
        assert_eq!(found, [(BlockBroken, name(older, 2)), (BlockBroken, name(older, 3))]);
    }
    let other_parent = format!("UPDATE audit_blocks SET parent_positions = '{{4}}' WHERE {}", of(newer, 1));
    for found in scene.after(&other_parent).await {
        assert!(found.contains(&(BlockBroken, name(newer, 1))), "{found:?}");
    }
    for (position, what) in [(1, "first"), (2, "middle"), (5, "last, which the newer chain follows")] {
        let event = scene.event(older, position).await;
        for found in scene.after(&format!("DELETE FROM audit_blocks WHERE {}", of(older, position))).await {
            assert_eq!(found, [(BlockMissing, name(older, position)), (Inserted, event.clone())], "the {what}");
        }
    }
    let all = format!("DELETE FROM audit_blocks WHERE chain_id = '{older}'");
    for found in scene.after(&all).await {
        assert_eq!(found[0], (BlockMissing, name(older, 5)), "{found:?}");
        assert_eq!(found[1..].iter().filter(|(kind, _)| *kind == Inserted).count(), 5, "{found:?}");
    }
    for found in scene.after("TRUNCATE audit_blocks").await {
        assert_eq!(found.iter().filter(|(kind, _)| *kind == Inserted).count(), 8, "{found:?}");
    }
    scene.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_or_new_as_a_whole_is_found_by_an_anchor() {
    let scene = Scene::set().await;
    let (newer, last) = (scene.newer.as_str(), format!("{} 3", scene.newer));
    let event = scene.event(newer, 3).await;
    let cut_off = format!(
        "DELETE FROM audit_events WHERE audit_event_id = '{event}';
         DELETE FROM audit_blocks WHERE chain_id = '{newer}' AND position = 3"
    );
    assert_eq!(scene.after(&cut_off).await, [vec![], vec![(CutOff, last.clone())]]);
    let nothing_left = "TRUNCATE audit_events, audit_blocks";
    assert_eq!(scene.after(nothing_left).await, [vec![], vec![(CutOff, last.clone())]]);
    let rewritten = rewrite(&scene, 2).await;
    assert_eq!(scene.after(&rewritten).await, [vec![], vec![(Rewritten, last)]]);
    scene.pair.finish().await;
}

/// The SQL of somebody who knows the code: an event of the newer chain edited, and every hash from there on made to fit.
async fn rewrite(scene: &Scene, position: i64) -> String {
    let event = scene.event(&scene.newer, position).await;
    let query = "SELECT audit_event_id::text, create_time, actor, action, subject_id, trace_id::text, request_id::text, detail, notices
        FROM kept_events WHERE audit_event_id = $1::text::uuid";
    let row = scene.superuser.query_one(query, &[&event]).await.expect("the event");
    let edited = EventFields {
        audit_event_id: id(row.get(0)),
        create_time: time(&row, 1),
        actor: row.get(2),
        action: row.get(3),
        subject_id: row.get(4),
        outcome: "FORGED",
        trace_id: id(row.get(5)),
        request_id: Some(id(row.get(6))),
        detail: row.get(7),
        notices: row.get(8),
    };
    let mut sql = format!("UPDATE audit_events SET outcome = 'FORGED' WHERE audit_event_id = '{event}';");
    let query =
        "SELECT position, create_time, audit_event_ids[1]::text, audit_event_hashes, cardinality(transaction_ids), hash
        FROM kept_blocks WHERE chain_id::text = $1 AND position >= $2 ORDER BY position";
    let rows = scene.superuser.query(query, &[&scene.newer, &(position - 1)]).await.expect("blocks");
    let hash = |bytes: Vec<u8>| bytes.try_into().expect("32 bytes");
    let mut previous = hash(rows[0].get(5));
    for row in &rows[1..] {
        assert_eq!(row.get::<_, i32>(4), 0, "a signup books nothing");
        let place = row.get::<_, i64>(0);
        let sealed = if place == position { edited.hash() } else { hash(row.get(3)) };
        let block = Block {
            chain_id: id(&scene.newer),
            position: place,
            create_time: time(row, 1),
            parents: Vec::new(),
            audit_events: vec![(id(row.get(2)), sealed)],
            transactions: Vec::new(),
        };
        previous = block.hash(&[previous]);
        sql += &format!(
            "UPDATE audit_blocks SET audit_event_hashes = '{}', hash = '{}' WHERE chain_id = '{}' AND position = {place};",
            hex(&sealed),
            hex(&previous),
            scene.newer
        );
    }
    sql
}

fn id(text: &str) -> Uuid {
    text.parse().expect("an ID")
}

fn time(row: &tokio_postgres::Row, column: usize) -> chrono::DateTime<chrono::Utc> {
    row.get::<_, std::time::SystemTime>(column).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("\\x".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}

//! Table `audit_blocks`: what seals the records, one block a database transaction.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Binary, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::seal::{Block, Hash, Head};
use uuid::Uuid;

use super::{Result, sql::Sql, transaction::Transaction};

/// A block's place: its chain and position.
pub(crate) type Place = (Uuid, i64);

/// Walks from chain to chain on the primary key, however many blocks each has.
macro_rules! with_heads {
    ($rest:literal) => {
        concat!(
            "WITH RECURSIVE chains AS (
                 (SELECT chain_id FROM audit_blocks ORDER BY chain_id LIMIT 1)
                 UNION ALL
                 SELECT (SELECT b.chain_id FROM audit_blocks b WHERE b.chain_id > c.chain_id ORDER BY b.chain_id LIMIT 1)
                 FROM chains c WHERE c.chain_id IS NOT NULL
             ), heads AS (
                 SELECT b.chain_id, b.position, b.hash
                 FROM chains c CROSS JOIN LATERAL (
                     SELECT * FROM audit_blocks b WHERE b.chain_id = c.chain_id ORDER BY b.position DESC LIMIT 1
                 ) b
             ) ",
            $rest
        )
    };
}

#[derive(QueryableByName)]
struct HeadRow {
    #[diesel(sql_type = SqlUuid)]
    chain_id: Uuid,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Binary)]
    hash: Vec<u8>,
}

/// A hash as stored; one of a wrong length is no hash that anything has.
fn hash(bytes: &[u8]) -> Hash {
    bytes.try_into().unwrap_or_default()
}

impl From<HeadRow> for Head {
    fn from(row: HeadRow) -> Self {
        Self { chain_id: row.chain_id, position: row.position, hash: hash(&row.hash) }
    }
}

/// Where each chain ends, by chain.
pub(crate) async fn heads(connection: &mut AsyncPgConnection) -> Result<Vec<Head>> {
    let rows: Vec<HeadRow> = Sql::new(with_heads!("SELECT * FROM heads ORDER BY chain_id")).load(connection).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

const OPEN_HEADS: &str = with_heads!(
    ", parents AS MATERIALIZED (
         SELECT p.chain_id, p.position
         FROM chains c JOIN audit_blocks b ON b.chain_id = c.chain_id AND b.position = 1,
             unnest(b.parent_chains, b.parent_positions) AS p (chain_id, position)
     )
     SELECT *, (SELECT sum(position)::bigint FROM heads) AS blocks FROM heads
     WHERE (chain_id, position) NOT IN (SELECT chain_id, position FROM parents) ORDER BY chain_id"
);

#[derive(QueryableByName)]
struct OpenRow {
    #[diesel(embed)]
    head: HeadRow,
    #[diesel(sql_type = BigInt)]
    blocks: i64,
}

/// The ends that no chain follows, and how many blocks there are: whoever knows these ends knows all that came before.
pub(crate) async fn open_heads(connection: &mut AsyncPgConnection) -> Result<(Vec<Head>, i64)> {
    let rows: Vec<OpenRow> = Sql::new(OPEN_HEADS).load(connection).await?;
    let blocks = rows.as_slice().first().map_or(0, |row| row.blocks);
    Ok((rows.into_iter().map(|row| row.head.into()).collect(), blocks))
}

/// What the first block of a new chain follows.
pub(crate) async fn parents(transaction: &mut Transaction) -> Result<Vec<Head>> {
    Ok(open_heads(transaction.connection()).await?.0)
}

/// `events` is how many its chain has put in the outbox by now.
pub(crate) async fn insert(transaction: &mut Transaction, block: &Block, hash: Hash, events: i64) -> Result<()> {
    let (event_ids, event_hashes) = columns(&block.audit_events);
    let (transaction_ids, transaction_hashes) = columns(&block.transactions);
    let (parent_chains, parent_positions): (Vec<_>, Vec<_>) = block.parents.iter().copied().unzip();
    Sql::new(
        "INSERT INTO audit_blocks (chain_id, position, create_time, parent_chains, parent_positions, audit_event_ids,
             audit_event_hashes, transaction_ids, transaction_hashes, hash, events)
         VALUES ({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {})",
    )
    .bind::<SqlUuid, _>(block.chain_id)
    .bind::<BigInt, _>(block.position)
    .bind::<Timestamptz, _>(block.create_time)
    .bind::<Array<SqlUuid>, _>(parent_chains)
    .bind::<Array<BigInt>, _>(parent_positions)
    .bind::<Array<SqlUuid>, _>(event_ids)
    .bind::<Binary, _>(event_hashes)
    .bind::<Array<SqlUuid>, _>(transaction_ids)
    .bind::<Binary, _>(transaction_hashes)
    .bind::<Binary, _>(hash.to_vec())
    .bind::<BigInt, _>(events)
    .execute(transaction.connection())
    .await?;
    Ok(())
}

fn columns(records: &[(Uuid, Hash)]) -> (Vec<Uuid>, Vec<u8>) {
    (records.iter().map(|(id, _)| *id).collect(), records.iter().flat_map(|(_, hash)| *hash).collect())
}

/// IDs with their hashes. Where there are not as many, the block is none that anybody sealed, and its hash will tell.
fn records(ids: Vec<Uuid>, hashes: &[u8]) -> Vec<(Uuid, Hash)> {
    ids.into_iter().zip(hashes.chunks(32)).map(|(id, bytes)| (id, hash(bytes))).collect()
}

#[derive(QueryableByName)]
struct BlockRow {
    #[diesel(sql_type = SqlUuid)]
    chain_id: Uuid,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Timestamptz)]
    create_time: DateTime<Utc>,
    #[diesel(sql_type = Array<SqlUuid>)]
    parent_chains: Vec<Uuid>,
    #[diesel(sql_type = Array<BigInt>)]
    parent_positions: Vec<i64>,
    #[diesel(sql_type = Array<SqlUuid>)]
    audit_event_ids: Vec<Uuid>,
    #[diesel(sql_type = Binary)]
    audit_event_hashes: Vec<u8>,
    #[diesel(sql_type = Array<SqlUuid>)]
    transaction_ids: Vec<Uuid>,
    #[diesel(sql_type = Binary)]
    transaction_hashes: Vec<u8>,
    #[diesel(sql_type = Binary)]
    hash: Vec<u8>,
}

impl From<BlockRow> for (Block, Hash) {
    fn from(row: BlockRow) -> Self {
        let block = Block {
            chain_id: row.chain_id,
            position: row.position,
            create_time: row.create_time,
            parents: row.parent_chains.into_iter().zip(row.parent_positions).collect(),
            audit_events: records(row.audit_event_ids, &row.audit_event_hashes),
            transactions: records(row.transaction_ids, &row.transaction_hashes),
        };
        (block, hash(&row.hash))
    }
}

/// A chain's blocks with the hashes that are stored for them, from a position to another.
pub(crate) async fn page(
    connection: &mut AsyncPgConnection,
    (chain_id, from): Place,
    to: i64,
    limit: i64,
) -> Result<Vec<(Block, Hash)>> {
    let rows: Vec<BlockRow> = Sql::new(
        "SELECT chain_id, position, create_time, parent_chains, parent_positions, audit_event_ids, audit_event_hashes,
             transaction_ids, transaction_hashes, hash
         FROM audit_blocks WHERE chain_id = {} AND position BETWEEN {} AND {} ORDER BY position LIMIT {}",
    )
    .bind::<SqlUuid, _>(chain_id)
    .bind::<BigInt, _>(from)
    .bind::<BigInt, _>(to)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The hashes of the blocks at these places, where there is one.
pub(crate) async fn hashes(connection: &mut AsyncPgConnection, places: &[Place]) -> Result<HashMap<Place, Hash>> {
    let (chains, positions): (Vec<_>, Vec<_>) = places.iter().copied().unzip();
    let rows: Vec<HeadRow> = Sql::new(
        "SELECT b.chain_id, b.position, b.hash
         FROM unnest({}, {}) AS p (chain_id, position) JOIN audit_blocks b USING (chain_id, position)",
    )
    .bind::<Array<SqlUuid>, _>(chains)
    .bind::<Array<BigInt>, _>(positions)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.chain_id, row.position), hash(&row.hash))).collect())
}

#[derive(QueryableByName)]
struct SnapshotRow {
    #[diesel(sql_type = Text)]
    snapshot: String,
    #[diesel(sql_type = Text)]
    history: String,
}

/// What is committed by now, as PostgreSQL writes a snapshot; and the server's history that it belongs to, which a restore
/// or a failover ends.
pub(crate) async fn snapshot(connection: &mut AsyncPgConnection) -> Result<(String, String)> {
    let row: SnapshotRow = Sql::new(
        "SELECT pg_current_snapshot()::text AS snapshot, system_identifier || '/' || timeline_id AS history
         FROM pg_control_system(), pg_control_checkpoint()",
    )
    .get_result(connection)
    .await?;
    Ok((row.snapshot, row.history))
}

#[derive(QueryableByName)]
struct PlaceRow {
    #[diesel(sql_type = SqlUuid)]
    chain_id: Uuid,
    #[diesel(sql_type = BigInt)]
    position: i64,
}

/// The first block of each chain that a snapshot doesn't have.
pub(crate) async fn first_since(connection: &mut AsyncPgConnection, snapshot: &str) -> Result<HashMap<Uuid, i64>> {
    let rows: Vec<PlaceRow> = Sql::new(
        "SELECT chain_id, min(position) AS position FROM audit_blocks, CAST({} AS pg_snapshot) AS s (taken)
         WHERE xid >= pg_snapshot_xmin(s.taken) AND NOT pg_visible_in_snapshot(xid, s.taken) GROUP BY chain_id",
    )
    .bind::<Text, _>(snapshot.to_owned())
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.chain_id, row.position)).collect())
}

#[derive(QueryableByName)]
struct OldestRow {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    oldest: Option<DateTime<Utc>>,
}

/// Since when there are blocks: ever, in a database that no version without them has written to.
pub(crate) async fn oldest(connection: &mut AsyncPgConnection) -> Result<Option<DateTime<Utc>>> {
    let query = Sql::new(
        "SELECT CASE WHEN EXISTS (SELECT FROM outbox_counted WHERE since = '-infinity') THEN 'epoch'
             ELSE (SELECT min(create_time) FROM audit_blocks) END AS oldest",
    );
    let row: OldestRow = query.get_result(connection).await?;
    Ok(row.oldest)
}

/// An audit event, and whether a block covers it.
#[derive(QueryableByName)]
pub(crate) struct Coverage {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) audit_event_id: Uuid,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) create_time: DateTime<Utc>,
    /// Written by a version that seals nothing.
    #[diesel(sql_type = Bool)]
    pub(crate) is_old: bool,
    #[diesel(sql_type = Bool)]
    pub(crate) is_covered: bool,
}

/// Audit events by ID, from after one on. A block has its events' time, so that few blocks need be looked at; and both
/// become visible at once.
pub(crate) async fn coverage(connection: &mut AsyncPgConnection, after: Uuid, limit: i64) -> Result<Vec<Coverage>> {
    Sql::new(
        "WITH page AS MATERIALIZED (
             SELECT audit_event_id, create_time, notices FROM audit_events
             WHERE audit_event_id > {} ORDER BY audit_event_id LIMIT {}
         ), covered AS MATERIALIZED (
             SELECT e.audit_event_id
             FROM (SELECT DISTINCT create_time FROM page) t
             JOIN audit_blocks b USING (create_time), unnest(b.audit_event_ids) AS e (audit_event_id)
         )
         SELECT audit_event_id, create_time, notices IS NULL AS is_old,
             audit_event_id IN (SELECT audit_event_id FROM covered) AS is_covered
         FROM page ORDER BY audit_event_id",
    )
    .bind::<SqlUuid, _>(after)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await
}

//! Table `broadcasts`: durable jobs, and the partners that are next.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, Queryable, QueryableByName, Selectable, SelectableHelper,
    sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{
    broadcast::{Broadcast, BroadcastState, Button, Ending, Filter, Message, NewBroadcast, Recipient, Stage},
    id::{BroadcastId, PartnerId},
};
use uuid::Uuid;

use super::{
    Result, impossible,
    schema::broadcasts,
    sql::{Sql, uuids},
    transaction::Transaction,
};

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = broadcasts)]
struct BroadcastRow {
    broadcast_id: Uuid,
    filter: serde_json::Value,
    text: String,
    subject: String,
    button_label: String,
    button_url: String,
    expire_time: DateTime<Utc>,
    recipients_per_second: i32,
    matched: i64,
    caller: String,
    traceparent: String,
    create_time: DateTime<Utc>,
    state: String,
    published: i64,
    progress: Uuid,
    next_step_time: Option<DateTime<Utc>>,
    end_time: Option<DateTime<Utc>>,
    cancel_reason: Option<String>,
}

impl TryFrom<BroadcastRow> for Broadcast {
    type Error = diesel::result::Error;

    fn try_from(row: BroadcastRow) -> Result<Self> {
        let filter: Filter =
            serde_json::from_value(row.filter.clone()).map_err(|_| impossible("a filter of another shape"))?;
        let stage = stage(&row).ok_or_else(|| impossible("a broadcast's state"))?;
        let button = Some(Button { label: row.button_label, url: row.button_url });
        Ok(Self {
            broadcast_id: row.broadcast_id.into(),
            asked: NewBroadcast {
                filter,
                message: Message {
                    text: row.text,
                    subject: row.subject,
                    button: button.filter(|button| !button.url.is_empty()),
                },
                expire_time: Some(row.expire_time),
                recipients_per_second: row.recipients_per_second,
                matched: row.matched,
                caller: row.caller,
                traceparent: row.traceparent,
            },
            expire_time: row.expire_time,
            create_time: row.create_time,
            published: row.published,
            progress: Some(row.progress).filter(|progress| !progress.is_nil()).map(Into::into),
            stage,
        })
    }
}

fn stage(row: &BroadcastRow) -> Option<Stage> {
    let ending = match row.state.as_str() {
        "RUNNING" => return Some(Stage::Running { next_step_time: row.next_step_time? }),
        "DONE" => Ending::Done,
        "CANCELLED" => Ending::Cancelled { reason: row.cancel_reason.clone()? },
        "EXPIRED" => Ending::Expired,
        _ => return None,
    };
    Some(Stage::Ended { ending, end_time: row.end_time? })
}

fn progress(broadcast: &Broadcast) -> Uuid {
    broadcast.progress.map_or(Uuid::nil(), Into::into)
}

fn next_step_time(broadcast: &Broadcast) -> Option<DateTime<Utc>> {
    match broadcast.stage {
        Stage::Running { next_step_time } => Some(next_step_time),
        Stage::Ended { .. } => None,
    }
}

pub(crate) async fn insert(transaction: &mut Transaction, rows: &[&Broadcast]) -> Result<()> {
    let text = |of: fn(&NewBroadcast) -> &str| rows.iter().map(|row| of(&row.asked)).collect::<Vec<_>>();
    let filters = rows.iter().map(|row| serde_json::to_value(&row.asked.filter).unwrap_or_default());
    Sql::new(
        "INSERT INTO broadcasts (broadcast_id, filter, text, subject, button_label, button_url, expire_time,
             recipients_per_second, matched, caller, traceparent, create_time, next_step_time)
         SELECT * FROM unnest({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {})",
    )
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.broadcast_id)))
    .bind::<Array<Jsonb>, _>(filters.collect::<Vec<_>>())
    .bind::<Array<Text>, _>(text(|asked| &asked.message.text))
    .bind::<Array<Text>, _>(text(|asked| &asked.message.subject))
    .bind::<Array<Text>, _>(text(|asked| asked.message.button.as_ref().map_or("", |button| &button.label)))
    .bind::<Array<Text>, _>(text(|asked| asked.message.button.as_ref().map_or("", |button| &button.url)))
    .bind::<Array<Timestamptz>, _>(rows.iter().map(|row| row.expire_time).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(rows.iter().map(|row| row.asked.recipients_per_second).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.asked.matched).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(text(|asked| &asked.caller))
    .bind::<Array<Text>, _>(text(|asked| &asked.traceparent))
    .bind::<Array<Timestamptz>, _>(rows.iter().map(|row| row.create_time).collect::<Vec<_>>())
    .bind::<Array<Nullable<Timestamptz>>, _>(rows.iter().map(|row| next_step_time(row)).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Writes how far broadcasts have come. Their rows are locked.
pub(crate) async fn update(transaction: &mut Transaction, rows: &[&Broadcast]) -> Result<()> {
    let ended = |row: &&Broadcast| match &row.stage {
        Stage::Running { .. } => None,
        Stage::Ended { end_time, .. } => Some(*end_time),
    };
    let reason = |row: &&Broadcast| match &row.stage {
        Stage::Ended { ending: Ending::Cancelled { reason }, .. } => Some(reason.clone()),
        _ => None,
    };
    Sql::new(
        "UPDATE broadcasts b SET state = n.state, published = n.published, progress = n.progress,
             next_step_time = n.next_step_time, end_time = n.end_time, cancel_reason = n.cancel_reason
         FROM unnest({}, {}, {}, {}, {}, {}, {}) AS n (broadcast_id, state, published, progress, next_step_time, end_time,
             cancel_reason)
         WHERE b.broadcast_id = n.broadcast_id",
    )
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.broadcast_id)))
    .bind::<Array<Text>, _>(rows.iter().map(|row| row.state().name()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.published).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(rows.iter().map(|row| progress(row)).collect::<Vec<_>>())
    .bind::<Array<Nullable<Timestamptz>>, _>(rows.iter().map(|row| next_step_time(row)).collect::<Vec<_>>())
    .bind::<Array<Nullable<Timestamptz>>, _>(rows.iter().map(ended).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(rows.iter().map(reason).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Locks and loads, in the order of the IDs.
pub(crate) async fn lock(transaction: &mut Transaction, ids: &[Uuid]) -> Result<Vec<Broadcast>> {
    let rows: Vec<BroadcastRow> = broadcasts::table
        .filter(broadcasts::broadcast_id.eq_any(ids))
        .order(broadcasts::broadcast_id)
        .select(BroadcastRow::as_select())
        .for_no_key_update()
        .load(transaction.connection())
        .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Locks the one that has waited longest for its next step, of those that no other instance works on.
pub(crate) async fn claim(transaction: &mut Transaction, now: DateTime<Utc>) -> Result<Option<Broadcast>> {
    let row: Option<BroadcastRow> = broadcasts::table
        .filter(broadcasts::next_step_time.le(now))
        .order(broadcasts::next_step_time)
        .limit(1)
        .select(BroadcastRow::as_select())
        .for_no_key_update()
        .skip_locked()
        .first(transaction.connection())
        .await
        .optional()?;
    row.map(TryInto::try_into).transpose()
}

/// When the next step of any is due that is not due yet.
pub(crate) async fn next_due(transaction: &mut Transaction, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
    broadcasts::table
        .filter(broadcasts::next_step_time.gt(now))
        .select(diesel::dsl::min(broadcasts::next_step_time))
        .first(transaction.connection())
        .await
}

pub(crate) async fn find(connection: &mut AsyncPgConnection, broadcast_id: BroadcastId) -> Result<Option<Broadcast>> {
    let row: Option<BroadcastRow> = broadcasts::table
        .find(Uuid::from(broadcast_id))
        .select(BroadcastRow::as_select())
        .first(connection)
        .await
        .optional()?;
    row.map(TryInto::try_into).transpose()
}

/// Broadcasts with an ID below `before`, newest first.
pub(crate) async fn list(
    connection: &mut AsyncPgConnection,
    state: Option<BroadcastState>,
    before: Uuid,
    limit: i64,
) -> Result<Vec<Broadcast>> {
    let mut query = broadcasts::table
        .filter(broadcasts::broadcast_id.lt(before))
        .order(broadcasts::broadcast_id.desc())
        .limit(limit)
        .select(BroadcastRow::as_select())
        .into_boxed();
    if let Some(state) = state {
        query = query.filter(broadcasts::state.eq(state.name()));
    }
    let rows: Vec<BroadcastRow> = query.load(connection).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// A query for partners `p` with standings `s` that match the filter `f`, whose eight parameters [`bind`] binds.
macro_rules! matching {
    ($select:literal, $from:literal, $end:literal) => {
        concat!(
            $select,
            " FROM (SELECT {}::text AS language, {}::bool AS pro, {}::timestamptz AS now, {}::bigint AS min_xp,
                  {}::uuid AS ancestor_id, {}::text AS channel, {}::timestamptz AS registered_after,
                  {}::timestamptz AS registered_before) f CROSS JOIN ",
            $from,
            " WHERE (f.language IS NULL OR lower(split_part(translate(p.locale, '_', '-'), '-', 1)) = f.language)
                  AND (f.pro IS NULL OR coalesce(s.pro_expires_at > f.now, false) = f.pro)
                  AND (f.min_xp IS NULL OR s.xp >= f.min_xp)
                  AND (f.ancestor_id IS NULL OR f.ancestor_id = ANY (p.lineage))
                  AND (f.channel IS NULL
                      OR p.contacts @> jsonb_build_array(jsonb_build_object('channel', f.channel)))
                  AND (f.registered_after IS NULL OR p.create_time >= f.registered_after)
                  AND p.create_time < f.registered_before ",
            $end
        )
    };
}

/// `meant_before`: who registered at that time or later is not meant.
fn bind<'a>(sql: Sql<'a>, filter: &'a Filter, now: DateTime<Utc>, meant_before: DateTime<Utc>) -> Sql<'a> {
    let before = filter.registered_before.map_or(meant_before, |before| before.min(meant_before));
    sql.bind::<Nullable<Text>, _>(filter.language.as_deref())
        .bind::<Nullable<Bool>, _>(filter.pro)
        .bind::<Timestamptz, _>(now)
        .bind::<Nullable<BigInt>, _>(filter.min_xp())
        .bind::<Nullable<SqlUuid>, _>(filter.ancestor_id.map(Uuid::from))
        .bind::<Nullable<Text>, _>(filter.channel.as_deref())
        .bind::<Nullable<Timestamptz>, _>(filter.registered_after)
        .bind::<Timestamptz, _>(before)
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// How many partners match now.
pub(crate) async fn count(connection: &mut AsyncPgConnection, filter: &Filter, now: DateTime<Utc>) -> Result<i64> {
    let query = matching!("SELECT count(*) AS count", "partners p JOIN standings s USING (partner_id)", "");
    let row: Count = bind(Sql::new(query), filter, now, now).get_result(connection).await?;
    Ok(row.count)
}

#[derive(QueryableByName)]
struct RecipientRow {
    #[diesel(sql_type = SqlUuid)]
    partner_id: Uuid,
    #[diesel(sql_type = Text)]
    locale: String,
    #[diesel(sql_type = Jsonb)]
    contacts: serde_json::Value,
}

impl TryFrom<RecipientRow> for Recipient {
    type Error = diesel::result::Error;

    fn try_from(row: RecipientRow) -> Result<Self> {
        let contacts = serde_json::from_value(row.contacts).map_err(|_| impossible("contacts of another shape"))?;
        Ok(Self { partner_id: row.partner_id.into(), locale: row.locale, contacts })
    }
}

/// How many partners a step looks at, at most: whatever the filter, no step is long.
const LOOK_MAX: i64 = 5_000;

/// The next partners to be told, in the order of their IDs: of the next [`LOOK_MAX`], at most the broadcast's step.
pub(crate) async fn recipients(
    transaction: &mut Transaction,
    broadcast: &Broadcast,
    now: DateTime<Utc>,
) -> Result<Vec<Recipient>> {
    // Partner by partner in the order of the key, whatever the planner would prefer: a step ends as soon as it is full.
    let query = matching!(
        "SELECT p.partner_id, p.locale, p.contacts",
        "(SELECT partner_id, locale, contacts, lineage, create_time FROM partners
          WHERE partner_id > {} ORDER BY partner_id LIMIT {}) p
         CROSS JOIN LATERAL (SELECT xp, pro_expires_at FROM standings o WHERE o.partner_id = p.partner_id LIMIT 1) s",
        "ORDER BY p.partner_id LIMIT {}"
    );
    let rows: Vec<RecipientRow> = bind(Sql::new(query), &broadcast.asked.filter, now, broadcast.create_time)
        .bind::<SqlUuid, _>(progress(broadcast))
        .bind::<BigInt, _>(LOOK_MAX)
        .bind::<BigInt, _>(i64::from(broadcast.step_max()))
        .load(transaction.connection())
        .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

#[derive(QueryableByName)]
struct Looked {
    #[diesel(sql_type = SqlUuid)]
    partner_id: Uuid,
}

/// The last partner that a step looks at; None if fewer than [`LOOK_MAX`] are left.
pub(crate) async fn end_of_step(transaction: &mut Transaction, broadcast: &Broadcast) -> Result<Option<PartnerId>> {
    let row: Option<Looked> =
        Sql::new("SELECT partner_id FROM partners WHERE partner_id > {} ORDER BY partner_id OFFSET {} LIMIT 1")
            .bind::<SqlUuid, _>(progress(broadcast))
            .bind::<BigInt, _>(LOOK_MAX - 1)
            .get_result(transaction.connection())
            .await
            .optional()?;
    Ok(row.map(|row| row.partner_id.into()))
}

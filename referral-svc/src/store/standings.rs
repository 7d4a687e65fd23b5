//! Table `standings`: XP, network counts and PRO, which change often.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl, Queryable, QueryableByName, Selectable, SelectableHelper,
    sql_types::{Array, BigInt, Bool, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{LEVELS, id::PartnerId, partner::Standing, state::ProNotice};
use uuid::Uuid;

use super::{
    Result, impossible,
    schema::standings,
    sql::{Sql, array_literal, uuids},
    transaction::Transaction,
};

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = standings)]
pub(super) struct StandingRow {
    partner_id: Uuid,
    xp: i64,
    members: Vec<i64>,
    pro_members: Vec<i64>,
    counted_as_pro: bool,
    pro_expires_at: Option<DateTime<Utc>>,
    notices_sent: i16,
}

impl TryFrom<StandingRow> for Standing {
    type Error = diesel::result::Error;

    fn try_from(row: StandingRow) -> Result<Self> {
        let nine = |counts: Vec<i64>| -> Result<[i64; LEVELS]> {
            counts.try_into().map_err(|_| impossible("network counts of another length"))
        };
        Ok(Self {
            xp: row.xp,
            members: nine(row.members)?,
            pro_members: nine(row.pro_members)?,
            counted_as_pro: row.counted_as_pro,
            pro_expires_at: row.pro_expires_at,
            notices_sent: u8::try_from(row.notices_sent).map_err(|_| impossible("a number of notices"))?,
        })
    }
}

/// Locks and loads, in the order of the IDs.
pub(crate) async fn lock(transaction: &mut Transaction, ids: &[Uuid]) -> Result<HashMap<PartnerId, Standing>> {
    let rows: Vec<StandingRow> = standings::table
        .filter(standings::partner_id.eq_any(ids))
        .order(standings::partner_id)
        .select(StandingRow::as_select())
        .for_no_key_update()
        .load(transaction.connection())
        .await?;
    rows.into_iter().map(|row| Ok((row.partner_id.into(), row.try_into()?))).collect()
}

pub(crate) async fn insert(transaction: &mut Transaction, rows: &[(PartnerId, &Standing)]) -> Result<()> {
    write(
        transaction,
        rows,
        "INSERT INTO standings (partner_id, xp, members, pro_members, counted_as_pro, pro_expires_at, notices_sent)
         SELECT partner_id, xp, members::bigint[], pro_members::bigint[], counted_as_pro, pro_expires_at, notices_sent
         FROM unnest({}, {}, {}, {}, {}, {}, {})
             AS n (partner_id, xp, members, pro_members, counted_as_pro, pro_expires_at, notices_sent)",
    )
    .await
}

/// Writes all. Where the end of PRO changes, the database resets the count of notices; where it went away and came back within
/// one batch, only this does.
pub(crate) async fn update(transaction: &mut Transaction, rows: &[(PartnerId, &Standing)]) -> Result<()> {
    write(
        transaction,
        rows,
        "UPDATE standings s SET xp = n.xp, members = n.members::bigint[], pro_members = n.pro_members::bigint[],
             counted_as_pro = n.counted_as_pro, pro_expires_at = n.pro_expires_at, notices_sent = n.notices_sent
         FROM unnest({}, {}, {}, {}, {}, {}, {})
             AS n (partner_id, xp, members, pro_members, counted_as_pro, pro_expires_at, notices_sent)
         WHERE s.partner_id = n.partner_id",
    )
    .await
}

async fn write(transaction: &mut Transaction, rows: &[(PartnerId, &Standing)], statement: &'static str) -> Result<()> {
    Sql::new(statement)
        .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.0)))
        .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.1.xp).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(rows.iter().map(|row| array_literal(&row.1.members)).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(rows.iter().map(|row| array_literal(&row.1.pro_members)).collect::<Vec<_>>())
        .bind::<Array<Bool>, _>(rows.iter().map(|row| row.1.counted_as_pro).collect::<Vec<_>>())
        .bind::<Array<Nullable<Timestamptz>>, _>(rows.iter().map(|row| row.1.pro_expires_at).collect::<Vec<_>>())
        .bind::<Array<SmallInt>, _>(rows.iter().map(|row| i16::from(row.1.notices_sent)).collect::<Vec<_>>())
        .execute(transaction.connection())
        .await?;
    Ok(())
}

/// Writes how many notices of the present end of PRO were requested.
pub(crate) async fn note(transaction: &mut Transaction, rows: &[(PartnerId, &Standing)]) -> Result<()> {
    Sql::new(
        "UPDATE standings s SET notices_sent = n.notices_sent
         FROM unnest({}, {}) AS n (partner_id, notices_sent) WHERE s.partner_id = n.partner_id",
    )
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.0)))
    .bind::<Array<SmallInt>, _>(rows.iter().map(|row| i16::from(row.1.notices_sent)).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

#[derive(QueryableByName)]
struct Due {
    #[diesel(sql_type = SqlUuid)]
    partner_id: Uuid,
}

/// Partners whose PRO began or ended since the ancestors' counts were brought up to date, but for these.
pub(crate) async fn miscounted(
    connection: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    but: &[PartnerId],
    limit: i64,
) -> Result<Vec<PartnerId>> {
    let but = uuids(but.iter().copied());
    let rows: Vec<Due> = Sql::new(
        "(SELECT partner_id FROM standings WHERE counted_as_pro AND pro_expires_at <= {}
          AND partner_id <> ALL ({}) LIMIT {})
         UNION ALL
         (SELECT partner_id FROM standings WHERE NOT counted_as_pro AND pro_expires_at > {}
          AND partner_id <> ALL ({}) LIMIT {})",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Array<SqlUuid>, _>(but.clone())
    .bind::<BigInt, _>(limit)
    .bind::<Timestamptz, _>(now)
    .bind::<Array<SqlUuid>, _>(but)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.partner_id.into()).collect())
}

/// Partners for whom a notice of their PRO's end is due (three days before, one day before, or at the end), but for these.
pub(crate) async fn due_for_notice(
    connection: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    but: &[PartnerId],
    limit: i64,
) -> Result<Vec<PartnerId>> {
    let [three_days, one_day, ended] =
        ProNotice::ALL.map(|notice| now.checked_add_signed(notice.before()).unwrap_or(DateTime::<Utc>::MAX_UTC));
    let but = uuids(but.iter().copied());
    let rows: Vec<Due> = Sql::new(
        "(SELECT partner_id FROM standings WHERE notices_sent = 0 AND pro_expires_at <= {}
          AND partner_id <> ALL ({}) LIMIT {})
         UNION ALL
         (SELECT partner_id FROM standings WHERE notices_sent = 1 AND pro_expires_at <= {}
          AND partner_id <> ALL ({}) LIMIT {})
         UNION ALL
         (SELECT partner_id FROM standings WHERE notices_sent = 2 AND pro_expires_at <= {}
          AND partner_id <> ALL ({}) LIMIT {})",
    )
    .bind::<Timestamptz, _>(three_days)
    .bind::<Array<SqlUuid>, _>(but.clone())
    .bind::<BigInt, _>(limit)
    .bind::<Timestamptz, _>(one_day)
    .bind::<Array<SqlUuid>, _>(but.clone())
    .bind::<BigInt, _>(limit)
    .bind::<Timestamptz, _>(ended)
    .bind::<Array<SqlUuid>, _>(but)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.partner_id.into()).collect())
}

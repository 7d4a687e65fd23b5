//! Table `xp_awards`: who got XP, for whom.

use chrono::{DateTime, Utc};
use diesel::{
    Queryable, QueryableByName, Selectable,
    sql_types::{Array, BigInt, Integer, SmallInt, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{id::PartnerId, partner::XpAward};
use uuid::Uuid;

use super::{
    Result, impossible,
    schema::xp_awards,
    sql::{Sql, uuids},
    transaction::Transaction,
};

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = xp_awards)]
struct AwardRow {
    partner_id: Uuid,
    source_partner_id: Uuid,
    level: i16,
    multiplier: i32,
    xp: i64,
    create_time: DateTime<Utc>,
}

impl TryFrom<AwardRow> for XpAward {
    type Error = diesel::result::Error;

    fn try_from(row: AwardRow) -> Result<Self> {
        Ok(Self {
            partner_id: row.partner_id.into(),
            source_partner_id: row.source_partner_id.into(),
            level: u8::try_from(row.level).map_err(|_| impossible("an award's level"))?,
            multiplier: u16::try_from(row.multiplier).map_err(|_| impossible("an award's multiplier"))?,
            xp: row.xp,
            create_time: row.create_time,
        })
    }
}

pub(crate) async fn insert(transaction: &mut Transaction, awards: &[&XpAward]) -> Result<()> {
    Sql::new(
        "INSERT INTO xp_awards (partner_id, source_partner_id, level, multiplier, xp, create_time)
         SELECT * FROM unnest({}, {}, {}, {}, {}, {})",
    )
    .bind::<Array<SqlUuid>, _>(uuids(awards.iter().map(|award| award.partner_id)))
    .bind::<Array<SqlUuid>, _>(uuids(awards.iter().map(|award| award.source_partner_id)))
    .bind::<Array<SmallInt>, _>(awards.iter().map(|award| i16::from(award.level)).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(awards.iter().map(|award| i32::from(award.multiplier)).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(awards.iter().map(|award| award.xp).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(awards.iter().map(|award| award.create_time).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Where a page of awards ended.
pub(crate) type After = (DateTime<Utc>, Uuid);

/// A partner's awards before `after`, newest first.
pub(crate) async fn list(
    connection: &mut AsyncPgConnection,
    partner_id: PartnerId,
    after: After,
    limit: i64,
) -> Result<Vec<XpAward>> {
    let rows: Vec<AwardRow> = Sql::new(
        "SELECT partner_id, source_partner_id, level, multiplier, xp, create_time FROM xp_awards
         WHERE partner_id = {} AND (create_time, source_partner_id) < ({}, {})
         ORDER BY create_time DESC, source_partner_id DESC LIMIT {}",
    )
    .bind::<SqlUuid, _>(Uuid::from(partner_id))
    .bind::<Timestamptz, _>(after.0)
    .bind::<SqlUuid, _>(after.1)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

//! What a partner's network was at a time, worked out from the tree's and the payments' history.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Integer, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{LEVELS, id::PartnerId};
use uuid::Uuid;

use super::{Result, impossible, sql::Sql};

#[derive(QueryableByName)]
struct Level {
    #[diesel(sql_type = Integer)]
    level: i32,
    #[diesel(sql_type = BigInt)]
    members: i64,
    #[diesel(sql_type = BigInt)]
    pro_members: i64,
}

/// Members, and those of them who had PRO, of each level. A partner stood below its referrer from its registration, or its
/// later attachment, on; it had PRO during the periods that its payments bought, of which refunds only cut the future.
pub(crate) async fn at(
    connection: &mut AsyncPgConnection,
    partner_id: PartnerId,
    time: DateTime<Utc>,
) -> Result<[(i64, i64); LEVELS]> {
    let rows: Vec<Level> = Sql::new(
        "WITH RECURSIVE below AS (
             SELECT partner_id, 0 AS level FROM partners WHERE partner_id = {}
             UNION ALL
             SELECT c.partner_id, b.level + 1 FROM below b JOIN partners c ON c.referrer_id = b.partner_id
             WHERE b.level < 9 AND coalesce(c.attach_time, c.create_time) <= {}
         )
         SELECT level, count(*) AS members, count(*) FILTER (WHERE EXISTS (
             SELECT FROM payments p WHERE p.partner_id = b.partner_id AND p.pro_start <= {} AND p.pro_end > {}
         )) AS pro_members
         FROM below b WHERE level > 0 GROUP BY level",
    )
    .bind::<SqlUuid, _>(Uuid::from(partner_id))
    .bind::<Timestamptz, _>(time)
    .bind::<Timestamptz, _>(time)
    .bind::<Timestamptz, _>(time)
    .load(connection)
    .await?;
    let mut levels = [(0, 0); LEVELS];
    for row in rows {
        let index = usize::try_from(row.level).ok().and_then(|level| level.checked_sub(1));
        let level = index.and_then(|index| levels.get_mut(index)).ok_or_else(|| impossible("a level"))?;
        *level = (row.members, row.pro_members);
    }
    Ok(levels)
}

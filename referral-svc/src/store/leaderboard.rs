//! Who has the most XP: table `standings`, by its index on XP, and `xp_counts`, which counts by XP.

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{BigInt, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::id::PartnerId;
use uuid::Uuid;

use super::{Result, sql::Sql};

/// Where a page ended: XP, and of equals the ID, which sorts by registration.
pub(crate) type After = (i64, Uuid);

#[derive(QueryableByName)]
struct Place {
    #[diesel(sql_type = SqlUuid)]
    partner_id: Uuid,
}

/// The IDs after `after`, the most XP first; of equals the earlier registration.
pub(crate) async fn top(connection: &mut AsyncPgConnection, after: After, limit: i64) -> Result<Vec<Uuid>> {
    let rows: Vec<Place> = Sql::new(
        "SELECT partner_id FROM standings
         WHERE xp <= {} AND (xp < {} OR partner_id > {})
         ORDER BY xp DESC, partner_id LIMIT {}",
    )
    .bind::<BigInt, _>(after.0)
    .bind::<BigInt, _>(after.0)
    .bind::<SqlUuid, _>(after.1)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.partner_id).collect())
}

#[derive(QueryableByName)]
struct Rank {
    #[diesel(sql_type = BigInt)]
    rank: i64,
    #[diesel(sql_type = BigInt)]
    xp: i64,
}

/// Rank (one more than how many have more XP) and XP. In each tier of the counts, what is above up to where the next tier's
/// node ends; in the last, all that is above.
pub(crate) async fn rank(connection: &mut AsyncPgConnection, partner_id: PartnerId) -> Result<Option<(i64, i64)>> {
    let row: Option<Rank> = Sql::new(
        "SELECT s.xp, (
             SELECT 1 + coalesce(sum(above.partners), 0)::bigint
             FROM unnest('{0,1,2,3,4}'::smallint[]) AS t (tier) CROSS JOIN LATERAL (
                 SELECT sum(c.partners) AS partners FROM xp_counts c
                 WHERE c.tier = t.tier AND c.node > s.xp >> 6 * t.tier
                     AND c.node < CASE t.tier WHEN 4 THEN 9223372036854775807 ELSE (s.xp >> 6 * t.tier + 6) + 1 << 6 END
             ) above
         ) AS rank
         FROM standings s WHERE s.partner_id = {}",
    )
    .bind::<SqlUuid, _>(Uuid::from(partner_id))
    .get_result(connection)
    .await
    .optional()?;
    Ok(row.map(|row| (row.rank, row.xp)))
}

//! Table `pro_notices`: which notices of which end of PRO were requested, by which command.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Array, SmallInt, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use referral_domain::{id::PartnerId, state::Noticed};
use uuid::Uuid;

use super::{Result, impossible, sql::Sql, transaction::Transaction};

#[derive(QueryableByName)]
struct Requested {
    #[diesel(sql_type = SqlUuid)]
    partner_id: Uuid,
    #[diesel(sql_type = Timestamptz)]
    pro_end: DateTime<Utc>,
    #[diesel(sql_type = SmallInt)]
    requested: i16,
}

/// How many were requested of each end of these partners, whose standings are locked.
pub(crate) async fn load(
    transaction: &mut Transaction,
    partner_ids: &[Uuid],
) -> Result<HashMap<(PartnerId, DateTime<Utc>), u8>> {
    let rows: Vec<Requested> = Sql::new(
        "SELECT partner_id, pro_end, max(notice) AS requested FROM pro_notices WHERE partner_id = ANY ({})
         GROUP BY partner_id, pro_end",
    )
    .bind::<Array<SqlUuid>, _>(partner_ids)
    .load(transaction.connection())
    .await?;
    rows.into_iter()
        .map(|row| {
            let requested = u8::try_from(row.requested).map_err(|_| impossible("a number of notices"))?;
            Ok(((row.partner_id.into(), row.pro_end), requested))
        })
        .collect()
}

/// Notes what was requested, each with the record of its command.
pub(crate) async fn insert(transaction: &mut Transaction, rows: &[(&Noticed, Uuid)]) -> Result<()> {
    let rows: Vec<(&Noticed, Uuid, u8)> = rows
        .iter()
        .flat_map(|(noticed, id)| {
            (1..=noticed.sent).rev().take(noticed.new.into()).map(move |notice| (*noticed, *id, notice))
        })
        .collect();
    Sql::new(
        "INSERT INTO pro_notices (partner_id, pro_end, notice, audit_event_id) SELECT * FROM unnest({}, {}, {}, {})",
    )
    .bind::<Array<SqlUuid>, _>(rows.iter().map(|row| Uuid::from(row.0.partner_id)).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(rows.iter().map(|row| row.0.pro_end).collect::<Vec<_>>())
    .bind::<Array<SmallInt>, _>(rows.iter().map(|row| i16::from(row.2)).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(rows.iter().map(|row| row.1).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

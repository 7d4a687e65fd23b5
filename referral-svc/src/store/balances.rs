//! What a partner's accounts held, now or at any time since, and which of their entries a span of time covers.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{id::PartnerId, money::Asset, posting::Purpose};
use uuid::Uuid;

use super::{
    Result,
    ledger::{AVAILABLE, PENDING, RESERVED, columns},
    sql::Sql,
};

/// A partner's money in one asset, in minor units.
#[derive(QueryableByName)]
pub(crate) struct Balance {
    #[diesel(sql_type = BigInt)]
    pub(crate) available: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) pending: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) reserved: i64,
    /// Of payouts that were completed.
    #[diesel(sql_type = BigInt)]
    pub(crate) paid: i64,
    /// How many entries the available balance is the sum of.
    #[diesel(sql_type = BigInt)]
    pub(crate) version: i64,
}

/// As it stands, in one statement.
pub(crate) async fn now(connection: &mut AsyncPgConnection, partner_id: PartnerId, asset: Asset) -> Result<Balance> {
    Sql::new(
        "SELECT coalesce(sum(balance) FILTER (WHERE purpose = 'PARTNER_AVAILABLE'), 0)::bigint AS available,
             coalesce(sum(balance) FILTER (WHERE purpose = 'PARTNER_PENDING'), 0)::bigint AS pending,
             coalesce(sum(balance) FILTER (WHERE purpose = 'PARTNER_RESERVED'), 0)::bigint AS reserved,
             coalesce(sum(version) FILTER (WHERE purpose = 'PARTNER_AVAILABLE'), 0)::bigint AS version,
             (SELECT coalesce(sum(amount), 0)::bigint FROM payouts
              WHERE partner_id = {} AND asset = {} AND state = 'COMPLETED') AS paid
         FROM accounts WHERE purpose IN ({}, {}, {}) AND owner_id = {} AND asset = {}",
    )
    .bind::<SqlUuid, _>(Uuid::from(partner_id))
    .bind::<Text, _>(asset.ticker())
    .bind::<Text, _>(AVAILABLE)
    .bind::<Text, _>(PENDING)
    .bind::<Text, _>(RESERVED)
    .bind::<SqlUuid, _>(Uuid::from(partner_id))
    .bind::<Text, _>(asset.ticker())
    .get_result(connection)
    .await
}

/// As it stood at a time, what was booked at that very moment included; in one statement.
pub(crate) async fn at(
    connection: &mut AsyncPgConnection,
    partner_id: PartnerId,
    asset: Asset,
    time: DateTime<Utc>,
) -> Result<Balance> {
    Sql::new(
        "WITH past AS (
             SELECT a.purpose, e.balance_after AS balance, e.version
             FROM (SELECT account_id, purpose, version_at(account_id, {}) AS version FROM accounts
                   WHERE purpose IN ({}, {}, {}) AND owner_id = {} AND asset = {}) a
             JOIN ledger_entries e ON e.account_id = a.account_id AND e.version = a.version
         )
         SELECT coalesce(sum(balance) FILTER (WHERE purpose = 'PARTNER_AVAILABLE'), 0)::bigint AS available,
             coalesce(sum(balance) FILTER (WHERE purpose = 'PARTNER_PENDING'), 0)::bigint AS pending,
             coalesce(sum(balance) FILTER (WHERE purpose = 'PARTNER_RESERVED'), 0)::bigint AS reserved,
             coalesce(sum(version) FILTER (WHERE purpose = 'PARTNER_AVAILABLE'), 0)::bigint AS version,
             (SELECT coalesce(sum(amount), 0)::bigint FROM payouts
              WHERE partner_id = {} AND asset = {} AND state = 'COMPLETED' AND end_time <= {}) AS paid
         FROM past",
    )
    .bind::<Timestamptz, _>(time)
    .bind::<Text, _>(AVAILABLE)
    .bind::<Text, _>(PENDING)
    .bind::<Text, _>(RESERVED)
    .bind::<SqlUuid, _>(Uuid::from(partner_id))
    .bind::<Text, _>(asset.ticker())
    .bind::<SqlUuid, _>(Uuid::from(partner_id))
    .bind::<Text, _>(asset.ticker())
    .bind::<Timestamptz, _>(time)
    .get_result(connection)
    .await
}

/// A span of time: from `start`, inclusive, until `end`, exclusive. Both are whole microseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Span {
    pub(crate) start: Option<DateTime<Utc>>,
    pub(crate) end: Option<DateTime<Utc>>,
}

/// The entries of an account that a span covers: above version `after`, up to version `last`.
#[derive(QueryableByName)]
pub(crate) struct Covered {
    #[diesel(sql_type = BigInt)]
    pub(crate) account_id: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) after: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) last: i64,
}

/// None: nothing was ever booked on that account.
pub(crate) async fn covered(
    connection: &mut AsyncPgConnection,
    purpose: Purpose,
    asset: Asset,
    span: Span,
) -> Result<Option<Covered>> {
    let (name, owner_id) = columns(purpose);
    let (start, end) = (span.start.and_then(just_before), span.end.and_then(just_before));
    let rows: Vec<Covered> = Sql::new(
        "SELECT account_id,
             CASE WHEN {}::timestamptz IS NULL THEN 0 ELSE version_at(account_id, {}) END AS after,
             CASE WHEN {}::timestamptz IS NULL THEN version ELSE version_at(account_id, {}) END AS last
         FROM accounts WHERE purpose = {} AND owner_id = {} AND asset = {}",
    )
    .bind::<Nullable<Timestamptz>, _>(start)
    .bind::<Nullable<Timestamptz>, _>(start)
    .bind::<Nullable<Timestamptz>, _>(end)
    .bind::<Nullable<Timestamptz>, _>(end)
    .bind::<Text, _>(name)
    .bind::<Nullable<SqlUuid>, _>(owner_id)
    .bind::<Text, _>(asset.ticker())
    .load(connection)
    .await?;
    Ok(rows.into_iter().next())
}

/// The last microsecond before a time: what is booked until then was booked before it.
fn just_before(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    time.checked_sub_signed(TimeDelta::microseconds(1))
}

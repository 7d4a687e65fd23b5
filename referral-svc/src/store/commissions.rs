//! Table `commissions`: who earned what on which payment, with the terms.

use chrono::{DateTime, Utc};
use diesel::{
    BoolExpressionMethods, ExpressionMethods, QueryDsl, Queryable, QueryableByName, Selectable, SelectableHelper,
    sql_types::{Array, BigInt, Integer, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{
    commission::Commission,
    id::{PartnerId, PaymentId},
};
use uuid::Uuid;

use super::{
    Result, impossible,
    payments::amount,
    schema::commissions,
    sql::{Sql, uuids},
    transaction::Transaction,
};

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = commissions)]
struct CommissionRow {
    payment_id: Uuid,
    level: i16,
    earner_id: Uuid,
    rate_bps: i32,
    plan_version: i32,
    asset: String,
    base: i64,
    amount: i64,
    transaction_id: Uuid,
    create_time: DateTime<Utc>,
}

impl TryFrom<CommissionRow> for Commission {
    type Error = diesel::result::Error;

    fn try_from(row: CommissionRow) -> Result<Self> {
        Ok(Self {
            payment_id: row.payment_id.into(),
            earner_id: row.earner_id.into(),
            level: u8::try_from(row.level).map_err(|_| impossible("a commission's level"))?,
            rate_bps: u16::try_from(row.rate_bps).map_err(|_| impossible("a commission's rate"))?,
            plan_version: row.plan_version,
            base: amount(&row.asset, row.base)?,
            amount: amount(&row.asset, row.amount)?,
            transaction_id: row.transaction_id.into(),
            create_time: row.create_time,
        })
    }
}

pub(crate) async fn insert(transaction: &mut Transaction, rows: &[&Commission]) -> Result<()> {
    Sql::new(
        "INSERT INTO commissions (payment_id, level, earner_id, rate_bps, plan_version, asset, base, amount,
             transaction_id, create_time)
         SELECT * FROM unnest({}, {}, {}, {}, {}, {}, {}, {}, {}, {})",
    )
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.payment_id)))
    .bind::<Array<SmallInt>, _>(rows.iter().map(|row| i16::from(row.level)).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.earner_id)))
    .bind::<Array<Integer>, _>(rows.iter().map(|row| i32::from(row.rate_bps)).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(rows.iter().map(|row| row.plan_version).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(rows.iter().map(|row| row.base.asset().ticker()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.base.minor_units()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.amount.minor_units()).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.transaction_id)))
    .bind::<Array<Timestamptz>, _>(rows.iter().map(|row| row.create_time).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// The commissions of payments, by payment and level.
pub(crate) async fn of_payments(connection: &mut AsyncPgConnection, payments: &[PaymentId]) -> Result<Vec<Commission>> {
    let rows: Vec<CommissionRow> = commissions::table
        .filter(commissions::payment_id.eq_any(uuids(payments.iter().copied())))
        .order((commissions::payment_id, commissions::level))
        .select(CommissionRow::as_select())
        .load(connection)
        .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The same, for a batch that is being decided.
pub(crate) async fn load(transaction: &mut Transaction, payments: &[PaymentId]) -> Result<Vec<Commission>> {
    of_payments(transaction.connection(), payments).await
}

/// Where a page of commissions ended: newest sale first, then by level.
pub(crate) type After = (Uuid, i16);

pub(crate) async fn list(
    connection: &mut AsyncPgConnection,
    earner_id: Option<PartnerId>,
    payment_id: Option<PaymentId>,
    after: After,
    limit: i64,
) -> Result<Vec<Commission>> {
    let mut query = commissions::table
        .filter(
            commissions::transaction_id
                .lt(after.0)
                .or(commissions::transaction_id.eq(after.0).and(commissions::level.gt(after.1))),
        )
        .order((commissions::transaction_id.desc(), commissions::level))
        .limit(limit)
        .select(CommissionRow::as_select())
        .into_boxed();
    if let Some(earner_id) = earner_id {
        query = query.filter(commissions::earner_id.eq(Uuid::from(earner_id)));
    }
    if let Some(payment_id) = payment_id {
        query = query.filter(commissions::payment_id.eq(Uuid::from(payment_id)));
    }
    let rows: Vec<CommissionRow> = query.load(connection).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

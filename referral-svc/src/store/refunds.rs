//! Tables `refunds` and `clawbacks`: money given back, and what that took of each commission.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, QueryDsl, Queryable, QueryableByName, Selectable,
    SelectableHelper,
    sql_types::{Array, BigInt, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{
    id::{PaymentId, RefundId},
    refund::{Clawback, Refund},
};
use uuid::Uuid;

use super::{
    Result, impossible,
    payments::amount,
    schema::{clawbacks, commissions, refunds},
    sql::{Sql, uuids},
    transaction::Transaction,
};

pub(crate) async fn insert(transaction: &mut Transaction, rows: &[&Refund]) -> Result<()> {
    Sql::new(
        "INSERT INTO refunds (refund_id, payment_id, asset, amount, reason, transaction_id, create_time)
         SELECT * FROM unnest({}, {}, {}, {}, {}, {}, {})",
    )
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.refund_id)))
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.payment_id)))
    .bind::<Array<Text>, _>(rows.iter().map(|row| row.amount.asset().ticker()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.amount.minor_units()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(rows.iter().map(|row| row.reason.as_str()).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.transaction_id)))
    .bind::<Array<Timestamptz>, _>(rows.iter().map(|row| row.create_time).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

pub(crate) async fn insert_clawbacks(transaction: &mut Transaction, rows: &[(&Refund, &Clawback)]) -> Result<()> {
    Sql::new("INSERT INTO clawbacks (refund_id, payment_id, level, amount) SELECT * FROM unnest({}, {}, {}, {})")
        .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|(refund, _)| refund.refund_id)))
        .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|(refund, _)| refund.payment_id)))
        .bind::<Array<SmallInt>, _>(rows.iter().map(|(_, clawback)| i16::from(clawback.level)).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(rows.iter().map(|(_, clawback)| clawback.amount.minor_units()).collect::<Vec<_>>())
        .execute(transaction.connection())
        .await?;
    Ok(())
}

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = refunds)]
struct RefundRow {
    refund_id: Uuid,
    payment_id: Uuid,
    asset: String,
    amount: i64,
    reason: String,
    transaction_id: Uuid,
    create_time: DateTime<Utc>,
}

/// The refunds of a payment, oldest first.
pub(crate) async fn of_payment(connection: &mut AsyncPgConnection, payment_id: PaymentId) -> Result<Vec<Refund>> {
    let rows: Vec<RefundRow> = refunds::table
        .filter(refunds::payment_id.eq(Uuid::from(payment_id)))
        .order(refunds::refund_id)
        .select(RefundRow::as_select())
        .load(connection)
        .await?;
    let taken: Vec<(Uuid, i16, i64, Uuid, String)> = clawbacks::table
        .inner_join(
            commissions::table
                .on(commissions::payment_id.eq(clawbacks::payment_id).and(commissions::level.eq(clawbacks::level))),
        )
        .filter(clawbacks::refund_id.eq_any(rows.iter().map(|row| row.refund_id)))
        .order((clawbacks::refund_id, clawbacks::level))
        .select((clawbacks::refund_id, clawbacks::level, clawbacks::amount, commissions::earner_id, commissions::asset))
        .load(connection)
        .await?;
    let mut by_refund: HashMap<RefundId, Vec<Clawback>> = HashMap::new();
    for (refund_id, level, minor_units, earner_id, asset) in taken {
        let level = u8::try_from(level).map_err(|_| impossible("a clawback's level"))?;
        by_refund.entry(refund_id.into()).or_default().push(Clawback {
            level,
            earner_id: earner_id.into(),
            amount: amount(&asset, minor_units)?,
        });
    }
    rows.into_iter()
        .map(|row| {
            let refund_id = row.refund_id.into();
            Ok(Refund {
                refund_id,
                payment_id: row.payment_id.into(),
                amount: amount(&row.asset, row.amount)?,
                reason: row.reason,
                transaction_id: row.transaction_id.into(),
                create_time: row.create_time,
                clawbacks: by_refund.remove(&refund_id).unwrap_or_default(),
            })
        })
        .collect()
}

//! Table `ton_payments`: what has to be sent for a payment in TON, and how its verification goes.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    ExpressionMethods, QueryDsl, Queryable, QueryableByName, Selectable, SelectableHelper,
    sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{
    id::PaymentId,
    payment::{Method, Payment},
    reference::ExternalRef,
    ton::{Rate, TonPayment, TonTerms, Verification},
};
use uuid::Uuid;

use super::{
    Result, impossible,
    schema::ton_payments,
    sql::{Sql, uuids},
    transaction::Transaction,
};

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = ton_payments)]
pub(super) struct TonRow {
    payment_id: Uuid,
    address: String,
    nanotons: i64,
    memo: String,
    tolerance_bps: i32,
    rate_minor_units: i64,
    rate_source: String,
    rate_time: DateTime<Utc>,
    attempts: i32,
    first_answer_time: Option<DateTime<Utc>>,
    next_attempt_time: Option<DateTime<Utc>>,
    finding: String,
    traceparent: String,
    incoming_ref: Option<String>,
}

impl TryFrom<TonRow> for TonPayment {
    type Error = diesel::result::Error;

    fn try_from(row: TonRow) -> Result<Self> {
        let rate = Rate { minor_units: row.rate_minor_units, source: row.rate_source, time: row.rate_time };
        Ok(Self {
            terms: TonTerms {
                address: row.address,
                nanotons: row.nanotons,
                memo: row.memo,
                tolerance_bps: u16::try_from(row.tolerance_bps).map_err(|_| impossible("a tolerance"))?,
                rate,
            },
            verification: Verification {
                attempts: row.attempts,
                first_answer_time: row.first_answer_time,
                next_attempt_time: row.next_attempt_time,
                finding: row.finding,
                traceparent: row.traceparent,
            },
            incoming_ref: row.incoming_ref.map(ExternalRef::from_stored),
        })
    }
}

/// Adds to each payment in TON what it has beside the rest.
pub(super) async fn join(connection: &mut AsyncPgConnection, payments: &mut [Payment]) -> Result<()> {
    let in_ton: Vec<Uuid> =
        uuids(payments.iter().filter(|payment| payment.method == Method::Ton).map(|payment| payment.payment_id));
    if in_ton.is_empty() {
        return Ok(());
    }
    let rows: Vec<TonRow> = ton_payments::table
        .filter(ton_payments::payment_id.eq_any(in_ton))
        .select(TonRow::as_select())
        .load(connection)
        .await?;
    let mut by_payment: HashMap<PaymentId, TonRow> = rows.into_iter().map(|row| (row.payment_id.into(), row)).collect();
    for payment in payments {
        payment.ton = by_payment.remove(&payment.payment_id).map(TryInto::try_into).transpose()?;
    }
    Ok(())
}

/// Of these payments, those in TON, with what they have beside the rest.
fn in_ton<'a>(payments: &'a [&Payment]) -> Vec<(PaymentId, &'a TonPayment)> {
    payments.iter().filter_map(|payment| Some((payment.payment_id, payment.ton.as_ref()?))).collect()
}

/// Fixes the terms of new payments.
pub(super) async fn insert(transaction: &mut Transaction, payments: &[&Payment]) -> Result<()> {
    let rows = in_ton(payments);
    if rows.is_empty() {
        return Ok(());
    }
    let terms = || rows.iter().map(|(_, ton)| &ton.terms);
    Sql::new(
        "INSERT INTO ton_payments (payment_id, address, nanotons, memo, tolerance_bps, rate_minor_units, rate_source, rate_time)
         SELECT * FROM unnest({}, {}, {}, {}, {}, {}, {}, {})",
    )
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|(payment_id, _)| *payment_id)))
    .bind::<Array<Text>, _>(terms().map(|terms| terms.address.as_str()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(terms().map(|terms| terms.nanotons).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(terms().map(|terms| terms.memo.as_str()).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(terms().map(|terms| i32::from(terms.tolerance_bps)).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(terms().map(|terms| terms.rate.minor_units).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(terms().map(|terms| terms.rate.source.as_str()).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(terms().map(|terms| terms.rate.time).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Writes how verifications go.
pub(super) async fn update(transaction: &mut Transaction, payments: &[&Payment]) -> Result<()> {
    let rows = in_ton(payments);
    if rows.is_empty() {
        return Ok(());
    }
    let states = || rows.iter().map(|(_, ton)| &ton.verification);
    Sql::new(
        "UPDATE ton_payments t SET attempts = n.attempts, first_answer_time = n.first_answer_time,
             next_attempt_time = n.next_attempt_time, finding = n.finding, traceparent = n.traceparent, incoming_ref = n.incoming_ref
         FROM unnest({}, {}, {}, {}, {}, {}, {})
             AS n (payment_id, attempts, first_answer_time, next_attempt_time, finding, traceparent, incoming_ref)
         WHERE t.payment_id = n.payment_id",
    )
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|(payment_id, _)| *payment_id)))
    .bind::<Array<Integer>, _>(states().map(|state| state.attempts).collect::<Vec<_>>())
    .bind::<Array<Nullable<Timestamptz>>, _>(states().map(|state| state.first_answer_time).collect::<Vec<_>>())
    .bind::<Array<Nullable<Timestamptz>>, _>(states().map(|state| state.next_attempt_time).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(states().map(|state| state.finding.as_str()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(states().map(|state| state.traceparent.as_str()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(
        rows.iter().map(|(_, ton)| ton.incoming_ref.as_ref().map(ExternalRef::as_str)).collect::<Vec<_>>(),
    )
    .execute(transaction.connection())
    .await?;
    Ok(())
}

#[derive(QueryableByName)]
struct Claimed {
    #[diesel(sql_type = SqlUuid)]
    payment_id: Uuid,
}

/// Takes verifications that are due, the longest overdue first; whoever dies over one leaves it due again after `lease`.
pub(crate) async fn claim(
    connection: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    lease: TimeDelta,
    limit: i64,
) -> Result<Vec<PaymentId>> {
    let rows: Vec<Claimed> = Sql::new(
        "UPDATE ton_payments SET next_attempt_time = {}
         WHERE payment_id IN (
             SELECT payment_id FROM ton_payments WHERE next_attempt_time <= {}
             ORDER BY next_attempt_time LIMIT {} FOR UPDATE SKIP LOCKED)
         RETURNING payment_id",
    )
    .bind::<Timestamptz, _>(now.checked_add_signed(lease).unwrap_or(now))
    .bind::<Timestamptz, _>(now)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.payment_id.into()).collect())
}

//! What a statement of somebody else's is compared with: confirmed payments by reference or by time, and references that
//! were handed in.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, JoinOnDsl, NullableExpressionMethods, QueryDsl, QueryableByName,
    sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{
    id::PaymentId, money::Asset, payment::Method, reconcile::Booked, reference::ExternalRef, ton::TonPrice,
};
use uuid::Uuid;

use super::{
    Result,
    balances::Span,
    impossible,
    schema::{payments, ton_payments},
    sql::{Sql, uuids},
};

type Columns =
    (Uuid, Option<String>, Option<String>, String, i64, i64, Option<DateTime<Utc>>, Option<i64>, Option<i32>);

macro_rules! columns {
    () => {
        (
            payments::payment_id,
            payments::confirmed_ref,
            ton_payments::incoming_ref.nullable(),
            payments::asset,
            payments::amount,
            payments::refunded,
            payments::confirm_time,
            ton_payments::nanotons.nullable(),
            ton_payments::tolerance_bps.nullable(),
        )
    };
}

/// Payments with what was to be sent for them in TON.
macro_rules! with_ton {
    () => {
        payments::table.left_join(ton_payments::table.on(ton_payments::payment_id.eq(payments::payment_id)))
    };
}

/// As of the refunds of all time.
fn booked(columns: Columns, span: Span) -> Result<Booked> {
    let (payment_id, reference, incoming, asset, amount, refunded, confirm_time, nanotons, tolerance_bps) = columns;
    let confirm_time = confirm_time.ok_or_else(|| impossible("a success without time"))?;
    let tolerance = |bps| u16::try_from(bps).map_err(|_| impossible("a tolerance"));
    Ok(Booked {
        payment_id: payment_id.into(),
        reference: reference.map(ExternalRef::from_stored).ok_or_else(|| impossible("a success without reference"))?,
        incoming: incoming.map(ExternalRef::from_stored),
        asset: Asset::from_ticker(&asset).ok_or_else(|| impossible("a payment's asset"))?,
        amount,
        refunded,
        ton: match nanotons.zip(tolerance_bps) {
            Some((nanotons, bps)) => Some(TonPrice { nanotons, tolerance_bps: tolerance(bps)? }),
            None => None,
        },
        is_earlier: span.start.is_some_and(|start| confirm_time < start),
        confirm_time,
    })
}

#[derive(QueryableByName)]
struct Given {
    #[diesel(sql_type = SqlUuid)]
    payment_id: Uuid,
    #[diesel(sql_type = BigInt)]
    refunded: i64,
}

/// The payments as a statement of that time is expected to have them.
async fn within(connection: &mut AsyncPgConnection, rows: Vec<Columns>, span: Span) -> Result<Vec<Booked>> {
    let mut payments: Vec<Booked> = rows.into_iter().map(|row| booked(row, span)).collect::<Result<_>>()?;
    let refunded = payments.iter().filter(|payment| payment.refunded > 0);
    let refunded = uuids(refunded.map(|payment| payment.payment_id));
    if refunded.is_empty() {
        return Ok(payments);
    }
    let given: Vec<Given> = Sql::new(
        "SELECT payment_id, sum(amount)::bigint AS refunded FROM refunds
         WHERE payment_id = ANY ({}) AND create_time >= coalesce({}, '-infinity') AND create_time < coalesce({}, 'infinity')
         GROUP BY payment_id",
    )
    .bind::<Array<SqlUuid>, _>(refunded)
    .bind::<Nullable<Timestamptz>, _>(span.start)
    .bind::<Nullable<Timestamptz>, _>(span.end)
    .load(connection)
    .await?;
    let given: HashMap<PaymentId, i64> =
        given.into_iter().map(|given| (given.payment_id.into(), given.refunded)).collect();
    for payment in &mut payments {
        payment.refunded = given.get(&payment.payment_id).copied().unwrap_or(0);
    }
    Ok(payments)
}

/// The payments that were confirmed with these references, or received by these transactions.
pub(crate) async fn by_reference(
    connection: &mut AsyncPgConnection,
    references: &[&str],
    span: Span,
) -> Result<HashMap<ExternalRef, Booked>> {
    let mut rows: Vec<Columns> =
        with_ton!().filter(payments::confirmed_ref.eq_any(references)).select(columns!()).load(connection).await?;
    // Two look-ups by index; joined by OR they would be a scan.
    rows.extend::<Vec<Columns>>(
        with_ton!().filter(ton_payments::incoming_ref.eq_any(references)).select(columns!()).load(connection).await?,
    );
    let mut known = HashMap::new();
    for booked in within(connection, rows, span).await? {
        known.extend(booked.references().map(|reference| (reference.clone(), booked.clone())));
    }
    Ok(known)
}

/// Which confirmed payments a statement is expected to have.
pub(crate) struct Expected {
    pub(crate) method: Option<Method>,
    /// When they were confirmed.
    pub(crate) span: Span,
}

/// A page of them, in the order of their ledger transactions, that is of their time, and where the next one begins.
pub(crate) async fn expected(
    connection: &mut AsyncPgConnection,
    expected: &Expected,
    after: Uuid,
    limit: i64,
) -> Result<(Vec<Booked>, Option<Uuid>)> {
    let mut query = with_ton!()
        .filter(payments::transaction_id.gt(after))
        .order(payments::transaction_id)
        .limit(limit)
        .select((columns!(), payments::transaction_id))
        .into_boxed();
    if let Some(method) = expected.method {
        query = query.filter(payments::method.eq(method.name()));
    }
    // An ID's time is that of its transaction: the bounds by ID are the index's, to the millisecond.
    if let Some(start) = expected.span.start {
        query = query.filter(payments::confirm_time.ge(start)).filter(payments::transaction_id.ge(first_id(start, 0)));
    }
    if let Some(end) = expected.span.end {
        query = query.filter(payments::confirm_time.lt(end)).filter(payments::transaction_id.lt(first_id(end, 1)));
    }
    let rows: Vec<(Columns, Option<Uuid>)> = query.load(connection).await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows == limit);
    let next = rows.last().and_then(|row| row.1).filter(|_| is_full);
    let rows = rows.into_iter().map(|row| row.0).collect();
    Ok((within(connection, rows, expected.span).await?, next))
}

#[derive(QueryableByName)]
struct RefundOf {
    #[diesel(sql_type = SqlUuid)]
    payment_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    transaction_id: Uuid,
}

/// A page of refunds within the time, of payments from before it, in the order of their ledger transactions; and where the next
/// one begins. A payment may be in several pages.
pub(crate) async fn refunded(
    connection: &mut AsyncPgConnection,
    expected: &Expected,
    after: Uuid,
    limit: i64,
) -> Result<(Vec<Booked>, Option<Uuid>)> {
    let Some(start) = expected.span.start else { return Ok((Vec::new(), None)) };
    let end = expected.span.end;
    let rows: Vec<RefundOf> = Sql::new(
        "SELECT r.payment_id, r.transaction_id FROM refunds r JOIN payments p USING (payment_id)
         WHERE r.transaction_id > {} AND r.transaction_id < {} AND r.create_time >= {}
             AND r.create_time < coalesce({}, 'infinity') AND p.confirm_time < {} AND p.method = coalesce({}, p.method)
         ORDER BY r.transaction_id LIMIT {}",
    )
    .bind::<SqlUuid, _>(after.max(first_id(start, 0)))
    .bind::<SqlUuid, _>(end.map_or(Uuid::max(), |end| first_id(end, 1)))
    .bind::<Timestamptz, _>(start)
    .bind::<Nullable<Timestamptz>, _>(end)
    .bind::<Timestamptz, _>(start)
    .bind::<Nullable<Text>, _>(expected.method.map(Method::name))
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows == limit);
    let next = rows.last().map(|row| row.transaction_id).filter(|_| is_full);
    let ids: Vec<Uuid> = rows.into_iter().map(|row| row.payment_id).collect();
    let rows: Vec<Columns> =
        with_ton!().filter(payments::payment_id.eq_any(ids)).select(columns!()).load(connection).await?;
    Ok((within(connection, rows, expected.span).await?, next))
}

/// The lowest UUID (version 7) of the millisecond of a time, or of one so many milliseconds later.
fn first_id(time: DateTime<Utc>, later: u128) -> Uuid {
    let millis = u128::try_from(time.timestamp_millis()).unwrap_or(0) + later;
    Uuid::from_u128(millis << 80)
}

/// The payment that a reference was handed in for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HandedIn {
    pub(crate) payment_id: PaymentId,
    /// Whether that payment succeeded since, with another reference.
    pub(crate) succeeded: bool,
}

#[derive(QueryableByName)]
struct HandedInRow {
    #[diesel(sql_type = Text)]
    reference: String,
    #[diesel(sql_type = SqlUuid)]
    payment_id: Uuid,
    #[diesel(sql_type = Bool)]
    succeeded: bool,
}

/// Which payments these references were handed in for, or came too late for; of several, one that did not succeed.
pub(crate) async fn handed_in(
    connection: &mut AsyncPgConnection,
    references: &[&str],
) -> Result<HashMap<String, HandedIn>> {
    let rows: Vec<HandedInRow> = Sql::new(
        "SELECT DISTINCT ON (reference) reference, payment_id, succeeded
         FROM (
             SELECT submitted_ref AS reference, payment_id, state = 'SUCCEEDED' AS succeeded
             FROM payments WHERE submitted_ref = ANY ({})
             UNION ALL
             SELECT l.external_ref, payment_id, p.state = 'SUCCEEDED'
             FROM late_references l JOIN payments p USING (payment_id) WHERE l.external_ref = ANY ({})
             UNION ALL
             SELECT l.incoming_ref, payment_id, p.state = 'SUCCEEDED'
             FROM late_references l JOIN payments p USING (payment_id) WHERE l.incoming_ref = ANY ({})
         ) AS handed_in
         ORDER BY reference, succeeded, payment_id",
    )
    .bind::<Array<Text>, _>(references)
    .bind::<Array<Text>, _>(references)
    .bind::<Array<Text>, _>(references)
    .load(connection)
    .await?;
    let found =
        |row: HandedInRow| (row.reference, HandedIn { payment_id: row.payment_id.into(), succeeded: row.succeeded });
    Ok(rows.into_iter().map(found).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use referral_domain::id::IdSource;

    #[test]
    fn the_bounds_by_id_leave_no_transaction_of_the_span_out() {
        let time = DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("a time");
        let id = IdSource::new(time, || u64::MAX).uuid();
        assert!(first_id(time, 0) <= id && id < first_id(time, 1));
        let low = IdSource::new(DateTime::from_timestamp_micros(1_700_000_000_123_000).expect("a time"), || 0).uuid();
        assert!(first_id(time, 0) <= low);
    }
}

//! Tables `payments` and `late_references`: what was opened, and how far it came.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, JoinOnDsl, QueryDsl, Queryable, QueryableByName, Selectable, SelectableHelper,
    dsl::sql,
    expression::SqlLiteral,
    sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{
    commission::Commission,
    id::{PartnerId, PaymentId},
    money::{Amount, Asset},
    payment::{LateReference, Method, Payment, PaymentState, Progress, Success},
    reference::ExternalRef,
    refund::Refund,
};
use uuid::Uuid;

use super::{
    Result, commissions, impossible, refunds,
    schema::{late_references, payments, ton_payments as ton_payments_table},
    sql::{Sql, uuids},
    ton_payments::{self, TonRow},
    transaction::Transaction,
};

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = payments)]
struct PaymentRow {
    payment_id: Uuid,
    partner_id: Uuid,
    asset: String,
    amount: i64,
    method: String,
    plan_version: i32,
    state: String,
    create_time: DateTime<Utc>,
    expire_time: DateTime<Utc>,
    submitted_ref: Option<String>,
    confirmed_ref: Option<String>,
    confirm_time: Option<DateTime<Utc>>,
    pro_start: Option<DateTime<Utc>>,
    pro_end: Option<DateTime<Utc>>,
    transaction_id: Option<Uuid>,
    reject_reason: Option<String>,
    override_reason: Option<String>,
    refunded: i64,
}

pub(super) fn amount(asset: &str, minor_units: i64) -> Result<Amount> {
    Asset::from_ticker(asset).and_then(|asset| Amount::new(asset, minor_units)).ok_or_else(|| impossible("an amount"))
}

impl TryFrom<PaymentRow> for Payment {
    type Error = diesel::result::Error;

    fn try_from(row: PaymentRow) -> Result<Self> {
        let amount = amount(&row.asset, row.amount)?;
        let method = Method::from_name(&row.method).ok_or_else(|| impossible("a payment's method"))?;
        let (payment_id, partner_id, plan_version) = (row.payment_id, row.partner_id, row.plan_version);
        let (create_time, expire_time) = (row.create_time, row.expire_time);
        Ok(Self {
            payment_id: payment_id.into(),
            partner_id: partner_id.into(),
            amount,
            method,
            plan_version,
            create_time,
            expire_time,
            progress: progress(row).ok_or_else(|| impossible("a payment's state"))?,
            late_references: Vec::new(),
            ton: None,
        })
    }
}

fn progress(row: PaymentRow) -> Option<Progress> {
    let submitted = row.submitted_ref.map(ExternalRef::from_stored);
    Some(match row.state.as_str() {
        "PENDING" => Progress::Pending,
        "IN_REVIEW" => Progress::InReview { submitted: submitted? },
        "REJECTED" => Progress::Rejected { submitted, reason: row.reject_reason? },
        "SUCCEEDED" => Progress::Succeeded {
            submitted,
            success: Success {
                external_ref: ExternalRef::from_stored(row.confirmed_ref?),
                confirm_time: row.confirm_time?,
                pro_start: row.pro_start?,
                pro_end: row.pro_end?,
                transaction_id: row.transaction_id?.into(),
                override_reason: row.override_reason,
                refunded: row.refunded,
            },
        },
        _ => return None,
    })
}

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = late_references)]
struct LateRow {
    payment_id: Uuid,
    external_ref: String,
    create_time: DateTime<Utc>,
    incoming_ref: Option<String>,
}

/// Adds to each payment the references that came too late, newest first.
async fn with_late_references(connection: &mut AsyncPgConnection, mut payments: Vec<Payment>) -> Result<Vec<Payment>> {
    let rows: Vec<LateRow> = late_references::table
        .filter(late_references::payment_id.eq_any(uuids(payments.iter().map(|payment| payment.payment_id))))
        .order(late_references::create_time.desc())
        .select(LateRow::as_select())
        .load(connection)
        .await?;
    let mut by_payment: HashMap<PaymentId, Vec<LateReference>> = HashMap::new();
    for row in rows {
        let payment_id = row.payment_id.into();
        let external_ref = ExternalRef::from_stored(row.external_ref);
        by_payment.entry(payment_id).or_default().push(LateReference {
            payment_id,
            external_ref,
            incoming_ref: row.incoming_ref.map(ExternalRef::from_stored),
            create_time: row.create_time,
        });
    }
    for payment in &mut payments {
        payment.late_references = by_payment.remove(&payment.payment_id).unwrap_or_default();
    }
    Ok(payments)
}

/// Locks and loads, in the order of the IDs.
pub(crate) async fn lock(transaction: &mut Transaction, ids: &[Uuid]) -> Result<Vec<Payment>> {
    let rows: Vec<PaymentRow> = payments::table
        .filter(payments::payment_id.eq_any(ids))
        .order(payments::payment_id)
        .select(PaymentRow::as_select())
        .for_no_key_update()
        .load(transaction.connection())
        .await?;
    let mut payments: Vec<Payment> = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
    ton_payments::join(transaction.connection(), &mut payments).await?;
    with_late_references(transaction.connection(), payments).await
}

/// A payment with what it has in TON, as one statement has read them.
fn whole((payment, ton): (PaymentRow, Option<TonRow>)) -> Result<Payment> {
    Ok(Payment { ton: ton.map(TryInto::try_into).transpose()?, ..payment.try_into()? })
}

/// The references that were handed in, or came too late, for payments: what a confirmation without one may use.
pub(crate) async fn handed_in(transaction: &mut Transaction, ids: &[Uuid]) -> Result<Vec<String>> {
    let submitted: Vec<Option<String>> = payments::table
        .filter(payments::payment_id.eq_any(ids))
        .select(payments::submitted_ref)
        .load(transaction.connection())
        .await?;
    let late: Vec<(String, Option<String>)> = late_references::table
        .filter(late_references::payment_id.eq_any(ids))
        .select((late_references::external_ref, late_references::incoming_ref))
        .load(transaction.connection())
        .await?;
    let late =
        late.into_iter().flat_map(|(external_ref, incoming_ref)| std::iter::once(external_ref).chain(incoming_ref));
    Ok(submitted.into_iter().flatten().chain(late).collect())
}

#[derive(QueryableByName)]
struct UsedRow {
    #[diesel(sql_type = Text)]
    reference: String,
    #[diesel(sql_type = SqlUuid)]
    payment_id: Uuid,
}

/// Which payments used these references up.
pub(crate) async fn used_refs(
    transaction: &mut Transaction,
    references: &[&str],
) -> Result<HashMap<ExternalRef, PaymentId>> {
    let rows: Vec<UsedRow> = Sql::new(
        "SELECT confirmed_ref AS reference, payment_id FROM payments WHERE confirmed_ref = ANY ({})
         UNION ALL
         SELECT incoming_ref, payment_id FROM ton_payments WHERE incoming_ref = ANY ({})",
    )
    .bind::<Array<Text>, _>(references)
    .bind::<Array<Text>, _>(references)
    .load(transaction.connection())
    .await?;
    Ok(rows.into_iter().map(|row| (ExternalRef::from_stored(row.reference), row.payment_id.into())).collect())
}

pub(crate) async fn insert(transaction: &mut Transaction, payments: &[&Payment]) -> Result<()> {
    Sql::new(
        "INSERT INTO payments (payment_id, partner_id, asset, amount, method, plan_version, create_time, expire_time, state)
         SELECT n.*, 'PENDING' FROM unnest({}, {}, {}, {}, {}, {}, {}, {}) AS n",
    )
    .bind::<Array<SqlUuid>, _>(uuids(payments.iter().map(|payment| payment.payment_id)))
    .bind::<Array<SqlUuid>, _>(uuids(payments.iter().map(|payment| payment.partner_id)))
    .bind::<Array<Text>, _>(payments.iter().map(|payment| payment.amount.asset().ticker()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(payments.iter().map(|payment| payment.amount.minor_units()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(payments.iter().map(|payment| payment.method.name()).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(payments.iter().map(|payment| payment.plan_version).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(payments.iter().map(|payment| payment.create_time).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(payments.iter().map(|payment| payment.expire_time).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    ton_payments::insert(transaction, payments).await
}

fn stored_state(payment: &Payment) -> &'static str {
    match payment.progress {
        Progress::Pending => "PENDING",
        Progress::InReview { .. } => "IN_REVIEW",
        Progress::Rejected { .. } => "REJECTED",
        Progress::Succeeded { .. } => "SUCCEEDED",
    }
}

fn reject_reason(payment: &Payment) -> Option<&str> {
    match &payment.progress {
        Progress::Rejected { reason, .. } => Some(reason),
        _ => None,
    }
}

/// Writes how far payments have come.
pub(crate) async fn update(transaction: &mut Transaction, payments: &[&Payment]) -> Result<()> {
    let success = || payments.iter().map(|payment| payment.success());
    let time = |of: fn(&Success) -> DateTime<Utc>| success().map(|success| success.map(of)).collect::<Vec<_>>();
    Sql::new(
        "UPDATE payments p SET state = n.state, submitted_ref = n.submitted_ref, confirmed_ref = n.confirmed_ref,
             confirm_time = n.confirm_time, pro_start = n.pro_start, pro_end = n.pro_end,
             transaction_id = n.transaction_id, reject_reason = n.reject_reason, override_reason = n.override_reason,
             refunded = n.refunded
         FROM unnest({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}) AS n (payment_id, state, submitted_ref, confirmed_ref,
             confirm_time, pro_start, pro_end, transaction_id, reject_reason, override_reason, refunded)
         WHERE p.payment_id = n.payment_id",
    )
    .bind::<Array<SqlUuid>, _>(uuids(payments.iter().map(|payment| payment.payment_id)))
    .bind::<Array<Text>, _>(payments.iter().map(|payment| stored_state(payment)).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(
        payments.iter().map(|payment| payment.submitted().map(ExternalRef::as_str)).collect::<Vec<_>>(),
    )
    .bind::<Array<Nullable<Text>>, _>(
        success().map(|success| success.map(|success| success.external_ref.as_str())).collect::<Vec<_>>(),
    )
    .bind::<Array<Nullable<Timestamptz>>, _>(time(|success| success.confirm_time))
    .bind::<Array<Nullable<Timestamptz>>, _>(time(|success| success.pro_start))
    .bind::<Array<Nullable<Timestamptz>>, _>(time(|success| success.pro_end))
    .bind::<Array<Nullable<SqlUuid>>, _>(
        success().map(|success| success.map(|success| Uuid::from(success.transaction_id))).collect::<Vec<_>>(),
    )
    .bind::<Array<Nullable<Text>>, _>(payments.iter().map(|payment| reject_reason(payment)).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(
        success().map(|success| success.and_then(|success| success.override_reason.as_deref())).collect::<Vec<_>>(),
    )
    .bind::<Array<BigInt>, _>(
        success().map(|success| success.map_or(0, |success| success.refunded)).collect::<Vec<_>>(),
    )
    .execute(transaction.connection())
    .await?;
    ton_payments::update(transaction, payments).await
}

pub(crate) async fn insert_late(transaction: &mut Transaction, late: &[&LateReference]) -> Result<()> {
    // Of one on record more may have become known; the same one twice in a batch says no more.
    let mut newest = HashMap::new();
    for late in late {
        let known: &mut &LateReference = newest.entry((late.payment_id, &late.external_ref)).or_insert(late);
        if known.incoming_ref.is_none() {
            *known = late;
        }
    }
    let late: Vec<&LateReference> = newest.into_values().collect();
    Sql::new(
        "INSERT INTO late_references (payment_id, external_ref, create_time, incoming_ref)
         SELECT * FROM unnest({}, {}, {}, {})
         ON CONFLICT (payment_id, external_ref) DO UPDATE SET incoming_ref = EXCLUDED.incoming_ref",
    )
    .bind::<Array<SqlUuid>, _>(uuids(late.iter().map(|late| late.payment_id)))
    .bind::<Array<Text>, _>(late.iter().map(|late| late.external_ref.as_str()).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(late.iter().map(|late| late.create_time).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(
        late.iter().map(|late| late.incoming_ref.as_ref().map(ExternalRef::as_str)).collect::<Vec<_>>(),
    )
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Which payments bought the periods of these partners, by partner; the earliest end first.
pub(crate) async fn periods(
    transaction: &mut Transaction,
    partner_ids: &[Uuid],
) -> Result<HashMap<PartnerId, Vec<PaymentId>>> {
    let rows: Vec<(Uuid, Uuid)> = payments::table
        .filter(payments::partner_id.eq_any(partner_ids))
        .filter(payments::pro_end.is_not_null())
        .order((payments::partner_id, payments::pro_end, payments::payment_id))
        .select((payments::partner_id, payments::payment_id))
        .load(transaction.connection())
        .await?;
    let mut periods: HashMap<PartnerId, Vec<PaymentId>> =
        partner_ids.iter().map(|id| ((*id).into(), Vec::new())).collect();
    for (partner_id, payment_id) in rows {
        periods.entry(partner_id.into()).or_default().push(payment_id.into());
    }
    Ok(periods)
}

/// Who buys with these payments.
pub(crate) async fn buyers(transaction: &mut Transaction, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    payments::table
        .filter(payments::payment_id.eq_any(ids))
        .select(payments::partner_id)
        .distinct()
        .load(transaction.connection())
        .await
}

pub(crate) async fn find(connection: &mut AsyncPgConnection, payment_id: PaymentId) -> Result<Option<Payment>> {
    let rows: Vec<(PaymentRow, Option<TonRow>)> = payments::table
        .left_join(ton_payments_table::table.on(ton_payments_table::payment_id.eq(payments::payment_id)))
        .filter(payments::payment_id.eq(Uuid::from(payment_id)))
        .select((PaymentRow::as_select(), Option::<TonRow>::as_select()))
        .load(connection)
        .await?;
    let payments = rows.into_iter().map(whole).collect::<Result<_>>()?;
    Ok(with_late_references(connection, payments).await?.pop())
}

/// A payment with what it paid, and what was given back of it.
pub(crate) struct PaymentWhole {
    pub(crate) payment: Payment,
    /// By level; none until it succeeded.
    pub(crate) commissions: Vec<Commission>,
    /// Oldest first.
    pub(crate) refunds: Vec<Refund>,
}

/// As one snapshot has it.
pub(crate) async fn find_whole(
    connection: &mut AsyncPgConnection,
    payment_id: PaymentId,
) -> Result<Option<PaymentWhole>> {
    let mut snapshot = connection.build_transaction().repeatable_read().read_only();
    snapshot
        .run(async |connection| {
            let Some(payment) = find(connection, payment_id).await? else { return Ok(None) };
            let commissions = commissions::of_payments(connection, &[payment_id]).await?;
            let refunds = refunds::of_payment(connection, payment_id).await?;
            Ok(Some(PaymentWhole { payment, commissions, refunds }))
        })
        .await
}

/// Which payments to list.
pub(crate) struct Filter {
    pub(crate) partner_id: Option<PartnerId>,
    /// As at the given time.
    pub(crate) state: Option<(PaymentState, DateTime<Utc>)>,
}

/// In the words of the index `payments_refunded`: a bound parameter would not be seen to imply them.
fn has_refund() -> SqlLiteral<Bool> {
    sql("refunded > 0")
}

/// Payments with an ID below `before`, newest first.
pub(crate) async fn list(
    connection: &mut AsyncPgConnection,
    filter: &Filter,
    before: Uuid,
    limit: i64,
) -> Result<Vec<Payment>> {
    let mut query = payments::table
        .left_join(ton_payments_table::table.on(ton_payments_table::payment_id.eq(payments::payment_id)))
        .filter(payments::payment_id.lt(before))
        .order(payments::payment_id.desc())
        .limit(limit)
        .select((PaymentRow::as_select(), Option::<TonRow>::as_select()))
        .into_boxed();
    if let Some(partner_id) = filter.partner_id {
        query = query.filter(payments::partner_id.eq(Uuid::from(partner_id)));
    }
    query = match filter.state {
        None => query,
        Some((PaymentState::Pending, now)) => {
            query.filter(payments::state.eq("PENDING")).filter(payments::expire_time.gt(now))
        }
        Some((PaymentState::Expired, now)) => {
            query.filter(payments::state.eq("PENDING")).filter(payments::expire_time.le(now))
        }
        Some((PaymentState::Succeeded, _)) => {
            query.filter(payments::state.eq("SUCCEEDED")).filter(payments::refunded.eq(0))
        }
        Some((PaymentState::PartiallyRefunded, _)) => {
            query.filter(has_refund()).filter(payments::refunded.lt(payments::amount))
        }
        Some((PaymentState::Refunded, _)) => query.filter(has_refund()).filter(payments::refunded.eq(payments::amount)),
        Some((state, _)) => query.filter(payments::state.eq(state.name())),
    };
    let rows: Vec<(PaymentRow, Option<TonRow>)> = query.load(connection).await?;
    let payments = rows.into_iter().map(whole).collect::<Result<_>>()?;
    with_late_references(connection, payments).await
}

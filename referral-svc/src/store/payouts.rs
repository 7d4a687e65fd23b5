//! Tables `payouts` and `payout_items`: what partners are paid, and for which claims.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl, Queryable, Selectable, SelectableHelper,
    sql_types::{Array, BigInt, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{
    id::{PartnerId, PayoutId},
    payout::{Approval, Claim, End, Payout, PayoutItem, PayoutState, Stage},
    reference::ExternalRef,
};
use uuid::Uuid;

use super::{
    Result, impossible,
    payments::amount,
    schema::{payout_items, payouts},
    sql::{Sql, uuids},
    transaction::Transaction,
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = payouts)]
struct PayoutRow {
    payout_id: Uuid,
    partner_id: Uuid,
    asset: String,
    amount: i64,
    destination: String,
    requester: String,
    create_time: DateTime<Utc>,
    reserve_transaction_id: Uuid,
    state: String,
    approver: Option<String>,
    approve_time: Option<DateTime<Utc>>,
    external_ref: Option<String>,
    reason: Option<String>,
    end_time: Option<DateTime<Utc>>,
    end_transaction_id: Option<Uuid>,
}

impl TryFrom<PayoutRow> for Payout {
    type Error = diesel::result::Error;

    fn try_from(mut row: PayoutRow) -> Result<Self> {
        Ok(Self {
            payout_id: row.payout_id.into(),
            partner_id: row.partner_id.into(),
            amount: amount(&row.asset, row.amount)?,
            destination: std::mem::take(&mut row.destination),
            requester: std::mem::take(&mut row.requester),
            create_time: row.create_time,
            reserve_transaction_id: row.reserve_transaction_id.into(),
            stage: stage(row).ok_or_else(|| impossible("a payout's state"))?,
            items: Vec::new(),
        })
    }
}

fn stage(row: PayoutRow) -> Option<Stage> {
    let approval =
        row.approver.zip(row.approve_time).map(|(approver, approve_time)| Approval { approver, approve_time });
    let end = row
        .end_time
        .zip(row.end_transaction_id)
        .map(|(end_time, transaction_id)| End { end_time, transaction_id: transaction_id.into() });
    Some(match PayoutState::from_name(&row.state)? {
        PayoutState::Requested => Stage::Requested,
        PayoutState::Approved => Stage::Approved(approval?),
        PayoutState::Completed => Stage::Completed {
            approval: approval?,
            external_ref: ExternalRef::from_stored(row.external_ref?),
            end: end?,
        },
        PayoutState::Failed => Stage::Failed { approval: approval?, reason: row.reason?, end: end? },
        PayoutState::Cancelled => Stage::Cancelled { reason: row.reason?, end: end? },
    })
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = payout_items)]
struct ItemRow {
    payout_id: Uuid,
    payment_id: Option<Uuid>,
    level: Option<i16>,
    adjustment_id: Option<Uuid>,
    amount: i64,
}

impl TryFrom<ItemRow> for PayoutItem {
    type Error = diesel::result::Error;

    fn try_from(row: ItemRow) -> Result<Self> {
        let level = row.level.and_then(|level| u8::try_from(level).ok());
        let claim = match (row.payment_id, level, row.adjustment_id) {
            (Some(payment_id), Some(level), None) => Claim::Commission((payment_id.into(), level)),
            (None, None, Some(adjustment_id)) => Claim::Adjustment(adjustment_id.into()),
            _ => return Err(impossible("a payout's item")),
        };
        Ok(Self { claim, amount: row.amount })
    }
}

/// Adds to each payout what it pays, in its order.
async fn with_items(connection: &mut AsyncPgConnection, mut payouts: Vec<Payout>) -> Result<Vec<Payout>> {
    let rows: Vec<ItemRow> = payout_items::table
        .filter(payout_items::payout_id.eq_any(uuids(payouts.iter().map(|payout| payout.payout_id))))
        .order((payout_items::payout_id, payout_items::number))
        .select(ItemRow::as_select())
        .load(connection)
        .await?;
    let mut by_payout: HashMap<PayoutId, Vec<PayoutItem>> = HashMap::new();
    for row in rows {
        by_payout.entry(row.payout_id.into()).or_default().push(row.try_into()?);
    }
    for payout in &mut payouts {
        payout.items = by_payout.remove(&payout.payout_id).unwrap_or_default();
    }
    Ok(payouts)
}

/// Whose payouts these are; that never changes.
pub(crate) async fn owners(transaction: &mut Transaction, ids: &[Uuid]) -> Result<BTreeSet<PartnerId>> {
    let owners: Vec<Uuid> = payouts::table
        .filter(payouts::payout_id.eq_any(ids))
        .select(payouts::partner_id)
        .load(transaction.connection())
        .await?;
    Ok(owners.into_iter().map(Into::into).collect())
}

/// Locks and loads, in the order of the IDs, with items.
pub(crate) async fn lock(transaction: &mut Transaction, ids: &[Uuid]) -> Result<Vec<Payout>> {
    let rows: Vec<PayoutRow> = payouts::table
        .filter(payouts::payout_id.eq_any(ids))
        .order(payouts::payout_id)
        .select(PayoutRow::as_select())
        .for_no_key_update()
        .load(transaction.connection())
        .await?;
    let payouts = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
    with_items(transaction.connection(), payouts).await
}

/// Which payouts used these references up.
pub(crate) async fn used_refs(
    transaction: &mut Transaction,
    references: &[&str],
) -> Result<HashMap<ExternalRef, PayoutId>> {
    let rows: Vec<(Option<String>, Uuid)> = payouts::table
        .filter(payouts::external_ref.eq_any(references))
        .select((payouts::external_ref, payouts::payout_id))
        .load(transaction.connection())
        .await?;
    Ok(rows
        .into_iter()
        .filter_map(|(reference, payout_id)| Some((ExternalRef::from_stored(reference?), payout_id.into())))
        .collect())
}

/// Writes new payouts, without their items.
pub(crate) async fn insert(transaction: &mut Transaction, payouts: &[&Payout]) -> Result<()> {
    Sql::new(
        "INSERT INTO payouts (payout_id, partner_id, asset, amount, destination, requester, create_time, reserve_transaction_id)
         SELECT * FROM unnest({}, {}, {}, {}, {}, {}, {}, {})",
    )
    .bind::<Array<SqlUuid>, _>(uuids(payouts.iter().map(|payout| payout.payout_id)))
    .bind::<Array<SqlUuid>, _>(uuids(payouts.iter().map(|payout| payout.partner_id)))
    .bind::<Array<Text>, _>(payouts.iter().map(|payout| payout.amount.asset().ticker()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(payouts.iter().map(|payout| payout.amount.minor_units()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(payouts.iter().map(|payout| payout.destination.as_str()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(payouts.iter().map(|payout| payout.requester.as_str()).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(payouts.iter().map(|payout| payout.create_time).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(uuids(payouts.iter().map(|payout| payout.reserve_transaction_id)))
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Writes what new payouts pay. The commissions and adjustments are stored.
pub(crate) async fn insert_items(transaction: &mut Transaction, rows: &[(PayoutId, i32, &PayoutItem)]) -> Result<()> {
    let commission = |item: &PayoutItem| match item.claim {
        Claim::Commission(key) => Some(key),
        Claim::Adjustment(_) => None,
    };
    let adjustment = |item: &PayoutItem| match item.claim {
        Claim::Commission(_) => None,
        Claim::Adjustment(id) => Some(Uuid::from(id)),
    };
    Sql::new(
        "INSERT INTO payout_items (payout_id, number, payment_id, level, adjustment_id, amount)
         SELECT * FROM unnest({}, {}, {}, {}, {}, {})",
    )
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.0)))
    .bind::<Array<Integer>, _>(rows.iter().map(|row| row.1).collect::<Vec<_>>())
    .bind::<Array<Nullable<SqlUuid>>, _>(
        rows.iter().map(|row| commission(row.2).map(|key| Uuid::from(key.0))).collect::<Vec<_>>(),
    )
    .bind::<Array<Nullable<SmallInt>>, _>(
        rows.iter().map(|row| commission(row.2).map(|key| i16::from(key.1))).collect::<Vec<_>>(),
    )
    .bind::<Array<Nullable<SqlUuid>>, _>(rows.iter().map(|row| adjustment(row.2)).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.2.amount).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Writes how far payouts have come.
pub(crate) async fn update(transaction: &mut Transaction, payouts: &[&Payout]) -> Result<()> {
    let approvals = || payouts.iter().map(|payout| payout.approval());
    let ends = || payouts.iter().map(|payout| payout.end());
    Sql::new(
        "UPDATE payouts p SET state = n.state, approver = n.approver, approve_time = n.approve_time,
             external_ref = n.external_ref, reason = n.reason, end_time = n.end_time, end_transaction_id = n.end_transaction_id
         FROM unnest({}, {}, {}, {}, {}, {}, {}, {}) AS n (payout_id, state, approver, approve_time, external_ref, reason,
             end_time, end_transaction_id)
         WHERE p.payout_id = n.payout_id",
    )
    .bind::<Array<SqlUuid>, _>(uuids(payouts.iter().map(|payout| payout.payout_id)))
    .bind::<Array<Text>, _>(payouts.iter().map(|payout| payout.state().name()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(
        approvals().map(|approval| approval.map(|approval| approval.approver.as_str())).collect::<Vec<_>>(),
    )
    .bind::<Array<Nullable<Timestamptz>>, _>(
        approvals().map(|approval| approval.map(|approval| approval.approve_time)).collect::<Vec<_>>(),
    )
    .bind::<Array<Nullable<Text>>, _>(
        payouts.iter().map(|payout| payout.external_ref().map(ExternalRef::as_str)).collect::<Vec<_>>(),
    )
    .bind::<Array<Nullable<Text>>, _>(payouts.iter().map(|payout| payout.reason()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Timestamptz>>, _>(ends().map(|end| end.map(|end| end.end_time)).collect::<Vec<_>>())
    .bind::<Array<Nullable<SqlUuid>>, _>(
        ends().map(|end| end.map(|end| Uuid::from(end.transaction_id))).collect::<Vec<_>>(),
    )
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// One payout, with its items.
pub(crate) async fn find(connection: &mut AsyncPgConnection, payout_id: PayoutId) -> Result<Option<Payout>> {
    let rows: Vec<PayoutRow> =
        payouts::table.find(Uuid::from(payout_id)).select(PayoutRow::as_select()).load(connection).await?;
    let payouts = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
    Ok(with_items(connection, payouts).await?.pop())
}

/// Payouts with an ID below `before`, newest first, without their items.
pub(crate) async fn list(
    connection: &mut AsyncPgConnection,
    partner_id: Option<PartnerId>,
    state: Option<PayoutState>,
    before: Uuid,
    limit: i64,
) -> Result<Vec<Payout>> {
    let mut query = payouts::table
        .filter(payouts::payout_id.lt(before))
        .order(payouts::payout_id.desc())
        .limit(limit)
        .select(PayoutRow::as_select())
        .into_boxed();
    if let Some(partner_id) = partner_id {
        query = query.filter(payouts::partner_id.eq(Uuid::from(partner_id)));
    }
    if let Some(state) = state {
        query = query.filter(payouts::state.eq(state.name()));
    }
    let rows: Vec<PayoutRow> = query.load(connection).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

//! Table `adjustments`: operators' corrections of what a partner has available.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl, Queryable, QueryableByName, Selectable, SelectableHelper,
    sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{
    adjustment::{Adjustment, AdjustmentState, Decided, Stage},
    id::PartnerId,
    money::Asset,
};
use uuid::Uuid;

use super::{
    Result, impossible,
    schema::adjustments,
    sql::{Sql, uuids},
    transaction::Transaction,
};

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = adjustments)]
struct AdjustmentRow {
    adjustment_id: Uuid,
    partner_id: Uuid,
    asset: String,
    amount: i64,
    reason: String,
    proposer: String,
    create_time: DateTime<Utc>,
    state: String,
    decider: Option<String>,
    decide_time: Option<DateTime<Utc>>,
    reject_reason: Option<String>,
    transaction_id: Option<Uuid>,
    reserved: i64,
    paid: i64,
}

impl TryFrom<AdjustmentRow> for Adjustment {
    type Error = diesel::result::Error;

    fn try_from(row: AdjustmentRow) -> Result<Self> {
        let decided = row.decider.zip(row.decide_time).map(|(decider, decide_time)| Decided { decider, decide_time });
        Ok(Self {
            adjustment_id: row.adjustment_id.into(),
            partner_id: row.partner_id.into(),
            asset: Asset::from_ticker(&row.asset).ok_or_else(|| impossible("an adjustment's asset"))?,
            amount: row.amount,
            reason: row.reason,
            proposer: row.proposer,
            create_time: row.create_time,
            stage: stage(&row.state, decided, row.transaction_id, row.reject_reason)
                .ok_or_else(|| impossible("an adjustment's state"))?,
            reserved: row.reserved,
            paid: row.paid,
        })
    }
}

fn stage(
    state: &str,
    decided: Option<Decided>,
    transaction_id: Option<Uuid>,
    reject_reason: Option<String>,
) -> Option<Stage> {
    Some(match AdjustmentState::from_name(state)? {
        AdjustmentState::Proposed => Stage::Proposed,
        AdjustmentState::Approved => Stage::Approved { decided: decided?, transaction_id: transaction_id?.into() },
        AdjustmentState::Rejected => Stage::Rejected { decided: decided?, reason: reject_reason? },
    })
}

fn reject_reason(adjustment: &Adjustment) -> Option<&str> {
    match &adjustment.stage {
        Stage::Rejected { reason, .. } => Some(reason),
        _ => None,
    }
}

/// Whose balances these are about; that never changes.
pub(crate) async fn owners(transaction: &mut Transaction, ids: &[Uuid]) -> Result<BTreeSet<PartnerId>> {
    let owners: Vec<Uuid> = adjustments::table
        .filter(adjustments::adjustment_id.eq_any(ids))
        .select(adjustments::partner_id)
        .load(transaction.connection())
        .await?;
    Ok(owners.into_iter().map(Into::into).collect())
}

/// Locks and loads, in the order of the IDs. Their partners' accounts are locked.
pub(crate) async fn lock(transaction: &mut Transaction, ids: &[Uuid]) -> Result<Vec<Adjustment>> {
    let rows: Vec<AdjustmentRow> = adjustments::table
        .filter(adjustments::adjustment_id.eq_any(ids))
        .order(adjustments::adjustment_id)
        .select(AdjustmentRow::as_select())
        .for_no_key_update()
        .load(transaction.connection())
        .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Of each of these partners, whose accounts are locked: of what is open, and of what is owed, so many of the oldest bookings.
pub(crate) async fn open(transaction: &mut Transaction, partner_ids: &[Uuid], limit: i64) -> Result<Vec<Adjustment>> {
    // As the index adjustments_open has it.
    let rows: Vec<AdjustmentRow> = Sql::new(
        "SELECT a.adjustment_id, a.partner_id, a.asset, a.amount, a.reason, a.proposer, a.create_time, a.state, a.decider,
             a.decide_time, a.reject_reason, a.transaction_id, a.reserved, a.paid
         FROM unnest({}) AS n (partner_id), LATERAL (
             (SELECT * FROM adjustments o
              WHERE o.partner_id = n.partner_id AND o.state = 'APPROVED' AND o.amount - o.reserved - o.paid <> 0
                  AND o.amount - o.reserved - o.paid > 0
              ORDER BY o.transaction_id LIMIT {})
             UNION ALL
             (SELECT * FROM adjustments o
              WHERE o.partner_id = n.partner_id AND o.state = 'APPROVED' AND o.amount - o.reserved - o.paid <> 0
                  AND o.amount - o.reserved - o.paid < 0
              ORDER BY o.transaction_id LIMIT {})) a",
    )
    .bind::<Array<SqlUuid>, _>(partner_ids.to_vec())
    .bind::<BigInt, _>(limit)
    .bind::<BigInt, _>(limit)
    .load(transaction.connection())
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Writes new adjustments.
pub(crate) async fn insert(transaction: &mut Transaction, rows: &[&Adjustment]) -> Result<()> {
    Sql::new(
        "INSERT INTO adjustments (adjustment_id, partner_id, asset, amount, reason, proposer, create_time)
         SELECT * FROM unnest({}, {}, {}, {}, {}, {}, {})",
    )
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.adjustment_id)))
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.partner_id)))
    .bind::<Array<Text>, _>(rows.iter().map(|row| row.asset.ticker()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.amount).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(rows.iter().map(|row| row.reason.as_str()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(rows.iter().map(|row| row.proposer.as_str()).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(rows.iter().map(|row| row.create_time).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Writes what was decided of adjustments, and what payouts took of them.
pub(crate) async fn update(transaction: &mut Transaction, rows: &[&Adjustment]) -> Result<()> {
    let decided = || rows.iter().map(|row| row.decided());
    Sql::new(
        "UPDATE adjustments a SET state = n.state, decider = n.decider, decide_time = n.decide_time,
             reject_reason = n.reject_reason, transaction_id = n.transaction_id, reserved = n.reserved, paid = n.paid
         FROM unnest({}, {}, {}, {}, {}, {}, {}, {}) AS n (adjustment_id, state, decider, decide_time, reject_reason,
             transaction_id, reserved, paid)
         WHERE a.adjustment_id = n.adjustment_id",
    )
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.adjustment_id)))
    .bind::<Array<Text>, _>(rows.iter().map(|row| row.state().name()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(
        decided().map(|decided| decided.map(|decided| decided.decider.as_str())).collect::<Vec<_>>(),
    )
    .bind::<Array<Nullable<Timestamptz>>, _>(
        decided().map(|decided| decided.map(|decided| decided.decide_time)).collect::<Vec<_>>(),
    )
    .bind::<Array<Nullable<Text>>, _>(rows.iter().map(|row| reject_reason(row)).collect::<Vec<_>>())
    .bind::<Array<Nullable<SqlUuid>>, _>(
        rows.iter().map(|row| row.transaction_id().map(Uuid::from)).collect::<Vec<_>>(),
    )
    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.reserved).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.paid).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Adjustments with an ID below `before`, newest first.
pub(crate) async fn list(
    connection: &mut AsyncPgConnection,
    partner_id: Option<PartnerId>,
    state: Option<AdjustmentState>,
    before: Uuid,
    limit: i64,
) -> Result<Vec<Adjustment>> {
    let mut query = adjustments::table
        .filter(adjustments::adjustment_id.lt(before))
        .order(adjustments::adjustment_id.desc())
        .limit(limit)
        .select(AdjustmentRow::as_select())
        .into_boxed();
    if let Some(partner_id) = partner_id {
        query = query.filter(adjustments::partner_id.eq(Uuid::from(partner_id)));
    }
    if let Some(state) = state {
        query = query.filter(adjustments::state.eq(state.name()));
    }
    let rows: Vec<AdjustmentRow> = query.load(connection).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

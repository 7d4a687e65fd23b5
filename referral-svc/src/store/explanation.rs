//! Everything behind one commission: read in one snapshot, so that it all belongs together.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{
    commission::{Commission, CommissionKey},
    id::{PayoutId, TransactionId},
    refund::Refund,
};
use uuid::Uuid;

use super::{Result, commissions, plans, refunds, sql::Sql};

/// A commission with all that made it and became of it.
pub(crate) struct Explanation {
    pub(crate) commission: Commission,
    /// The plan's text.
    pub(crate) plan: String,
    /// Of its payment, oldest first.
    pub(crate) refunds: Vec<Refund>,
    /// Those that name it, oldest first.
    pub(crate) payouts: Vec<PayoutPart>,
    /// Those that moved it, oldest first.
    pub(crate) transactions: Vec<Step>,
}

/// What a payout took of a commission.
pub(crate) struct PayoutPart {
    pub(crate) payout_id: PayoutId,
    /// Minor units; below zero: a debt that it settled.
    pub(crate) amount: i64,
    /// As stored.
    pub(crate) state: String,
}

/// A ledger transaction that moved a commission.
pub(crate) struct Step {
    pub(crate) transaction_id: TransactionId,
    /// As stored.
    pub(crate) kind: String,
    pub(crate) create_time: DateTime<Utc>,
}

/// None: there is no such commission.
pub(crate) async fn explain(connection: &mut AsyncPgConnection, key: CommissionKey) -> Result<Option<Explanation>> {
    let mut snapshot = connection.build_transaction().repeatable_read().read_only();
    snapshot
        .run(async |connection| {
            let Some(commission) = commissions::find(connection, key).await? else {
                return Ok(None);
            };
            Ok(Some(Explanation {
                plan: plans::content(connection, commission.plan_version).await?,
                refunds: refunds::of_payment(connection, commission.payment_id).await?,
                payouts: payouts(connection, key).await?,
                transactions: transactions(connection, key).await?,
                commission,
            }))
        })
        .await
}

#[derive(QueryableByName)]
struct PayoutRow {
    #[diesel(sql_type = SqlUuid)]
    payout_id: Uuid,
    #[diesel(sql_type = BigInt)]
    amount: i64,
    #[diesel(sql_type = Text)]
    state: String,
}

async fn payouts(connection: &mut AsyncPgConnection, (payment_id, level): CommissionKey) -> Result<Vec<PayoutPart>> {
    let rows: Vec<PayoutRow> = Sql::new(
        "SELECT payout_id, i.amount, p.state FROM payout_items i JOIN payouts p USING (payout_id)
         WHERE i.payment_id = {} AND i.level = {} ORDER BY payout_id, i.number",
    )
    .bind::<SqlUuid, _>(Uuid::from(payment_id))
    .bind::<SmallInt, _>(i16::from(level))
    .load(connection)
    .await?;
    let part = |row: PayoutRow| PayoutPart { payout_id: row.payout_id.into(), amount: row.amount, state: row.state };
    Ok(rows.into_iter().map(part).collect())
}

#[derive(QueryableByName)]
struct StepRow {
    #[diesel(sql_type = SqlUuid)]
    transaction_id: Uuid,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Timestamptz)]
    create_time: DateTime<Utc>,
}

async fn transactions(connection: &mut AsyncPgConnection, (payment_id, level): CommissionKey) -> Result<Vec<Step>> {
    let rows: Vec<StepRow> = Sql::new(
        "WITH one AS (SELECT {} AS payment_id, {} AS level), moved AS (
             SELECT unnest(ARRAY[transaction_id, release_transaction_id]) AS transaction_id
             FROM one JOIN commissions USING (payment_id, level)
             UNION SELECT r.transaction_id FROM one JOIN refunds r USING (payment_id)
                 JOIN clawbacks c ON c.refund_id = r.refund_id AND c.level = one.level
             UNION SELECT unnest(ARRAY[p.reserve_transaction_id, p.end_transaction_id])
                 FROM one JOIN payout_items i USING (payment_id, level) JOIN payouts p ON p.payout_id = i.payout_id
         )
         SELECT transaction_id, kind, create_time FROM moved JOIN ledger_transactions USING (transaction_id)
         ORDER BY create_time, transaction_id",
    )
    .bind::<SqlUuid, _>(Uuid::from(payment_id))
    .bind::<SmallInt, _>(i16::from(level))
    .load(connection)
    .await?;
    let step =
        |row: StepRow| Step { transaction_id: row.transaction_id.into(), kind: row.kind, create_time: row.create_time };
    Ok(rows.into_iter().map(step).collect())
}

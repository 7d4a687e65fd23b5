//! Table `commissions`: who earned what on which payment, with the terms.

use chrono::{DateTime, Utc};
use diesel::{
    BoolExpressionMethods, ExpressionMethods, QueryDsl, Queryable, QueryableByName, Selectable, SelectableHelper,
    sql_types::{Array, BigInt, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{
    commission::{Commission, CommissionKey, Hold},
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
    state: String,
    release_time: Option<DateTime<Utc>>,
    release_transaction_id: Option<Uuid>,
    reversed: i64,
    reserved: i64,
    paid: i64,
}

const PENDING: &str = "PENDING";
const AVAILABLE: &str = "AVAILABLE";

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
            hold: row.release_time.map(|release_time| Hold {
                release_time,
                is_held: row.state == PENDING,
                transaction_id: row.release_transaction_id.map(Into::into),
            }),
            reversed: row.reversed,
            reserved: row.reserved,
            paid: row.paid,
        })
    }
}

pub(crate) async fn insert(transaction: &mut Transaction, rows: &[&Commission]) -> Result<()> {
    // Earner by earner, as the indexes have them: what one look-up brings near, the next ones find there.
    let mut rows = rows.to_vec();
    rows.sort_unstable_by_key(|row| (row.earner_id, row.transaction_id));
    Sql::new(
        "INSERT INTO commissions (payment_id, level, earner_id, rate_bps, plan_version, asset, base, amount,
             transaction_id, create_time, release_time, state)
         SELECT * FROM unnest({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {})",
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
    .bind::<Array<Nullable<Timestamptz>>, _>(
        rows.iter().map(|row| row.hold.map(|hold| hold.release_time)).collect::<Vec<_>>(),
    )
    .bind::<Array<Text>, _>(rows.iter().map(|row| state(row)).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await?;
    Ok(())
}

fn state(commission: &Commission) -> &'static str {
    if commission.is_held() { PENDING } else { AVAILABLE }
}

/// Writes what became of commissions. Their earners' accounts are locked.
pub(crate) async fn update(transaction: &mut Transaction, rows: &[&Commission]) -> Result<()> {
    let released = |row: &&Commission| row.hold.and_then(|hold| hold.transaction_id).map(Uuid::from);
    Sql::new(
        "UPDATE commissions c SET state = n.state, release_transaction_id = n.release_transaction_id,
             reversed = n.reversed, reserved = n.reserved, paid = n.paid
         FROM unnest({}, {}, {}, {}, {}, {}, {})
             AS n (payment_id, level, state, release_transaction_id, reversed, reserved, paid)
         WHERE c.payment_id = n.payment_id AND c.level = n.level",
    )
    .bind::<Array<SqlUuid>, _>(uuids(rows.iter().map(|row| row.payment_id)))
    .bind::<Array<SmallInt>, _>(rows.iter().map(|row| i16::from(row.level)).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(rows.iter().map(|row| state(row)).collect::<Vec<_>>())
    .bind::<Array<Nullable<SqlUuid>>, _>(rows.iter().map(released).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.reversed).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.reserved).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(rows.iter().map(|row| row.paid).collect::<Vec<_>>())
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

/// One commission.
pub(crate) async fn find(connection: &mut AsyncPgConnection, key: CommissionKey) -> Result<Option<Commission>> {
    let rows: Vec<CommissionRow> = commissions::table
        .find((Uuid::from(key.0), i16::from(key.1)))
        .select(CommissionRow::as_select())
        .load(connection)
        .await?;
    rows.into_iter().next().map(TryInto::try_into).transpose()
}

/// The same, for a batch that is being decided.
pub(crate) async fn load(transaction: &mut Transaction, payments: &[PaymentId]) -> Result<Vec<Commission>> {
    of_payments(transaction.connection(), payments).await
}

/// Single commissions, for a batch that is being decided.
pub(crate) async fn load_each(transaction: &mut Transaction, keys: &[CommissionKey]) -> Result<Vec<Commission>> {
    let rows: Vec<CommissionRow> = Sql::new(
        "SELECT c.payment_id, c.level, c.earner_id, c.rate_bps, c.plan_version, c.asset, c.base, c.amount, c.transaction_id,
             c.create_time, c.state, c.release_time, c.release_transaction_id, c.reversed, c.reserved, c.paid
         FROM unnest({}, {}) AS n (payment_id, level)
         JOIN commissions c ON c.payment_id = n.payment_id AND c.level = n.level",
    )
    .bind::<Array<SqlUuid>, _>(uuids(keys.iter().map(|key| key.0)))
    .bind::<Array<SmallInt>, _>(keys.iter().map(|key| i16::from(key.1)).collect::<Vec<_>>())
    .load(transaction.connection())
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Of each of these earners, whose accounts are locked: of what is open, and of what is owed, so many of the oldest sales'.
pub(crate) async fn open(transaction: &mut Transaction, earner_ids: &[Uuid], limit: i64) -> Result<Vec<Commission>> {
    // As the indexes commissions_open_by_sale and commissions_owed have it: an earner has one commission a sale.
    let rows: Vec<CommissionRow> = Sql::new(
        "SELECT c.payment_id, c.level, c.earner_id, c.rate_bps, c.plan_version, c.asset, c.base, c.amount, c.transaction_id,
             c.create_time, c.state, c.release_time, c.release_transaction_id, c.reversed, c.reserved, c.paid
         FROM unnest({}) AS n (earner_id), LATERAL (
             (SELECT * FROM commissions o
              WHERE o.earner_id = n.earner_id AND o.state = 'AVAILABLE' AND o.amount - o.reversed - o.reserved - o.paid <> 0
                  AND o.amount - o.reversed - o.reserved - o.paid > 0
              ORDER BY o.transaction_id LIMIT {})
             UNION ALL
             (SELECT * FROM commissions o
              WHERE o.earner_id = n.earner_id AND o.state = 'AVAILABLE' AND o.amount - o.reversed - o.reserved - o.paid < 0
              ORDER BY o.transaction_id, o.payment_id, o.level LIMIT {})) c",
    )
    .bind::<Array<SqlUuid>, _>(earner_ids.to_vec())
    .bind::<BigInt, _>(limit)
    .bind::<BigInt, _>(limit)
    .load(transaction.connection())
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

#[derive(QueryableByName)]
struct Due {
    #[diesel(sql_type = SqlUuid)]
    payment_id: Uuid,
    #[diesel(sql_type = SmallInt)]
    level: i16,
}

/// Held commissions whose time has come, the earliest first, but for these.
pub(crate) async fn due(
    connection: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    but: &[CommissionKey],
    limit: i64,
) -> Result<Vec<CommissionKey>> {
    let rows: Vec<Due> = Sql::new(
        "SELECT payment_id, level FROM commissions
         WHERE state = 'PENDING' AND release_time <= {}
             AND (payment_id, level) NOT IN (SELECT * FROM unnest({}, {}))
         ORDER BY release_time LIMIT {}",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Array<SqlUuid>, _>(uuids(but.iter().map(|key| key.0)))
    .bind::<Array<SmallInt>, _>(but.iter().map(|key| i16::from(key.1)).collect::<Vec<_>>())
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok((row.payment_id.into(), u8::try_from(row.level).map_err(|_| impossible("a commission's level"))?))
        })
        .collect()
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

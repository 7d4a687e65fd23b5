//! The ledger's tables: accounts, transactions, entries.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, JoinOnDsl, QueryDsl, Queryable, QueryableByName, Selectable,
    sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::{
    id::TransactionId,
    money::Asset,
    posting::{Account, AccountKey, Entry, Purpose, Subject, Transaction as Posted},
    seal::{Hash, TransactionFields},
};
use uuid::Uuid;

use super::{
    Result, impossible,
    schema::{accounts, ledger_entries, ledger_transactions},
    sql::{Sql, uuids},
    transaction::Transaction,
};

pub(super) const AVAILABLE: &str = "PARTNER_AVAILABLE";
pub(super) const PENDING: &str = "PARTNER_PENDING";
pub(super) const RESERVED: &str = "PARTNER_RESERVED";
const CLEARING: &str = "PLATFORM_CLEARING";
const REVENUE: &str = "PLATFORM_REVENUE";
const ADJUSTMENTS: &str = "PLATFORM_ADJUSTMENTS";

pub(super) fn columns(purpose: Purpose) -> (&'static str, Option<Uuid>) {
    match purpose {
        Purpose::PartnerAvailable(owner) => (AVAILABLE, Some(owner.into())),
        Purpose::PartnerPending(owner) => (PENDING, Some(owner.into())),
        Purpose::PartnerReserved(owner) => (RESERVED, Some(owner.into())),
        Purpose::PlatformClearing => (CLEARING, None),
        Purpose::PlatformRevenue => (REVENUE, None),
        Purpose::PlatformAdjustments => (ADJUSTMENTS, None),
    }
}

fn purpose(name: &str, owner_id: Option<Uuid>) -> Result<Purpose> {
    match (name, owner_id) {
        (AVAILABLE, Some(owner)) => Ok(Purpose::PartnerAvailable(owner.into())),
        (PENDING, Some(owner)) => Ok(Purpose::PartnerPending(owner.into())),
        (RESERVED, Some(owner)) => Ok(Purpose::PartnerReserved(owner.into())),
        (CLEARING, None) => Ok(Purpose::PlatformClearing),
        (REVENUE, None) => Ok(Purpose::PlatformRevenue),
        (ADJUSTMENTS, None) => Ok(Purpose::PlatformAdjustments),
        _ => Err(impossible("an account's purpose")),
    }
}

/// A transaction's kind, and the IDs of payment, payout and adjustment.
type SubjectColumns = (&'static str, Option<Uuid>, Option<Uuid>, Option<Uuid>);

fn subject_columns(subject: Subject) -> SubjectColumns {
    match subject {
        Subject::Sale(payment_id) => ("PRO_SALE", Some(payment_id.into()), None, None),
        Subject::Release => ("RELEASE", None, None, None),
        Subject::Refund(payment_id) => ("REFUND", Some(payment_id.into()), None, None),
        Subject::PayoutReserved(payout_id) => ("PAYOUT_RESERVED", None, Some(payout_id.into()), None),
        Subject::PayoutPaid(payout_id) => ("PAYOUT_PAID", None, Some(payout_id.into()), None),
        Subject::PayoutReturned(payout_id) => ("PAYOUT_RETURNED", None, Some(payout_id.into()), None),
        Subject::Adjustment(adjustment_id) => ("ADJUSTMENT", None, None, Some(adjustment_id.into())),
    }
}

fn subject(kind: &str, payment: Option<Uuid>, payout: Option<Uuid>, adjustment: Option<Uuid>) -> Result<Subject> {
    match (kind, payment, payout, adjustment) {
        ("PRO_SALE", Some(id), None, None) => Ok(Subject::Sale(id.into())),
        ("RELEASE", None, None, None) => Ok(Subject::Release),
        ("REFUND", Some(id), None, None) => Ok(Subject::Refund(id.into())),
        ("PAYOUT_RESERVED", None, Some(id), None) => Ok(Subject::PayoutReserved(id.into())),
        ("PAYOUT_PAID", None, Some(id), None) => Ok(Subject::PayoutPaid(id.into())),
        ("PAYOUT_RETURNED", None, Some(id), None) => Ok(Subject::PayoutReturned(id.into())),
        ("ADJUSTMENT", None, None, Some(id)) => Ok(Subject::Adjustment(id.into())),
        _ => Err(impossible("a transaction's kind")),
    }
}

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = accounts)]
struct AccountRow {
    account_id: i64,
    purpose: String,
    owner_id: Option<Uuid>,
    asset: String,
    balance: i64,
    version: i64,
}

/// Opens what is missing, locks, and loads.
pub(crate) async fn open_accounts(
    transaction: &mut Transaction,
    keys: &[AccountKey],
) -> Result<HashMap<AccountKey, Account>> {
    let columns: Vec<_> = keys.iter().map(|key| columns(key.purpose)).collect();
    let rows: Vec<AccountRow> =
        Sql::new("SELECT account_id, purpose, owner_id, asset, balance, version FROM open_accounts({}, {}, {})")
            .bind::<Array<Text>, _>(columns.iter().map(|columns| columns.0).collect::<Vec<_>>())
            .bind::<Array<Nullable<SqlUuid>>, _>(columns.iter().map(|columns| columns.1).collect::<Vec<_>>())
            .bind::<Array<Text>, _>(keys.iter().map(|key| key.asset.ticker()).collect::<Vec<_>>())
            .load(transaction.connection())
            .await?;
    rows.into_iter()
        .map(|row| {
            let asset = Asset::from_ticker(&row.asset).ok_or_else(|| impossible("an account's asset"))?;
            let key = AccountKey { purpose: purpose(&row.purpose, row.owner_id)?, asset };
            Ok((key, Account { account_id: row.account_id, balance: row.balance, version: row.version }))
        })
        .collect()
}

/// A transaction's ID and hash, for the block that covers it.
pub(crate) fn seal(posted: &Posted, audit_event_id: Uuid) -> (Uuid, Hash) {
    let transaction_id = posted.transaction_id.into();
    let (kind, payment_id, payout_id, adjustment_id) = subject_columns(posted.subject);
    let fields = TransactionFields {
        transaction_id,
        kind,
        create_time: posted.create_time,
        payment_id,
        payout_id,
        adjustment_id,
        audit_event_id: Some(audit_event_id),
        entries: &posted.entries,
    };
    (transaction_id, fields.hash())
}

/// Books transactions, each with the record of its command. The database checks each, and carries the balances on.
pub(crate) async fn post(transaction: &mut Transaction, posted: &[(&Posted, Uuid)]) -> Result<()> {
    let connection = transaction.connection();
    let subjects: Vec<SubjectColumns> = posted.iter().map(|(posted, _)| subject_columns(posted.subject)).collect();
    Sql::new(
        "INSERT INTO ledger_transactions (transaction_id, create_time, audit_event_id, kind, payment_id, payout_id, adjustment_id)
         SELECT * FROM unnest({}, {}, {}, {}, {}, {}, {})",
    )
    .bind::<Array<SqlUuid>, _>(uuids(posted.iter().map(|(posted, _)| posted.transaction_id)))
    .bind::<Array<Timestamptz>, _>(posted.iter().map(|(posted, _)| posted.create_time).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(posted.iter().map(|(_, audit_event_id)| *audit_event_id).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(subjects.iter().map(|subject| subject.0).collect::<Vec<_>>())
    .bind::<Array<Nullable<SqlUuid>>, _>(subjects.iter().map(|subject| subject.1).collect::<Vec<_>>())
    .bind::<Array<Nullable<SqlUuid>>, _>(subjects.iter().map(|subject| subject.2).collect::<Vec<_>>())
    .bind::<Array<Nullable<SqlUuid>>, _>(subjects.iter().map(|subject| subject.3).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    let entries =
        posted.iter().flat_map(|(posted, _)| posted.entries.iter().map(|entry| (posted.transaction_id, entry)));
    let mut entries: Vec<(TransactionId, &Entry)> = entries.collect();
    // Account by account: what one look-up in an index brings near, the next ones find there.
    entries.sort_unstable_by_key(|(_, entry)| (entry.account_id, entry.version));
    Sql::new(
        "INSERT INTO ledger_entries (transaction_id, account_id, version, amount, balance_after)
         SELECT * FROM unnest({}, {}, {}, {}, {})",
    )
    .bind::<Array<SqlUuid>, _>(uuids(entries.iter().map(|(transaction_id, _)| *transaction_id)))
    .bind::<Array<BigInt>, _>(entries.iter().map(|(_, entry)| entry.account_id).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(entries.iter().map(|(_, entry)| entry.version).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(entries.iter().map(|(_, entry)| entry.amount).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(entries.iter().map(|(_, entry)| entry.balance_after).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// An entry with its account and transaction.
pub(crate) struct EntryView {
    pub(crate) purpose: Purpose,
    pub(crate) asset: Asset,
    pub(crate) account_id: i64,
    pub(crate) version: i64,
    pub(crate) amount: i64,
    pub(crate) balance_after: i64,
    pub(crate) transaction_id: TransactionId,
    pub(crate) subject: Subject,
    pub(crate) create_time: DateTime<Utc>,
}

type EntryColumns = (
    (i64, i64, i64, i64, Uuid),
    (String, Option<Uuid>, String),
    (String, Option<Uuid>, Option<Uuid>, Option<Uuid>, DateTime<Utc>),
);

fn entry_view(row: EntryColumns) -> Result<EntryView> {
    let (
        (account_id, version, amount, balance_after, transaction_id),
        (name, owner, asset),
        (kind, payment, payout, adjustment, create_time),
    ) = row;
    Ok(EntryView {
        purpose: purpose(&name, owner)?,
        asset: Asset::from_ticker(&asset).ok_or_else(|| impossible("an account's asset"))?,
        account_id,
        version,
        amount,
        balance_after,
        transaction_id: transaction_id.into(),
        subject: subject(&kind, payment, payout, adjustment)?,
        create_time,
    })
}

macro_rules! entries {
    () => {
        ledger_entries::table
            .inner_join(accounts::table.on(accounts::account_id.eq(ledger_entries::account_id)))
            .inner_join(
                ledger_transactions::table.on(ledger_transactions::transaction_id.eq(ledger_entries::transaction_id)),
            )
            .select((
                (
                    ledger_entries::account_id,
                    ledger_entries::version,
                    ledger_entries::amount,
                    ledger_entries::balance_after,
                    ledger_entries::transaction_id,
                ),
                (accounts::purpose, accounts::owner_id, accounts::asset),
                (
                    ledger_transactions::kind,
                    ledger_transactions::payment_id,
                    ledger_transactions::payout_id,
                    ledger_transactions::adjustment_id,
                    ledger_transactions::create_time,
                ),
            ))
    };
}

/// Entries of one account, by version, newest first or oldest first.
pub(crate) struct Entries {
    pub(crate) account_id: i64,
    /// Above this version.
    pub(crate) after: i64,
    /// Below this version.
    pub(crate) before: i64,
    /// The kind of transaction, by name; none: any.
    pub(crate) kind: Option<&'static str>,
    pub(crate) newest_first: bool,
}

pub(crate) async fn list_entries(
    connection: &mut AsyncPgConnection,
    which: &Entries,
    limit: i64,
) -> Result<Vec<EntryView>> {
    let mut query = entries!()
        .filter(ledger_entries::account_id.eq(which.account_id))
        .filter(ledger_entries::version.gt(which.after))
        .filter(ledger_entries::version.lt(which.before))
        .limit(limit)
        .into_boxed();
    query = match which.newest_first {
        true => query.order(ledger_entries::version.desc()),
        false => query.order(ledger_entries::version.asc()),
    };
    if let Some(kind) = which.kind {
        query = query.filter(ledger_transactions::kind.eq(kind));
    }
    let rows: Vec<EntryColumns> = query.load(connection).await?;
    rows.into_iter().map(entry_view).collect()
}

/// A transaction's entries: debits first. Empty if there is no such transaction.
pub(crate) async fn entries_of(
    connection: &mut AsyncPgConnection,
    transaction_id: TransactionId,
) -> Result<Vec<EntryView>> {
    let rows: Vec<EntryColumns> = entries!()
        .filter(ledger_entries::transaction_id.eq(Uuid::from(transaction_id)))
        .order((ledger_entries::amount, ledger_entries::account_id))
        .load(connection)
        .await?;
    rows.into_iter().map(entry_view).collect()
}

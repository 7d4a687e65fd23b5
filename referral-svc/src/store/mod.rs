//! Everything that knows the SQL schema: rows to domain types, and back in sets. Diesel only.

pub(crate) mod adjustments;
pub(crate) mod audit;
pub(crate) mod backlog;
pub(crate) mod balances;
pub(crate) mod blocks;
pub(crate) mod broadcasts;
pub(crate) mod check;
pub(crate) mod clock;
pub(crate) mod commissions;
pub(crate) mod explanation;
pub(crate) mod leaderboard;
pub(crate) mod ledger;
pub(crate) mod locks;
pub(crate) mod network;
pub(crate) mod outbox;
pub(crate) mod partners;
pub(crate) mod payments;
pub(crate) mod payouts;
pub(crate) mod plans;
pub(crate) mod pro_notices;
pub(crate) mod reconciliation;
pub(crate) mod refunds;
pub(crate) mod requests;
mod schema;
mod sql;
pub(crate) mod standings;
pub(crate) mod ton_payments;
pub(crate) mod transaction;
pub(crate) mod xp_awards;

use diesel::result::Error;

/// A query's result.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A row that the schema should have refused: a defect, said so.
fn impossible(what: &'static str) -> Error {
    Error::DeserializationError(what.into())
}

/// Another writer came in between: the batch begins again.
pub(crate) fn conflict() -> Error {
    let message = "another writer came in between".to_owned();
    Error::DatabaseError(diesel::result::DatabaseErrorKind::SerializationFailure, Box::new(message))
}

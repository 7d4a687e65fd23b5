//! Failures on their way out: the only place that makes a `tonic::Status`.

use service::{database, error::Failure};
use tonic::Status;

use crate::store::StoreError;

/// The domain of every error's reason.
pub(crate) const ERROR_DOMAIN: &str = "notify.p2phub";

/// A failure with its details.
pub(crate) fn of(failure: Failure) -> Status {
    failure.into_status(ERROR_DOMAIN)
}

/// What a caller hears of a database error.
pub(crate) fn of_store(error: &StoreError) -> Status {
    if database::is_unavailable(error) || database::is_conflict(error) {
        tracing::warn!(%error, "the database is not available");
        return of(Failure::unavailable("the database is not available"));
    }
    tracing::error!(%error, "a query failed");
    of(Failure::internal())
}

//! Failures on their way out: the only place that makes a `tonic::Status`.

use service::{
    database::{self, Pool},
    error::Failure,
};
use tonic::{Status, metadata::MetadataValue};

use crate::store::StoreError;

/// The domain of every error's reason.
pub(crate) const ERROR_DOMAIN: &str = "notify.p2phub";

/// The metadata of an answer that was given before.
pub(crate) const REPLAY: &str = "idempotent-replay";

/// A failure with its details.
pub(crate) fn of(failure: Failure) -> Status {
    failure.into_status(ERROR_DOMAIN)
}

/// A refusal as it was given first, perhaps long ago.
pub(crate) fn of_replay(failure: Failure) -> Status {
    let mut status = of(failure);
    status.metadata_mut().insert(REPLAY, MetadataValue::from_static("true"));
    status
}

/// What a caller hears of a database error.
pub(crate) fn store_failure(pool: &Pool, error: &StoreError) -> Failure {
    if pool.note(error) {
        return Failure::unavailable("the database is not available");
    }
    if database::is_conflict(error) {
        tracing::warn!(%error, "a call met other transactions too often");
        return Failure::unavailable("the database is not available");
    }
    tracing::error!(%error, "a query failed");
    Failure::internal()
}

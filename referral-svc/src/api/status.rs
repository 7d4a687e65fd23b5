//! The one place where this service makes a `Status`: every failure's code, reason and retry advice.

use std::time::Duration;

use referral_domain::command::{Refusal, RefusalClass};
use service::{database::Pool, error::Failure};
use tonic::{Code, Status, metadata::MetadataValue};

use crate::app::Failed;

const DOMAIN: &str = "referral.p2phub";

/// When a shed or failed call is worth trying again.
const RETRY_SOON: Duration = Duration::from_millis(200);
const RETRY_LATER: Duration = Duration::from_secs(1);
const RETRY_MUCH_LATER: Duration = Duration::from_secs(10);

/// What marks a remembered refusal on its way to [`finish`].
const REPLAY: &str = "idempotent-replay";

pub(super) fn finish(mut failure: Failure) -> Status {
    let replay = failure.metadata.remove(REPLAY).is_some();
    let mut status = failure.into_status(DOMAIN);
    if replay {
        status.metadata_mut().insert(REPLAY, MetadataValue::from_static("true"));
    }
    status
}

pub(super) fn not_found(reason: &'static str, message: &str) -> Failure {
    Failure::new(Code::NotFound, reason, message)
}

pub(super) fn of_failed(failed: Failed) -> Failure {
    let message = failed.to_string();
    match failed {
        Failed::Full => Failure::new(Code::ResourceExhausted, "TOO_MANY_COMMANDS", message).with_retry(RETRY_SOON),
        Failed::Unavailable => Failure::unavailable(message).with_retry(RETRY_LATER),
        Failed::RequestIdReused => Failure::new(Code::AlreadyExists, Failed::REQUEST_ID_REUSED, message),
        Failed::OutcomeUnknown => {
            let message = format!("{message}: ask again with the same request_id");
            Failure::new(Code::Unknown, "OUTCOME_UNKNOWN", message).with_retry(RETRY_LATER)
        }
        Failed::Defect => Failure::internal(),
    }
}

pub(super) fn check_in_progress() -> Failure {
    let message = "another such check is in progress; nothing was done";
    Failure::new(Code::ResourceExhausted, "CHECK_IN_PROGRESS", message).with_retry(RETRY_MUCH_LATER)
}

fn code(class: RefusalClass) -> Code {
    match class {
        RefusalClass::InvalidArgument => Code::InvalidArgument,
        RefusalClass::NotFound => Code::NotFound,
        RefusalClass::AlreadyExists => Code::AlreadyExists,
        RefusalClass::FailedPrecondition => Code::FailedPrecondition,
        RefusalClass::Unavailable => Code::Unavailable,
    }
}

/// A refusal as it was committed, perhaps long ago: its reason alone tells the class.
pub(super) fn of_refusal(reason: String, message: String, replay: bool) -> Failure {
    let class = RefusalClass::of_reason(&reason).unwrap_or(RefusalClass::FailedPrecondition);
    let failure = Failure::new(code(class), reason, message);
    if replay { failure.with_metadata(REPLAY, "true") } else { failure }
}

/// A refusal that is not remembered.
pub(super) fn of_invalid(refusal: &Refusal) -> Failure {
    let message = refusal.to_string();
    let (reason, class) = refusal.kind();
    if class == RefusalClass::Unavailable {
        return Failure::new(code(class), reason, message).with_retry(RETRY_LATER);
    }
    match message.split_once(": ") {
        Some((field, description)) => Failure::violation(field, description),
        None => Failure::new(Code::InvalidArgument, Failure::INVALID_ARGUMENT, message),
    }
}

pub(super) fn of_database(pool: &Pool, error: &diesel::result::Error) -> Failure {
    if pool.note(error) {
        return of_failed(Failed::Unavailable);
    }
    tracing::error!(error = %error, "a read failed");
    Failure::internal()
}

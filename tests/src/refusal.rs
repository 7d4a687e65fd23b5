//! What a refused call must look like: a code, and a stable reason in its details.

use std::fmt::Debug;

use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

/// The reason in a status's `ErrorInfo`; empty without one.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// The fields that a status's `BadRequest` names.
pub fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

/// The refusal, which must have this code and this reason.
#[track_caller]
pub fn refused<T: Debug>(answer: Result<Response<T>, Status>, code: Code, expected: &str) -> Status {
    let status = answer.expect_err("a refusal");
    assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{status}");
    status
}

/// Whether a successful answer carries this mark, such as `idempotent-replay`.
pub fn is_marked<T>(answer: &Response<T>, name: &str) -> bool {
    answer.metadata().get(name).is_some_and(|value| value == "true")
}

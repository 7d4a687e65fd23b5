//! Every refusal and failure on its way out: the one place that makes a `Status` with `google.rpc` details.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::telemetry;

/// What goes wrong, before it becomes a `Status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub reason: Cow<'static, str>,
    pub message: String,
    pub violations: Vec<(String, String)>,
    pub retry_after: Option<Duration>,
    pub metadata: BTreeMap<String, String>,
}

impl Failure {
    /// The reason of every input error that has field violations.
    pub const INVALID_ARGUMENT: &'static str = "INVALID_ARGUMENT";

    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            violations: Vec::new(),
            retry_after: None,
            metadata: BTreeMap::new(),
        }
    }

    /// Bad input: INVALID_ARGUMENT that names the field.
    pub fn violation(field: impl Into<String>, description: impl Into<String>) -> Self {
        let (field, description) = (field.into(), description.into());
        let message = format!("{field}: {description}");
        Self::new(Code::InvalidArgument, Self::INVALID_ARGUMENT, message).with_violation(field, description)
    }

    /// The database or another part is away for now; nothing was done.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, "UNAVAILABLE", message)
    }

    /// A defect. The caller learns nothing of the cause: whoever makes this logs it at ERROR.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "INTERNAL", "internal error; it is on record under this trace ID")
    }

    /// A method or an option that the contract has and this version doesn't.
    pub fn unimplemented(what: &str) -> Self {
        Self::new(Code::Unimplemented, "UNIMPLEMENTED", format!("{what} is not implemented yet"))
    }

    pub fn with_violation(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.violations.push((field.into(), description.into()));
        self
    }

    pub fn with_retry(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The status with all its details, under the current span's trace ID.
    pub fn into_status(self, domain: &'static str) -> Status {
        self.into_status_of(domain, &telemetry::current_trace_id())
    }

    pub(crate) fn into_status_of(self, domain: &str, trace_id: &str) -> Status {
        let mut details = ErrorDetails::new();
        let metadata: HashMap<_, _> = self.metadata.into_iter().collect();
        details.set_error_info(self.reason, domain, metadata);
        details.set_request_info(trace_id, "");
        for (field, description) in self.violations.into_iter().take(MAX_VIOLATIONS) {
            details.add_bad_request_violation(shorten(field), shorten(description));
        }
        if let Some(after) = self.retry_after.or_else(|| default_retry(self.code)) {
            details.set_retry_info(Some(after));
        }
        Status::with_error_details(self.code, shorten(self.message), details)
    }
}

/// A status travels in headers, and clients bound those: what quotes input must not grow with it.
const MAX_TEXT_BYTES: usize = 300;
const MAX_VIOLATIONS: usize = 16;

fn shorten(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        text.push('…');
    }
    text
}

/// The code's name as the gRPC specification writes it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A retry helps with these codes, whatever the reason: nothing was done.
fn default_retry(code: Code) -> Option<Duration> {
    match code {
        Code::Unavailable => Some(Duration::from_secs(1)),
        Code::ResourceExhausted => Some(Duration::from_millis(200)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_becomes_a_status_with_all_its_details() {
        let status = Failure::violation("page_size", "must be at most 100")
            .with_metadata("max", "100")
            .into_status_of("test.p2phub", "abc");
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_ARGUMENT", "test.p2phub"));
        assert_eq!(info.metadata["max"], "100");
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "page_size");
        assert_eq!(details.request_info().unwrap().request_id, "abc");
        assert!(details.retry_info().is_none());
    }

    #[test]
    fn transient_failures_say_when_to_retry() {
        let status = Failure::unavailable("away").into_status_of("test.p2phub", "abc");
        assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some());
    }

    #[test]
    fn quoted_input_stays_short() {
        let status = Failure::violation("x", "ö".repeat(9_000)).into_status_of("d", "t");
        assert!(status.message().len() < 310 && status.details().len() < 1_000);
    }
}

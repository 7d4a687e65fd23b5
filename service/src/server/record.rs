//! One call on record: its span, its place among the calls in flight, its access-log line, its errors' details.

use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tracing::Span;

use super::contract::Rpc;
use super::library_errors::explain;
use super::{metrics, span};
use crate::error::{Failure, code_name};
use crate::telemetry::{ACCESS_TARGET, report::Scope};

const TRACE_ID: HeaderName = HeaderName::from_static("trace-id");

/// Lives until the last byte of the answer is out. Dropped before that, the call was cancelled.
pub(super) struct CallRecord {
    pub(super) scope: Scope,
    pub(super) span: Span,
    pub(super) error_domain: &'static str,
    pub(super) trace_id: String,
    pub(super) rpc: Rpc,
    pub(super) started: Instant,
    pub(super) in_flight: Option<OwnedSemaphorePermit>,
    pub(super) ended: bool,
}

impl CallRecord {
    pub(super) fn status(&self, failure: Failure) -> Status {
        failure.into_status_of(self.error_domain, &self.trace_id)
    }

    pub(super) fn sign(&self, headers: &mut HeaderMap) {
        if let Ok(trace_id) = HeaderValue::from_str(&self.trace_id) {
            headers.insert(TRACE_ID, trace_id);
        }
    }

    /// Ends the call with the status in these headers or trailers, to which an error's details are added if they lack.
    pub(super) fn end(&mut self, headers: &mut HeaderMap) {
        if headers.get(Status::GRPC_STATUS).is_some_and(|code| code == "0") {
            return self.write(Code::Ok, None);
        }
        self.sign(headers);
        let mut status =
            Status::from_header_map(headers).unwrap_or_else(|| Status::unknown("an answer without a status"));
        if status.details().is_empty() {
            status = self.span.in_scope(|| self.status(explain(&status)));
            headers.remove(Status::GRPC_MESSAGE);
            // Codes and base64 are always valid in headers.
            let _ = status.add_header(headers);
        }
        let reason = status.get_details_error_info().map(|info| info.reason);
        self.write(status.code(), reason.as_deref());
    }

    fn write(&mut self, code: Code, reason: Option<&str>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.in_flight = None;
        let took = self.started.elapsed();
        metrics::record(&self.rpc, code, reason, took);
        span::close(&self.span, code);
        let duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        let name = code_name(code);
        self.span.in_scope(|| {
            // Health checks and reflection would drown the rest of the log.
            if self.rpc.infrastructure {
                tracing::debug!(target: ACCESS_TARGET, code = name, reason, duration_ms, "call");
            } else {
                tracing::info!(target: ACCESS_TARGET, code = name, reason, duration_ms, "call");
            }
        });
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        self.write(Code::Cancelled, None);
    }
}

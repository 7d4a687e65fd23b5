//! Who is calling, and under which trace: put in each request's extensions by the edge layer, read by every handler.

use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry;

/// The caller's name and the trace that the call belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallContext {
    /// The caller's name, for audit, logs and idempotency.
    pub caller: String,
    /// Thirty-two hex digits.
    pub trace_id: String,
    /// W3C traceparent of the server's span of this call.
    pub traceparent: String,
    /// W3C baggage that came with the call, at most 1 KiB; empty if there was none, or it was malformed or longer.
    pub baggage: String,
}

impl CallContext {
    /// The metadata key of the caller's name.
    pub const METADATA: &'static str = "p2phub-caller";
    /// The caller's name when the call brings none.
    pub const DEFAULT_CALLER: &'static str = "local";
    /// Every caller that isn't on loopback: no name is believed from there until identity is configured.
    pub const REMOTE_CALLER: &'static str = "remote";

    /// The context of a request that came through the edge layer.
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_else(|| {
            let traceparent = telemetry::current_traceparent();
            Self {
                caller: Self::DEFAULT_CALLER.to_owned(),
                trace_id: telemetry::trace_id_of(&traceparent).unwrap_or_default(),
                traceparent,
                baggage: String::new(),
            }
        })
    }
}

/// When the edge answers for a handler that hasn't: in the extensions of each request that isn't a stream's.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// After so long; None: never.
    pub(crate) fn after(duration: Duration) -> Option<Self> {
        Instant::now().checked_add(duration).map(Self)
    }

    /// When a handler that can end early had better do so: once nine tenths of the time are over. None: nobody waits.
    pub fn near<T>(request: &tonic::Request<T>) -> Option<Instant> {
        let Self(at) = request.extensions().get()?;
        let left: Duration = at.saturating_duration_since(Instant::now());
        at.checked_sub(left / 10)
    }
}

//! Where commands wait, in memory and bounded, for the committer.

use std::{fmt::Display, sync::Arc};

use referral_domain::command::{Command, Refusal};
use service::telemetry::{self, report::Scope};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tracing::Span;
use uuid::Uuid;

use crate::metrics::{self, Tally};

/// How many commands may wait; beyond that, callers are told to come back.
const WAITING_MAX: usize = 1000;

/// The actor of the service's own jobs; no caller can have a name with a space.
const JOB: &str = "referral-svc job";

/// One command with all that its commit needs to know of the call.
pub(crate) struct Queued {
    pub(crate) command: Command,
    pub(crate) method: &'static str,
    pub(crate) caller: String,
    /// None for the service's own jobs, which need no idempotency.
    pub(crate) request_id: Option<Uuid>,
    /// Of the request's content: the same ID with another content is refused.
    pub(crate) fingerprint: [u8; 32],
    pub(crate) trace_id: String,
    /// Of the call's span, and of the commit's once that is open.
    pub(crate) traceparent: String,
    pub(crate) baggage: String,
    /// The commit's span; none until the command is taken up.
    pub(super) span: Span,
    /// Whose call or job it is, should it come to a defect.
    pub(crate) scope: Scope,
    /// Of a job's command: the one row that it is about.
    pub(crate) about: Option<String>,
    /// Whoever sent it expects that it may fail, and looks for the cause: no error yet.
    pub(crate) is_tried: bool,
    unanswered: Unanswered,
}

/// A confirmation that ends without an answer has failed, whoever ends it: the full queue, the caller who gives up before it
/// is taken up, the committer, or its panic. So each is counted once, when it is dropped.
struct Unanswered {
    counts: bool,
}

impl Unanswered {
    fn of(command: &Command) -> Self {
        Self { counts: matches!(command, Command::ConfirmPayment { .. }) }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if self.counts {
            metrics::confirmation_failed();
        }
    }
}

/// What equal requests have in common: method and content.
pub(crate) fn fingerprint(method: &str, content: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(method).chain_update([0]).chain_update(content).finalize().into()
}

impl Queued {
    /// A command of one of the service's own jobs.
    pub(crate) fn of_job(command: Command, method: &'static str, traceparent: String) -> Self {
        Self {
            unanswered: Unanswered::of(&command),
            command,
            method,
            caller: JOB.to_owned(),
            request_id: None,
            fingerprint: [0; 32],
            trace_id: telemetry::trace_id_of(&traceparent).unwrap_or_default(),
            traceparent,
            baggage: String::new(),
            span: Span::none(),
            scope: Scope::current(),
            about: None,
            is_tried: false,
        }
    }

    /// A caller's command.
    pub(crate) fn of_call(
        command: Command,
        method: &'static str,
        request_id: Uuid,
        content: &[u8],
        call: service::call::CallContext,
    ) -> Self {
        Self {
            unanswered: Unanswered::of(&command),
            command,
            method,
            caller: call.caller,
            request_id: Some(request_id),
            fingerprint: fingerprint(method, content),
            trace_id: call.trace_id,
            traceparent: call.traceparent,
            baggage: call.baggage,
            span: Span::none(),
            scope: Scope::current(),
            about: None,
            is_tried: false,
        }
    }

    /// Opens the commit's span, in which the command's trace goes on.
    pub(super) fn take_up(&mut self) {
        let span = tracing::info_span!(parent: None, "commit", method = self.method);
        telemetry::set_parent_with_baggage(&span, &self.traceparent, &self.baggage);
        self.traceparent = telemetry::traceparent_of(&span);
        self.span = span;
    }

    /// Says what makes it impossible, where the caller's trace is told.
    pub(super) fn tell(&self, error: &dyn Display, what: &'static str) {
        let about = self.about.as_deref();
        if self.is_tried {
            tracing::warn!(error = %error, about, "{what}");
        } else {
            tracing::error!(error = %error, about, "{what}");
        }
    }

    /// Does something in the command's own trace and scope, rather than in the batch's.
    pub(super) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let (_entered, _reported) = (self.span.enter(), self.scope.enter());
        work()
    }

    /// Ends the commit's span, before the call's own can end: what became of it is known.
    pub(super) fn settle(mut self, outcome: &Result<Answer, Failed>) {
        match outcome {
            // Counted with its commit, even if the caller has gone meanwhile.
            Ok(_) => self.unanswered.counts = false,
            Err(failed) => {
                failed.mark(&self.span);
                self.unanswered.counts &= *failed != Failed::RequestIdReused;
            }
        }
        telemetry::end(&self.span);
    }
}

/// What a command came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Settled {
    /// The encoded response message.
    Done(Arc<[u8]>),
    /// Refused: the stable reason, and a text for people.
    Refused { reason: String, message: String },
    /// Refused in a way that is never remembered: bad input, or nothing that can be had at the moment.
    Invalid(Refusal),
}

/// An answer, known to be committed.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) settled: Settled,
    /// The first answer once more, for the same request ID.
    pub(crate) replay: bool,
    /// ConfirmPayment found the payment confirmed with the same reference.
    pub(crate) already_confirmed: bool,
    /// What to count once it is known to be committed; of a replay, nothing.
    pub(crate) tally: Tally,
}

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("too many commands are waiting")]
    Full,
    #[error("the database is away; nothing was done")]
    Unavailable,
    #[error("the request ID was used for another request")]
    RequestIdReused,
    #[error("the commit's outcome is unknown")]
    OutcomeUnknown,
    #[error("a defect")]
    Defect,
}

impl Failed {
    /// The reason of that refusal, as callers and the audit record have it.
    pub(crate) const REQUEST_ID_REUSED: &str = "REQUEST_ID_REUSED";

    /// A refusal is no failure of the span's.
    pub(super) fn mark(self, span: &Span) {
        match self {
            Self::Full | Self::RequestIdReused => {}
            Self::Unavailable => telemetry::mark_failed(span, "UNAVAILABLE"),
            Self::OutcomeUnknown => telemetry::mark_failed(span, "OUTCOME_UNKNOWN"),
            Self::Defect => telemetry::mark_failed(span, "INTERNAL"),
        }
    }
}

pub(super) type Waiting = (Queued, oneshot::Sender<Result<Answer, Failed>>);

/// The callers' end.
#[derive(Clone)]
pub(crate) struct CommandQueue {
    sender: mpsc::Sender<Waiting>,
}

impl CommandQueue {
    pub(super) fn new() -> (Self, mpsc::Receiver<Waiting>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let watched: mpsc::WeakSender<Waiting> = sender.downgrade();
        metrics::watch_queue(move || watched.upgrade().map(|sender| sender.max_capacity() - sender.capacity()));
        (Self { sender }, receiver)
    }

    /// Waits for the command's commit, and answers with its own outcome.
    pub(crate) async fn execute(&self, queued: Queued) -> Result<Answer, Failed> {
        let (reply, answer) = oneshot::channel();
        self.sender.try_send((queued, reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Failed::Full,
            mpsc::error::TrySendError::Closed(_) => Failed::Unavailable,
        })?;
        // The committer answers everyone; only its own death drops the sender, at whatever point that was.
        answer.await.unwrap_or(Err(Failed::OutcomeUnknown))
    }
}

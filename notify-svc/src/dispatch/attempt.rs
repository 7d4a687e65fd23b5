//! One attempt: render, send, and what came of it; nothing that goes wrong in here reaches further.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use notify_domain::{
    delivery::{CHANNEL_OFF, KIND_UNKNOWN, Outcome, Step},
    kind::Kind,
    state::OutcomeClass,
};
use service::telemetry::{
    self,
    report::{ReportIn, Scope},
};
use tokio::time::timeout;
use tracing::{Instrument, Span};

use crate::{
    channel::{Message, Senders},
    store::due::{Due, Finished},
    template::{Locale, Templates},
    unsubscribe::UnsubscribeTokens,
};

/// How long a send may take, whatever its channel allows itself; its lease is renewed meanwhile.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes attempts.
pub(super) struct Attempts {
    pub(super) senders: Arc<Senders>,
    pub(super) templates: Arc<Templates>,
    pub(super) unsubscribe: UnsubscribeTokens,
}

impl Attempts {
    /// Makes one, under the trace of what caused the notification.
    pub(super) async fn make(&self, due: Due) -> Finished {
        let (span, scope) = (span(&due), Scope::of("deliver").with_trace_id(&due.trace_id));
        async {
            let outcome = AssertUnwindSafe(timeout(SEND_TIMEOUT, self.send(&due))).catch_unwind().await;
            let outcome = match outcome {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Outcome::new(OutcomeClass::Ambiguous, "TIMEOUT"),
                // The panic itself is on record: the hook logged it.
                Err(_) => Outcome::new(OutcomeClass::Ambiguous, "CHANNEL_PANICKED"),
            };
            log_outcome(&outcome);
            Finished { delivery: due, outcome }
        }
        .instrument(span)
        .report_in(scope)
        .await
    }

    async fn send(&self, due: &Due) -> Outcome {
        let Some(sender) = self.senders.get(&due.channel) else {
            return Outcome::new(OutcomeClass::Address, CHANNEL_OFF);
        };
        match self.message(due) {
            Ok(message) => sender.send(&message).await,
            Err(outcome) => outcome,
        }
    }

    fn message(&self, due: &Due) -> Result<Message, Outcome> {
        // A newer instance may have queued it.
        let kind = Kind::parse(&due.kind).ok_or_else(|| Outcome::new(OutcomeClass::Transient, KIND_UNKNOWN))?;
        let arguments: BTreeMap<String, String> = serde_json::from_value(due.arguments.clone())
            .map_err(|_| Outcome::new(OutcomeClass::Content, "ARGUMENTS_MALFORMED"))?;
        let locale = Locale::of(&due.locale);
        let rendered = self.templates.render(kind, locale, &arguments).map_err(|error| {
            tracing::error!(%error, "a template can't be rendered");
            Outcome::new(OutcomeClass::Content, "TEMPLATE_FAILED")
        })?;
        Ok(Message {
            notification_id: due.notification_id,
            kind,
            recipient_id: due.recipient_id.clone(),
            address: due.address.clone(),
            locale,
            rendered,
            arguments,
            unsubscribe_token: self.unsubscribe.issue(&due.recipient_id),
            trace_id: due.trace_id.clone(),
            create_time: due.create_time,
        })
    }
}

fn span(due: &Due) -> Span {
    let span = tracing::info_span!(
        "deliver",
        notification_id = %due.notification_id,
        channel = due.channel,
        attempt = due.attempt_count,
    );
    telemetry::set_parent(&span, &due.traceparent);
    span
}

fn log_outcome(outcome: &Outcome) {
    let (class, reason) = (outcome.class.as_str(), outcome.reason.as_ref());
    match outcome.class {
        OutcomeClass::Delivered => tracing::debug!("delivered"),
        OutcomeClass::Configuration => tracing::error!(class, reason, "a channel's set-up is refused"),
        _ => tracing::warn!(class, reason, "attempt failed"),
    }
}

/// Logs what became of a delivery that was tried; `None`: its lease was lost meanwhile.
pub(super) fn log_settled(finished: &Finished, step: Option<&Step>) {
    match step {
        Some(step) => log_step(&finished.delivery, step),
        None => {
            span(&finished.delivery).in_scope(|| tracing::warn!("the lease was lost before the attempt was settled"))
        }
    }
}

/// Logs the ends that somebody should see.
pub(super) fn log_step(due: &Due, step: &Step) {
    match step {
        Step::Delivered | Step::Retry(_) => {}
        Step::Expired => span(due).in_scope(|| tracing::warn!("notification expired")),
        Step::PassOver(..) | Step::Suppressed(_) => {
            span(due).in_scope(|| tracing::debug!("the recipient doesn't want it there"))
        }
        Step::Fallback(reason, next) => span(due).in_scope(|| {
            tracing::warn!(%reason, next = next.channel.as_str(), "the channel gave up, another is tried");
        }),
        Step::Dead(reason) => {
            span(due).in_scope(|| tracing::warn!(%reason, "notification is dead: every channel gave up"))
        }
    }
}

//! What traces, logs and metrics are told of attempts and decisions.

use chrono::{DateTime, Utc};
use notify_domain::{
    delivery::{CHANNEL_PANICKED, Outcome, Step, TEMPLATE_FAILED},
    state::OutcomeClass,
};
use service::telemetry::{self, report::Scope};
use tracing::{Span, field::Empty};

use crate::{
    metrics,
    store::{
        claim::Claim,
        due::{Due, Finished},
    },
};

/// The span of an attempt. A notification's first one goes on from where the notification came in. Any other may come days
/// later: a trace of its own, linked to that one, whose ID its log lines show all the same.
pub(super) fn span(due: &Due) -> Span {
    let span = tracing::info_span!(
        parent: None,
        "deliver",
        otel.kind = "client",
        otel.status_code = Empty,
        trace_id = due.trace_id,
        notification_id = %due.notification_id,
        channel = due.channel,
        kind = due.kind,
        attempt = due.attempt_count,
        outcome = Empty,
        reason = Empty,
    );
    if due.attempted {
        telemetry::add_link(&span, &due.traceparent);
    } else {
        telemetry::set_parent(&span, &due.traceparent);
    }
    telemetry::add_baggage(&span, &due.baggage);
    span
}

/// The end of an attempt, and of its span.
pub(super) fn ended(span: &Span, outcome: &Outcome) {
    span.record("outcome", outcome.class.as_str());
    if outcome.class != OutcomeClass::Delivered {
        span.record("reason", outcome.reason.as_ref());
        span.record("otel.status_code", "error");
    }
    // Already, with its cause.
    let is_logged = [CHANNEL_PANICKED, TEMPLATE_FAILED].contains(&outcome.reason.as_ref());
    span.in_scope(|| match outcome.class {
        OutcomeClass::Delivered => tracing::debug!("delivered"),
        _ if is_logged => {}
        _ => tracing::warn!("attempt failed"),
    });
    telemetry::end(span);
}

/// What has become of a delivery that was tried, now that it is committed; `None`: its lease was lost meanwhile, and whoever
/// has taken over counts it.
pub(super) fn settled(finished: &Finished, now: DateTime<Utc>, step: Option<&Step>) {
    let Finished { delivery, outcome, span } = finished;
    span.in_scope(|| match step {
        Some(step) => {
            metrics::attempted(delivery, outcome.class);
            metrics::settled(delivery, step);
            match step {
                Step::Delivered => metrics::delivered(delivery, now),
                Step::Retry(_) => metrics::tried_again(delivery),
                _ => {}
            }
            log_step(delivery, step);
        }
        None => tracing::warn!("the lease was lost before the attempt was settled"),
    });
}

/// An attempt was the first to tell that the set-up is refused: people have to act, and are told once. Until they have, every
/// probe tells it again, as an attempt that failed.
pub(super) fn stopped(finished: &Finished) {
    let _reported = Scope::of("deliver").with_trace_id(&finished.delivery.trace_id).enter();
    finished.span.in_scope(|| tracing::error!("a channel is stopped: its set-up is refused"));
}

/// What a claim has decided by itself, now that it is committed.
pub(super) fn claimed(claim: &Claim) {
    for due in &claim.lost {
        metrics::attempted(due, OutcomeClass::Ambiguous);
        let Due { trace_id, notification_id: id, channel, attempt_count: attempt, .. } = due;
        tracing::warn!(trace_id, notification_id = %id, channel, attempt, "an attempt's worker let its lease run out");
    }
    for (due, step) in &claim.settled {
        metrics::settled(due, step);
        log_step(due, step);
    }
}

/// Logs the ends that somebody should see, under the notification's trace, with or without an attempt.
fn log_step(due: &Due, step: &Step) {
    let Due { trace_id, notification_id: id, channel, .. } = due;
    match step {
        Step::Delivered | Step::Retry(_) => {}
        Step::Expired => tracing::warn!(trace_id, notification_id = %id, channel, "notification expired"),
        Step::PassOver(..) | Step::Suppressed(_) => {
            tracing::debug!(trace_id, notification_id = %id, channel, "the recipient doesn't want it there");
        }
        Step::Fallback(reason, next) => tracing::warn!(
            trace_id,
            notification_id = %id,
            channel,
            %reason,
            next = next.channel.as_str(),
            "the channel gave up, another is tried"
        ),
        Step::Dead(reason) => tracing::warn!(
            trace_id,
            notification_id = %id,
            channel,
            %reason,
            "notification is dead: every channel gave up"
        ),
    }
}

//! One attempt: render, send, and what came of it; nothing that goes wrong in here reaches further.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use notify_domain::{
    delivery::{CHANNEL_OFF, CHANNEL_PANICKED, KIND_UNKNOWN, Outcome, TEMPLATE_FAILED},
    kind::Kind,
    state::OutcomeClass,
};
use service::telemetry::report::{ReportIn, Scope};
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::record;
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
    /// Makes one, in its span.
    pub(super) async fn make(&self, due: Due, span: Span) -> Finished {
        let scope = Scope::of("deliver").with_trace_id(&due.trace_id);
        let send = AssertUnwindSafe(timeout(SEND_TIMEOUT, self.send(&due))).catch_unwind();
        let outcome = match send.instrument(span.clone()).report_in(scope.clone()).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::new(OutcomeClass::Ambiguous, "TIMEOUT"),
            // The panic hook has logged it, in this span.
            Err(_panic) => Outcome::new(OutcomeClass::Ambiguous, CHANNEL_PANICKED),
        };
        {
            let _reported = scope.enter();
            record::ended(&span, &outcome);
        }
        Finished { delivery: due, outcome, span }
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
            Outcome::new(OutcomeClass::Content, TEMPLATE_FAILED)
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

//! Has submitted payments verified in the background, and keeps the rate of TON.
//!
//! What is due is in the database, so nothing is lost with a process: an attempt is taken for a minute, and falls to
//! whoever comes next if nobody has settled it by then.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use chrono::TimeDelta;
use futures_util::{FutureExt, StreamExt, stream};
use referral_domain::{
    command::Command,
    id::PaymentId,
    ton::{Finding, Rate, TonOffer},
};
use service::{
    database::{self, Pool},
    telemetry,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::queue::{CommandQueue, Queued};
use crate::{
    metrics,
    store::{clock::Clock, payments, ton_payments},
    verify::{Ton, Verifier},
};

const POLL_EVERY: Duration = Duration::from_secs(1);
const RATE_EVERY: Duration = Duration::from_secs(60);
/// After a failure, while there is an outage.
const RATE_AGAIN: Duration = Duration::from_secs(5);
/// Longer than an attempt can take.
const LEASE: TimeDelta = TimeDelta::seconds(60);
const AT_ONCE: usize = 8;

/// The job; every instance has one while payments in TON are open.
pub(crate) struct Verifications {
    pub(crate) pool: Pool,
    pub(crate) clock: Clock,
    pub(crate) queue: CommandQueue,
    /// One for each method that is open.
    pub(crate) verifiers: Vec<Arc<dyn Verifier>>,
    pub(crate) shutdown: CancellationToken,
}

impl Verifications {
    /// Runs until the shutdown.
    pub(crate) async fn run(self) {
        let mut outage = Outage::default();
        while self.shutdown.run_until_cancelled(tokio::time::sleep(POLL_EVERY)).await.is_some() {
            match AssertUnwindSafe(self.verify_due(&mut outage)).catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => match error.downcast_ref() {
                    Some(error) if self.pool.note(error) => {}
                    _ => tracing::warn!(error = %error, "payments are not verified this time"),
                },
                // The panic hook has logged it.
                Err(_panic) => {}
            }
        }
    }

    async fn verify_due(&self, outage: &mut Outage) -> anyhow::Result<()> {
        let claimed = {
            let mut connection = database::connect(&self.pool).await?;
            let now = self.clock.now(&mut connection).await?;
            ton_payments::claim(&mut connection, now, LEASE, i64::try_from(AT_ONCE)?).await?
        };
        let attempts: Vec<_> = claimed.into_iter().map(|payment_id| self.attempt(payment_id)).collect();
        let mut findings = stream::iter(attempts).buffer_unordered(AT_ONCE);
        let mut failed = Ok(());
        while let Some(finding) = findings.next().await {
            match finding {
                Ok(Some(finding)) => outage.note(finding),
                Ok(None) => {}
                // The others go on; this one is due again once its lease is over.
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    /// One attempt, in the trace of whoever handed the transaction in. None: the payment was decided meanwhile.
    async fn attempt(&self, payment_id: PaymentId) -> anyhow::Result<Option<&'static str>> {
        let (payment, now) = {
            let mut connection = database::connect(&self.pool).await?;
            let now = self.clock.now(&mut connection).await?;
            (payments::find(&mut connection, payment_id).await?, now)
        };
        let Some((payment, external_ref)) =
            payment.and_then(|payment| payment.to_verify().cloned().map(|external_ref| (payment, external_ref)))
        else {
            return Ok(None);
        };
        let span = tracing::info_span!(parent: None, "verify", otel.kind = "client", payment_id = %payment_id);
        if let Some(ton) = &payment.ton {
            telemetry::set_parent_with_baggage(&span, &ton.verification.traceparent, "");
        }
        let verifying = async {
            let verifier = self.verifiers.iter().find(|verifier| verifier.method() == payment.method);
            let Some(verifier) = verifier else { return Ok(None) };
            let Some(finding) = verifier.verify(&payment, &external_ref, now).await else { return Ok(None) };
            let word = finding.word();
            metrics::verified(word);
            tracing::info!(finding = word, "a payment was looked up");
            if finding.is_outage() {
                telemetry::mark_failed(&tracing::Span::current(), "UNAVAILABLE");
            }
            let command = Command::SettleVerification { payment_id, external_ref, finding };
            let queued = Queued::of_job(command, "SettleVerification", telemetry::current_traceparent());
            self.queue.execute(queued).await?;
            Ok(Some(word))
        };
        verifying.instrument(span).await
    }
}

/// Whether the endpoint answers: told when it stops, and when it does again.
#[derive(Default)]
struct Outage {
    is_on: bool,
}

impl Outage {
    fn note(&mut self, finding: &'static str) {
        let is_on = finding == Finding::UNAVAILABLE;
        match (self.is_on, is_on) {
            (false, true) => tracing::warn!("TON_API_URL doesn't answer; payments wait and are asked about again"),
            (true, false) => tracing::info!("TON_API_URL answers again"),
            _ => {}
        }
        self.is_on = is_on;
    }
}

/// Keeps the rate of TON, as long as there is one: a rate that can't be renewed gets old, and no payment is opened with it.
pub(crate) async fn keep_rate(
    pool: Pool,
    clock: Clock,
    ton: Arc<Ton>,
    offer: watch::Sender<TonOffer>,
    shutdown: CancellationToken,
) {
    let work = async {
        let mut failed = false;
        loop {
            let told = async {
                let minor_units = ton.rate().await?;
                let time = clock.now(&mut *database::connect(&pool).await?).await?;
                anyhow::Ok(Rate { minor_units, source: ton.source(), time })
            };
            let pause = match told.await {
                Ok(rate) => {
                    if failed {
                        tracing::info!("the rate of TON is known again");
                    }
                    failed = false;
                    offer.send_modify(|offer| offer.rate = Some(rate));
                    RATE_EVERY
                }
                Err(error) => {
                    if !failed {
                        tracing::warn!(error = %format!("{error:#}"), "the rate of TON is not known");
                    }
                    failed = true;
                    RATE_AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    shutdown.run_until_cancelled(work).await;
}

//! Takes broadcasts to the outbox, one step a transaction: who is next, one event for them, and how far it has come.
//!
//! The event and the progress are committed together, and a step begins where the committed one ended: whatever is
//! killed, and however many instances there are, each recipient is in one event.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use referral_domain::{
    broadcast::{Broadcast, BroadcastState, Ending, Step},
    id::IdSource,
};
use service::{
    database::{self, Pool},
    telemetry,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    store::{
        Result, broadcasts,
        clock::Clock,
        outbox::{self, OutboxEvent},
        transaction::Transaction,
    },
    wire::event,
};

/// How long a broadcast waits at most that began, or that another instance left.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// How long the database gets to recover.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Events of broadcasts that may wait in the outbox. What is not in the outbox needs no memory, can still be cancelled,
/// and holds nobody up.
const WAITING_MAX: i64 = 64;

/// The runner of broadcasts; every instance has one.
pub(crate) struct Broadcaster {
    pub(crate) pool: Pool,
    pub(crate) clock: Clock,
    /// Notified after each step: there is something to publish.
    pub(crate) committed: Arc<Notify>,
    pub(crate) shutdown: CancellationToken,
}

/// What came of looking for something to do.
enum Did {
    /// One step; there may be more.
    Step,
    /// Nothing, for so long.
    Nothing(Duration),
}

impl Broadcaster {
    pub(crate) async fn run(self) {
        let work = async {
            loop {
                let pause = match AssertUnwindSafe(self.work()).catch_unwind().await {
                    Ok(Ok(Did::Step)) => {
                        self.committed.notify_one();
                        continue;
                    }
                    Ok(Ok(Did::Nothing(pause))) => pause,
                    Ok(Err(error)) => {
                        if !self.pool.note(&error) {
                            tracing::warn!(error = %error, "broadcasts don't go on this time");
                        }
                        RETRY_AFTER
                    }
                    // The panic hook has logged it.
                    Err(_panic) => RETRY_AFTER,
                };
                tokio::time::sleep(pause).await;
            }
        };
        // A step that is cut short was not committed.
        self.shutdown.run_until_cancelled(work).await;
    }

    async fn work(&self) -> Result<Did> {
        let mut transaction = Transaction::begin(database::connect(&self.pool).await?).await?;
        let now = transaction.now(&self.clock).await?;
        let Some(broadcast) = broadcasts::claim(&mut transaction, now).await? else {
            let due = broadcasts::next_due(&mut transaction, now).await?;
            transaction.roll_back().await?;
            let wait = due.and_then(|due| (due - now).to_std().ok());
            return Ok(Did::Nothing(wait.map_or(POLL_EVERY, |wait| wait.min(POLL_EVERY))));
        };
        if outbox::bulk_waiting(&mut transaction).await? >= WAITING_MAX {
            transaction.roll_back().await?;
            return Ok(Did::Nothing(POLL_EVERY));
        }
        let span = tracing::info_span!(parent: None, "broadcast_step", broadcast_id = %broadcast.broadcast_id);
        telemetry::add_link(&span, &broadcast.asked.traceparent);
        let stepping = async {
            step(&mut transaction, broadcast, now).await?;
            transaction.commit().await
        };
        let stepped = stepping.instrument(span.clone()).await;
        if stepped.is_err() {
            telemetry::mark_failed(&span, "FAILED");
        }
        stepped.map(|()| Did::Step)
    }
}

/// One step of a broadcast whose row is locked.
async fn step(transaction: &mut Transaction, broadcast: Broadcast, now: DateTime<Utc>) -> Result<()> {
    if broadcast.is_overdue(now) {
        return write(transaction, &broadcast.ended(Ending::Expired, now)).await;
    }
    let mut recipients = broadcasts::recipients(transaction, &broadcast, now).await?;
    let is_full = recipients.len() >= usize::try_from(broadcast.step_max()).unwrap_or(usize::MAX);
    let (event, taken) = event::of_broadcast(&broadcast, &recipients);
    let cut = taken < recipients.len();
    recipients.truncate(taken);
    let last = recipients.last().map(|last| last.partner_id);
    let (looked_at, exhausted) = if is_full || cut {
        (last, false)
    } else {
        let end = broadcasts::end_of_step(transaction, &broadcast).await?;
        (end.or(last), end.is_none())
    };
    if taken > 0 {
        let event_id = IdSource::new(now, rand::random).uuid();
        let traceparent = broadcast.asked.traceparent.clone();
        let baggage = String::new();
        outbox::insert_bulk(transaction, &OutboxEvent { event_id, create_time: now, traceparent, baggage, event })
            .await?;
    }
    let done = Step { recipients: u32::try_from(taken).unwrap_or(u32::MAX), looked_at, exhausted };
    write(transaction, &broadcast.after(done, now)).await
}

async fn write(transaction: &mut Transaction, broadcast: &Broadcast) -> Result<()> {
    broadcasts::update(transaction, &[broadcast]).await?;
    if broadcast.state() != BroadcastState::Running {
        let (matched, published) = (broadcast.asked.matched, broadcast.published);
        tracing::info!(state = broadcast.state().name(), matched, published, "a broadcast ends");
    }
    Ok(())
}

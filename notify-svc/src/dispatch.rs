//! Notifications out: claim what is due → send, outside any transaction → settle where the lease still holds.
//!
//! One loop does all the database work, in an order that matters: leases of what is in flight are renewed first, and what was
//! sent is settled before anything more is claimed.

mod attempt;
mod flight;
mod judge;
mod record;

use std::{sync::Arc, time::Duration};

use notify_domain::policy::Policy;
use service::{
    database::{self, Connection, Pool},
    interruption::Interruption,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    channel::Senders,
    store::{
        StoreError,
        claim::{self, Claim},
        due::Finished,
        in_time,
        pick::Terms,
        queue,
        settle::{self, Settled},
    },
    template::Templates,
    unsubscribe::UnsubscribeTokens,
};
use attempt::Attempts;
use flight::{Flight, RENEW_AFTER};
use judge::Judge;

/// How long a worker holds a delivery unless it renews its lease: short enough that a killed one's is taken over in half a
/// minute.
const LEASE: Duration = Duration::from_secs(25);
/// How often the queue is looked at when nothing tells that something is due.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The shortest pause, for deliveries that are due but locked by another instance.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// How many deliveries a turn looks at when gates hold up most of them.
const LOOK_MAX: u32 = 1000;
/// How long a delivery rests that can't even be claimed: people have to look at it.
const PUT_OFF: Duration = Duration::from_secs(10 * 60);
/// How long sends in flight may go on when the service stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

/// Everything that the dispatcher works with.
pub(crate) struct Dispatcher {
    pub(crate) pool: Pool,
    pub(crate) senders: Arc<Senders>,
    pub(crate) templates: Arc<Templates>,
    pub(crate) unsubscribe: UnsubscribeTokens,
    pub(crate) policy: Arc<Policy>,
    /// Told when something was queued, by whichever instance.
    pub(crate) queued: Arc<Notify>,
    /// Names this process on its leases.
    pub(crate) owner: String,
    /// Sends at once.
    pub(crate) workers: u32,
}

impl Dispatcher {
    /// Works until it is stopped, then lets what is in flight end and gives the rest back.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let attempts = Arc::new(Attempts {
            senders: Arc::clone(&self.senders),
            templates: Arc::clone(&self.templates),
            unsubscribe: self.unsubscribe.clone(),
        });
        let judge = Judge { policy: Arc::clone(&self.policy), channels: self.senders.channels() };
        let mut flight = Flight::new(attempts);
        let mut ended = Vec::new();
        let (mut look, mut interruption) = (0, Interruption::default());
        while !stop.is_cancelled() {
            flight.collect(&mut ended);
            let turn = in_time(self.turn(&judge, &mut flight, &mut ended, &mut look)).await;
            log_change(&self.pool, &mut interruption, turn.as_ref().err());
            let pause = turn.unwrap_or(POLL_INTERVAL);
            if let Some(first) = self.wait(&mut flight, pause, &stop).await {
                ended.push(first);
            }
        }
        self.drain(&judge, flight, ended).await;
    }

    /// Renews leases, settles what has ended, claims what fits, and says how long nothing else has to be done.
    async fn turn(
        &self,
        judge: &Judge,
        flight: &mut Flight,
        ended: &mut Vec<Finished>,
        look: &mut u32,
    ) -> Result<Duration, StoreError> {
        self.renew(flight).await?;
        self.settle(judge, ended).await?;
        let in_flight = flight.by_gate();
        let limit = self.workers.saturating_sub(u32::try_from(flight.len()).unwrap_or(u32::MAX));
        let terms = Terms {
            owner: &self.owner,
            limit,
            look: limit.max(*look),
            lease: LEASE,
            policy: &self.policy,
            in_flight: &in_flight,
            in_flight_max: self.policy.in_flight_max(self.workers),
            random: rand::random(),
        };
        if terms.limit == 0 {
            return Ok(RENEW_AFTER);
        }
        let mut connection = database::connect(&self.pool).await?;
        let claim = claim(&mut connection, judge, terms).await?;
        // Twice as many each time, while it helps; few otherwise, since each of them costs.
        *look = if claim.is_held_up() { terms.look.saturating_mul(2).min(LOOK_MAX) } else { 0 };
        record::claimed(&claim);
        claim.leased.into_iter().for_each(|due| flight.launch(due));
        let in_flight = flight.by_gate();
        let next = queue::next_due(&mut connection, &Terms { in_flight: &in_flight, ..terms }.busy()).await?;
        Ok(next.map_or(POLL_INTERVAL, |next| next.clamp(PAUSE_MIN, POLL_INTERVAL)))
    }

    /// A send whose lease is lost is cut short: another worker has it, or an operator has cancelled it.
    async fn renew(&self, flight: &mut Flight) -> Result<(), StoreError> {
        let held = flight.to_renew();
        if held.is_empty() {
            return Ok(());
        }
        let renewing = async {
            let mut connection = database::connect(&self.pool).await?;
            queue::renew(&mut connection, &held, LEASE).await
        };
        let span = tracing::info_span!(parent: None, "renew_leases", deliveries = held.len());
        flight.renewed(&held, &renewing.instrument(span).await?);
        Ok(())
    }

    /// Waits for the end of a send, for something queued, for the pause's end, or for the stop.
    async fn wait(&self, flight: &mut Flight, pause: Duration, stop: &CancellationToken) -> Option<Finished> {
        let has_room = flight.len() < usize::try_from(self.workers).unwrap_or(usize::MAX);
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            finished = flight.next(), if flight.len() > 0 => finished,
            () = self.queued.notified(), if has_room => None,
            () = sleep(pause) => None,
        }
    }

    /// Settles all of `ended`. While the database is away they stay; one that can't be settled is left to its lease's end.
    async fn settle(&self, judge: &Judge, ended: &mut Vec<Finished>) -> Result<(), StoreError> {
        let mut size = ended.len();
        while !ended.is_empty() {
            size = size.min(ended.len());
            let settling = async {
                let mut connection = database::connect(&self.pool).await?;
                let decide = |now, finished: &Finished| judge.after(now, finished);
                settle::settle(&mut connection, &ended[..size], &self.policy, decide).await
            };
            let span = tracing::info_span!(parent: None, "settle", deliveries = size);
            match settling.instrument(span).await {
                Ok(Settled { now, steps, refused }) => {
                    for (finished, step) in ended.drain(..size).zip(steps) {
                        record::settled(&finished, now, step.as_ref());
                        if refused.contains(&finished.delivery.held()) {
                            record::stopped(&finished);
                        }
                    }
                }
                Err(error) if passes(&error) => return Err(error),
                Err(_) if size > 1 => size = 1,
                Err(error) => {
                    let lost = ended.remove(0);
                    lost.span.in_scope(|| tracing::error!(%error, "a delivery can't be settled"));
                }
            }
        }
        Ok(())
    }

    /// Sends in flight get a last while; those cut short are given back and don't count.
    async fn drain(&self, judge: &Judge, mut flight: Flight, mut ended: Vec<Finished>) {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while let Ok(Some(finished)) = timeout_at(deadline, flight.next()).await {
            ended.push(finished);
            // At once: this process may be killed before the last one ends. What fails here is tried again below.
            let _ = timeout_at(deadline, self.settle(judge, &mut ended)).await;
        }
        flight.abort(&mut ended).await;
        let left = ended.len();
        if let Err(error) = in_time(self.settle(judge, &mut ended)).await {
            tracing::warn!(%error, left, "not settled before the stop: others take over when the leases end");
        }
    }
}

/// Claims what fits. When a delivery makes that fail, those before it are claimed one by one, and it is put off.
async fn claim(connection: &mut Connection, judge: &Judge, terms: Terms<'_>) -> Result<Claim, StoreError> {
    match claim::claim(connection, terms, |due| judge.before(due), &mut Vec::new()).await {
        Err(error) if !passes(&error) => {}
        claim => return claim,
    }
    let mut picked = Vec::new();
    let one = Terms { limit: 1, look: 1, ..terms };
    let claim = claim::claim(connection, one, |due| judge.before(due), &mut picked).await;
    if let Err(error) = &claim
        && !passes(error)
    {
        for (notification_id, position) in picked {
            let trace_id = queue::put_off(connection, notification_id, position, PUT_OFF).await?;
            tracing::error!(%error, trace_id, %notification_id, "a delivery can't be claimed: put off");
        }
    }
    claim
}

/// Whether the error is of the moment, rather than of the rows at hand.
fn passes(error: &StoreError) -> bool {
    database::is_unavailable(error) || database::is_conflict(error)
}

/// Logs when the queue can't be worked on, and when it can again, but not each turn in between.
fn log_change(pool: &Pool, interruption: &mut Interruption, error: Option<&StoreError>) {
    let Some(error) = error else {
        if interruption.ends() {
            tracing::info!("the queue is worked on again");
        }
        return;
    };
    // An outage is told with all else that it stops.
    if pool.note(error) || !interruption.begins() {
        return;
    }
    if passes(error) {
        tracing::warn!(%error, "the queue can't be worked on for now");
    } else {
        tracing::error!(%error, "the queue can't be worked on");
    }
}

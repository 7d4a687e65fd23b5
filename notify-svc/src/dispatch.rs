//! Notifications out: claim what is due → send, outside any transaction → settle where the lease still holds.
//!
//! One loop does all the database work, in an order that matters: what was sent is settled before anything more is claimed.

mod attempt;
mod flight;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use notify_domain::{
    delivery::{Standing, Step, after_try, before_try},
    event::Contact,
    retry::RetryPolicy,
};
use service::database::{self, Connection, Pool};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    channel::Senders,
    store::{
        StoreError, in_time,
        queue::{self, Claim, Due, Terms},
        settle::{self, Finished},
    },
    template::Templates,
    unsubscribe::UnsubscribeTokens,
};
use attempt::Attempts;
use flight::Flight;

/// How long a worker holds a delivery: longer than a send may take, and short enough that a killed one's is taken over in
/// half a minute.
const LEASE: Duration = Duration::from_secs(25);
/// How often the queue is looked at when nothing tells that something is due.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The shortest pause, for deliveries that are due but locked by another instance.
const PAUSE_MIN: Duration = Duration::from_millis(10);
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
    pub(crate) policy: RetryPolicy,
    /// Told when something was queued by this process.
    pub(crate) queued: Arc<Notify>,
    /// Names this process on its leases.
    pub(crate) owner: String,
    /// Sends at once.
    pub(crate) workers: usize,
}

impl Dispatcher {
    /// Works until it is stopped, then lets what is in flight end and gives the rest back.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let attempts = Arc::new(Attempts {
            senders: Arc::clone(&self.senders),
            templates: Arc::clone(&self.templates),
            unsubscribe: self.unsubscribe.clone(),
        });
        let mut flight = Flight::new(attempts);
        let mut ended = Vec::new();
        let mut away = false;
        while !stop.is_cancelled() {
            flight.collect(&mut ended);
            let turn = in_time(self.turn(&mut flight, &mut ended)).await;
            log_change(&mut away, turn.as_ref().err());
            let pause = turn.unwrap_or(POLL_INTERVAL);
            if let Some(first) = self.wait(&mut flight, pause, &stop).await {
                ended.push(first);
            }
        }
        self.drain(flight, ended).await;
    }

    /// Settles what has ended, claims what fits, and says how long nothing else has to be done.
    async fn turn(&self, flight: &mut Flight, ended: &mut Vec<Finished>) -> Result<Duration, StoreError> {
        self.settle(ended).await?;
        let free = self.workers.saturating_sub(flight.len());
        if free == 0 {
            return Ok(Duration::MAX);
        }
        let mut connection = database::connect(&self.pool).await?;
        let claim = self.claim(&mut connection, free).await?;
        for (due, step) in &claim.settled {
            attempt::log_step(due, step);
        }
        claim.leased.into_iter().for_each(|due| flight.launch(due));
        let next = queue::next_due(&mut connection).await?;
        Ok(next.map_or(POLL_INTERVAL, |next| next.clamp(PAUSE_MIN, POLL_INTERVAL)))
    }

    /// Claims what fits. When a delivery makes that fail, those before it are claimed one by one, and it is put off.
    async fn claim(&self, connection: &mut Connection, free: usize) -> Result<Claim, StoreError> {
        let limit = i64::try_from(free).unwrap_or(i64::MAX);
        let terms = |limit| Terms { owner: &self.owner, limit, lease: LEASE };
        match queue::claim(connection, terms(limit), |due| self.before(due)).await {
            Err(error) if !passes(&error) => {}
            claim => return claim,
        }
        let claim = queue::claim(connection, terms(1), |due| self.before(due)).await;
        if let Err(error) = &claim
            && !passes(error)
        {
            let id = queue::put_off(connection, PUT_OFF).await?;
            tracing::error!(%error, notification_id = ?id, "a delivery can't be claimed: put off");
        }
        claim
    }

    /// Waits for the end of a send, for something queued, for the pause's end, or for the stop.
    async fn wait(&self, flight: &mut Flight, pause: Duration, stop: &CancellationToken) -> Option<Finished> {
        let has_room = flight.len() < self.workers;
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            finished = flight.next(), if flight.len() > 0 => finished,
            () = self.queued.notified(), if has_room => None,
            () = sleep(pause), if pause < Duration::MAX => None,
        }
    }

    /// Settles all of `ended`. While the database is away they stay; one that can't be settled is left to its lease's end.
    async fn settle(&self, ended: &mut Vec<Finished>) -> Result<(), StoreError> {
        let mut size = ended.len();
        while !ended.is_empty() {
            size = size.min(ended.len());
            let mut connection = database::connect(&self.pool).await?;
            let settled =
                settle::settle(&mut connection, &ended[..size], |now, finished| self.after(now, finished)).await;
            match settled {
                Ok(steps) => {
                    for (finished, step) in ended.drain(..size).zip(steps) {
                        attempt::log_settled(&finished, step.as_ref());
                        if matches!(step, Some(Step::Fallback(..))) {
                            self.queued.notify_one();
                        }
                    }
                }
                Err(error) if passes(&error) => return Err(error),
                Err(_) if size > 1 => size = 1,
                Err(error) => {
                    let lost = ended.remove(0);
                    let id = lost.delivery.notification_id;
                    tracing::error!(%error, notification_id = %id, "a delivery can't be settled");
                }
            }
        }
        Ok(())
    }

    fn before(&self, due: &Due) -> Option<Step> {
        let contacts = contacts(due);
        let is_on = self.senders.get(&due.channel).is_some();
        before_try(due.now, &standing(due, &contacts, due.attempted), &self.policy, &self.senders.channels(), is_on)
    }

    fn after(&self, now: DateTime<Utc>, finished: &Finished) -> Step {
        let contacts = contacts(&finished.delivery);
        let standing = standing(&finished.delivery, &contacts, true);
        let jitter = rand::random_range(0..=1000);
        after_try(now, &finished.outcome, &standing, &self.policy, &self.senders.channels(), jitter)
    }

    /// Sends in flight get a last while; those cut short are given back and don't count.
    async fn drain(&self, mut flight: Flight, mut ended: Vec<Finished>) {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while let Ok(Some(finished)) = timeout_at(deadline, flight.next()).await {
            ended.push(finished);
            // At once: this process may be killed before the last one ends. What fails here is tried again below.
            let _ = timeout_at(deadline, self.settle(&mut ended)).await;
        }
        flight.abort(&mut ended).await;
        let left = ended.len();
        if let Err(error) = in_time(self.settle(&mut ended)).await {
            tracing::warn!(%error, left, "not settled before the stop: others take over when the leases end");
        }
    }
}

/// Whether the error is of the moment, rather than of the rows at hand.
fn passes(error: &StoreError) -> bool {
    database::is_unavailable(error) || database::is_conflict(error)
}

/// Logs when the queue can't be worked on, and when it can again, but not each turn in between.
fn log_change(away: &mut bool, error: Option<&StoreError>) {
    match error {
        Some(error) if !*away => tracing::warn!(%error, "the queue can't be worked on for now"),
        None if *away => tracing::info!("the queue is worked on again"),
        _ => {}
    }
    *away = error.is_some();
}

fn contacts(due: &Due) -> Vec<Contact> {
    serde_json::from_value(due.contacts.clone()).unwrap_or_default()
}

fn standing<'a>(due: &Due, contacts: &'a [Contact], attempted: bool) -> Standing<'a> {
    Standing {
        position: due.position,
        attempts: u32::try_from(due.attempt_count).unwrap_or_default(),
        tries_used: u32::try_from(due.tries_used).unwrap_or_default(),
        attempted,
        contacts,
        expire_time: due.expire_time,
    }
}

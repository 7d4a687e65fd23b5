//! The sends in flight: each in a task of its own, with a copy of its delivery here in case the task is cut short.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use notify_domain::{
    admission::InFlight,
    delivery::{Outcome, STOPPED},
    state::OutcomeClass,
};
use tokio::{
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::Instant,
};
use tracing::Span;

use super::{attempt::Attempts, record};
use crate::store::due::{Due, Finished, Held};

/// How old a lease gets before it is renewed.
pub(super) const RENEW_AFTER: Duration = Duration::from_secs(5);
/// How long a send takes until whoever waits for its end is put aside: most have ended long before.
const SLOW_AFTER: Duration = Duration::from_millis(50);
/// How an attempt ended whose task was lost.
const TASK_LOST: &str = "TASK_LOST";

/// Sends in flight.
pub(super) struct Flight {
    attempts: Arc<Attempts>,
    tasks: JoinSet<Finished>,
    sends: HashMap<Id, Send>,
}

struct Send {
    delivery: Due,
    /// The gates that it has passed.
    gates: Vec<String>,
    begun: Instant,
    leased: Instant,
    task: AbortHandle,
    span: Span,
}

impl Flight {
    pub(super) fn new(attempts: Arc<Attempts>) -> Self {
        Self { attempts, tasks: JoinSet::new(), sends: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.sends.len()
    }

    /// How many have passed each gate.
    pub(super) fn by_gate(&self) -> HashMap<String, InFlight> {
        let mut by_gate: HashMap<String, InFlight> = HashMap::new();
        for send in self.sends.values() {
            for gate in &send.gates {
                let in_flight = by_gate.entry(gate.clone()).or_default();
                in_flight.sends += 1;
                in_flight.is_slow |= send.begun.elapsed() >= SLOW_AFTER;
            }
        }
        by_gate
    }

    /// Begins a send.
    pub(super) fn launch(&mut self, due: Due) {
        let attempts = Arc::clone(&self.attempts);
        let delivery = due.clone();
        let gates = due.gates().into_iter().map(|key| key.name).collect();
        let span = record::span(&due);
        let made_in = span.clone();
        let task = self.tasks.spawn(async move { attempts.make(due, made_in).await });
        let (begun, leased) = (Instant::now(), Instant::now());
        self.sends.insert(task.id(), Send { delivery, gates, begun, leased, task, span });
    }

    /// What has been in flight for so long that its lease should be renewed.
    pub(super) fn to_renew(&self) -> Vec<Held> {
        let old = self.sends.values().filter(|send| send.leased.elapsed() >= RENEW_AFTER);
        old.map(|send| send.delivery.held()).collect()
    }

    /// Takes in which of the leases asked for are still held, and cuts short the sends of the others.
    pub(super) fn renewed(&mut self, asked: &[Held], still_held: &[Held]) {
        let (asked, still_held): (HashSet<&Held>, HashSet<&Held>) =
            (asked.iter().collect(), still_held.iter().collect());
        for send in self.sends.values_mut() {
            let held = send.delivery.held();
            if still_held.contains(&held) {
                send.leased = Instant::now();
            } else if asked.contains(&held) {
                send.task.abort();
            }
        }
    }

    /// The next send that ends; `None` when there is none in flight.
    pub(super) async fn next(&mut self) -> Option<Finished> {
        let joined = self.tasks.join_next_with_id().await?;
        self.landed(joined)
    }

    /// Takes what has ended, without waiting.
    pub(super) fn collect(&mut self, ended: &mut Vec<Finished>) {
        while let Some(joined) = self.tasks.try_join_next_with_id() {
            ended.extend(self.landed(joined));
        }
    }

    /// Cuts short what is still in flight.
    pub(super) async fn abort(mut self, ended: &mut Vec<Finished>) {
        self.collect(ended);
        self.tasks.shutdown().await;
        ended.extend(self.sends.into_values().map(|send| cut_short(send, STOPPED)));
    }

    /// Panics are caught within a task; one that is lost all the same gives its place back.
    fn landed(&mut self, joined: Result<(Id, Finished), JoinError>) -> Option<Finished> {
        match joined {
            Ok((id, finished)) => {
                self.sends.remove(&id);
                Some(finished)
            }
            Err(lost) => self.sends.remove(&lost.id()).map(|send| cut_short(send, TASK_LOST)),
        }
    }
}

/// It may have been sent, or not.
fn cut_short(send: Send, reason: &'static str) -> Finished {
    let outcome = Outcome::new(OutcomeClass::Ambiguous, reason);
    record::ended(&send.span, &outcome);
    Finished { delivery: send.delivery, outcome, span: send.span }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;

//! The sends in flight: each in a task of its own, with a copy of its delivery here in case the task is cut short.

use std::{collections::HashMap, sync::Arc};

use notify_domain::{delivery::Outcome, state::OutcomeClass};
use tokio::task::JoinSet;

use super::attempt::Attempts;
use crate::store::{
    queue::Due,
    settle::{Finished, Held},
};

/// How an attempt ended that the service itself cut short.
const STOPPED: &str = "STOPPED";
/// How an attempt ended whose task was lost.
const TASK_LOST: &str = "TASK_LOST";

/// Sends in flight.
pub(super) struct Flight {
    attempts: Arc<Attempts>,
    tasks: JoinSet<Finished>,
    deliveries: HashMap<Held, Due>,
}

impl Flight {
    pub(super) fn new(attempts: Arc<Attempts>) -> Self {
        Self { attempts, tasks: JoinSet::new(), deliveries: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Begins a send.
    pub(super) fn launch(&mut self, due: Due) {
        self.deliveries.insert(due.held(), due.clone());
        let attempts = Arc::clone(&self.attempts);
        self.tasks.spawn(async move { attempts.make(due).await });
    }

    /// The next send that ends; `None` when there is none in flight.
    pub(super) async fn next(&mut self) -> Option<Finished> {
        while let Some(joined) = self.tasks.join_next().await {
            // Panics are caught within: a task that ends otherwise is settled below, when all have ended.
            if let Ok(finished) = joined {
                self.deliveries.remove(&finished.delivery.held());
                return Some(finished);
            }
        }
        let held = *self.deliveries.keys().next()?;
        self.deliveries.remove(&held).map(|delivery| cut_short(delivery, TASK_LOST, true))
    }

    /// Takes what has ended, without waiting.
    pub(super) fn collect(&mut self, ended: &mut Vec<Finished>) {
        while let Some(joined) = self.tasks.try_join_next() {
            if let Ok(finished) = joined {
                self.deliveries.remove(&finished.delivery.held());
                ended.push(finished);
            }
        }
    }

    /// Cuts short what is still in flight.
    pub(super) async fn abort(mut self, ended: &mut Vec<Finished>) {
        self.collect(ended);
        self.tasks.shutdown().await;
        ended.extend(self.deliveries.into_values().map(|delivery| cut_short(delivery, STOPPED, false)));
    }
}

/// It may have been sent, or not.
fn cut_short(delivery: Due, reason: &'static str, counts: bool) -> Finished {
    Finished { delivery, outcome: Outcome::new(OutcomeClass::Ambiguous, reason), counts }
}

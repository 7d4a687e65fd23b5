//! The sends in flight: each in a task of its own, with a copy of its delivery here in case the task is cut short.

use std::{collections::HashMap, sync::Arc};

use notify_domain::{
    delivery::{Outcome, STOPPED},
    state::OutcomeClass,
};
use tokio::task::{Id, JoinError, JoinSet};

use super::attempt::Attempts;
use crate::store::{queue::Due, settle::Finished};

/// How an attempt ended whose task was lost.
const TASK_LOST: &str = "TASK_LOST";

/// Sends in flight.
pub(super) struct Flight {
    attempts: Arc<Attempts>,
    tasks: JoinSet<Finished>,
    deliveries: HashMap<Id, Due>,
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
        let attempts = Arc::clone(&self.attempts);
        let delivery = due.clone();
        let task = self.tasks.spawn(async move { attempts.make(due).await });
        self.deliveries.insert(task.id(), delivery);
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
        ended.extend(self.deliveries.into_values().map(|delivery| cut_short(delivery, STOPPED)));
    }

    /// Panics are caught within a task; one that is lost all the same gives its place back.
    fn landed(&mut self, joined: Result<(Id, Finished), JoinError>) -> Option<Finished> {
        match joined {
            Ok((id, finished)) => {
                self.deliveries.remove(&id);
                Some(finished)
            }
            Err(lost) => self.deliveries.remove(&lost.id()).map(|delivery| cut_short(delivery, TASK_LOST)),
        }
    }
}

/// It may have been sent, or not.
fn cut_short(delivery: Due, reason: &'static str) -> Finished {
    Finished { delivery, outcome: Outcome::new(OutcomeClass::Ambiguous, reason) }
}

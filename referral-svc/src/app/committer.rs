//! Takes whatever has queued as one batch, commits it, and answers each caller: the only writer of this process.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use referral_domain::command::Command;
use service::{database, telemetry};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::Instrument;

use super::{
    batch::{self, Answers, Failure, Rules},
    queue::{Answer, CommandQueue, Failed, Queued, Waiting},
};

/// How many commands one transaction takes at most.
const BATCH_MAX: usize = 500;

/// How often a batch that lost against another writer is tried again.
const CONFLICTS_MAX: u32 = 5;

/// How long a commit whose answer was lost is looked into before its callers are told so.
const RESOLVE_FOR: Duration = Duration::from_secs(15);

/// How many of a batch's traces its span links to.
const LINKS_MAX: usize = 64;

type Reply = oneshot::Sender<Result<Answer, Failed>>;

/// The writer.
pub(crate) struct Committer {
    pool: database::Pool,
    rules: Arc<Rules>,
    receiver: mpsc::Receiver<Waiting>,
    committed: Arc<Notify>,
}

impl Committer {
    /// `committed` is notified after each batch: there may be something to publish.
    pub(crate) fn new(pool: database::Pool, rules: Arc<Rules>, committed: Arc<Notify>) -> (CommandQueue, Self) {
        let (queue, receiver) = CommandQueue::new();
        (queue, Self { pool, rules, receiver, committed })
    }

    /// Runs until every [`CommandQueue`] is gone and all that had queued is answered.
    pub(crate) async fn run(mut self) {
        let mut queued = Vec::with_capacity(BATCH_MAX);
        while self.receiver.recv_many(&mut queued, BATCH_MAX).await > 0 {
            for batch in cut(queued.drain(..)) {
                self.commit(batch).await;
                self.committed.notify_one();
            }
        }
    }

    /// Commits a batch whole, or, where one command spoils it, in halves.
    async fn commit(&self, batch: Vec<Waiting>) {
        let mut work = VecDeque::from([batch.into_iter().unzip::<Queued, Reply, Vec<_>, Vec<_>>()]);
        while let Some((mut commands, mut replies)) = work.pop_front() {
            let span = tracing::info_span!(parent: None, "commit_batch", commands = commands.len());
            for command in commands.iter().take(LINKS_MAX) {
                telemetry::add_link(&span, &command.traceparent);
            }
            match self.attempt(&commands).instrument(span).await {
                Ok(answers) => {
                    for (reply, answer) in replies.into_iter().zip(answers) {
                        // A caller who has gone asks again with the same request ID.
                        let _ = reply.send(answer);
                    }
                }
                Err(None) if commands.len() > 1 => {
                    let half = commands.len() / 2;
                    let rest = (commands.split_off(half), replies.split_off(half));
                    work.push_front(rest);
                    work.push_front((commands, replies));
                }
                Err(failed) => {
                    for reply in replies {
                        let _ = reply.send(Err(failed.unwrap_or(Failed::Defect)));
                    }
                }
            }
        }
    }

    /// None as the error: some command spoils the batch.
    async fn attempt(&self, commands: &[Queued]) -> Result<Answers, Option<Failed>> {
        let started = Instant::now();
        let mut conflicts = 0;
        let mut committing = false;
        loop {
            let error = match batch::commit(&self.pool, &self.rules, commands).await {
                Ok(mut answers) => {
                    if committing {
                        // What the lost commit wrote is found by request ID; to its caller it is the first answer.
                        answers.iter_mut().flatten().for_each(|answer| answer.replay = false);
                    }
                    return Ok(answers);
                }
                Err(Failure::AtCommit(error)) if database::is_unavailable(&error) => {
                    committing = true;
                    error
                }
                Err(Failure::AtCommit(error) | Failure::Before(error)) => error,
            };
            if database::is_unavailable(&error) {
                tracing::warn!(error = %error, commands = commands.len(), committing, "the database is away");
                if !committing {
                    return Err(Some(Failed::Unavailable));
                }
                if started.elapsed() > RESOLVE_FOR {
                    return Err(Some(Failed::OutcomeUnknown));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            conflicts += 1;
            // Two writers that meet in a unique key see each other on the second try.
            let is_conflict = database::is_conflict(&error) || (commands.len() == 1 && is_unique_violation(&error));
            if is_conflict && conflicts < CONFLICTS_MAX {
                tracing::debug!(error = %error, conflicts, "the batch met another writer");
                continue;
            }
            if commands.len() == 1 {
                let command = &commands[0];
                tracing::error!(trace_id = command.trace_id, method = command.method, error = %error, "a command can't be committed");
            } else {
                tracing::warn!(error = %error, commands = commands.len(), "a batch is split");
            }
            return Err(is_conflict.then_some(Failed::Unavailable));
        }
    }
}

fn is_unique_violation(error: &diesel::result::Error) -> bool {
    use diesel::result::{DatabaseErrorKind, Error};
    matches!(error, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))
}

/// Commands in their order; one that changes the tree commits alone, since it moves what others stand on.
fn cut(queued: impl Iterator<Item = Waiting>) -> Vec<Vec<Waiting>> {
    let mut batches: Vec<Vec<Waiting>> = Vec::new();
    let mut alone = true;
    // Nobody waits for the answer any more: the call's deadline has passed, and nothing was done.
    for waiting in queued.filter(|(_, reply)| !reply.is_closed()) {
        let changes_tree = matches!(waiting.0.command, Command::AttachReferrer { .. });
        match batches.last_mut() {
            Some(batch) if !alone && !changes_tree => batch.push(waiting),
            _ => batches.push(vec![waiting]),
        }
        alone = changes_tree;
    }
    batches
}

//! Takes whatever has queued as one batch, commits it, and answers each caller: the only writer of this process.

use std::{
    collections::{HashSet, VecDeque},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use referral_domain::command::Command;
use service::{
    database,
    telemetry::{
        self,
        report::{ReportIn, Scope},
    },
};
use tokio::{
    runtime,
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::{
    batch::{self, Answers, Failure, Rules},
    queue::{Answer, CommandQueue, Failed, Queued, Settled, Waiting},
    write::ChainEnd,
};
use crate::metrics::{self, Tally};

/// How often a batch that lost against another writer is tried again.
const CONFLICTS_MAX: u32 = 5;

/// How long a commit whose answer was lost is looked into before its callers are told so.
const RESOLVE_FOR: Duration = Duration::from_secs(15);
const RESOLVE_EVERY: Duration = Duration::from_millis(100);

/// How many of a batch's commands its span links to: as many links as a span has by default.
const LINKS_MAX: usize = 128;

type Reply = oneshot::Sender<Result<Answer, Failed>>;

/// The writer.
pub(crate) struct Committer {
    pool: database::Pool,
    rules: Arc<Rules>,
    receiver: mpsc::Receiver<Waiting>,
    committed: Arc<Notify>,
    /// How many commands one transaction takes at most.
    batch_max: usize,
    /// Where this process's chain of blocks ends; none: the next batch begins a new one.
    chain: Option<ChainEnd>,
}

impl Committer {
    /// `committed` is notified after each batch: there may be something to publish.
    pub(crate) fn new(
        pool: database::Pool,
        rules: Arc<Rules>,
        committed: Arc<Notify>,
        batch_max: usize,
    ) -> (CommandQueue, Self) {
        let (queue, receiver) = CommandQueue::new();
        (queue, Self { pool, rules, receiver, committed, batch_max, chain: None })
    }

    /// Runs on a thread of its own: a batch waits for the database some twenty times, and among the calls' tasks would wait for
    /// its turn as often.
    pub(crate) fn spawn(self, drained: CancellationToken) -> std::io::Result<JoinHandle<()>> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(tokio::task::spawn_blocking(move || runtime.block_on(self.run(drained))))
    }

    /// Runs until every [`CommandQueue`] is gone or `drained`, and all that had queued is answered.
    async fn run(mut self, drained: CancellationToken) {
        let mut queued = Vec::with_capacity(self.batch_max);
        loop {
            let count = tokio::select! {
                count = self.receiver.recv_many(&mut queued, self.batch_max) => count,
                // Calls that outlast the drain would keep their queues open.
                () = drained.cancelled(), if !self.receiver.is_closed() => {
                    self.receiver.close();
                    continue;
                }
            };
            if count == 0 {
                return;
            }
            for batch in cut(queued.drain(..)) {
                // A panic costs its batch, whose callers learn that the outcome is unknown; the writer goes on. The panic
                // hook has logged it.
                let _ = AssertUnwindSafe(self.commit(batch)).catch_unwind().await;
                self.committed.notify_one();
            }
        }
    }

    /// Commits a batch whole, or, where one command spoils it, in halves.
    async fn commit(&mut self, batch: Vec<Waiting>) {
        let (mut commands, replies) = batch.into_iter().unzip::<Queued, Reply, Vec<_>, Vec<_>>();
        commands.iter_mut().for_each(Queued::take_up);
        let mut work = VecDeque::from([(commands, replies)]);
        while let Some((mut commands, mut replies)) = work.pop_front() {
            let span = batch_span(&commands);
            match self.attempt(&commands).instrument(span.clone()).report_in(Scope::of("commit_batch")).await {
                Ok(answers) => {
                    metrics::count(&Tally::sum(answers.iter().flatten().map(|answer| &answer.tally)));
                    for ((command, reply), answer) in commands.into_iter().zip(replies).zip(answers) {
                        command.settle(&answer);
                        // A caller who has gone asks again with the same request ID.
                        let _ = reply.send(answer);
                    }
                }
                Err(None) if commands.len() > 1 => {
                    telemetry::mark_failed(&span, "SPLIT");
                    let half = commands.len() / 2;
                    let rest = (commands.split_off(half), replies.split_off(half));
                    work.push_front(rest);
                    work.push_front((commands, replies));
                }
                Err(failed) => {
                    let failed = failed.unwrap_or(Failed::Defect);
                    failed.mark(&span);
                    for (command, reply) in commands.into_iter().zip(replies) {
                        command.settle(&Err(failed));
                        let _ = reply.send(Err(failed));
                    }
                }
            }
        }
    }

    /// None as the error: some command spoils the batch.
    async fn attempt(&mut self, commands: &[Queued]) -> Result<Answers, Option<Failed>> {
        let started = Instant::now();
        let mut conflicts = 0;
        let mut lost: Option<Answers> = None;
        loop {
            let error = match batch::commit(&self.pool, &self.rules, &mut self.chain, commands).await {
                Ok(answers) => {
                    if answers.iter().all(is_refusal) {
                        telemetry::mark_refused();
                    }
                    return Ok(resolve(answers, lost));
                }
                Err(Failure::AtCommit(error, answers)) if database::is_unavailable(&error) => {
                    lost.get_or_insert(answers);
                    error
                }
                Err(Failure::AtCommit(error, _) | Failure::Before(error)) => error,
            };
            // Under a trace that a caller is told, if it is the first of an outage.
            if commands[0].within(|| self.pool.note(&error)) {
                if lost.is_none() {
                    return Err(Some(Failed::Unavailable));
                }
                if started.elapsed() > RESOLVE_FOR {
                    return Err(Some(Failed::OutcomeUnknown));
                }
                tokio::time::sleep(RESOLVE_EVERY).await;
                continue;
            }
            conflicts += 1;
            if database::is_conflict(&error) {
                if conflicts < CONFLICTS_MAX {
                    tracing::debug!(error = %error, conflicts, "the batch met another writer");
                    continue;
                }
                tracing::warn!(error = %error, conflicts, "the batch met other writers too often");
                return Err(Some(if lost.is_some() { Failed::OutcomeUnknown } else { Failed::Unavailable }));
            }
            match commands {
                // Two writers that met in a unique key see each other on the second try.
                [_] if is_unique_violation(&error) && conflicts == 1 => continue,
                // Under the trace that the caller is told.
                [command] => command.within(|| command.tell(&error, "a command can't be committed")),
                _ => tracing::warn!(error = %error, commands = commands.len(), "a batch is split"),
            }
            return Err(None);
        }
    }
}

/// One span for the whole batch, in a trace of its own. It and its commands' spans are linked both ways; its own links are
/// there before it starts, so that it is sampled if one of the commands is.
fn batch_span(commands: &[Queued]) -> Span {
    let span = tracing::info_span!(parent: None, "commit_batch", commands = commands.len());
    for command in commands.iter().take(LINKS_MAX) {
        telemetry::link(&span, &command.span);
    }
    for command in commands {
        telemetry::link(&command.span, &span);
    }
    span
}

/// After a lost COMMIT: a command that is found answered in the very words of that attempt was done by it, and its answer is
/// the first one. Of any other, what was found or decided now holds: another instance may have been asked meanwhile.
fn resolve(answers: Answers, lost: Option<Answers>) -> Answers {
    let Some(lost) = lost else { return answers };
    let was_done = |now: &Answer, then: &Answer| now.replay && !then.replay && now.settled == then.settled;
    answers
        .into_iter()
        .zip(lost)
        .map(|pair| match pair {
            (Ok(now), Ok(then)) if was_done(&now, &then) => Ok(then),
            (now, _) => now,
        })
        .collect()
}

fn is_refusal(answer: &Result<Answer, Failed>) -> bool {
    match answer {
        Ok(answer) => !matches!(answer.settled, Settled::Done(_)),
        Err(failed) => *failed == Failed::RequestIdReused,
    }
}

fn is_unique_violation(error: &diesel::result::Error) -> bool {
    use diesel::result::{DatabaseErrorKind, Error};
    matches!(error, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))
}

/// Commands in their order; one that changes the tree commits alone, since it moves what others stand on. A partner's second
/// payout comes in the next batch: what it may name is read after the first one's commit.
fn cut(queued: impl Iterator<Item = Waiting>) -> Vec<Vec<Waiting>> {
    let mut batches: Vec<Vec<Waiting>> = Vec::new();
    let mut alone = true;
    let mut paid_out = HashSet::new();
    // Nobody waits for the answer any more: the call's deadline has passed, and nothing was done. A confirmation so counts
    // as failed.
    for waiting in queued.filter(|(_, reply)| !reply.is_closed()) {
        let changes_tree = matches!(waiting.0.command, Command::AttachReferrer { .. });
        let partner = match &waiting.0.command {
            Command::RequestPayout { partner_id, .. } => Some(*partner_id),
            _ => None,
        };
        match batches.last_mut() {
            Some(batch) if !alone && !changes_tree && partner.is_none_or(|id| !paid_out.contains(&id)) => {
                batch.push(waiting)
            }
            _ => {
                paid_out.clear();
                batches.push(vec![waiting]);
            }
        }
        paid_out.extend(partner);
        alone = changes_tree;
    }
    batches
}

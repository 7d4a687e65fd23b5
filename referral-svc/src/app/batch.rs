//! One batch: load, decide command after command, write, commit.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use diesel::result::Error;
use referral_domain::{
    command::{Command, Outcome, RefusalClass},
    decide::{Context, decide},
    id::IdSource,
    payment::Method,
    plan::Plan,
    state::{Changes, Decision, State},
    ton::TonOffer,
};
use service::database::{self, Pool};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    load,
    queue::{Answer, Failed, Queued, Settled},
    write::{ChainEnd, Written},
};
use crate::{
    metrics::{CommitTimer, Tally},
    store::{
        Result,
        audit::AuditEvent,
        clock::Clock,
        locks::{self, Stripes},
        outbox::OutboxEvent,
        requests::{self, Answered, RequestKey},
        transaction::Transaction,
    },
    wire::{event, outward},
};

/// What every batch is decided by.
pub(crate) struct Rules {
    pub(crate) plan: Plan,
    pub(crate) methods: Vec<Method>,
    pub(crate) clock: Clock,
    /// What payments in TON are made of, as last heard; none: the method is closed.
    pub(crate) ton: Option<watch::Receiver<TonOffer>>,
}

/// Each command's answer, in the batch's order.
pub(super) type Answers = Vec<std::result::Result<Answer, Failed>>;

/// How a batch failed.
pub(super) enum Failure {
    /// Before COMMIT: nothing was done.
    Before(Error),
    /// While COMMIT was on its way: it may have been done, with these answers.
    AtCommit(Error, Answers),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Before(error)
    }
}

/// Commits the batch, or fails whole. `chain` is where this process's chain of blocks ends.
pub(super) async fn commit(
    pool: &Pool,
    rules: &Rules,
    chain: &mut Option<ChainEnd>,
    batch: &[Queued],
) -> std::result::Result<Answers, Failure> {
    let timer = CommitTimer::start();
    let mut transaction = Transaction::begin(database::connect(pool).await?).await?;
    // Only what is known to be committed is followed by more: whatever else happens on the way, a new chain begins.
    let known = chain.take();
    match decide_and_write(&mut transaction, rules, known, batch).await {
        Ok((answers, Some(sealed))) => match transaction.commit().await {
            Ok(()) => {
                *chain = Some(sealed);
                timer.committed(batch.len());
                Ok(answers)
            }
            Err(error) => Err(Failure::AtCommit(error, answers)),
        },
        Ok((answers, None)) => {
            *chain = known;
            transaction.roll_back().await?;
            timer.unchanged(batch.len());
            Ok(answers)
        }
        Err(error) => {
            // The first error is the one to tell; a connection that can't roll back is thrown away.
            let _ = transaction.roll_back().await;
            Err(error.into())
        }
    }
}

fn key(queued: &Queued) -> Option<RequestKey> {
    queued.request_id.map(|request_id| (queued.caller.clone(), request_id))
}

/// The answers, and the block that seals what was written, if anything was.
async fn decide_and_write(
    transaction: &mut Transaction,
    rules: &Rules,
    chain: Option<ChainEnd>,
    batch: &[Queued],
) -> Result<(Answers, Option<ChainEnd>)> {
    let tree_changes = batch.iter().any(|queued| matches!(queued.command, Command::AttachReferrer { .. }));
    let keys: Vec<RequestKey> = batch.iter().filter_map(key).collect();
    let mut stripes = Stripes::default();
    for (caller, request_id) in &keys {
        stripes.add("request_id", &[caller.as_bytes(), request_id.as_bytes()].concat());
    }
    load::stripes(transaction, batch.iter().map(|queued| &queued.command), &mut stripes).await?;
    locks::take(transaction, tree_changes, &stripes).await?;
    let known = requests::load(transaction, &keys).await?;
    let fresh = batch.iter().filter(|queued| key(queued).is_none_or(|key| !known.contains_key(&key)));
    let state = load::state(transaction, fresh.map(|queued| &queued.command), &rules.plan).await?;
    // Every lock is held by now: what is booked in an account is booked in the order of time.
    let now = transaction.now(&rules.clock).await?;
    let mut deciding = Deciding {
        rules,
        now,
        state,
        known,
        written: Written::default(),
        ids: IdSource::new(now, rand::random),
        ton: rules.ton.as_ref().map(|offer| offer.borrow().clone()),
    };
    let answers = batch.iter().map(|queued| deciding.answer(queued)).collect();
    let Deciding { state, written, .. } = deciding;
    if written.is_empty() {
        return Ok((answers, None));
    }
    // The hashes are computed while the database works on the first statement.
    let (done, hashes) = tokio::join!(biased; written.write(transaction, &state, now), async { written.hashes() });
    done?;
    Ok((answers, Some(written.seal(transaction, chain, hashes, now).await?)))
}

struct Deciding<'a> {
    rules: &'a Rules,
    now: DateTime<Utc>,
    state: State,
    known: HashMap<RequestKey, Answered>,
    written: Written,
    ids: IdSource,
    ton: Option<TonOffer>,
}

impl Deciding<'_> {
    fn answer(&mut self, queued: &Queued) -> std::result::Result<Answer, Failed> {
        if let Some(first) = key(queued).and_then(|key| self.known.get(&key)) {
            let (answer, detail) = (replay(queued, first), format!("first used for {}", first.method));
            if answer.is_err() {
                self.note(queued, Failed::REQUEST_ID_REUSED, String::new(), detail, Changes::default());
            }
            return answer;
        }
        let ton = self.ton.as_ref();
        let context = Context {
            now: self.now,
            plan: &self.rules.plan,
            methods: &self.rules.methods,
            caller: &queued.caller,
            traceparent: &queued.traceparent,
            ton,
        };
        let (state, ids) = (&self.state, &mut self.ids);
        // Whatever is logged here belongs to this command's trace, not to the batch's.
        let (_entered, _reported) = (queued.span.enter(), queued.scope.enter());
        // The state is only read, so a decision that panics leaves nothing half done.
        let decision = catch_unwind(AssertUnwindSafe(|| decide(state, &queued.command, &context, ids)));
        match decision {
            Ok(Ok(decision)) => Ok(self.record(queued, decision)),
            Ok(Err(undecided)) => {
                queued.tell(&undecided, "a command can't be decided");
                Err(Failed::Defect)
            }
            // The panic hook has logged it.
            Err(_panic) => Err(Failed::Defect),
        }
    }

    /// Takes a decision into the state and what is to be written.
    fn record(&mut self, queued: &Queued, decision: Decision) -> Answer {
        let tally = Tally::of(&self.state, &queued.command, &decision);
        let Decision { outcome, changes, subject_id, detail } = decision;
        let already_confirmed = matches!(outcome, Ok(Outcome::Confirmed { already: true, .. }));
        let answer = |settled| Answer { settled, replay: false, already_confirmed, tally };
        match outcome {
            Ok(outcome) => {
                let body = outward::response(&outcome, self.now);
                // A job that found nothing left to do did nothing.
                if queued.request_id.is_some() || !changes.is_empty() {
                    self.note(queued, "OK", subject_id, detail, changes);
                }
                self.remember(queued, None, &body);
                answer(Settled::Done(Arc::from(body)))
            }
            Err(refusal) => {
                let ((reason, class), message) = (refusal.kind(), refusal.to_string());
                // What can't be had at the moment is no decision.
                if class != RefusalClass::Unavailable {
                    self.note(queued, reason, subject_id, detail, changes);
                }
                if !class.is_remembered() {
                    return answer(Settled::Invalid(refusal));
                }
                self.remember(queued, Some(reason.to_owned()), message.as_bytes());
                answer(Settled::Refused { reason: reason.to_owned(), message })
            }
        }
    }

    /// Puts what was decided on record, and who should hear of it in the outbox.
    fn note(&mut self, queued: &Queued, outcome: &str, subject_id: String, detail: String, changes: Changes) {
        self.state.apply(&changes, &mut self.written.dirty);
        self.written.audit.push(AuditEvent {
            audit_event_id: self.ids.uuid(),
            create_time: self.now,
            actor: queued.caller.clone(),
            action: queued.method.to_owned(),
            subject_id,
            outcome: outcome.to_owned(),
            trace_id: Uuid::try_parse(&queued.trace_id).unwrap_or_default(),
            request_id: queued.request_id,
            detail,
            notices: i32::try_from(changes.notices.len()).ok(),
        });
        if !changes.notices.is_empty() {
            self.written.outbox.push(OutboxEvent {
                event_id: self.ids.uuid(),
                create_time: self.now,
                traceparent: queued.traceparent.clone(),
                baggage: queued.baggage.clone(),
                event: event::encode(&changes.notices),
            });
        }
        self.written.changes.push(changes);
    }

    /// Keeps the answer for whoever asks the same again.
    fn remember(&mut self, queued: &Queued, refusal: Option<String>, answer: &[u8]) {
        if let (Some(key), Some(request_id)) = (key(queued), queued.request_id) {
            let first = Answered {
                request_id,
                caller: queued.caller.clone(),
                method: queued.method.to_owned(),
                fingerprint: queued.fingerprint.to_vec(),
                refusal,
                answer: answer.to_vec(),
            };
            self.known.insert(key, first.clone());
            self.written.requests.push(first);
        }
    }
}

/// The first answer to a request ID, to whoever asks the same again.
fn replay(queued: &Queued, first: &Answered) -> std::result::Result<Answer, Failed> {
    if first.method != queued.method || first.fingerprint != queued.fingerprint {
        return Err(Failed::RequestIdReused);
    }
    let settled = match &first.refusal {
        None => Settled::Done(Arc::from(first.answer.as_slice())),
        Some(reason) => {
            Settled::Refused { reason: reason.clone(), message: String::from_utf8_lossy(&first.answer).into_owned() }
        }
    };
    Ok(Answer { settled, replay: true, already_confirmed: false, tally: Tally::default() })
}

//! The contract's services: validate, convert, hand over, answer.

mod adjustment;
mod audit;
mod broadcast;
mod check;
mod explanation;
mod leaderboard;
mod ledger;
mod partner;
mod payment;
mod payout;
mod reconciliation;
mod statement;
mod status;
mod stream;

use std::{pin::Pin, sync::Arc};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use diesel_async::AsyncPgConnection;
use futures_util::Stream;
use prost::Message;
use prost_types::Timestamp;
use referral_domain::command::Command;
use service::{
    call::CallContext,
    database::{self, Connection, Pool},
    error::Failure,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status, metadata::MetadataValue};

use crate::{
    app::{CommandQueue, Queued, Settled, Signer},
    store::{self, balances::Span, clock::Clock},
    wire::fields::{self, Checked},
};

/// What a streaming answer is.
type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What every service of this contract works with.
#[derive(Clone)]
pub(crate) struct Api {
    queue: CommandQueue,
    pool: Pool,
    clock: Clock,
    /// Places for checks of all the books at once.
    checking: Arc<Semaphore>,
    /// Places for checks of one partner or of what is new at once.
    checking_parts: Arc<Semaphore>,
    /// Places for proofs of the audit records at once.
    proving: Arc<Semaphore>,
    /// None: no key is configured.
    signer: Option<Arc<Signer>>,
    /// Places for exports at once.
    exports: Arc<Semaphore>,
    /// Places for reconciliations at once.
    reconciliations: Arc<Semaphore>,
}

/// Exports at once: each uses a connection for a moment, a page at a time.
const EXPORTS_MAX: usize = 32;
/// Reconciliations at once: each may hold a statement in memory, some 100 MB if it is as long as it may be.
const RECONCILIATIONS_MAX: usize = 2;

/// Checks of a part of the books at once: each uses a connection, and a processor.
const CHECKS_OF_PARTS_MAX: usize = 2;

/// A connection in use. Dropped in the middle of a query (the caller's deadline passed), it is closed, lest the next user
/// wait for that query's end.
struct Lease(Option<Connection>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.take().map(Connection::take);
    }
}

impl Api {
    pub(crate) fn new(queue: CommandQueue, pool: Pool, clock: Clock, signer: Option<Signer>) -> Self {
        Self {
            queue,
            pool,
            clock,
            checking: Arc::new(Semaphore::new(1)),
            checking_parts: Arc::new(Semaphore::new(CHECKS_OF_PARTS_MAX)),
            proving: Arc::new(Semaphore::new(1)),
            signer: signer.map(Arc::new),
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            reconciliations: Arc::new(Semaphore::new(RECONCILIATIONS_MAX)),
        }
    }

    /// Runs a mutation: checks, queues, waits for the commit, answers with the committed response message.
    async fn command<Q, R>(
        &self,
        request: Request<Q>,
        method: &'static str,
        request_id: impl FnOnce(&mut Q) -> &mut String,
        parse: impl FnOnce(&Q) -> Checked<Command>,
    ) -> Result<Response<R>, Status>
    where
        Q: Message,
        R: Message + Default,
    {
        let call = CallContext::of(&request);
        let mut message = request.into_inner();
        // The ID is not part of the content: one UUID has several spellings.
        let request_id = std::mem::take(request_id(&mut message));
        let run = async {
            let request_id = fields::id("request_id", &request_id)?;
            let command = parse(&message)?;
            let queued = Queued::of_call(command, method, request_id, &message.encode_to_vec(), call);
            let answer = self.queue.execute(queued).await.map_err(status::of_failed)?;
            let replay = answer.replay;
            let already_confirmed = answer.already_confirmed;
            let mut response = match answer.settled {
                Settled::Done(body) => Response::new(R::decode(body.as_ref()).map_err(|_| Failure::internal())?),
                Settled::Refused { reason, message } => return Err(status::of_refusal(reason, message, replay)),
                Settled::Invalid(refusal) => return Err(status::of_invalid(&refusal)),
            };
            let flags = [("idempotent-replay", replay), ("already-confirmed", already_confirmed)];
            for (name, _) in flags.into_iter().filter(|(_, set)| *set) {
                response.metadata_mut().insert(name, MetadataValue::from_static("true"));
            }
            Ok(response)
        };
        run.await.map_err(status::finish)
    }

    /// Answers with what a read on a connection of the pool yields.
    async fn read<T>(
        &self,
        read: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, ReadError>,
    ) -> Result<Response<T>, Status> {
        self.query(read).await.map(Response::new).map_err(status::finish)
    }

    /// Runs a read on a connection of the pool.
    async fn query<T>(
        &self,
        read: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, ReadError>,
    ) -> Result<T, Failure> {
        let run = async {
            let mut lease = Lease(Some(database::connect(&self.pool).await?));
            let Some(connection) = lease.0.as_deref_mut() else {
                return Err(Failure::internal().into());
            };
            let answer = read(connection).await;
            // The query has ended: back to the pool.
            drop(lease.0.take());
            answer
        };
        run.await.map_err(|error| match error {
            ReadError::Failure(failure) => failure,
            ReadError::Database(error) => status::of_database(&self.pool, &error),
        })
    }
}

/// Why a read has no answer.
enum ReadError {
    Failure(Failure),
    Database(diesel::result::Error),
}

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<diesel::result::Error> for ReadError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Database(error)
    }
}

/// A place among the checks of a kind: one that would wait for another's end could use up its own time with that.
fn one_of(places: &Semaphore) -> Checked<SemaphorePermit<'_>> {
    places.try_acquire().map_err(|_| status::check_in_progress())
}

/// The partner, or that there is none.
async fn existing_partner(
    connection: &mut AsyncPgConnection,
    key: &store::partners::Key,
) -> Result<referral_domain::command::PartnerView, ReadError> {
    let found = store::partners::find(connection, key).await?;
    Ok(found.ok_or_else(|| status::not_found("PARTNER_NOT_FOUND", "no such partner"))?)
}

impl Api {
    /// A time to answer as of: not in the future.
    async fn past(
        &self,
        connection: &mut AsyncPgConnection,
        field: &'static str,
        time: Option<&Timestamp>,
    ) -> Result<Option<DateTime<Utc>>, ReadError> {
        let time = fields::time(field, time)?;
        if let Some(time) = time
            && time > self.clock.now(connection).await?
        {
            return Err(Failure::violation(field, "must not be in the future").into());
        }
        Ok(time)
    }
}

/// A span of time, whose ends may be open, to the microsecond as times are stored.
fn span(start: Option<&Timestamp>, end: Option<&Timestamp>) -> Checked<Span> {
    let whole = |time: DateTime<Utc>| {
        let whole = time.trunc_subsecs(6);
        if whole < time { whole + TimeDelta::microseconds(1) } else { whole }
    };
    let span =
        Span { start: fields::time("start_time", start)?.map(whole), end: fields::time("end_time", end)?.map(whole) };
    match span.start.zip(span.end) {
        Some((start, end)) if start > end => Err(Failure::violation("end_time", "must not be before start_time")),
        _ => Ok(span),
    }
}

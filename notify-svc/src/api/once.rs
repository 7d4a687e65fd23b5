//! Mutations: done once per caller and request ID, whoever asks how often on whichever instance.
//!
//! What is done, its answer and its audit record are one transaction. A refusal that depended on state is an answer too; bad
//! input and failures that pass are not.

use std::time::{Duration, Instant};

use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager};
use prost::Message;
use service::{call::CallContext, database, error::Failure};
use sha2::{Digest, Sha256};
use tonic::{Code, Request, Response, Status, metadata::MetadataValue};

use super::{NotificationApi, connection::Lease, fields};
use crate::{
    status,
    store::{
        StoreError,
        audit::{self, AuditEvent},
        clock,
        requests::{self, Answered, RequestKey},
    },
};

type Manager = <AsyncPgConnection as AsyncConnection>::TransactionManager;

/// How often a call that met another transaction is tried.
const CONFLICTS_MAX: u32 = 5;
/// How long a commit whose answer was lost is looked into before the caller is told so.
const RESOLVE_FOR: Duration = Duration::from_secs(15);
const RESOLVE_EVERY: Duration = Duration::from_millis(100);

/// A mutation, checked and ready to be done.
pub(super) trait Mutation: Send + Sync {
    /// The RPC's name.
    const METHOD: &'static str;
    /// What it answers.
    type Answer: Message + Default;

    /// Does it in the open transaction, or refuses before it has written anything.
    fn work(
        &self,
        connection: &mut AsyncPgConnection,
        call: &CallContext,
    ) -> impl Future<Output = Result<Done<Self::Answer>, Undone>> + Send;
}

/// What was done, for the caller and for the record.
pub(super) struct Done<A> {
    pub(super) answer: A,
    /// What it was done to.
    pub(super) subject_id: String,
    /// What else an auditor should see.
    pub(super) detail: String,
}

/// Why nothing was done.
pub(super) enum Undone {
    /// As things stand: remembered.
    Refused { failure: Failure, subject_id: String, detail: String },
    /// Not remembered.
    Failed(StoreError),
}

impl From<StoreError> for Undone {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// A call of a mutation.
struct Call<M> {
    context: CallContext,
    key: RequestKey,
    content_digest: Vec<u8>,
    mutation: M,
}

/// An answer, and whether it is an earlier one.
struct Settled {
    first: Answered,
    replay: bool,
}

/// How a try ended without one.
enum Broken {
    /// Nothing was done.
    Before(StoreError),
    /// COMMIT was on its way: it may have been done, with this answer.
    AtCommit(StoreError, Answered),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self::Before(error)
    }
}

impl NotificationApi {
    /// Runs a mutation: checks, does it or finds what was answered first, and answers.
    pub(super) async fn once<Q: Message, M: Mutation>(
        &self,
        request: Request<Q>,
        request_id: fn(&mut Q) -> &mut String,
        check: impl FnOnce(&Q) -> Result<M, Failure>,
    ) -> Result<Response<M::Answer>, Status> {
        let context = CallContext::of(&request);
        let mut message = request.into_inner();
        // The ID is no part of the content: one UUID has several spellings.
        let request_id = std::mem::take(request_id(&mut message));
        let request_id = fields::uuid("request_id", &request_id).map_err(status::of)?;
        let mutation = check(&message).map_err(status::of)?;
        let content_digest =
            Sha256::new().chain_update(M::METHOD).chain_update([0]).chain_update(message.encode_to_vec()).finalize();
        let call = Call {
            key: RequestKey { caller: context.caller.clone(), request_id },
            context,
            content_digest: content_digest.to_vec(),
            mutation,
        };
        let settled = self.settle(&call).await.map_err(status::of)?;
        if settled.first.method != M::METHOD || settled.first.content_digest != call.content_digest {
            let message = "the request_id was used for another request";
            return Err(status::of(Failure::new(Code::AlreadyExists, "REQUEST_ID_REUSED", message)));
        }
        respond(settled)
    }

    /// An answer that is committed.
    async fn settle<M: Mutation>(&self, call: &Call<M>) -> Result<Settled, Failure> {
        let started = Instant::now();
        let mut conflicts = 0;
        let mut lost: Option<Answered> = None;
        loop {
            let error = match self.attempt(call).await {
                // It had been done after all: the answer is this call's own.
                Ok(settled) => return Ok(Settled { replay: settled.replay && lost.is_none(), ..settled }),
                Err(Broken::AtCommit(error, answer)) if database::is_unavailable(&error) => {
                    lost.get_or_insert(answer);
                    error
                }
                Err(Broken::AtCommit(error, _) | Broken::Before(error)) => error,
            };
            if database::is_conflict(&error) && conflicts < CONFLICTS_MAX {
                conflicts += 1;
                continue;
            }
            if lost.is_none() {
                return Err(status::store_failure(&self.pool, &error));
            }
            let is_away = self.pool.note(&error);
            if !is_away || started.elapsed() > RESOLVE_FOR {
                if !is_away {
                    tracing::error!(%error, "a commit's fate can't be found out");
                }
                let message = "the outcome is not known: ask again with the same request_id";
                return Err(Failure::new(Code::Unknown, "OUTCOME_UNKNOWN", message).with_retry(Duration::from_secs(1)));
            }
            tokio::time::sleep(RESOLVE_EVERY).await;
        }
    }

    async fn attempt<M: Mutation>(&self, call: &Call<M>) -> Result<Settled, Broken> {
        let mut lease = Lease::take(&self.pool).await?;
        let connection = lease.connection()?;
        // Whatever the role's default: what is read after the lock must be what was committed before it.
        Manager::begin_transaction_sql(connection, "BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        if let Some(first) = requests::claim(connection, &call.key).await? {
            Manager::rollback_transaction(connection).await?;
            lease.give_back();
            return Ok(Settled { first, replay: true });
        }
        let first = call.write(connection).await?;
        if let Err(error) = Manager::commit_transaction(connection).await {
            return Err(Broken::AtCommit(error, first));
        }
        lease.give_back();
        Ok(Settled { first, replay: false })
    }
}

impl<M: Mutation> Call<M> {
    /// Does the work and writes the answer and the record of it.
    async fn write(&self, connection: &mut AsyncPgConnection) -> Result<Answered, StoreError> {
        let mut first = Answered {
            method: M::METHOD.to_owned(),
            content_digest: self.content_digest.clone(),
            response: None,
            refusal_code: None,
            refusal_reason: None,
            refusal_message: None,
        };
        let now = clock::now(connection).await?;
        let mut event = AuditEvent::of_call(&self.context, M::METHOD, "", now);
        event.request_id = self.key.request_id.to_string();
        match self.mutation.work(connection, &self.context).await {
            Ok(done) => {
                first.response = Some(done.answer.encode_to_vec());
                (event.subject_id, event.detail) = (done.subject_id, done.detail);
            }
            Err(Undone::Refused { failure, subject_id, detail }) => {
                event.outcome = failure.reason.to_string();
                (event.subject_id, event.detail) = (subject_id, detail);
                first.refusal_code = Some(failure.code.into());
                first.refusal_reason = Some(failure.reason.into_owned());
                first.refusal_message = Some(failure.message);
            }
            Err(Undone::Failed(error)) => return Err(error),
        }
        audit::insert(connection, &event).await?;
        requests::insert(connection, &self.key, &first).await?;
        Ok(first)
    }
}

fn respond<A: Message + Default>(settled: Settled) -> Result<Response<A>, Status> {
    let Settled { first, replay } = settled;
    if let Some(code) = first.refusal_code {
        let reason = first.refusal_reason.unwrap_or_default();
        let failure = Failure::new(Code::from(code), reason, first.refusal_message.unwrap_or_default());
        return Err(if replay { status::of_replay(failure) } else { status::of(failure) });
    }
    let answer = A::decode(first.response.unwrap_or_default().as_slice()).map_err(|error| {
        tracing::error!(%error, "a stored answer can't be read");
        status::of(Failure::internal())
    })?;
    let mut response = Response::new(answer);
    if replay {
        response.metadata_mut().insert(status::REPLAY, MetadataValue::from_static("true"));
    }
    Ok(response)
}

//! The contract's services: validate, convert, hand over, answer.

mod audit;
mod leaderboard;
mod ledger;
mod partner;
mod payment;
mod status;

use chrono::{DateTime, Utc};
use diesel_async::AsyncPgConnection;
use prost::Message;
use referral_domain::command::Command;
use service::{
    call::CallContext,
    database::{self, Pool},
    error::Failure,
};
use tonic::{Request, Response, Status, metadata::MetadataValue};

use crate::{
    app::{CommandQueue, Queued, Settled},
    store::{self, clock::Clock},
    wire::fields::{self, Checked},
};

/// What every service of this contract works with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) queue: CommandQueue,
    pub(crate) pool: Pool,
    pub(crate) clock: Clock,
}

impl Api {
    /// Runs a mutation: checks, queues, waits for the commit, answers with the committed response message.
    async fn command<Q, R>(
        &self,
        request: Request<Q>,
        method: &'static str,
        request_id: impl FnOnce(&Q) -> &str,
        parse: impl FnOnce(&Q) -> Checked<Command>,
    ) -> Result<Response<R>, Status>
    where
        Q: Message,
        R: Message + Default,
    {
        let call = CallContext::of(&request);
        let message = request.into_inner();
        let run = async {
            let request_id = fields::id("request_id", request_id(&message))?;
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

    /// Runs a read on a connection of the pool, with the database's time.
    async fn read<T>(
        &self,
        read: impl AsyncFnOnce(&mut AsyncPgConnection, DateTime<Utc>) -> Result<T, ReadError>,
    ) -> Result<Response<T>, Status> {
        let run = async {
            let mut connection = database::connect(&self.pool).await?;
            let now = self.clock.now(&mut connection).await?;
            read(&mut connection, now).await
        };
        run.await.map(Response::new).map_err(|error| {
            status::finish(match error {
                ReadError::Failure(failure) => failure,
                ReadError::Database(error) => status::of_database(&error),
            })
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

/// The partner, or that there is none.
async fn existing_partner(
    connection: &mut AsyncPgConnection,
    key: &store::partners::Key,
) -> Result<referral_domain::command::PartnerView, ReadError> {
    let found = store::partners::find(connection, key).await?;
    Ok(found.ok_or_else(|| status::not_found("PARTNER_NOT_FOUND", "no such partner"))?)
}

//! Takes the outbox to notify-svc: sends what is unsettled, settles each event on its own acknowledgement.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use anyhow::Context;
use diesel_async::AsyncPgConnection;
use futures_util::FutureExt;
use p2phub_proto::notify::v1::{
    EventRecord, PublishOpen, PublishRequest, PublishResponse, RecordOutcome, RecordResult,
    notification_ingest_service_client::NotificationIngestServiceClient, publish_request::Frame,
};
use service::{
    database::{self, Connection, Pool},
    telemetry,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Endpoint};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    store::outbox::{self, OutboxEvent},
    wire::outward::timestamp,
};

/// The same for all instances, and after a restore: event IDs are unique under it.
const PRODUCER: &str = "referral-svc";

/// How many events one query takes at most.
const READ_MAX: usize = 256;

/// How long an event waits at most that another instance committed.
const POLL_EVERY: Duration = Duration::from_millis(500);

/// How long notify-svc may take to acknowledge anything of what it was sent.
const ACK_WITHIN: Duration = Duration::from_secs(30);

/// How often an instance that stands by asks whether it is its turn.
const STAND_BY: Duration = Duration::from_secs(1);

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The publisher; one instance publishes, the others stand by.
pub(crate) struct Publisher {
    pub(crate) pool: Pool,
    pub(crate) notify: Endpoint,
    pub(crate) committed: Arc<Notify>,
    pub(crate) shutdown: CancellationToken,
}

impl Publisher {
    pub(crate) async fn run(self) {
        let mut backoff = BACKOFF_FIRST;
        while !self.shutdown.is_cancelled() {
            let mut worked = false;
            let session = AssertUnwindSafe(self.session(&mut worked)).catch_unwind();
            let ended = self.shutdown.run_until_cancelled(session).await;
            if worked {
                backoff = BACKOFF_FIRST;
            }
            match ended {
                None => return,
                Some(Ok(Ok(Ended::StandBy))) => backoff = STAND_BY,
                Some(Ok(Ok(Ended::Closed))) => {}
                // What is told of an outage is told elsewhere; this connection may have been lost in one that is over.
                Some(Ok(Err(error))) if error.downcast_ref().is_some_and(database::is_unavailable) => {
                    tracing::debug!(error = %format!("{error:#}"), "not publishing without the database");
                }
                Some(Ok(Err(error))) => {
                    tracing::warn!(error = %format!("{error:#}"), retry_ms = backoff.as_millis(), "not publishing; the outbox keeps everything");
                }
                // The panic hook has logged it.
                Some(Err(_panic)) => {}
            }
            let jitter = backoff.mul_f64(rand::random_range(0.0..0.25));
            self.shutdown.run_until_cancelled(tokio::time::sleep(backoff + jitter)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn session(&self, worked: &mut bool) -> anyhow::Result<Ended> {
        // The election's lock is the database session's: out of the pool, the connection ends with this one.
        let mut connection = Connection::take(database::connect(&self.pool).await.context("the database")?);
        if !outbox::elect(&mut connection).await? {
            return Ok(Ended::StandBy);
        }
        self.publish(&mut connection, worked).await?;
        Ok(Ended::Closed)
    }

    async fn publish(&self, connection: &mut AsyncPgConnection, worked: &mut bool) -> anyhow::Result<()> {
        let channel = self.notify.connect().await.context("connecting to notify-svc (NOTIFY_URL)")?;
        let (frames, outgoing) = mpsc::channel(READ_MAX);
        let open = Frame::Open(PublishOpen { producer: PRODUCER.to_owned() });
        frames.send(PublishRequest { frame: Some(open) }).await?;
        let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
        request.metadata_mut().insert("p2phub-caller", tonic::metadata::MetadataValue::from_static(PRODUCER));
        let incoming = NotificationIngestServiceClient::new(channel).publish(request).await?.into_inner();
        tracing::info!("publishing to notify-svc");
        let heard = Instant::now();
        let mut stream = Stream { connection, frames, incoming, credits: 0, in_flight: HashMap::new(), heard };
        loop {
            let more = stream.send_unsettled().await?;
            tokio::select! {
                response = stream.incoming.message() => match response.context("the stream")? {
                    Some(response) => {
                        stream.take(response).await?;
                        *worked = true;
                    }
                    None => return Ok(()),
                },
                // Another instance, or another connection, may fare better.
                () = tokio::time::sleep_until(stream.heard + ACK_WITHIN), if stream.is_owed() => {
                    anyhow::bail!("no acknowledgement within {ACK_WITHIN:?}");
                }
                () = self.committed.notified(), if !more => {}
                () = tokio::time::sleep(POLL_EVERY), if !more => {}
            }
        }
    }
}

/// How a session ended without an error.
enum Ended {
    StandBy,
    Closed,
}

struct Stream<'a> {
    connection: &'a mut AsyncPgConnection,
    frames: mpsc::Sender<PublishRequest>,
    incoming: Streaming<PublishResponse>,
    /// How many more records notify-svc takes.
    credits: usize,
    /// Sent on this stream, not yet settled; each with the trace that it belongs to.
    in_flight: HashMap<Uuid, String>,
    /// When notify-svc last answered, or was last sent something while it owed nothing.
    heard: Instant,
}

impl Stream<'_> {
    /// Whether notify-svc owes an outcome.
    fn is_owed(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Sends what is unsettled while there are credits; whether there may be more than the credits allow.
    async fn send_unsettled(&mut self) -> anyhow::Result<bool> {
        while self.credits > 0 {
            let limit = self.credits.min(READ_MAX);
            let in_flight: Vec<Uuid> = self.in_flight.keys().copied().collect();
            let events = outbox::unsettled(self.connection, &in_flight, i64::try_from(limit)?).await?;
            let all = events.len() < limit;
            if self.in_flight.is_empty() {
                self.heard = Instant::now();
            }
            for event in events {
                self.in_flight.insert(event.event_id, event.traceparent.clone());
                self.credits -= 1;
                self.frames.send(PublishRequest { frame: Some(Frame::Record(record(event))) }).await?;
            }
            if all {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Settles what notify-svc has committed, sets aside what it can never take.
    async fn take(&mut self, response: PublishResponse) -> anyhow::Result<()> {
        self.heard = Instant::now();
        let mut settled = Vec::with_capacity(response.results.len());
        for result in response.results {
            let event_id = Uuid::try_parse(&result.event_id).context("an event ID in a result")?;
            let traceparent = self.in_flight.get(&event_id).context("a result for an event that was not sent")?;
            match result.outcome() {
                RecordOutcome::Stored | RecordOutcome::Duplicate => settled.push(event_id),
                RecordOutcome::Rejected => {
                    let span = tracing::info_span!(parent: None, "set_aside", %event_id);
                    telemetry::set_parent(&span, traceparent);
                    self.set_aside(event_id, &result).instrument(span).await?;
                }
                RecordOutcome::Unspecified => anyhow::bail!("a result without an outcome"),
            }
        }
        if !settled.is_empty() {
            outbox::settle(self.connection, &settled).await?;
            settled.iter().for_each(|event_id| {
                self.in_flight.remove(event_id);
            });
        }
        self.credits += usize::try_from(response.credits).context("negative credits")?;
        Ok(())
    }

    async fn set_aside(&mut self, event_id: Uuid, result: &RecordResult) -> anyhow::Result<()> {
        tracing::error!(
            reason = result.reason,
            detail = result.detail,
            "notify-svc rejected an event; it is kept in the outbox"
        );
        outbox::reject(self.connection, event_id, &result.reason, &result.detail).await?;
        self.in_flight.remove(&event_id);
        Ok(())
    }
}

/// The event as a record, with a span of its own in the trace of the command that made it.
fn record(event: OutboxEvent) -> EventRecord {
    let span = tracing::info_span!(parent: None, "publish", event_id = %event.event_id);
    telemetry::set_parent(&span, &event.traceparent);
    EventRecord {
        event_id: event.event_id.to_string(),
        traceparent: telemetry::traceparent_of(&span),
        occur_time: timestamp(event.create_time),
        event: event.event,
        baggage: String::new(),
    }
}

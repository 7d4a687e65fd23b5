//! Takes the outbox to notify-svc: sends what is unsettled, settles each event on its own acknowledgement.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::Context;
use p2phub_proto::notify::v1::{
    EventRecord, PublishOpen, PublishRequest, PublishResponse, RecordOutcome, RecordResult,
    notification_ingest_service_client::NotificationIngestServiceClient, publish_request::Frame,
};
use service::{
    database::{self, Connection, Pool},
    telemetry,
};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Endpoint};
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
            match self.shutdown.run_until_cancelled(self.session()).await {
                None => return,
                Some(Ok(Ended::StandBy)) => backoff = BACKOFF_MAX.min(Duration::from_secs(1)),
                Some(Ok(Ended::Closed)) => backoff = BACKOFF_FIRST,
                Some(Err(error)) => {
                    tracing::warn!(error = %format!("{error:#}"), retry_ms = backoff.as_millis(), "not publishing; the outbox keeps everything");
                }
            }
            let jitter = backoff.mul_f64(rand::random_range(0.0..0.25));
            self.shutdown.run_until_cancelled(tokio::time::sleep(backoff + jitter)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn session(&self) -> anyhow::Result<Ended> {
        let mut connection = database::connect(&self.pool).await.context("the database")?;
        if !outbox::elect(&mut connection).await? {
            return Ok(Ended::StandBy);
        }
        let result = self.publish(&mut connection).await;
        // The lock is the session's, and the connection goes back to the pool.
        outbox::resign(&mut connection).await?;
        result.map(|()| Ended::Closed)
    }

    async fn publish(&self, connection: &mut Connection) -> anyhow::Result<()> {
        let channel = self.notify.connect().await.context("connecting to notify-svc (NOTIFY_URL)")?;
        let (frames, outgoing) = mpsc::channel(READ_MAX);
        let open = Frame::Open(PublishOpen { producer: PRODUCER.to_owned() });
        frames.send(PublishRequest { frame: Some(open) }).await?;
        let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
        request.metadata_mut().insert("p2phub-caller", tonic::metadata::MetadataValue::from_static(PRODUCER));
        let incoming = NotificationIngestServiceClient::new(channel).publish(request).await?.into_inner();
        tracing::info!("publishing to notify-svc");
        let mut stream = Stream { connection, frames, incoming, credits: 0, in_flight: HashSet::new() };
        loop {
            let more = stream.send_unsettled().await?;
            tokio::select! {
                response = stream.incoming.message() => match response.context("the stream")? {
                    Some(response) => stream.take(response).await?,
                    None => return Ok(()),
                },
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
    connection: &'a mut Connection,
    frames: mpsc::Sender<PublishRequest>,
    incoming: Streaming<PublishResponse>,
    /// How many more records notify-svc takes.
    credits: usize,
    /// Sent on this stream, not yet settled.
    in_flight: HashSet<Uuid>,
}

impl Stream<'_> {
    /// Sends what is unsettled while there are credits; whether there may be more than the credits allow.
    async fn send_unsettled(&mut self) -> anyhow::Result<bool> {
        while self.credits > 0 {
            let limit = self.credits.min(READ_MAX);
            let in_flight: Vec<Uuid> = self.in_flight.iter().copied().collect();
            let events = outbox::unsettled(self.connection, &in_flight, i64::try_from(limit)?).await?;
            let all = events.len() < limit;
            for event in events {
                self.in_flight.insert(event.event_id);
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
        let mut settled = Vec::with_capacity(response.results.len());
        for result in response.results {
            let event_id = Uuid::try_parse(&result.event_id).context("an event ID in a result")?;
            match result.outcome() {
                RecordOutcome::Stored | RecordOutcome::Duplicate => settled.push(event_id),
                RecordOutcome::Rejected => self.set_aside(event_id, &result).await?,
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
        tracing::error!(%event_id, reason = result.reason, detail = result.detail, "notify-svc rejected an event; it is kept in the outbox");
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
    }
}

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
use tracing::{Instrument, Span};
use uuid::Uuid;

use crate::{
    metrics::{self, OpenStream},
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
        let span = opening_span();
        let opened = self.open(&span).instrument(span.clone()).await;
        if opened.is_err() {
            metrics::connect_failed();
            telemetry::mark_failed(&span, "UNAVAILABLE");
        }
        drop(span);
        let (frames, incoming) = opened?;
        let heard = Instant::now();
        let open = OpenStream::new();
        let mut stream = Stream { connection, frames, incoming, open, credits: 0, in_flight: HashMap::new(), heard };
        let ended = self.keep_publishing(&mut stream, worked).await;
        if ended.is_err() {
            // Their events are sent again, and then have other spans.
            stream.in_flight.values().for_each(|span| telemetry::mark_failed(span, "NOT_ACKNOWLEDGED"));
        }
        ended
    }

    /// Opens the stream; its metadata has the opening span's trace.
    async fn open(&self, span: &Span) -> anyhow::Result<(mpsc::Sender<PublishRequest>, Streaming<PublishResponse>)> {
        let channel = self.notify.connect().await.context("connecting to notify-svc (NOTIFY_URL)")?;
        let (frames, outgoing) = mpsc::channel(READ_MAX);
        let open = Frame::Open(PublishOpen { producer: PRODUCER.to_owned() });
        frames.send(PublishRequest { frame: Some(open) }).await?;
        let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
        request.metadata_mut().insert("p2phub-caller", tonic::metadata::MetadataValue::from_static(PRODUCER));
        telemetry::propagate(span, request.metadata_mut());
        let incoming = NotificationIngestServiceClient::new(channel).publish(request).await?.into_inner();
        tracing::info!("publishing to notify-svc");
        Ok((frames, incoming))
    }

    async fn keep_publishing(&self, stream: &mut Stream<'_>, worked: &mut bool) -> anyhow::Result<()> {
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

/// A stream may last for days: what has a span is its opening, and each record on it.
fn opening_span() -> Span {
    tracing::info_span!(
        parent: None,
        "open_stream",
        otel.name = "p2phub.notify.v1.NotificationIngestService/Publish",
        otel.kind = "client",
        rpc.system.name = "grpc",
        rpc.method = "p2phub.notify.v1.NotificationIngestService/Publish",
    )
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
    open: OpenStream,
    /// How many more records notify-svc takes.
    credits: usize,
    /// Sent on this stream, not yet settled; each with its span.
    in_flight: HashMap<Uuid, Span>,
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
                let event_id = event.event_id;
                let span = publish_span(&event);
                let record = record(event, &span);
                self.in_flight.insert(event_id, span);
                self.credits -= 1;
                self.frames.send(PublishRequest { frame: Some(Frame::Record(record)) }).await?;
            }
            self.open.credits(self.credits);
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
            let span = self.in_flight.get(&event_id).context("a result for an event that was not sent")?.clone();
            match result.outcome() {
                outcome @ (RecordOutcome::Stored | RecordOutcome::Duplicate) => {
                    telemetry::end(&span);
                    settled.push((event_id, outcome));
                }
                RecordOutcome::Rejected => self.set_aside(event_id, &result).instrument(span).await?,
                RecordOutcome::Unspecified => anyhow::bail!("a result without an outcome"),
            }
        }
        if !settled.is_empty() {
            outbox::settle(self.connection, &settled.iter().map(|(event_id, _)| *event_id).collect::<Vec<_>>()).await?;
            for (event_id, outcome) in settled {
                self.in_flight.remove(&event_id);
                metrics::settled(outcome);
            }
        }
        self.credits += usize::try_from(response.credits).context("negative credits")?;
        self.open.credits(self.credits);
        Ok(())
    }

    async fn set_aside(&mut self, event_id: Uuid, result: &RecordResult) -> anyhow::Result<()> {
        tracing::error!(
            reason = result.reason,
            detail = result.detail,
            "notify-svc rejected an event; it is kept in the outbox"
        );
        outbox::reject(self.connection, event_id, &result.reason, &result.detail).await?;
        metrics::settled(RecordOutcome::Rejected);
        self.in_flight.remove(&event_id);
        Ok(())
    }
}

/// From sending to the record's own acknowledgement, in the trace of the command that made the event.
fn publish_span(event: &OutboxEvent) -> Span {
    let span = tracing::info_span!(parent: None, "publish", otel.kind = "producer", event_id = %event.event_id);
    telemetry::set_parent_with_baggage(&span, &event.traceparent, &event.baggage);
    span
}

/// The event as a record; its trace goes on from the span.
fn record(event: OutboxEvent, span: &Span) -> EventRecord {
    EventRecord {
        event_id: event.event_id.to_string(),
        traceparent: telemetry::traceparent_of(span),
        occur_time: timestamp(event.create_time),
        event: event.event,
        baggage: event.baggage,
    }
}

//! Events in: the Publish stream → decode → one transaction per batch → outcomes and new credits.

mod batch;
mod decode;
mod item;
mod session;

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use p2phub_proto::notify::v1::{
    PublishRequest, PublishResponse, notification_ingest_service_server::NotificationIngestService,
};
use service::{
    call::CallContext,
    database::Pool,
    error::Failure,
    telemetry::report::{ReportIn, Scope},
};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use crate::{metrics, status, store::inbox::Rules};

/// Streams served at once.
const STREAMS_MAX: usize = 64;
/// Bytes of records that wait to be stored, over all streams; past it, nothing more is read.
const WAITING_KIB_MAX: usize = 32 * 1024;

/// The ingest service.
#[derive(Clone)]
pub(crate) struct IngestService {
    shared: Shared,
    streams: Arc<Semaphore>,
}

/// What all streams share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) pool: Pool,
    pub(crate) rules: Rules,
    /// Told after each commit that queued something.
    pub(crate) queued: Arc<Notify>,
    pub(crate) shutdown: CancellationToken,
    waiting_kib: Arc<Semaphore>,
}

impl IngestService {
    pub(crate) fn new(pool: Pool, rules: Rules, queued: Arc<Notify>, shutdown: CancellationToken) -> Self {
        let waiting_kib = Arc::new(Semaphore::new(WAITING_KIB_MAX));
        Self {
            shared: Shared { pool, rules, queued, shutdown, waiting_kib },
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }
}

#[tonic::async_trait]
impl NotificationIngestService for IngestService {
    type PublishStream = ReceiverStream<Result<PublishResponse, Status>>;

    async fn publish(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let message = format!("{STREAMS_MAX} streams are open already");
            status::of(Failure::new(tonic::Code::ResourceExhausted, "TOO_MANY_STREAMS", message))
        })?;
        let caller = CallContext::of(&request).caller;
        let span = tracing::info_span!("ingest_stream", caller, producer = tracing::field::Empty);
        let open = metrics::open_stream();
        let (responses, stream) = mpsc::channel(4);
        let shared = self.shared.clone();
        let session = async move {
            let session = AssertUnwindSafe(session::run(shared, request.into_inner(), &responses)).catch_unwind();
            // The panic hook has logged a panic, in this span.
            let ended = session.await.unwrap_or_else(|_panic| Err(Failure::internal()));
            if let Err(failure) = ended {
                tracing::info!(code = ?failure.code, reason = %failure.reason, "stream ended: {}", failure.message);
                // The producer may be gone already.
                let _ = responses.send(Err(status::of(failure))).await;
            }
            drop((permit, open));
        };
        tokio::spawn(session.instrument(span).report_in(Scope::current()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

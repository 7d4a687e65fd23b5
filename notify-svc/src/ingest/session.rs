//! One Publish stream: `open`, then records in against credits, outcomes out after the commit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use notify_domain::event::PRODUCER_BYTES_MAX;
use p2phub_proto::notify::v1::{EventRecord, PublishRequest, PublishResponse, publish_request::Frame};
use prost::Message;
use service::{
    error::Failure,
    telemetry::report::{ReportIn, Scope},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::{Code, Status, Streaming};

use super::{Shared, batch};

/// Records that a producer may have under way on one stream, and so at most those stored in one transaction.
const CREDITS: u16 = 256;
/// Serialised bytes stored in one transaction, the last record excepted.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a producer may take to say `open`.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

type Responses = mpsc::Sender<Result<PublishResponse, Status>>;

/// A record that waits to be stored, holding its share of the memory.
struct Waiting {
    record: EventRecord,
    _memory: OwnedSemaphorePermit,
}

/// Serves a stream to its end.
pub(super) async fn run(
    shared: Shared,
    mut stream: Streaming<PublishRequest>,
    responses: &Responses,
) -> Result<(), Failure> {
    let producer = open(&shared, &mut stream).await?;
    tracing::Span::current().record("producer", &producer);
    let credits = AtomicU32::new(0);
    let (waiting, queue) = mpsc::channel(CREDITS.into());
    grant(&credits, CREDITS.into(), Vec::new(), responses).await?;
    // A reader that ends leaves what it has read to be stored; a store that fails ends both.
    let reading = async { Ok(read(&shared, &mut stream, &credits, waiting).await) };
    let (read, ()) = tokio::try_join!(reading, store(&shared, &producer, queue, &credits, responses))?;
    read
}

async fn open(shared: &Shared, stream: &mut Streaming<PublishRequest>) -> Result<String, Failure> {
    let first = tokio::select! {
        frame = tokio::time::timeout(OPEN_TIMEOUT, stream.message()) => frame,
        () = shared.shutdown.cancelled() => return Err(stopping()),
    };
    let Ok(first) = first else {
        return Err(Failure::new(Code::FailedPrecondition, "OPEN_EXPECTED", "no frame came within 10 s"));
    };
    let frame = first.map_err(broken)?.and_then(|request| request.frame);
    let Some(Frame::Open(open)) = frame else {
        return Err(Failure::new(Code::FailedPrecondition, "OPEN_EXPECTED", "the first frame must be `open`"));
    };
    let producer = open.producer;
    if producer.is_empty() || producer.len() > PRODUCER_BYTES_MAX || producer.chars().any(char::is_control) {
        let description = format!("must be 1 to {PRODUCER_BYTES_MAX} bytes without control characters");
        return Err(Failure::violation("open.producer", description));
    }
    Ok(producer)
}

/// Reads records into the queue, until the producer ends the stream or breaks a rule, or the service stops.
async fn read(
    shared: &Shared,
    stream: &mut Streaming<PublishRequest>,
    credits: &AtomicU32,
    queue: mpsc::Sender<Waiting>,
) -> Result<(), Failure> {
    loop {
        let frame = tokio::select! {
            frame = stream.message() => frame.map_err(broken)?,
            () = shared.shutdown.cancelled() => return Err(stopping()),
        };
        let record = match frame.map(|request| request.frame) {
            None => return Ok(()),
            Some(Some(Frame::Record(record))) => record,
            Some(Some(Frame::Open(_))) => {
                let message = "`open` came twice";
                return Err(Failure::new(Code::FailedPrecondition, "RECORD_EXPECTED", message));
            }
            Some(None) => return Err(Failure::violation("frame", "must be set")),
        };
        spend(credits)?;
        let kib = u32::try_from(record.encoded_len() / 1024 + 1).unwrap_or(u32::MAX);
        let Ok(memory) = Arc::clone(&shared.waiting_kib).acquire_many_owned(kib).await else {
            return Err(stopping());
        };
        // Never waits: the queue holds as many records as there are credits.
        if queue.send(Waiting { record, _memory: memory }).await.is_err() {
            return Ok(());
        }
    }
}

fn spend(credits: &AtomicU32) -> Result<(), Failure> {
    let spent = credits.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
    match spent {
        Ok(_) => Ok(()),
        Err(_) => {
            let message = "a record came without a credit for it";
            Err(Failure::new(Code::FailedPrecondition, "CREDIT_EXCEEDED", message))
        }
    }
}

/// Stores what has queued up, batch after batch, and answers after each commit.
async fn store(
    shared: &Shared,
    producer: &str,
    mut queue: mpsc::Receiver<Waiting>,
    credits: &AtomicU32,
    responses: &Responses,
) -> Result<(), Failure> {
    while let Some(first) = queue.recv().await {
        let taken = take(first, &mut queue);
        let records: Vec<&EventRecord> = taken.iter().map(|waiting| &waiting.record).collect();
        let scope = Scope::of("p2phub.notify.v1.NotificationIngestService/Publish");
        let results = batch::store(shared, producer, &records).report_in(scope).await?;
        let renewed = u32::try_from(results.len()).unwrap_or_default();
        drop(taken);
        grant(credits, renewed, results, responses).await?;
    }
    Ok(())
}

/// What has queued, without waiting, up to the limits of a batch.
fn take(first: Waiting, queue: &mut mpsc::Receiver<Waiting>) -> Vec<Waiting> {
    let mut bytes = first.record.encoded_len();
    let mut taken = vec![first];
    while taken.len() < usize::from(CREDITS) && bytes < BATCH_BYTES_MAX {
        let Ok(next) = queue.try_recv() else { break };
        bytes += next.record.encoded_len();
        taken.push(next);
    }
    taken
}

/// Answers; waits while the producer doesn't read its answers, so that nothing more is stored for it meanwhile.
async fn grant(
    credits: &AtomicU32,
    more: u32,
    results: Vec<p2phub_proto::notify::v1::RecordResult>,
    responses: &Responses,
) -> Result<(), Failure> {
    credits.fetch_add(more, Ordering::AcqRel);
    let response = PublishResponse { credits: i32::try_from(more).unwrap_or(i32::MAX), results };
    responses.send(Ok(response)).await.map_err(|_| Failure::new(Code::Cancelled, "CANCELLED", "the producer is gone"))
}

fn stopping() -> Failure {
    Failure::unavailable("the service is stopping").with_retry(Duration::from_secs(1))
}

/// The stream failed beneath us: the producer reset it, or sent what isn't a frame.
fn broken(status: Status) -> Failure {
    match status.code() {
        Code::OutOfRange | Code::InvalidArgument | Code::Internal => {
            Failure::violation("frame", "can't be decoded, or is too large")
        }
        Code::ResourceExhausted => {
            Failure::new(Code::ResourceExhausted, "RESOURCE_EXHAUSTED", "the frame is too large")
        }
        _ => Failure::new(Code::Cancelled, "CANCELLED", "the stream broke"),
    }
}

//! Answers of many messages, made while they are read.

use std::{future::Future, sync::Arc};

use futures_util::{StreamExt, future, stream};
use service::error::Failure;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{BoxStream, status};

/// Messages that may wait for their reader.
const AHEAD: usize = 4;

/// Where the messages of an answer go.
pub(super) struct Messages<T>(mpsc::Sender<Result<T, Status>>);

impl<T> Messages<T> {
    /// Waits while the caller doesn't read.
    pub(super) async fn send(&self, message: T) -> Result<(), Status> {
        // The receiver is part of the answer that is being read.
        self.0.send(Ok(message)).await.map_err(|_| Status::cancelled("the caller is gone"))
    }
}

/// Runs `make` as part of reading the answer: it works in the call's trace, waits for a slow reader, and ends where it stands
/// when the caller goes. What it fails with ends the answer.
pub(super) fn answer<T, F>(make: impl FnOnce(Messages<T>) -> F) -> BoxStream<T>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(AHEAD);
    let making = make(Messages(sender.clone()));
    let work = async move {
        if let Err(status) = making.await {
            // As above.
            let _ = sender.send(Err(status)).await;
        }
    };
    let nothing = stream::once(work).filter_map(|()| future::ready(None));
    Box::pin(stream::select(ReceiverStream::new(receiver), nothing))
}

/// A place among the streams of its kind, held until it is dropped.
pub(super) fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Failure> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        Failure::new(Code::ResourceExhausted, "TOO_MANY_STREAMS", "too many such streams are open; nothing was done")
    })
}

/// A failure as the end of a stream.
pub(super) fn failed(failure: Failure) -> Status {
    status::finish(failure)
}

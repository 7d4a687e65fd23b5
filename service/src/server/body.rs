//! The answer's body on its way out: ends a stream in time, and sees the trailers that a stream's error comes in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::record::CallRecord;
use crate::error::Failure;

pub(super) struct EdgeBody {
    pub(super) inner: Body,
    pub(super) call: CallRecord,
    /// For streams: becomes ready when the stream has to end, and why.
    pub(super) end: Option<BoxFuture<'static, Failure>>,
}

type Data = <Body as http_body::Body>::Data;

impl EdgeBody {
    fn fail(&mut self, status: &Status) -> Frame<Data> {
        let mut trailers = HeaderMap::new();
        let _ = status.add_header(&mut trailers);
        self.trailers(trailers)
    }

    fn trailers(&mut self, mut trailers: HeaderMap) -> Frame<Data> {
        self.call.end(&mut trailers);
        Frame::trailers(trailers)
    }
}

impl http_body::Body for EdgeBody {
    type Data = Data;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Data>, Status>>> {
        let this = &mut *self;
        if this.call.ended {
            return Poll::Ready(None);
        }
        let _reported = this.call.scope.enter();
        let span = this.call.span.clone();
        let _entered = span.enter();
        if let Some(Poll::Ready(why)) = this.end.as_mut().map(|end| end.as_mut().poll(context)) {
            let status = this.call.status(why);
            return Poll::Ready(Some(Ok(this.fail(&status))));
        }
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.inner).poll_frame(context)));
        let frame = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(None)) => {
                this.call.end(&mut HeaderMap::new());
                return Poll::Ready(None);
            }
            Ok(Poll::Ready(Some(Ok(frame)))) => match frame.into_trailers() {
                Ok(trailers) => this.trailers(trailers),
                Err(data) => data,
            },
            Ok(Poll::Ready(Some(Err(status)))) => this.fail(&status),
            // The panic itself is on record: the hook logged it.
            Err(_) => {
                let status = this.call.status(Failure::internal());
                this.fail(&status)
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.call.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

//! ReconcilePayments: a statement in, line by line or as CSV, and what does not match out.

mod comparison;

use std::time::Duration;

use p2phub_proto::referral::v1::{
    self as pb, ReconcilePaymentsRequest, ReconcilePaymentsResponse, reconcile_payments_request::Frame,
    reconcile_payments_response::Result as Found,
};
use referral_domain::{payment::Method, reconcile::Statement};
use service::error::Failure;
use tonic::{Code, Status, Streaming};

use super::{
    Api, BoxStream, span,
    stream::{self, Messages, failed, place},
};
use crate::{
    store::reconciliation::Expected,
    wire::{
        fields::Checked,
        statement_lines::{self, CsvLines, Read},
    },
};
use comparison::Comparison;

/// What a statement may have; its references are held in memory.
const LINES_MAX: i64 = 500_000;
const CSV_BYTES_MAX: usize = 64 * 1024;
/// How long a caller may take to say `open`, and between two frames: places are few.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);

type Responses = Messages<ReconcilePaymentsResponse>;

impl Api {
    /// What becomes of the statement that comes in.
    pub(super) fn reconcile(
        &self,
        frames: Streaming<ReconcilePaymentsRequest>,
    ) -> Result<BoxStream<ReconcilePaymentsResponse>, Failure> {
        let place = place(&self.reconciliations)?;
        let api = self.clone();
        Ok(stream::answer(async move |responses| {
            let _place = place;
            run(&api, frames, &responses).await
        }))
    }
}

async fn run(api: &Api, mut frames: Streaming<ReconcilePaymentsRequest>, responses: &Responses) -> Result<(), Status> {
    let (expected, with_refunds) = open(&mut frames).await?;
    let mut reading = Reading::new(with_refunds);
    while let Some(frame) = next(&mut frames, FRAME_TIMEOUT, "LINE_EXPECTED").await? {
        for finding in reading.take(frame).map_err(failed)? {
            responses.send(found(Found::Finding(finding))).await?;
        }
    }
    for finding in reading.finish().map_err(failed)? {
        responses.send(found(Found::Finding(finding))).await?;
    }
    let Reading { statement, summary, .. } = reading;
    Comparison { api, statement: &statement, expected, responses, summary }.run().await
}

fn found(result: Found) -> ReconcilePaymentsResponse {
    ReconcilePaymentsResponse { result: Some(result) }
}

/// The next frame; none: the statement is complete. What breaks the stream beneath us is told as it came.
async fn next(
    frames: &mut Streaming<ReconcilePaymentsRequest>,
    patience: Duration,
    reason: &'static str,
) -> Result<Option<Frame>, Status> {
    let Ok(message) = tokio::time::timeout(patience, frames.message()).await else {
        let message = format!("no frame came within {} s", patience.as_secs());
        return Err(failed(Failure::new(Code::FailedPrecondition, reason, message)));
    };
    match message?.map(|request| request.frame) {
        Some(None) => Err(failed(Failure::violation("frame", "must be set"))),
        frame => Ok(frame.flatten()),
    }
}

/// What is expected, and whether refunds are.
async fn open(frames: &mut Streaming<ReconcilePaymentsRequest>) -> Result<(Expected, bool), Status> {
    let Some(Frame::Open(open)) = next(frames, OPEN_TIMEOUT, "OPEN_EXPECTED").await? else {
        let message = "the first frame must be `open`";
        return Err(failed(Failure::new(Code::FailedPrecondition, "OPEN_EXPECTED", message)));
    };
    Ok((expected(&open).map_err(failed)?, open.with_refunds))
}

fn expected(open: &pb::ReconcileOpen) -> Checked<Expected> {
    let method = match open.method.as_str() {
        "" => None,
        name => Some(
            Method::from_name(name)
                .ok_or_else(|| Failure::violation("open.method", "must be empty, trusted, manual or ton"))?,
        ),
    };
    Ok(Expected { method, span: span(open.start_time.as_ref(), open.end_time.as_ref())? })
}

/// The statement as far as it was read.
struct Reading {
    csv: CsvLines,
    statement: Statement,
    summary: pb::ReconcileSummary,
}

impl Reading {
    fn new(with_refunds: bool) -> Self {
        Self { csv: CsvLines::new(), statement: Statement::new(with_refunds), summary: pb::ReconcileSummary::default() }
    }

    /// Adds what a frame has; what can't be read of it is returned.
    fn take(&mut self, frame: Frame) -> Checked<Vec<pb::ReconcileFinding>> {
        let lines = match frame {
            Frame::Line(line) => vec![statement_lines::of_message(&line)],
            Frame::Csv(csv) if csv.len() > CSV_BYTES_MAX => {
                return Err(Failure::violation("csv", format!("must be at most {CSV_BYTES_MAX} bytes")));
            }
            Frame::Csv(csv) => self.csv.feed(&csv)?,
            Frame::Open(_) => {
                return Err(Failure::new(Code::FailedPrecondition, "LINE_EXPECTED", "`open` came twice"));
            }
        };
        self.add(lines)
    }

    /// The same for what is left of a CSV file.
    fn finish(&mut self) -> Checked<Vec<pb::ReconcileFinding>> {
        let lines = self.csv.finish()?;
        self.add(lines)
    }

    fn add(&mut self, lines: Vec<Read>) -> Checked<Vec<pb::ReconcileFinding>> {
        let mut unreadable = Vec::new();
        for line in lines {
            if self.summary.lines >= LINES_MAX {
                let what = format!("must be at most {LINES_MAX} lines; split the statement by time");
                let failure = Failure::new(Code::InvalidArgument, "TOO_MANY_LINES", format!("line: {what}"));
                return Err(failure.with_violation("line", what));
            }
            self.summary.lines += 1;
            let number = self.summary.lines;
            let added =
                line.and_then(|line| self.statement.add(number, line).map_err(|fault| fault.to_string().into()));
            if let Err(fault) = added {
                self.summary.unreadable += 1;
                unreadable.push(pb::ReconcileFinding {
                    kind: pb::ReconcileKind::Unreadable.into(),
                    line: number,
                    detail: fault.into_owned(),
                    ..pb::ReconcileFinding::default()
                });
            }
        }
        Ok(unreadable)
    }
}

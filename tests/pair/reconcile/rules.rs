//! What the stream refuses, and how it ends.

use p2phub_proto::referral::v1::{ReconcileOpen, ReconcilePaymentsRequest, reconcile_payments_request::Frame};
use p2phub_tests::{
    refusal::{fields, reason, refused},
    wait,
};
use prost_types::Timestamp;
use referral_svc::Clock;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response};

use super::{csv, frame, line, open, reconcile};
use crate::history::start;

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_begins_with_open_and_has_a_header() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let opened = |open| frame(Frame::Open(open));
    let unset = ReconcilePaymentsRequest { frame: None };
    let method = opened(ReconcileOpen { method: "cash".to_owned(), ..Default::default() });
    let seconds = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let span = opened(ReconcileOpen { start_time: seconds(2), end_time: seconds(1), ..Default::default() });
    let time = opened(ReconcileOpen { start_time: seconds(i64::MAX), ..Default::default() });
    for (frames, code, expected, field) in [
        (vec![], Code::FailedPrecondition, "OPEN_EXPECTED", None),
        (vec![line("a", 1)], Code::FailedPrecondition, "OPEN_EXPECTED", None),
        (vec![open(), line("a", 1), open()], Code::FailedPrecondition, "LINE_EXPECTED", None),
        (vec![unset.clone()], Code::InvalidArgument, "INVALID_ARGUMENT", Some("frame")),
        (vec![open(), unset], Code::InvalidArgument, "INVALID_ARGUMENT", Some("frame")),
        (vec![method], Code::InvalidArgument, "INVALID_ARGUMENT", Some("open.method")),
        (vec![span], Code::InvalidArgument, "INVALID_ARGUMENT", Some("end_time")),
        (vec![time], Code::InvalidArgument, "INVALID_ARGUMENT", Some("start_time")),
        (vec![open(), csv(b"external_ref,value\n")], Code::InvalidArgument, "INVALID_ARGUMENT", Some("csv")),
        (vec![open(), csv(b"amount")], Code::InvalidArgument, "INVALID_ARGUMENT", Some("csv")),
        (vec![open(), csv(&[b'x'; 64 * 1024 + 1])], Code::InvalidArgument, "INVALID_ARGUMENT", Some("csv")),
        (vec![open(), csv(&vec![b'x'; 300 * 1024])], Code::InvalidArgument, "MESSAGE_TOO_LARGE", Some("message")),
    ] {
        let answer = reconcile(&mut clients, frames).await.map(Response::new);
        let status = refused(answer, code, expected);
        assert_eq!(fields(&status), field.into_iter().collect::<Vec<_>>(), "{status}");
        assert!(status.metadata().contains_key("trace-id"));
    }
    // A statement that is empty is one that lacks everything; a field too little is a line, not the end.
    let (findings, summary) = reconcile(&mut clients, vec![open()]).await.expect("a comparison");
    assert!(findings.is_empty() && summary.ok && summary.lines == 0);
    let short = vec![open(), csv(b"external_ref,amount\nr1\nr2,x"), csv(b"")];
    let (findings, summary) = reconcile(&mut clients, short).await.expect("a comparison");
    assert_eq!((findings.len(), summary.unreadable, summary.ok), (2, 2, false));
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_has_a_bound() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let piece = "r,1\n".repeat(10_000);
    let full: Vec<_> = [open(), csv(b"external_ref,minor_units\n")]
        .into_iter()
        .chain((0..50).map(|_| csv(piece.as_bytes())))
        .collect();
    let (findings, summary) = reconcile(&mut clients, full.clone()).await.expect("a comparison");
    assert_eq!((findings.len(), summary.lines, summary.missing_here), (1, 500_000, 1));
    let more = full.into_iter().chain([csv(b"r,1\n")]).collect();
    let answer = reconcile(&mut clients, more).await.map(Response::new);
    let status = refused(answer, Code::InvalidArgument, "TOO_MANY_LINES");
    assert_eq!(fields(&status), ["line"]);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_few_and_free_again_when_the_caller_goes() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let mut held = Vec::new();
    for _ in 0..2 {
        let (frames, stream) = mpsc::channel(4);
        frames.send(open()).await.expect("room");
        let answers = clients.payments.reconcile_payments(ReceiverStream::new(stream)).await.expect("a stream");
        held.push((frames, answers));
    }
    let answer = reconcile(&mut clients, vec![open()]).await.map(Response::new);
    refused(answer, Code::ResourceExhausted, "TOO_MANY_STREAMS");
    // One goes without a word; the other's statement is compared once it is complete.
    held.pop();
    wait::until("a free place", async || match reconcile(&mut clients, vec![open()]).await {
        Ok(_) => Some(()),
        Err(status) => {
            assert_eq!(reason(&status), "TOO_MANY_STREAMS");
            None
        }
    })
    .await;
    let (frames, answers) = held.pop().expect("a stream");
    frames.send(line("unknown", 1)).await.expect("room");
    drop(frames);
    let mut answers = answers.into_inner();
    assert!(answers.message().await.expect("a finding").is_some());
    assert!(answers.message().await.expect("the summary").is_some());
    assert_eq!(answers.message().await.expect("the end"), None);
    pair.finish().await;
}

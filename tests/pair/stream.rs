//! The Publish stream with a producer driven by hand: credits, outcomes, duplicates, records that can't be stored.

use std::collections::BTreeMap;

use p2phub_proto::notify::v1::{
    EventRecord, GetNotificationRequest, NotificationEvent, NotificationKind, NotificationRequest, PublishOpen,
    PublishRequest, PublishResponse, RecordOutcome, RecordResult, publish_request::Frame,
};
use p2phub_tests::{
    clients::{Clients, is_serving},
    hold::Hold,
    pair::{Options, Pair},
    ports,
    postgres::Role,
    wait,
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;
use uuid::Uuid;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub(crate) fn message(requests: Vec<NotificationRequest>) -> Vec<u8> {
    NotificationEvent { requests }.encode_to_vec()
}

pub(crate) fn broadcast(recipient_id: &str) -> NotificationRequest {
    NotificationRequest {
        kind: NotificationKind::OperatorBroadcast.into(),
        recipient_id: recipient_id.to_owned(),
        arguments: [("text".to_owned(), "Hello".to_owned())].into(),
        ..Default::default()
    }
}

pub(crate) fn record(event: Vec<u8>) -> EventRecord {
    EventRecord {
        event_id: Uuid::new_v4().to_string(),
        traceparent: TRACEPARENT.to_owned(),
        event,
        ..Default::default()
    }
}

fn good() -> EventRecord {
    record(message(vec![broadcast("someone")]))
}

/// One stream, with the first credits.
pub(crate) struct Producer {
    frames: mpsc::UnboundedSender<PublishRequest>,
    answers: Streaming<PublishResponse>,
    pub(crate) credits: i32,
}

impl Producer {
    async fn begin(clients: &Clients, frames: Vec<Option<Frame>>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        frames.into_iter().for_each(|frame| sender.send(PublishRequest { frame }).expect("a stream"));
        let answers = clients.ingest.clone().publish(UnboundedReceiverStream::new(receiver)).await;
        Self { frames: sender, answers: answers.expect("a stream").into_inner(), credits: 0 }
    }

    pub(crate) async fn open(clients: &Clients, producer: &str) -> Self {
        let mut stream = Self::begin(clients, vec![Some(open(producer))]).await;
        let answer = stream.answer().await.expect("an answer").expect("credits");
        assert!(answer.results.is_empty());
        stream.credits = answer.credits;
        stream
    }

    async fn answer(&mut self) -> Result<Option<PublishResponse>, Status> {
        tokio::time::timeout(wait::LIMIT, self.answers.message()).await.expect("an answer in time")
    }

    pub(crate) fn send(&mut self, record: &EventRecord) {
        self.credits -= 1;
        self.frames.send(PublishRequest { frame: Some(Frame::Record(record.clone())) }).expect("a stream");
    }

    /// As many outcomes, with the credits that come along.
    pub(crate) async fn results(&mut self, count: usize) -> Vec<RecordResult> {
        let mut results = Vec::new();
        while results.len() < count {
            let answer = self.answer().await.expect("an answer").expect("outcomes");
            self.credits += answer.credits;
            results.extend(answer.results);
        }
        results
    }

    /// The outcomes of these records, in their order.
    pub(crate) async fn publish(&mut self, records: &[EventRecord]) -> Vec<RecordOutcome> {
        records.iter().for_each(|record| self.send(record));
        self.results(records.len()).await.iter().map(RecordResult::outcome).collect()
    }

    async fn error(mut self) -> Status {
        loop {
            match self.answer().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended well"),
                Err(status) => return status,
            }
        }
    }
}

fn open(producer: &str) -> Frame {
    Frame::Open(PublishOpen { producer: producer.to_owned() })
}

async fn notify_alone() -> Pair {
    let mut pair = Options::default().prepare().await;
    pair.start_notify().await;
    pair
}

async fn count(pair: &Pair, what: &str) -> i64 {
    let client = pair.notify_sql(Role::Superuser).await;
    client.query_one(&format!("SELECT count(*) FROM {what}"), &[]).await.expect("a count").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_the_order_of_frames_is_ended_with_the_reason() {
    let pair = notify_alone().await;
    let record = || Some(Frame::Record(good()));
    for (what, frames, code, reason) in [
        ("a record first", vec![record()], Code::FailedPrecondition, "OPEN_EXPECTED"),
        ("an empty frame first", vec![None], Code::FailedPrecondition, "OPEN_EXPECTED"),
        ("no name", vec![Some(open(""))], Code::InvalidArgument, "INVALID_ARGUMENT"),
        ("a long name", vec![Some(open(&"x".repeat(65)))], Code::InvalidArgument, "INVALID_ARGUMENT"),
        ("open twice", vec![Some(open("p")), Some(open("p"))], Code::FailedPrecondition, "RECORD_EXPECTED"),
        ("an empty frame", vec![Some(open("p")), None], Code::InvalidArgument, "INVALID_ARGUMENT"),
    ] {
        let status = Producer::begin(&pair.clients, frames).await.error().await;
        let details = status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("{what}: {status:?}"));
        assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{what}");
        assert_eq!(info.domain, "notify.p2phub", "{what}");
        assert_eq!(details.bad_request().is_some(), code == Code::InvalidArgument, "{what}");
        let trace_id = status.metadata().get("trace-id").expect(what).to_str().expect(what);
        assert_eq!(details.request_info().expect(what).request_id, trace_id, "{what}");
    }
    assert_eq!(count(&pair, "inbox").await, 0);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_credit_can_be_used_and_one_more_ends_the_stream() {
    let pair = notify_alone().await;
    let superuser = pair.notify_sql(Role::Superuser).await;
    // While nothing can be stored, no credit comes back.
    let hold =
        Hold::take(superuser, pair.notify_sql(Role::Superuser).await, "LOCK TABLE inbox IN EXCLUSIVE MODE").await;
    let mut exact = Producer::open(&pair.clients, "exact").await;
    let mut greedy = Producer::open(&pair.clients, "greedy").await;
    let credits = exact.credits;
    assert!(credits > 0, "no credits");
    assert_eq!(greedy.credits, credits);
    (0..credits).for_each(|_| exact.send(&good()));
    (0..=credits).for_each(|_| greedy.send(&good()));
    hold.blocks_someone().await;
    hold.release().await;

    let granted = usize::try_from(credits).expect("a count");
    let results = exact.results(granted).await;
    assert!(results.iter().all(|result| result.outcome() == RecordOutcome::Stored));
    assert_eq!(exact.credits, credits, "each outcome brings its credit back");
    let status = greedy.error().await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.get_details_error_info().expect("details").reason, "CREDIT_EXCEEDED");
    assert!(count(&pair, "inbox WHERE producer = 'greedy'").await <= i64::from(credits));
    assert_eq!(exact.publish(&[good()]).await, [RecordOutcome::Stored], "the other stream goes on");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_is_rejected_by_itself_and_kept() {
    let pair = notify_alone().await;
    let unknown_kind = NotificationRequest { kind: 99, ..broadcast("someone") };
    let bare = NotificationRequest { arguments: BTreeMap::new().into_iter().collect(), ..broadcast("someone") };
    let table = [
        ("EVENT_MALFORMED", record(vec![0xff; 20])),
        ("EVENT_ID_MALFORMED", EventRecord { event_id: "seven".to_owned(), ..good() }),
        ("EVENT_ID_MALFORMED", EventRecord { event_id: String::new(), ..good() }),
        ("KIND_UNKNOWN", record(message(vec![broadcast("someone"), unknown_kind]))),
        ("EVENT_INVALID", record(message(vec![broadcast("")]))),
        ("EVENT_INVALID", record(message(vec![bare]))),
        ("EVENT_INVALID", record(message(vec![broadcast("nul\0")]))),
        ("EVENT_TOO_LARGE", record(vec![0; 256 * 1024 + 1])),
        ("TOO_MANY_REQUESTS", record(message(vec![broadcast("someone"); 101]))),
    ];
    let mut producer = Producer::open(&pair.clients, "p").await;
    for round in 0..2 {
        // In one batch with good ones, and a second time: what is bad stays bad, and is kept once.
        for (_, bad) in &table {
            producer.send(&good());
            producer.send(bad);
        }
        let results = producer.results(table.len() * 2).await;
        for (pair, (reason, bad)) in results.chunks(2).zip(&table) {
            assert_eq!(pair[0].outcome(), RecordOutcome::Stored, "before {reason}");
            assert_eq!((pair[1].outcome(), pair[1].reason.as_str()), (RecordOutcome::Rejected, *reason));
            assert_eq!(pair[1].event_id, bad.event_id);
            assert!(!pair[1].detail.is_empty(), "{reason}");
        }
        let stored = i64::try_from(table.len() * (round + 1)).expect("a count");
        assert_eq!(count(&pair, "inbox").await, stored);
    }
    let client = pair.notify_sql(Role::Superuser).await;
    for (reason, bad) in &table {
        let query = "SELECT count(*) FROM rejected_records
                     WHERE producer = 'p' AND event_id = $1 AND event = $2 AND reason = $3 AND traceparent = $4";
        let row = client.query_one(query, &[&bad.event_id, &bad.event, reason, &TRACEPARENT]).await.expect("a row");
        assert_eq!(row.get::<_, i64>(0), 1, "{reason}");
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_stored_once_however_often_and_wherever_it_is_sent() {
    let pair = notify_alone().await;
    let other = pair.another_notify(ports::free()).await;
    let others = Clients::new(pair.referral_address, other.address);
    let records: Vec<_> = (0..200).map(|_| good()).collect();
    let mut streams = Vec::new();
    for clients in [&pair.clients, &pair.clients, &others] {
        streams.push(Producer::open(clients, "p").await);
    }
    let backwards: Vec<_> = records.iter().rev().cloned().collect();
    let [one, two, three] = streams.as_mut_slice() else { panic!("three streams") };
    let (one, mut two, three) = tokio::join!(one.publish(&records), two.publish(&backwards), three.publish(&records));
    two.reverse();
    for (place, outcomes) in one.iter().zip(&two).zip(&three).enumerate() {
        let ((one, two), three) = outcomes;
        let stored = [one, two, three].iter().filter(|outcome| ***outcome == RecordOutcome::Stored).count();
        let duplicate = [one, two, three].iter().filter(|outcome| ***outcome == RecordOutcome::Duplicate).count();
        assert_eq!((stored, duplicate), (1, 2), "record {place}: {outcomes:?}");
    }
    for stream in &mut streams {
        let twice = [records[0].clone(), records[0].clone()];
        assert_eq!(stream.publish(&twice).await, [RecordOutcome::Duplicate; 2]);
    }
    let new = good();
    assert_eq!(streams[0].publish(&[new.clone(), new]).await, [RecordOutcome::Stored, RecordOutcome::Duplicate]);
    assert_eq!((count(&pair, "inbox").await, count(&pair, "notifications").await), (201, 201));

    let mut another = Producer::open(&pair.clients, "another").await;
    assert_eq!(another.publish(&records[..1]).await, [RecordOutcome::Stored], "event IDs are the producer's own");
    assert_eq!((count(&pair, "inbox").await, count(&pair, "notifications").await), (202, 202));
    drop((streams, another));
    other.stop().await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_a_silent_database_even_while_every_connection_is_in_use() {
    let mut pair = Options::default().proxied().notify(|config| config.pool_size = 1).prepare().await;
    pair.start_notify().await;
    let known = GetNotificationRequest { notification_id: Uuid::new_v4().to_string() };
    pair.clients.clone().notifications.get_notification(known.clone()).await.expect_err("there is none");
    pair.proxies().database.pause();
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (mut clients, request) = (pair.clients.clone(), known.clone());
            tokio::spawn(async move { clients.notifications.get_notification(request).await })
        })
        .collect();
    let serving = async || is_serving(pair.notify_address, "").await;
    wait::until("NOT_SERVING", async || (!serving().await).then_some(())).await;
    pair.proxies().database.resume();
    wait::until("SERVING", async || serving().await.then_some(())).await;
    for call in calls {
        call.await.expect("no panic").expect_err("there is none");
    }
    pair.finish().await;
}

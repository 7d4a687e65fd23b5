//! The publisher against a receiver driven by hand, a receiver that is slow, and an event that can't be taken.

use std::{collections::BTreeSet, time::Duration};

use p2phub_proto::notify::v1::{
    PublishRequest, PublishResponse, RecordOutcome, RecordResult,
    notification_ingest_service_server::{NotificationIngestService, NotificationIngestServiceServer},
    publish_request::Frame,
};
use p2phub_tests::{
    hold::Hold,
    pair::{Options, Pair},
    postgres::Role,
    wait,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::stream::{broadcast, message};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Longer than the publisher ever lets an event wait that it may send.
const QUIET: Duration = Duration::from_millis(1500);

/// A stream as the receiver has it.
struct Received {
    frames: Streaming<PublishRequest>,
    answers: mpsc::Sender<Result<PublishResponse, Status>>,
}

impl Received {
    async fn frame(&mut self) -> Frame {
        let frame = timeout(wait::LIMIT, self.frames.message()).await.expect("a frame in time");
        frame.expect("a frame").expect("no end").frame.expect("content")
    }

    async fn record(&mut self) -> String {
        match self.frame().await {
            Frame::Record(record) => record.event_id,
            Frame::Open(_) => panic!("open again"),
        }
    }

    async fn opened(&mut self) {
        let Frame::Open(open) = self.frame().await else { panic!("a record before open") };
        assert_eq!(open.producer, "referral-svc");
    }

    async fn is_quiet(&mut self) -> bool {
        timeout(QUIET, self.frames.message()).await.is_err()
    }

    async fn answer(&self, credits: i32, event_ids: &[String]) {
        let results = event_ids.iter().map(|event_id| RecordResult {
            event_id: event_id.clone(),
            outcome: RecordOutcome::Stored.into(),
            ..Default::default()
        });
        let response = PublishResponse { credits, results: results.collect() };
        self.answers.send(Ok(response)).await.expect("a stream");
    }
}

/// A receiver that hands its streams to the test.
struct ByHand(mpsc::Sender<Received>);

#[tonic::async_trait]
impl NotificationIngestService for ByHand {
    type PublishStream = ReceiverStream<Result<PublishResponse, Status>>;

    async fn publish(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        let (answers, stream) = mpsc::channel(8);
        self.0.send(Received { frames: request.into_inner(), answers }).await.expect("the test");
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Events straight into the outbox: many facts at once.
async fn fill_outbox(pair: &Pair, events: i32) {
    let insert = "INSERT INTO outbox (event_id, create_time, traceparent, event)
                  SELECT gen_random_uuid(), now(), $1, $2 FROM generate_series(1, $3)";
    let client = pair.referral_sql(Role::Superuser).await;
    client.execute(insert, &[&TRACEPARENT, &message(vec![broadcast("someone")]), &events]).await.expect("events");
}

async fn in_outbox(pair: &Pair) -> BTreeSet<String> {
    let client = pair.referral_sql(Role::Superuser).await;
    let rows = client.query("SELECT event_id::text FROM outbox", &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publisher_spends_no_credit_it_has_not_got_and_settles_what_was_acknowledged() {
    let mut pair = Options::default().prepare().await;
    let (sender, mut streams) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let server = Server::builder().add_service(NotificationIngestServiceServer::new(ByHand(sender)));
    let serving = tokio::spawn(server.serve_with_shutdown(pair.notify_address, stop.clone().cancelled_owned()));
    pair.start_referral().await;
    fill_outbox(&pair, 20).await;
    let all = in_outbox(&pair).await;

    let mut stream = timeout(wait::LIMIT, streams.recv()).await.expect("a stream in time").expect("a stream");
    stream.opened().await;
    assert!(stream.is_quiet().await, "a record without a credit");
    stream.answer(8, &[]).await;
    let mut sent = Vec::new();
    for _ in 0..8 {
        sent.push(stream.record().await);
    }
    assert!(stream.is_quiet().await, "a ninth record for eight credits");
    // Acknowledged in another order than sent, and not all of them; then the stream breaks.
    let acknowledged = [sent[5].clone(), sent[0].clone(), sent[6].clone()];
    stream.answer(0, &acknowledged).await;
    let left: BTreeSet<_> = all.iter().filter(|id| !acknowledged.contains(*id)).cloned().collect();
    wait::until("three settled", async || (in_outbox(&pair).await == left).then_some(())).await;
    drop(stream);

    let mut stream = timeout(wait::LIMIT, streams.recv()).await.expect("a stream in time").expect("a stream");
    stream.opened().await;
    stream.answer(100, &[]).await;
    let mut again = BTreeSet::new();
    for _ in 0..left.len() {
        again.insert(stream.record().await);
    }
    assert_eq!(again, left, "what is unsettled, and nothing else");
    let again: Vec<_> = again.into_iter().collect();
    stream.answer(100, &again).await;
    wait::until("an empty outbox", async || in_outbox(&pair).await.is_empty().then_some(())).await;
    assert!(stream.is_quiet().await, "a settled event was sent again");
    pair.stop_referral().await;
    stop.cancel();
    drop(stream);
    serving.await.expect("no panic").expect("a clean end");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broadcast_tells_waits_behind_everything_else() {
    let mut pair = Options::default().prepare().await;
    let (sender, mut streams) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let server = Server::builder().add_service(NotificationIngestServiceServer::new(ByHand(sender)));
    let serving = tokio::spawn(server.serve_with_shutdown(pair.notify_address, stop.clone().cancelled_owned()));
    pair.start_referral().await;
    let mut stream = timeout(wait::LIMIT, streams.recv()).await.expect("a stream in time").expect("a stream");
    stream.opened().await;
    fill_outbox(&pair, 5).await;
    let older = "UPDATE outbox SET bulk = true, event_id = overlay(event_id::text PLACING '00000000' FROM 1)::uuid";
    pair.referral_sql(Role::Superuser).await.batch_execute(older).await.expect("an update");
    let bulk = in_outbox(&pair).await;
    let mut clients = pair.clients.clone();
    clients.chain("chain", 2).await;
    stream.answer(1, &[]).await;
    assert!(!bulk.contains(&stream.record().await), "a broadcast's event came before a signup's");
    stream.answer(100, &[]).await;
    for _ in 0..5 {
        assert!(bulk.contains(&stream.record().await));
    }
    pair.stop_referral().await;
    stop.cancel();
    drop(stream);
    serving.await.expect("no panic").expect("a clean end");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_notify_svc_slows_nobody_who_calls() {
    let pair = Options::default().proxied().start().await;
    let mut clients = pair.clients.clone();
    let root = clients.register("root", "").await;
    let superuser = pair.notify_sql(Role::Superuser).await;
    let hold =
        Hold::take(superuser, pair.notify_sql(Role::Superuser).await, "LOCK TABLE inbox IN EXCLUSIVE MODE").await;
    fill_outbox(&pair, 1500).await;
    hold.blocks_someone().await;
    for paused in [false, true] {
        if paused {
            pair.proxies().stream.pause();
        }
        for number in 0..10 {
            let name = format!("guest-{paused}-{number}");
            timeout(Duration::from_secs(5), clients.register(&name, &root.referral_code))
                .await
                .expect("an answer in time");
        }
    }
    assert_eq!(in_outbox(&pair).await.len(), 1520);
    hold.release().await;
    pair.proxies().stream.resume();
    wait::until("an empty outbox", async || in_outbox(&pair).await.is_empty().then_some(())).await;
    let client = pair.notify_sql(Role::Superuser).await;
    let inbox: i64 = client.query_one("SELECT count(*) FROM inbox", &[]).await.expect("a count").get(0);
    assert_eq!(inbox, 1520);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_nobody_can_read_is_set_aside_on_both_sides_and_blocks_nothing() {
    let mut pair = Options::default().prepare().await;
    pair.start_referral().await;
    let mut clients = pair.clients.clone();
    let root = clients.register("root", "").await;
    let referral = pair.referral_sql(Role::Superuser).await;
    let poison = "00000000-0000-0000-0000-000000000001";
    let insert = format!(
        "INSERT INTO outbox (event_id, create_time, traceparent, event)
         VALUES ('{poison}', now(), 'nonsense', '\\xffffff'), (gen_random_uuid(), now(), '', '\\x0aff')"
    );
    referral.batch_execute(&insert).await.expect("poison");
    for number in 0..5 {
        clients.register(&format!("guest-{number}"), &root.referral_code).await;
    }
    assert_eq!(in_outbox(&pair).await.len(), 7);
    pair.start_notify().await;
    wait::until("all but the poison to be settled", async || (in_outbox(&pair).await.len() == 2).then_some(())).await;
    let query = "SELECT reject_reason, event FROM outbox WHERE reject_time IS NOT NULL ORDER BY event_id";
    let rows = wait::until("the poison to be set aside", async || {
        let rows = referral.query(query, &[]).await.expect("rows");
        (rows.len() == 2).then_some(rows)
    })
    .await;
    let notify = pair.notify_sql(Role::Superuser).await;
    for row in rows {
        let (reason, event): (String, Vec<u8>) = (row.get(0), row.get(1));
        assert_eq!(reason, "EVENT_MALFORMED");
        let query =
            "SELECT count(*) FROM rejected_records WHERE producer = 'referral-svc' AND event = $1 AND reason = $2";
        let kept: i64 = notify.query_one(query, &[&event, &reason]).await.expect("a count").get(0);
        assert_eq!(kept, 1);
    }
    let inbox: i64 = notify.query_one("SELECT count(*) FROM inbox", &[]).await.expect("a count").get(0);
    assert_eq!(inbox, 5);
    clients.register("late", &root.referral_code).await;
    wait::until("a later event to pass", async || (in_outbox(&pair).await.len() == 2).then_some(())).await;
    pair.finish().await;
}

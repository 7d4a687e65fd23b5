//! Queueing again what ended without delivery: counted, capped, stopped, and exactly once whoever is killed.

use std::time::{Duration, Instant};

use p2phub_proto::notify::v1::{
    CancelJobRequest, CountNotificationsRequest, DeliveryState, GetJobRequest, Job, JobState, ListAuditEventsRequest,
    ListJobsRequest, Notification, NotificationFilter, NotificationState, RedriveNotificationsRequest,
    RedriveNotificationsResponse, ResetAddressRequest,
};
use p2phub_tests::{
    builders::request_id,
    pair::{Options, Pair},
    ports,
    postgres::Role,
    refusal::{fields, refused},
    sink::Reply,
    wait,
};
use tonic::Code;
use uuid::Uuid;

use super::{Desk, WHY, audit};
use crate::PAIR_PROCESS;

/// Dead notifications without a contact on a channel that is on: queued again, the log takes them.
async fn bury(pair: &Pair, count: i32) {
    let sql = "WITH e AS (INSERT INTO inbox (producer, event_id, trace_id)
                   VALUES ('desk', '00000000-0000-4000-8000-000000000001', repeat('a', 32)) RETURNING event_id),
               n AS (INSERT INTO notifications (notification_id, producer, source_event_id, position, recipient_id, kind,
                         locale, arguments, contacts, state, trace_id, traceparent, expire_time, settle_time)
                   SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, 'desk', event_id, i, 'buried',
                          'OPERATOR_BROADCAST', 'en', '{\"text\": \"Hello\"}', '[{\"channel\": \"email\", \"address\": \"a@b\"}]',
                          'DEAD', repeat('a', 32), '00-' || repeat('a', 32) || '-00f067aa0ba902b7-01', now(),
                          now() - interval '1 hour'
                     FROM e, generate_series(1, $1::int) AS i RETURNING notification_id)
               INSERT INTO deliveries (notification_id, position, contact_place, channel, address, state, reason, lane,
                   settle_time)
               SELECT notification_id, 3, 1, 'email', 'a@b', 'FAILED', 'SMTP_550', 2, now() - interval '1 hour' FROM n";
    // Data-modifying parts see no rows of each other's, but foreign keys are checked at the end.
    pair.notify_sql(Role::Superuser).await.execute(sql, &[&count]).await.expect("the dead");
}

fn redrive(per_second: i32) -> RedriveNotificationsRequest {
    RedriveNotificationsRequest {
        request_id: request_id(),
        filter: Some(NotificationFilter { recipient_id: "buried".to_owned(), ..Default::default() }),
        per_second,
        reason: WHY.to_owned(),
        ..Default::default()
    }
}

async fn ask(pair: &Pair, request: RedriveNotificationsRequest) -> RedriveNotificationsResponse {
    pair.clients.clone().notifications.redrive_notifications(request).await.expect("an answer").into_inner()
}

async fn job(pair: &Pair, job_id: &str) -> Job {
    let request = GetJobRequest { job_id: job_id.to_owned() };
    pair.clients.clone().operators.get_job(request).await.expect("an answer").into_inner().job.expect("a job")
}

async fn ended(pair: &Pair, job_id: &str) -> Job {
    wait::until("a job to end", async || Some(job(pair, job_id).await).filter(|job| job.end_time.is_some())).await
}

/// By state.
async fn counts(pair: &Pair) -> Vec<(NotificationState, i64)> {
    let filter = Some(NotificationFilter { recipient_id: "buried".to_owned(), ..Default::default() });
    let answer = pair.clients.clone().notifications.count_notifications(CountNotificationsRequest { filter }).await;
    let answer = answer.expect("counts").into_inner();
    assert_eq!(answer.total, answer.counts.iter().map(|count| count.notifications).sum::<i64>());
    answer.counts.iter().map(|count| (count.state(), count.notifications)).collect()
}

/// Each buried one was queued again once, with one attempt, and its history is kept.
async fn assert_each_once(pair: &Pair, count: i64) {
    wait::until_within(2 * wait::LIMIT, "all to be delivered", async || {
        (counts(pair).await == [(NotificationState::Delivered, count)]).then_some(())
    })
    .await;
    let sql = pair.notify_sql(Role::Superuser).await;
    let again = "SELECT count(*), count(DISTINCT notification_id), min(position), max(position), min(lane)
                   FROM deliveries WHERE position > 3 AND contact_place = 2 AND channel = 'log'";
    let row = sql.query_one(again, &[]).await.expect("a row");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (count, count));
    assert_eq!((row.get::<_, i32>(2), row.get::<_, i32>(3), row.get::<_, i16>(4)), (4, 4, 2));
    let kept = sql.query_one("SELECT count(*) FROM deliveries WHERE state = 'FAILED'", &[]).await.expect("a row");
    assert_eq!(kept.get::<_, i64>(0), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_only_counts() {
    let desk = Desk::open().await;
    bury(&desk.pair, 7).await;
    let dry = RedriveNotificationsRequest { dry_run: true, reason: String::new(), ..redrive(0) };
    assert_eq!(ask(&desk.pair, dry.clone()).await, RedriveNotificationsResponse { matched: 7, job: None });
    let rows = [desk.count("jobs").await, desk.count("requests").await, desk.count("audit_events").await];
    assert_eq!(rows, [0; 3]);
    // Nothing is remembered: the same ID may do it.
    let job = ask(&desk.pair, RedriveNotificationsRequest { request_id: dry.request_id, ..redrive(0) }).await.job;
    assert_eq!(job.expect("a job").per_second, 100);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_again_gets_a_new_delivery_and_the_job_is_on_record() {
    let mut desk = Desk::open().await;
    desk.webhook.then([Reply::status(410)]);
    let id = desk.ask_webhook("ada").await;
    let dead = desk.when(&id, |one| one.state() == NotificationState::Dead).await;
    // The answer has marked the address; until that is forgotten it would die again.
    let forget = ResetAddressRequest {
        request_id: request_id(),
        channel: "webhook".to_owned(),
        address: desk.webhook.url(""),
        reason: WHY.to_owned(),
    };
    desk.pair.clients.clone().operators.reset_address(forget).await.expect("a reset");
    let filter = NotificationFilter { trace_id: dead.trace_id.clone(), ..Default::default() };
    let answer = ask(&desk.pair, RedriveNotificationsRequest { filter: Some(filter), ..redrive(50) }).await;
    let job = answer.job.expect("a job");
    assert_eq!((answer.matched, job.matched, job.state(), job.kind.as_str()), (1, 1, JobState::Running, "REDRIVE"));
    assert_eq!((job.caller.as_str(), job.reason.as_str(), job.per_second), ("local", WHY, 50));
    let job = ended(&desk.pair, &job.job_id).await;
    assert_eq!((job.state(), job.done), (JobState::Done, 1));
    let alive = desk.when(&id, |one| one.settle_time.is_some()).await;
    let states: Vec<_> = alive.deliveries.iter().map(|one| (one.channel.as_str(), one.state())).collect();
    assert_eq!(states, [("webhook", DeliveryState::Failed), ("webhook", DeliveryState::Delivered)]);
    assert_eq!(alive.deliveries[0], dead.deliveries[0], "history stays");
    let expires = |one: &Notification| one.expire_time.map(|time| (time.seconds, time.nanos));
    assert!(expires(&alive) > expires(&dead), "its time is over before it can be sent");
    let record =
        audit(&desk.pair, ListAuditEventsRequest { subject_id: job.job_id.clone(), ..Default::default() }).await;
    assert!(record.iter().all(|event| event.trace_id == job.trace_id && event.actor == "local"), "{record:?}");
    let details: Vec<_> = record.iter().map(|event| event.detail.as_str()).collect();
    assert_eq!(details, ["ended: 1 of 1 dealt with", &format!("1 match: {WHY}")]);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_again_is_not_taken_twice() {
    let mut desk = Desk::open().await;
    desk.webhook.otherwise(Reply::status(410));
    let id = desk.ask_webhook("buried").await;
    desk.when(&id, |one| one.state() == NotificationState::Dead).await;
    let job = ask(&desk.pair, redrive(1)).await.job.expect("a job");
    assert_eq!(ended(&desk.pair, &job.job_id).await.done, 1);
    let again = desk.when(&id, |one| one.state() == NotificationState::Dead).await;
    assert_eq!(again.deliveries.len(), 2);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_failed_is_not_given_to_the_log_when_its_channels_are_off() {
    let desk = Desk::open().await;
    bury(&desk.pair, 2).await;
    let sql = desk.pair.notify_sql(Role::Superuser).await;
    let tried = "UPDATE deliveries SET attempt_count = 1, tries_used = 1;
                 INSERT INTO attempts (notification_id, position, number, start_time, end_time, outcome, reason, trace_id)
                 SELECT notification_id, position, 1, now(), now(), 'ADDRESS', 'SMTP_550', repeat('a', 32) FROM deliveries";
    sql.batch_execute(tried).await.expect("attempts");
    let job = ask(&desk.pair, redrive(0)).await.job.expect("a job");
    assert_eq!(ended(&desk.pair, &job.job_id).await.done, 2);
    assert_eq!(counts(&desk.pair).await, [(NotificationState::Dead, 2)]);
    assert_eq!(desk.count("deliveries").await, 2);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_again_has_as_long_as_its_kind() {
    let desk = Desk::open().await;
    bury(&desk.pair, 2).await;
    let sql = desk.pair.notify_sql(Role::Superuser).await;
    let short = "UPDATE notifications SET kind = 'PRO_EXPIRING_1_DAY' WHERE position = 1";
    sql.batch_execute(short).await.expect("a kind");
    let job = ask(&desk.pair, redrive(0)).await.job.expect("a job");
    ended(&desk.pair, &job.job_id).await;
    let days =
        "SELECT round(extract(epoch FROM expire_time - now()) / 86400)::int FROM notifications ORDER BY position";
    let days: Vec<i32> = sql.query(days, &[]).await.expect("rows").iter().map(|row| row.get(0)).collect();
    assert_eq!(days, [1, 7]);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_keeps_to_its_rate_and_can_be_stopped() {
    let desk = Desk::open().await;
    bury(&desk.pair, 200).await;
    let begin = Instant::now();
    let id = ask(&desk.pair, redrive(50)).await.job.expect("a job").job_id;
    let progress =
        wait::until("some progress", async || Some(job(&desk.pair, &id).await.done).filter(|done| *done >= 60)).await;
    // 10 at once, then 50 a second.
    assert!(begin.elapsed() >= Duration::from_secs(1), "{progress} in {:?}", begin.elapsed());
    let cancel = || CancelJobRequest { request_id: request_id(), job_id: id.clone(), reason: WHY.to_owned() };
    let mut operators = desk.pair.clients.operators.clone();
    let stopped = operators.cancel_job(cancel()).await.expect("an answer").into_inner().job.expect("a job");
    assert_eq!(stopped.state(), JobState::Cancelled);
    assert!((60..200).contains(&stopped.done) && stopped.end_time.is_some(), "{stopped:?}");
    refused(operators.cancel_job(cancel()).await, Code::FailedPrecondition, "JOB_ENDED");
    let nowhere = CancelJobRequest { job_id: Uuid::new_v4().to_string(), ..cancel() };
    refused(operators.cancel_job(nowhere).await, Code::NotFound, "JOB_NOT_FOUND");
    // Another job goes on where nothing was done.
    let rest = ask(&desk.pair, redrive(10_000)).await;
    assert_eq!(rest.matched + stopped.done, 200);
    ended(&desk.pair, &rest.job.expect("a job").job_id).await;
    assert_eq!(job(&desk.pair, &id).await, stopped);
    assert_each_once(&desk.pair, 200).await;

    let list = |state: JobState, token: &str| ListJobsRequest {
        state: state.into(),
        page_size: 1,
        page_token: token.to_owned(),
    };
    let first = operators.list_jobs(list(JobState::Unspecified, "")).await.expect("a page").into_inner();
    let second = operators.list_jobs(list(JobState::Unspecified, &first.next_page_token)).await.expect("a page");
    let second = second.into_inner();
    assert_eq!((first.jobs[0].state(), second.jobs[0].state()), (JobState::Done, JobState::Cancelled));
    assert_eq!(second.next_page_token, "");
    let running = operators.list_jobs(list(JobState::Running, "")).await.expect("a page").into_inner();
    assert_eq!(running.jobs, []);
    let foreign = operators.list_jobs(list(JobState::Done, &first.next_page_token)).await;
    assert_eq!(fields(&refused(foreign, Code::InvalidArgument, "INVALID_ARGUMENT")), ["page_token"]);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_overlap_on_two_instances_queue_each_once() {
    let desk = Desk::open().await;
    let other = desk.pair.another_notify(ports::free()).await;
    bury(&desk.pair, 300).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(ask(&desk.pair, redrive(500)).await.job.expect("a job").job_id);
    }
    let mut done = 0;
    for id in jobs {
        done += ended(&desk.pair, &id).await.done;
    }
    assert_eq!(done, 300);
    assert_each_once(&desk.pair, 300).await;
    other.stop().await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_instances_are_killed_goes_on_and_queues_each_once() {
    let mut pair = Options::default().processes(PAIR_PROCESS).prepare().await;
    pair.start_notify().await;
    bury(&pair, 400).await;
    let id = ask(&pair, redrive(200)).await.job.expect("a job").job_id;
    for done in [50, 150, 250] {
        wait::until("some progress", async || Some(job(&pair, &id).await).filter(|job| job.done >= done)).await;
        pair.kill_notify();
        pair.start_notify().await;
    }
    let job = ended(&pair, &id).await;
    assert_eq!((job.state(), job.done), (JobState::Done, 400));
    // What was being sent at a kill waits for its lease's end.
    assert_each_once(&pair, 400).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_says_too_little_or_too_much_is_refused() {
    let desk = Desk::open().await;
    let mut notifications = desk.pair.clients.notifications.clone();
    let delivered = NotificationFilter { state: NotificationState::Delivered.into(), ..Default::default() };
    for (field, request) in [
        ("filter", RedriveNotificationsRequest { filter: None, ..redrive(0) }),
        ("filter.state", RedriveNotificationsRequest { filter: Some(delivered), ..redrive(0) }),
        ("per_second", redrive(10_001)),
        ("per_second", redrive(-1)),
        ("reason", RedriveNotificationsRequest { reason: String::new(), ..redrive(0) }),
        ("request_id", RedriveNotificationsRequest { request_id: String::new(), dry_run: true, ..redrive(0) }),
    ] {
        let answer = notifications.redrive_notifications(request).await;
        assert_eq!(fields(&refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT")), [field]);
    }
    desk.close().await;
}

//! One request ID, one answer: replayed by any instance, refused for anything else, remembered when it was a refusal.

use p2phub_proto::notify::v1::{
    CancelJobRequest, CancelNotificationRequest, NotificationFilter, NotificationKind, PauseChannelRequest,
    Preferences, RedriveNotificationsRequest, ResetAddressRequest, ResumeChannelRequest, SetPreferencesRequest,
};
use p2phub_tests::{
    builders::request_id,
    ports,
    postgres::Role,
    refusal::{fields, is_marked, refused},
    sink::Reply,
};
use tonic::{Code, Request};
use uuid::Uuid;

use super::{Desk, WHY, cancellation};
use crate::{
    concurrency::at_once,
    idempotency::mutations::{Mutation, call},
};

const MARK: &str = "INSERT INTO addresses (channel, address, reason, notification_id)
    VALUES ('email', 'gone@example.org', 'SMTP_550', gen_random_uuid())";

fn filter(recipient_id: &str) -> Option<NotificationFilter> {
    Some(NotificationFilter { recipient_id: recipient_id.to_owned(), ..Default::default() })
}

fn pause(channel: &str) -> PauseChannelRequest {
    PauseChannelRequest { channel: channel.to_owned(), reason: WHY.to_owned(), ..Default::default() }
}

fn reset(address: &str) -> ResetAddressRequest {
    let (channel, address, reason) = ("email".to_owned(), address.to_owned(), WHY.to_owned());
    ResetAddressRequest { channel, address, reason, ..Default::default() }
}

/// Every mutation: content that succeeds, and other content.
async fn mutations(desk: &mut Desk) -> Vec<Mutation> {
    desk.webhook.otherwise(Reply::status(503).header("retry-after", "3600"));
    let waiting = desk.ask_webhook("waiting").await;
    desk.pair.notify_sql(Role::Superuser).await.batch_execute(MARK).await.expect("a mark");
    let redrive = |recipient_id: &str| RedriveNotificationsRequest {
        filter: filter(recipient_id),
        reason: WHY.to_owned(),
        ..Default::default()
    };
    let job = RedriveNotificationsRequest { request_id: request_id(), ..redrive("nobody") };
    // It must not end by itself.
    let superuser = desk.pair.notify_sql(Role::Superuser).await;
    let stop = "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.next_step_time = 'infinity'; RETURN NEW; END $$;
                CREATE TRIGGER stop BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION stop()";
    superuser.batch_execute(stop).await.expect("a trigger");
    let job = desk.pair.clients.clone().notifications.redrive_notifications(job).await.expect("a job").into_inner();
    let job_id = job.job.expect("a job").job_id;
    let cancel = |reason: &str| CancelNotificationRequest {
        notification_id: waiting.clone(),
        reason: reason.to_owned(),
        ..Default::default()
    };
    let wish = |kind: NotificationKind| SetPreferencesRequest {
        recipient_id: "ada".to_owned(),
        preferences: Some(Preferences { muted_kinds: vec![kind.into()], ..Default::default() }),
        ..Default::default()
    };
    let resume = |channel: &str| ResumeChannelRequest {
        channel: channel.to_owned(),
        reason: WHY.to_owned(),
        ..Default::default()
    };
    let stop_job =
        |reason: &str| CancelJobRequest { job_id: job_id.clone(), reason: reason.to_owned(), ..Default::default() };
    vec![
        Mutation::new("/p2phub.notify.v1.NotificationService/CancelNotification", &cancel(WHY), &cancel("other")),
        Mutation::new(
            "/p2phub.notify.v1.NotificationService/RedriveNotifications",
            &redrive("waiting"),
            &redrive("other"),
        ),
        Mutation::new(
            "/p2phub.notify.v1.NotificationService/SetPreferences",
            &wish(NotificationKind::LevelUp),
            &wish(NotificationKind::SignupL1),
        ),
        Mutation::new("/p2phub.notify.v1.OperatorService/PauseChannel", &pause("slack"), &pause("email")),
        Mutation::new("/p2phub.notify.v1.OperatorService/ResumeChannel", &resume("slack"), &resume("email")),
        Mutation::new(
            "/p2phub.notify.v1.OperatorService/ResetAddress",
            &reset("gone@example.org"),
            &reset("other@example.org"),
        ),
        Mutation::new("/p2phub.notify.v1.OperatorService/CancelJob", &stop_job(WHY), &stop_job("other")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mutation_asked_again_anywhere_gives_its_first_answer_and_does_nothing() {
    let mut desk = Desk::open().await;
    let other = desk.pair.another_notify(ports::free()).await;
    let mutations = mutations(&mut desk).await;
    for (index, mutation) in mutations.iter().enumerate() {
        for id in ["", "1"] {
            let answer = call(other.address, mutation, id, &mutation.content).await;
            let status = refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
            assert_eq!(fields(&status), ["request_id"], "{}", mutation.path);
        }
        let id = request_id();
        let first = call(desk.pair.notify_address, mutation, &id, &mutation.content).await;
        let first = first.unwrap_or_else(|status| panic!("{}: {status}", mutation.path));
        assert!(!is_marked(&first, "idempotent-replay"), "{}", mutation.path);
        let rows = async || [desk.count("audit_events").await, desk.count("requests").await, desk.count("jobs").await];
        let before = rows().await;
        for (address, same_id) in [(desk.pair.notify_address, id.to_uppercase()), (other.address, id.replace('-', ""))]
        {
            let again = call(address, mutation, &same_id, &mutation.content).await;
            let again = again.unwrap_or_else(|status| panic!("{}: {status}", mutation.path));
            assert_eq!(again.get_ref(), first.get_ref(), "{}", mutation.path);
            assert!(is_marked(&again, "idempotent-replay"), "{}", mutation.path);
            let trace = |answer: &tonic::Response<Vec<u8>>| answer.metadata().get("trace-id").cloned();
            assert!(trace(&again).is_some() && trace(&again) != trace(&first), "{}: the trace is old", mutation.path);
        }
        let other_content = call(other.address, mutation, &id, &mutation.other).await;
        refused(other_content, Code::AlreadyExists, "REQUEST_ID_REUSED");
        let another = &mutations[(index + 1) % mutations.len()];
        let other_method = call(other.address, another, &id, &another.content).await;
        refused(other_method, Code::AlreadyExists, "REQUEST_ID_REUSED");
        assert_eq!(rows().await, before, "{}", mutation.path);
        let method = mutation.path.rsplit_once('/').expect("a method").1;
        let on_record = format!("audit_events WHERE action = '{method}' AND request_id = '{id}' AND outcome = 'OK'");
        assert_eq!(desk.count(&on_record).await, 1, "{method}");
    }
    other.stop().await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_id_at_once_on_two_instances_is_done_once() {
    let desk = Desk::open().await;
    let other = desk.pair.another_notify(ports::free()).await;
    let id = request_id();
    let addresses = [desk.pair.notify_address, other.address];
    let answers = at_once((0..24).map(|turn| {
        let mutation =
            Mutation::new("/p2phub.notify.v1.OperatorService/PauseChannel", &pause("slack"), &pause("slack"));
        let (address, id) = (addresses[turn % 2], id.clone());
        async move { call(address, &mutation, &id, &mutation.content).await }
    }))
    .await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("an answer")).collect();
    assert!(answers.iter().all(|answer| answer.get_ref() == answers[0].get_ref()));
    assert_eq!(answers.iter().filter(|answer| !is_marked(answer, "idempotent-replay")).count(), 1);
    assert_eq!((desk.count("audit_events").await, desk.count("requests").await), (1, 1));
    other.stop().await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_remembered_even_when_its_cause_is_gone_and_bad_input_never_is() {
    let desk = Desk::open().await;
    let mut clients = desk.pair.clients.clone();
    let request = ResetAddressRequest { request_id: request_id(), ..reset("gone@example.org") };
    let first = refused(clients.operators.reset_address(request.clone()).await, Code::NotFound, "ADDRESS_NOT_MARKED");
    assert!(first.metadata().get("idempotent-replay").is_none());
    desk.pair.notify_sql(Role::Superuser).await.batch_execute(MARK).await.expect("a mark");
    let again = refused(clients.operators.reset_address(request.clone()).await, Code::NotFound, "ADDRESS_NOT_MARKED");
    assert_eq!(again.message(), first.message());
    assert!(again.metadata().get("idempotent-replay").is_some());
    let retried = ResetAddressRequest { request_id: request_id(), ..request.clone() };
    clients.operators.reset_address(retried).await.expect("a reset");
    let outcomes = "SELECT outcome, subject_id FROM audit_events ORDER BY audit_event_id";
    let rows = desk.pair.notify_sql(Role::Superuser).await.query(outcomes, &[]).await.expect("rows");
    let outcomes: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(outcomes, ["ADDRESS_NOT_MARKED", "OK"]);
    let subject: String = rows[0].get(1);
    assert!(subject.starts_with("email/") && !subject.contains("gone"), "{subject}");

    let bad = CancelNotificationRequest { reason: String::new(), ..cancellation(&Uuid::new_v4().to_string()) };
    let status = refused(
        clients.notifications.cancel_notification(bad.clone()).await,
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
    );
    assert_eq!(fields(&status), ["reason"]);
    let put_right = CancelNotificationRequest { reason: WHY.to_owned(), ..bad };
    refused(clients.notifications.cancel_notification(put_right).await, Code::NotFound, "NOTIFICATION_NOT_FOUND");
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_its_callers_own() {
    let desk = Desk::open().await;
    let mut clients = desk.pair.clients.clone();
    let id = request_id();
    for (caller, channel) in [("ops-1", "slack"), ("ops-2", "email")] {
        let mut request = Request::new(PauseChannelRequest { request_id: id.clone(), ..pause(channel) });
        request.metadata_mut().insert("p2phub-caller", caller.parse().expect("a name"));
        let answer = clients.operators.pause_channel(request).await.expect("a pause").into_inner();
        assert_eq!(answer.channel.expect("a channel").paused_by, caller);
    }
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_records_cant_be_changed_or_removed() {
    let desk = Desk::open().await;
    let request = PauseChannelRequest { request_id: request_id(), ..pause("slack") };
    desk.pair.clients.clone().operators.pause_channel(request).await.expect("a pause");
    for role in [Role::Service, Role::Owner] {
        let client = desk.pair.notify_sql(role).await;
        for statement in [
            "UPDATE audit_events SET outcome = outcome",
            "DELETE FROM audit_events",
            "TRUNCATE audit_events",
            "UPDATE requests SET method = method",
            "DELETE FROM requests",
            "TRUNCATE requests",
        ] {
            let error = client.batch_execute(statement).await.expect_err(statement);
            let code = error.as_db_error().map(|error| error.code().code().to_owned());
            assert_eq!(code.as_deref(), Some("42501"), "{role:?}: {statement}");
        }
    }
    desk.close().await;
}

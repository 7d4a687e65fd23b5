//! COMMIT is on its way and its answer is lost: the service looks the request ID up, or says that it can't.

use p2phub_proto::notify::v1::{PauseChannelRequest, PauseChannelResponse};
use p2phub_tests::{
    builders::request_id,
    pair::Options,
    postgres::Role,
    refusal::{is_marked, refused},
    wait,
};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tonic::{Code, Response, Status};

use super::{Desk, WHY};
use crate::concurrency::number;

const HELD: &str = "FROM pg_locks WHERE locktype = 'advisory' AND classid = 99 AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// A pause whose COMMIT is held back by the database.
struct Held {
    desk: Desk,
    request: PauseChannelRequest,
    call: JoinHandle<Result<Response<PauseChannelResponse>, Status>>,
    holder: Client,
}

impl Held {
    async fn start() -> Self {
        let desk = Desk::with(Options::default().proxied()).await;
        // A deferred trigger runs within COMMIT, and waits there for a lock that the test holds.
        let holder = desk.pair.notify_sql(Role::Superuser).await;
        holder
            .batch_execute(
                "SELECT pg_advisory_lock(99, 0);
                 CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
                     'BEGIN PERFORM pg_advisory_xact_lock_shared(99, 0); RETURN NULL; END';
                 CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON audit_events DEFERRABLE INITIALLY DEFERRED
                     FOR EACH ROW EXECUTE FUNCTION hold();",
            )
            .await
            .expect("a trigger");
        let request =
            PauseChannelRequest { request_id: request_id(), channel: "slack".to_owned(), reason: WHY.to_owned() };
        let (mut operators, sent) = (desk.pair.clients.operators.clone(), request.clone());
        let call = tokio::spawn(async move { operators.pause_channel(sent).await });
        wait::until("COMMIT to be on its way", async || {
            (number(&holder, &format!("SELECT count(*) {HELD}")).await == 1).then_some(())
        })
        .await;
        Self { desk, request, call, holder }
    }

    async fn release(&self) {
        self.holder.batch_execute("SELECT pg_advisory_unlock(99, 0)").await.expect("an unlock");
    }

    async fn finish(self) {
        assert_eq!(self.desk.record("slack").await.len(), 1, "one effect");
        self.desk.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_again() {
    let mut held = Held::start().await;
    held.desk.pair.proxies().database.cut_once();
    held.release().await;
    let answer = (&mut held.call).await.expect("no panic").expect("an answer in spite of it");
    assert!(!is_marked(&answer, "idempotent-replay"), "to its caller it is the first answer");
    held.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_happened_is_made_up_for() {
    let mut held = Held::start().await;
    held.holder.batch_execute(&format!("SELECT pg_terminate_backend(pid) {HELD}")).await.expect("an end");
    held.release().await;
    let answer = (&mut held.call).await.expect("no panic").expect("an answer in spite of it");
    assert!(!is_marked(&answer, "idempotent-replay"));
    held.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_cannot_be_looked_up_is_called_unknown_until_it_can() {
    let mut held = Held::start().await;
    held.desk.pair.proxies().database.cut();
    held.release().await;
    let answer = (&mut held.call).await.expect("no panic");
    refused(answer, Code::Unknown, "OUTCOME_UNKNOWN");
    held.desk.pair.proxies().database.resume();
    let mut operators = held.desk.pair.clients.operators.clone();
    let answer =
        wait::until("PostgreSQL to be back", async || operators.pause_channel(held.request.clone()).await.ok()).await;
    assert!(is_marked(&answer, "idempotent-replay"), "it had been done");
    held.finish().await;
}

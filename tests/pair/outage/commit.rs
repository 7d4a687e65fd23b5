//! COMMIT is on its way and its answer is lost: the service finds out by itself what became of it, or says that it can't.

use p2phub_proto::referral::v1::{Partner, RegisterPartnerResponse};
use p2phub_tests::{
    builders::registration,
    pair::{Options, Pair},
    postgres::Role,
    wait,
};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tonic::{Code, Response, Status};

use crate::concurrency::{failure, has_flag, number, says_when_to_retry};

const HELD: &str = "FROM pg_locks WHERE locktype = 'advisory' AND classid = 99 AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// A signup whose COMMIT is held back by the database.
pub(crate) struct Held {
    pub(crate) pair: Pair,
    root: Partner,
    request: p2phub_proto::referral::v1::RegisterPartnerRequest,
    pub(crate) call: JoinHandle<Result<Response<RegisterPartnerResponse>, Status>>,
    holder: Client,
}

impl Held {
    async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let pair = options.proxied().start().await;
        let root = pair.clients.clone().register("root", "").await;
        // A deferred trigger runs within COMMIT, and waits there for a lock that the test holds.
        let holder = pair.referral_sql(Role::Superuser).await;
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
        let request = registration("lost", &root.referral_code);
        let (mut clients, sent) = (pair.clients.clone(), request.clone());
        let call = tokio::spawn(async move { clients.partners.register_partner(sent).await });
        wait::until("COMMIT to be on its way", async || {
            (number(&holder, &format!("SELECT count(*) {HELD}")).await == 1).then_some(())
        })
        .await;
        Self { pair, root, request, call, holder }
    }

    pub(crate) async fn release(&self) {
        self.holder.batch_execute("SELECT pg_advisory_unlock(99, 0)").await.expect("an unlock");
    }

    async fn end_the_backend(&self) {
        self.holder.batch_execute(&format!("SELECT pg_terminate_backend(pid) {HELD}")).await.expect("an end");
        // What replaces it waits for the same lock, and is let through.
        self.release().await;
    }

    pub(crate) async fn finish(self) {
        let root = self.pair.clients.clone().partner(&self.root.partner_id).await;
        assert_eq!((root.direct_referrals, root.xp), (1, 35), "one effect");
        let signups = "SELECT count(*) FROM audit_events WHERE action = 'RegisterPartner'";
        assert_eq!(number(&self.holder, signups).await, 2, "the root's and one more");
        self.pair.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_again() {
    let mut held = Held::start().await;
    held.pair.proxies().database.cut_once();
    held.release().await;
    let answer = (&mut held.call).await.expect("no panic").expect("an answer in spite of it");
    assert!(!has_flag(&answer, "idempotent-replay"), "to its caller it is the first answer");
    assert!(answer.into_inner().created);
    held.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_happened_is_made_up_for() {
    let mut held = Held::start().await;
    held.end_the_backend().await;
    let answer = (&mut held.call).await.expect("no panic").expect("an answer in spite of it");
    assert!(!has_flag(&answer, "idempotent-replay") && answer.into_inner().created);
    held.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_cannot_be_looked_up_is_called_unknown_until_it_can() {
    let mut held = Held::start().await;
    held.pair.proxies().database.cut();
    held.release().await;
    let answer = (&mut held.call).await.expect("no panic");
    assert_eq!(failure(&answer), Some((Code::Unknown, "OUTCOME_UNKNOWN".to_owned())));
    assert!(answer.is_err_and(|status| says_when_to_retry(&status)));

    held.pair.proxies().database.resume();
    let mut clients = held.pair.clients.clone();
    let answer = wait::until("PostgreSQL to be back", async || {
        clients.partners.register_partner(held.request.clone()).await.ok()
    })
    .await;
    assert!(has_flag(&answer, "idempotent-replay"), "it had been done");
    assert!(answer.into_inner().created, "the first answer again");
    held.finish().await;
}

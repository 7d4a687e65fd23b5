//! The job that asks for notices, against another instance's and against a refund: held by locks until they meet.

use chrono::TimeDelta;
use p2phub_tests::{clients::Clients, hold::Hold, postgres::Role, prometheus::Scrape, wait};

use super::{ENDED, ONE_DAY, Stage, THREE_DAYS};
use crate::concurrency::number;

impl Stage {
    async fn hold(&self, statements: &str) -> Hold {
        let superuser = self.pair.referral_sql(Role::Superuser).await;
        Hold::take(superuser, self.pair.referral_sql(Role::Superuser).await, statements).await
    }

    async fn number(&self, query: &str) -> i64 {
        number(&self.pair.referral_sql(Role::Superuser).await, query).await
    }

    /// Waits until so many commands stand behind the one that is being committed.
    async fn queued(&self, commands: f64) {
        let address = self.pair.referral.as_ref().expect("it runs").http;
        wait::until("commands to queue", async || {
            let depth = Scrape::of(address).await.value("p2phub_commit_queue_depth", &[]);
            (depth == Some(commands)).then_some(())
        })
        .await;
    }

    fn three_days_before(&self) {
        self.clock.set_ahead(TimeDelta::days(27) + TimeDelta::hours(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_comes_second_leaves_no_record() {
    let stage = Stage::set().await;
    stage.at(0, 1).await;
    let id = &stage.buyer.partner_id;
    let hold = stage.hold(&format!("SELECT FROM standings WHERE partner_id = '{id}' FOR UPDATE")).await;
    stage.three_days_before();
    // Both instances' jobs have found the same partner by now, and want to tell.
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    wait::until("both jobs to wait", async || (stage.number(waiting).await == 2).then_some(())).await;
    hold.release().await;
    // Whatever was before these is over.
    let other = stage.other.as_ref().expect("it runs").address;
    let mut instances = [stage.pair.clients.clone(), Clients::new(other, stage.pair.notify_address)];
    for (number, clients) in instances.iter_mut().enumerate() {
        clients.register(&format!("after-{number}"), "").await;
    }
    assert_eq!(stage.notices().await, [vec![THREE_DAYS]]);
    let records = "SELECT count(*) FROM audit_events WHERE action = 'SendProNotices'";
    assert_eq!(stage.number(records).await, 1);
    stage.finish().await;
}

/// Refunds the buyer's only payment in the batch that has the notice of three days, before it or after it.
async fn refunded_with_the_notice(refund_first: bool) -> Stage {
    let mut stage = Stage::set().await;
    stage.at(0, 1).await;
    stage.other.take().expect("it runs").stop().await;
    let hold = stage.hold("LOCK TABLE partners IN EXCLUSIVE MODE").await;
    let (mut first, mut clients) = (stage.pair.clients.clone(), stage.pair.clients.clone());
    let payment_id = stage.payments[0].clone();
    let blocked = tokio::spawn(async move { first.register("blocked", "").await });
    hold.blocks_someone().await;
    let refund = async move { clients.refund(&payment_id, None).await };
    let refunding = if refund_first {
        let refunding = tokio::spawn(refund);
        stage.queued(1.0).await;
        stage.three_days_before();
        refunding
    } else {
        stage.three_days_before();
        stage.queued(1.0).await;
        tokio::spawn(refund)
    };
    stage.queued(2.0).await;
    hold.release().await;
    blocked.await.expect("a partner");
    refunding.await.expect("a refund");
    stage.at(27, 1).await;
    let times = "SELECT count(DISTINCT create_time) FROM audit_events
                 WHERE action = 'RefundPayment' OR action = 'SendProNotices' AND audit_event_id = (
                     SELECT min(audit_event_id::text)::uuid FROM audit_events WHERE action = 'SendProNotices')";
    assert_eq!(stage.number(times).await, 1, "not in one batch");
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_before_a_notice_in_one_batch_moves_its_end() {
    let stage = refunded_with_the_notice(true).await;
    assert_eq!(stage.notices().await, [vec![THREE_DAYS, ONE_DAY, ENDED]]);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_after_a_notice_in_one_batch_has_notices_of_its_own() {
    let stage = refunded_with_the_notice(false).await;
    assert_eq!(stage.notices().await, [vec![THREE_DAYS, ONE_DAY, ENDED], vec![THREE_DAYS]]);
    stage.finish().await;
}

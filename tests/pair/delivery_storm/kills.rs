//! notify-svc killed with SIGKILL: at each point of claim → send → settle, and at random moments.

use std::{collections::BTreeSet, time::Duration};

use p2phub_tests::{
    hold::Hold,
    postgres::Role,
    sink::{Received, Reply, Sink},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Storm, arrivals, assert_each_came_once, crowd, every_worker, policy, scaled};
use crate::model::seed;

const COUNT: usize = 10;

impl Storm {
    async fn hold(&self, statements: &str) -> Hold {
        let (holder, watcher) =
            (self.pair.notify_sql(Role::Superuser).await, self.pair.notify_sql(Role::Superuser).await);
        Hold::take(holder, watcher, statements).await
    }

    /// SIGKILL; afterwards nothing of the process is left in the database but what it had committed.
    async fn kill(&mut self, held: Option<Hold>) {
        self.pair.kill_notify();
        if let Some(held) = held {
            held.end_waiters().await;
            held.release().await;
        }
        self.no_session_is_left().await;
    }

    async fn restart(&mut self) {
        self.let_orphaned_leases_lapse(&[]).await;
        self.pair.start_notify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_a_claim_sends_once() {
    let sink = Sink::start().await;
    let mut storm = Storm::apart(&policy(&[]), 64).await;
    // The claim's deliveries and gates are locked, and nothing is committed.
    let held = storm.hold("LOCK TABLE attempts IN SHARE ROW EXCLUSIVE MODE").await;
    storm.publish(&crowd("r", &sink, COUNT, COUNT)).await;
    held.blocks_someone().await;
    storm.kill(Some(held)).await;
    assert_eq!((storm.count("attempts").await, sink.received().len()), (0, 0));
    storm.restart().await;
    storm.delivered(COUNT).await;
    assert_each_came_once(&[&sink], COUNT);
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_held_comes_before_all_that_is_due() {
    const WORKERS: u16 = 8;
    const WAITING: usize = 2_000;
    let sink = Sink::start().await;
    sink.then((0..WORKERS).map(|_| Reply::hang()));
    let mut storm = Storm::apart(&policy(&[("/in_flight_percent", every_worker())]), WORKERS).await;
    storm.publish(&crowd("r", &sink, WAITING, WAITING)).await;
    let held = sink.wait_for(WORKERS.into()).await;
    storm.kill(None).await;
    assert_eq!(storm.count("deliveries WHERE state = 'QUEUED'").await, WAITING - usize::from(WORKERS));
    storm.restart().await;
    let ids = |requests: &[Received]| -> BTreeSet<String> {
        requests.iter().map(|request| request.headers["webhook-id"].clone()).collect()
    };
    let again = sink.wait_for(usize::from(WORKERS) * 2).await;
    assert_eq!(ids(&again[WORKERS.into()..usize::from(WORKERS) * 2]), ids(&held), "before the backlog");
    storm.delivered(WAITING).await;
    storm.assert_repeats_are_on_record(&[&sink]).await;
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_sends_repeats_those_and_says_so() {
    let sink = Sink::start().await;
    let mut storm = Storm::apart(&policy(&[]), 64).await;
    sink.then((0..COUNT).map(|_| Reply::hang()));
    storm.publish(&crowd("r", &sink, COUNT, COUNT)).await;
    sink.wait_for(COUNT).await;
    storm.kill(None).await;
    storm.restart().await;
    storm.delivered(COUNT).await;
    assert_all_came_twice(&storm, &sink).await;
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_sending_and_settling_repeats_those_and_says_so() {
    let sink = Sink::start().await;
    let mut storm = Storm::apart(&policy(&[]), 64).await;
    let unclaimed = storm.hold("LOCK TABLE attempts IN SHARE ROW EXCLUSIVE MODE").await;
    storm.publish(&crowd("r", &sink, COUNT, COUNT)).await;
    unclaimed.blocks_someone().await;
    // From here on nothing can be settled, though the answers come.
    let unsettled = storm.hold("LOCK TABLE notifications IN SHARE MODE").await;
    unclaimed.release().await;
    sink.wait_for(COUNT).await;
    unsettled.blocks_someone().await;
    storm.kill(Some(unsettled)).await;
    assert_eq!(storm.count("notifications WHERE state = 'QUEUED'").await, COUNT, "none was settled");
    storm.restart().await;
    storm.delivered(COUNT).await;
    assert_all_came_twice(&storm, &sink).await;
    storm.finish().await;
}

async fn assert_all_came_twice(storm: &Storm, sink: &Sink) {
    let arrivals = arrivals(&[sink]);
    assert_eq!(arrivals.len(), COUNT);
    assert!(arrivals.values().all(|times| *times == 2), "{arrivals:?}");
    for (number, record) in [(1, "outcome = 'AMBIGUOUS' AND reason = 'LEASE_LOST'"), (2, "outcome = 'DELIVERED'")] {
        let found = storm.count(&format!("attempts WHERE number = {number} AND {record}")).await;
        assert_eq!(found, COUNT, "attempts {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_after_settling_repeats_nothing() {
    let sink = Sink::start().await;
    let mut storm = Storm::apart(&policy(&[]), 64).await;
    storm.publish(&crowd("r", &sink, COUNT, COUNT)).await;
    storm.delivered(COUNT).await;
    storm.kill(None).await;
    storm.restart().await;
    storm.publish(&crowd("s", &sink, COUNT, COUNT)).await;
    storm.delivered(2 * COUNT).await;
    assert_each_came_once(&[&sink], 2 * COUNT);
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_moments_repeat_only_what_was_in_flight() {
    const NOTIFICATIONS: usize = 2_000;
    let rounds = scaled(20);
    let mut random = StdRng::seed_from_u64(seed());
    let sink = Sink::start().await;
    // Slow enough that something is always in flight.
    sink.otherwise(Reply::status(200).after(Duration::from_millis(25)));
    let mut storm = Storm::apart(&policy(&[]), 64).await;
    let mut in_flight = BTreeSet::new();
    let each = NOTIFICATIONS.div_ceil(rounds);
    for round in 0..rounds {
        storm.publish(&crowd(&format!("round-{round}"), &sink, 50, each)).await;
        // How long it lives is the point here: no event ends it.
        tokio::time::sleep(Duration::from_micros(random.random_range(0..300_000))).await;
        storm.kill(None).await;
        in_flight.extend(storm.held().await);
        storm.restart().await;
    }
    storm.delivered(each * rounds).await;

    let arrivals = arrivals(&[&sink]);
    assert_eq!(arrivals.len(), each * rounds, "each came");
    let repeated = arrivals.iter().filter(|(_, times)| **times > 1);
    let ids: BTreeSet<_> = in_flight.iter().map(|(id, _)| id).collect();
    let wrongly: Vec<_> = repeated.clone().filter(|(id, _)| !ids.contains(id)).collect();
    assert!(wrongly.is_empty(), "repeated, and yet not in flight at any kill: {wrongly:?}");
    // One that was lost to a kill may have been found so by several.
    let lost = in_flight.len();
    println!("in flight at {rounds} kills: {lost}; repeated: {}", repeated.count());
    assert!(lost > 0, "nothing was in flight at any kill: the test shows nothing");
    storm.assert_repeats_are_on_record(&[&sink]).await;
    assert_eq!(storm.count("attempts WHERE outcome = 'AMBIGUOUS' AND reason = 'LEASE_LOST'").await, lost);
    assert_eq!(storm.count("attempts WHERE outcome = 'DELIVERED'").await, each * rounds);
    storm.finish().await;
}

impl Storm {
    /// What processes that were killed had leased, with the attempts' numbers.
    async fn held(&self) -> Vec<(String, i32)> {
        let query = "SELECT notification_id::text, attempt_count FROM deliveries WHERE state = 'SENDING'";
        let rows = self.sql.query(query, &[]).await.expect("rows");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

//! Leases are renewed while a send is in flight, and whoever has lost one neither goes on nor settles.

use std::time::{Duration, Instant, SystemTime};

use p2phub_tests::{
    hold::Hold,
    ports,
    postgres::Role,
    sink::{Reply, Sink},
    wait,
};
use tokio::{io::AsyncReadExt, net::TcpListener, time::timeout};

use super::{Storm, policy, to};

/// As if another worker had taken it over.
const STEAL: &str = "UPDATE deliveries SET attempt_count = attempt_count + 1, lease_owner = '0-another',
                            lease_until = now() + interval '1 hour' WHERE state = 'SENDING'";

impl Storm {
    async fn lease_until(&self) -> SystemTime {
        let query = "SELECT lease_until FROM deliveries WHERE state = 'SENDING'";
        self.sql.query_one(query, &[]).await.expect("a lease").get(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_while_its_send_is_in_flight() {
    let sink = Sink::start().await;
    sink.then([Reply::status(200).after(Duration::from_secs(8))]);
    let storm = Storm::within(&policy(&[]), 1).await;
    storm.publish(&[to("slow", &sink.url(""))]).await;
    sink.wait_for(1).await;
    let first = storm.lease_until().await;
    wait::until("the lease to be renewed", async || (storm.lease_until().await > first).then_some(())).await;
    let renewed = storm.lease_until().await.duration_since(first).expect("later");
    assert!((4..8).contains(&renewed.as_secs()), "renewed by {renewed:?}");
    assert_eq!(storm.count("attempts").await, 1, "the same attempt");
    storm.delivered(1).await;
    assert_eq!(sink.received().len(), 1);
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_whose_lease_is_lost_is_cut_short() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let storm = Storm::within(&policy(&[]), 4).await;
    storm.publish(&[to("slow", &url)]).await;
    let (mut connection, _) = timeout(wait::LIMIT, listener.accept()).await.expect("a send").expect("a connection");
    let begin = Instant::now();
    assert_eq!(storm.sql.execute(STEAL, &[]).await.expect("an update"), 1);
    let mut request = Vec::new();
    timeout(wait::LIMIT, connection.read_to_end(&mut request)).await.expect("an end").expect("an end");
    // Found out at the next renewal, well before the exchange would have timed out by itself.
    let took = begin.elapsed();
    assert!(took < Duration::from_millis(8_500), "cut short after {took:?}");
    assert!(request.starts_with(b"POST "), "it was sent");
    let other = "deliveries WHERE state = 'SENDING' AND lease_owner = '0-another'";
    assert_eq!(storm.count(other).await, 1, "the other worker's lease stays");
    assert_eq!(
        storm.count("attempts WHERE outcome IS NULL").await,
        1,
        "whose attempt it is to close isn't his who lost it"
    );
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_lost_the_lease_cant_settle() {
    let (sink, marker) = (Sink::start().await, Sink::start().await);
    sink.then([Reply::status(200).after(Duration::from_secs(2))]);
    let storm = Storm::within(&policy(&[]), 4).await;
    storm.publish(&[to("slow", &sink.url(""))]).await;
    sink.wait_for(1).await;
    assert_eq!(storm.sql.execute(STEAL, &[]).await.expect("an update"), 1);
    // Its answer has come when one that was sent later, and answers later, is settled.
    marker.then([Reply::status(200).after(Duration::from_millis(2_500))]);
    storm.publish(&[to("marker", &marker.url(""))]).await;
    let settled = "notifications WHERE recipient_id = 'marker' AND state = 'DELIVERED'";
    wait::until("the later one", async || (storm.count(settled).await == 1).then_some(())).await;
    let other = "deliveries WHERE state = 'SENDING' AND lease_owner = '0-another'";
    assert_eq!(storm.count(other).await, 1, "settled without the lease");
    assert_eq!(storm.count("attempts WHERE outcome = 'DELIVERED'").await, 1, "the marker's alone");

    storm.let_orphaned_leases_lapse(&[std::process::id()]).await;
    let delivered = "notifications WHERE state = 'DELIVERED'";
    wait::until("the next attempt", async || (storm.count(delivered).await == 2).then_some(())).await;
    assert_eq!(sink.received().len(), 2);
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_two_instances_make_at_once_forgets_nobody_who_waits_for_it() {
    let (sink, busy) = (Sink::start().await, Sink::start().await);
    // It fails when the second instance has just begun to make the same gate.
    sink.then([Reply::status(503).after(Duration::from_secs(4)), Reply::status(200).after(Duration::from_secs(1))]);
    busy.otherwise(Reply::status(200).after(Duration::from_secs(6)));
    // Two workers, one of them for each domain at most: the first instance claims nothing more.
    let storm = Storm::within(&policy(&[]), 2).await;
    storm.publish(&[to("first", &sink.url("")), to("busy", &busy.url(""))]).await;
    sink.wait_for(1).await;
    busy.wait_for(1).await;
    let other = storm.pair.another_notify(ports::free()).await;
    // Reading gates is allowed, writing them waits.
    let (holder, watcher) =
        (storm.pair.notify_sql(Role::Superuser).await, storm.pair.notify_sql(Role::Superuser).await);
    let hold = Hold::take(holder, watcher, "LOCK TABLE gates IN SHARE ROW EXCLUSIVE MODE").await;
    // Of these one is parked by the second instance on a gate that isn't there yet; the failure makes the same gate.
    storm.publish(&[to("second", &sink.url("")), to("third", &sink.url(""))]).await;
    for makers in 1..=2 {
        wait::until("both to make the gate", async || {
            let waiting = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                              AND query LIKE 'INSERT INTO gates%'";
            (storm.count(waiting).await == makers).then_some(())
        })
        .await;
    }
    hold.release().await;
    storm.delivered(4).await;
    other.stop().await;
    storm.finish().await;
}

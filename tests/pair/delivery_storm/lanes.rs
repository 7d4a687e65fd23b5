//! Whoever is over a limit is out of the others' way, and no lane starves.

use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use p2phub_proto::notify::v1::NotificationRequest;
use p2phub_tests::{sink::Sink, wait};

use super::{Storm, crowd, every_worker, limits::Rate, policy, to, urgent};

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_far_over_its_limit_holds_nobody_up() {
    const FLOOD: usize = 1_000;
    const HEALTHY: usize = 200;
    /// At the limit's pace the flood takes far longer than this.
    const BOUND: Duration = Duration::from_secs(10);
    let rate = Rate { sends: 5, per_ms: 1000, burst: 5 };
    let sink = Sink::start().await;
    let policy = policy(&[("/limits/webhook/recipient", rate.json()), ("/in_flight_percent", every_worker())]);
    let storm = Storm::within(&policy, 8).await;
    let flooded = sink.url("/flooded");
    storm.publish(&(0..FLOOD).map(|_| to("flooded", &flooded)).collect::<Vec<_>>()).await;
    let begin = Instant::now();
    storm.publish(&crowd("healthy", &sink, HEALTHY, HEALTHY)).await;
    let to_healthy = || sink.received().iter().filter(|one| one.path.starts_with("/healthy")).count();
    wait::until("all healthy ones", async || (to_healthy() == HEALTHY).then_some(())).await;
    let took = begin.elapsed();
    println!("{HEALTHY} beside {FLOOD} in {took:?}");
    assert!(took < BOUND, "{took:?}");
    let to_flooded = sink.received().len() - HEALTHY;
    assert!((1..FLOOD / 2).contains(&to_flooded), "{to_flooded} of {FLOOD} to the flooded one");
    // What waits for the limit waits where nobody looks.
    let parked = "deliveries WHERE parked_on LIKE 'recipient/webhook/%'";
    assert!(storm.count(parked).await + to_flooded + 8 >= FLOOD);
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_gets_its_share_of_a_limit_beside_a_flood_of_urgent_ones() {
    const URGENT: usize = 900;
    const BULK: usize = 200;
    let rate = Rate { sends: 100, per_ms: 1000, burst: 10 };
    let policy = policy(&[("/limits/webhook/domain", rate.json()), ("/in_flight_percent", every_worker())]);
    let sink = Sink::start().await;
    let storm = Storm::within(&policy, 16).await;
    let requests: Vec<_> = (0..URGENT).map(|number| urgent(&format!("u-{number}"), &sink.url("/urgent"))).collect();
    storm.publish(&requests).await;
    let requests: Vec<_> = (0..BULK).map(|number| to(&format!("b-{number}"), &sink.url("/bulk"))).collect();
    storm.publish(&requests).await;
    // Both wait throughout: by then 60 of the flood are left at least.
    const SEEN: usize = 450;
    let before = sink.received().len();
    let received = sink.wait_for(before + SEEN).await;
    let bulk = received[before..].iter().filter(|one| one.path == "/bulk").count();
    println!("bulk: {bulk} of {}", received.len() - before);
    // One of seven by the weights, 64: half of that is six standard deviations away; twice of it as well.
    assert!((SEEN / 14..SEEN * 2 / 7).contains(&bulk), "{bulk} of {SEEN}");
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_gets_its_share_of_the_workers_beside_a_flood_of_urgent_ones() {
    const URGENT: usize = 1_500;
    const BULK: usize = 150;
    let sink = Sink::start().await;
    let storm = Storm::within(&policy(&[("/in_flight_percent", every_worker())]), 4).await;
    let requests: Vec<_> = (0..URGENT).map(|number| urgent(&format!("u-{number}"), &sink.url("/urgent"))).collect();
    let bulk: Vec<_> = (0..BULK).map(|number| to(&format!("b-{number}"), &sink.url("/bulk"))).collect();
    let (first, rest) = requests.split_at(500);
    storm.publish(first).await;
    storm.publish(&bulk).await;
    storm.publish(rest).await;
    storm.delivered(URGENT + BULK).await;
    let received = sink.received();
    let last_bulk = received.iter().rposition(|one| one.path == "/bulk").expect("bulk");
    let urgent_after = received[last_bulk..].iter().filter(|one| one.path == "/urgent").count();
    println!("{urgent_after} urgent ones after the last of bulk");
    assert!(urgent_after > 0, "bulk waited until the flood was over");
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_limit_holds_until_it_is_worth_nothing_expires_in_time() {
    const COUNT: usize = 6;
    let rate = Rate { sends: 1, per_ms: 3_600_000, burst: 1 };
    let sink = Sink::start().await;
    let storm = Storm::within(&policy(&[("/limits/webhook/recipient", rate.json())]), 8).await;
    let expire_time = Utc::now() + TimeDelta::seconds(3);
    let expire_time = Some(prost_types::Timestamp { seconds: expire_time.timestamp(), nanos: 0 });
    let one = NotificationRequest { expire_time, ..to("one", &sink.url("/")) };
    storm.publish(&vec![one; COUNT]).await;
    let expired = "notifications WHERE state = 'EXPIRED'";
    wait::until("the rest to expire", async || (storm.count(expired).await == COUNT - 1).then_some(())).await;
    let late = "notifications WHERE state = 'EXPIRED' AND settle_time NOT BETWEEN expire_time AND expire_time + interval '3 seconds'";
    assert_eq!(storm.count(late).await, 0);
    assert_eq!((sink.received().len(), storm.count("attempts").await), (1, 1));
    storm.finish().await;
}

//! A provider that is away for longer than the first retries, and comes back.

use std::time::{Duration, Instant};

use p2phub_tests::{
    ports,
    sink::{Received, Reply, Sink},
    wait,
};
use serde_json::json;

use super::{Storm, arrivals, crowd, policy, scaled};

const WORKERS: u16 = 16;
const CAP: usize = 4;
/// How long each answer takes, so that requests closer together than this are open at once.
const ANSWER: Duration = Duration::from_millis(30);
/// The provider answers 503 for so long, and then refuses connections: more than 12 seconds in all.
const BUSY: Duration = Duration::from_secs(8);
const GONE: Duration = Duration::from_secs(5);
/// The longest pause between two probes.
const PAUSE: Duration = Duration::from_secs(2);
/// What was tried last just before the breaker tripped has been tried three times at most: its fourth try comes after
/// 16 s and 30 % of them. Everything else waits for a probe alone.
const BOUND: Duration = Duration::from_millis(20_800).saturating_add(PAUSE).saturating_add(Duration::from_secs(5));

fn most_at_once(received: &[Received]) -> usize {
    let times: Vec<_> = received.iter().map(|one| one.at).collect();
    let at_once = |begin: &Instant| times.iter().filter(|at| *at >= begin && **at < *begin + ANSWER).count();
    times.iter().map(at_once).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_was_away_gets_everything_without_a_herd() {
    let count = scaled(300);
    let policy = policy(&[(
        "/breaker",
        json!({ "failures": 10, "failing_ms": 4000, "pause_ms": 1000, "pause_max_ms": PAUSE.as_millis() }),
    )]);
    let address = ports::free();
    let busy = Sink::start_at(address).await;
    busy.otherwise(Reply::status(503).header("connection", "close").after(ANSWER));
    let storm = Storm::within(&policy, WORKERS).await;
    let begin = Instant::now();
    storm.publish(&crowd("r", &busy, count, count)).await;
    let tripped = "gates WHERE gate LIKE 'domain/webhook/%' AND tripped";
    wait::until("the breaker to trip", async || (storm.count(tripped).await == 1).then_some(())).await;
    let after = Instant::now();
    println!("tripped after {:?}, {} requests", after - begin, busy.received().len());
    // How long it is away is the point here: no event ends it.
    tokio::time::sleep((begin + BUSY).saturating_duration_since(after)).await;
    let received = busy.received();
    let probes = received.iter().filter(|one| one.at > after).count();
    // Those in flight, and one for each of the shortest pauses.
    let most = CAP + 1 + usize::try_from(BUSY.as_secs()).expect("seconds");
    assert!((1..=most).contains(&probes), "{probes} requests while the breaker was tripped");
    assert!(most_at_once(&received) <= CAP, "{} at once before", most_at_once(&received));

    drop(busy);
    tokio::time::sleep(GONE).await;
    let refused = storm.count("attempts WHERE reason = 'CONNECT_FAILED'").await;
    assert!((1..=most).contains(&refused), "{refused} connections refused");
    let back = Sink::start_at(address).await;
    back.otherwise(Reply::status(200).after(ANSWER));
    let begin = Instant::now();
    storm.delivered(count).await;
    let took = begin.elapsed();
    println!("{probes} and {refused} probes; all delivered {took:?} after the return");
    assert!(took < BOUND, "{took:?}");
    let received = back.received();
    assert!(most_at_once(&received) <= CAP, "{} at once after", most_at_once(&received));
    assert_eq!((arrivals(&[&back]).len(), received.len()), (count, count), "each came once");
    storm.finish().await;
}

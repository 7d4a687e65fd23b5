//! A soft stop finishes what it can and gives the rest back.

use std::time::{Duration, Instant};

use p2phub_tests::{
    ports,
    sink::{Reply, Sink},
};

use super::{Storm, arrivals, crowd, policy};

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_stop_settles_what_ends_and_gives_the_rest_back_unpunished() {
    const ENDING: usize = 8;
    const HANGING: usize = 5;
    const ALL: usize = ENDING + HANGING;
    /// Nobody tells the others of what was given back: they look twice a second.
    const AT_ONCE: Duration = Duration::from_secs(3);
    let sink = Sink::start().await;
    let ending = (0..ENDING).map(|_| Reply::status(200).after(Duration::from_secs(3)));
    sink.then(ending.chain((0..HANGING).map(|_| Reply::hang())));
    let mut storm = Storm::apart(&policy(&[]), 64).await;
    storm.publish(&crowd("r", &sink, ALL, ALL)).await;
    sink.wait_for(ALL).await;
    // At once: what hangs must not time out by itself before the stop's deadline. The other one comes up meanwhile.
    let first = storm.pair.notify.take().expect("notify-svc runs");
    let begin = Instant::now();
    let stop = async {
        first.stop().await;
        Instant::now()
    };
    let (stopped, other) = tokio::join!(stop, storm.pair.another_notify(ports::free()));
    assert!(stopped - begin < Duration::from_secs(15), "stopped after {:?}", stopped - begin);
    let received = sink.wait_for(ALL + HANGING).await;
    let taken = received.last().expect("requests").at.saturating_duration_since(stopped);
    assert!(taken < AT_ONCE, "taken over {taken:?} after the stop");
    storm.delivered(ALL).await;

    assert_eq!(arrivals(&[&sink]).values().filter(|times| **times == 2).count(), HANGING);
    let once = "deliveries WHERE (attempt_count, tries_used) = (1, 1)";
    let again = "deliveries WHERE (attempt_count, tries_used) = (2, 1)";
    assert_eq!((storm.count(once).await, storm.count(again).await), (ENDING, HANGING), "tries that count");
    let stopped = "attempts WHERE number = 1 AND (outcome, reason) = ('AMBIGUOUS', 'STOPPED')";
    assert_eq!(storm.count(stopped).await, HANGING);
    assert_eq!(storm.count("attempts WHERE reason = 'LEASE_LOST'").await, 0);
    other.stop().await;
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_finds_nothing_in_flight_takes_no_time_and_repeats_nothing() {
    let sink = Sink::start().await;
    let mut storm = Storm::apart(&policy(&[]), 8).await;
    storm.publish(&crowd("r", &sink, 40, 40)).await;
    sink.wait_for(20).await;
    // The rest of the queue stays as it is.
    let begin = Instant::now();
    storm.pair.stop_notify().await;
    assert!(begin.elapsed() < Duration::from_secs(5), "stopped after {:?}", begin.elapsed());
    assert_eq!(storm.count("deliveries WHERE state = 'SENDING'").await, 0, "still leased");
    storm.pair.start_notify().await;
    storm.delivered(40).await;
    assert!(arrivals(&[&sink]).values().all(|times| *times == 1));
    assert_eq!(storm.count("attempts").await, 40);
    storm.finish().await;
}

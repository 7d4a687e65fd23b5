//! Limits are kept by all instances together, and by those that come after them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use p2phub_tests::{pair::Options, ports, sink::Sink};
use serde_json::json;

use super::{Storm, assert_each_came_once, crowd, every_worker, policy};
use crate::PAIR_PROCESS;

/// The time between claim and arrival differs from send to send; on a busy machine by as much.
const JITTER: Duration = Duration::from_millis(500);
const PROCESSES: usize = 4;

/// A token bucket, as the policy writes it.
#[derive(Clone, Copy)]
pub(super) struct Rate {
    pub(super) sends: u32,
    pub(super) per_ms: u32,
    pub(super) burst: u32,
}

impl Rate {
    pub(super) fn json(self) -> serde_json::Value {
        json!({ "sends": self.sends, "per_ms": self.per_ms, "burst": self.burst })
    }

    /// How many may come within a time, both ends included.
    fn most(self, within: Duration) -> u128 {
        let refilled = within.as_micros() * u128::from(self.sends) / (u128::from(self.per_ms) * 1000);
        u128::from(self.burst) + refilled
    }

    /// In no window more than may pass. `times` are sorted, and each may be `jitter` late.
    fn assert_kept(self, who: &str, times: &[Duration], jitter: Duration) {
        for (first, begin) in times.iter().enumerate() {
            for (last, end) in times.iter().enumerate().skip(first) {
                let (count, within) = (u128::try_from(last - first + 1).expect("a count"), *end - *begin);
                let most = self.most(within + jitter);
                assert!(count <= most, "{who}: {count} within {within:?}, where {most} may pass");
            }
        }
    }
}

/// The limit of each recipient (there is one path each), or of all together, both at the sink and by the attempts' own times.
pub(super) async fn assert_limits_kept(storm: &Storm, sink: &Sink, recipient: Option<Rate>, domain: Option<Rate>) {
    let received = sink.received();
    let begin = received.iter().map(|one| one.at).min().expect("requests");
    let mut seen: HashMap<String, Vec<Duration>> = HashMap::new();
    for request in &received {
        seen.entry(request.path.clone()).or_default().push(request.at - begin);
    }
    // The claim's own time is the one by which the gates decide: no tolerance.
    let attempts =
        "SELECT n.recipient_id, (extract(epoch FROM a.start_time - min(a.start_time) OVER ()) * 1000000)::bigint
                      FROM attempts a JOIN notifications n USING (notification_id)";
    let mut begun: HashMap<String, Vec<Duration>> = HashMap::new();
    for row in storm.sql.query(attempts, &[]).await.expect("rows") {
        let after = Duration::from_micros(row.get::<_, i64>(1).try_into().expect("a time"));
        begun.entry(row.get(0)).or_default().push(after);
    }
    for (times, jitter) in [(seen, JITTER), (begun, Duration::ZERO)] {
        let mut all = Vec::new();
        for (who, mut times) in times {
            times.sort();
            if let Some(rate) = recipient {
                rate.assert_kept(&who, &times, jitter);
            }
            all.extend(times);
        }
        all.sort();
        if let Some(rate) = domain {
            rate.assert_kept("all together", &all, jitter);
        }
    }
}

impl Storm {
    /// Four processes on one database, the first of them the pair's own.
    pub(super) async fn four(
        policy: &serde_json::Value,
        workers: u16,
    ) -> (Self, Vec<p2phub_tests::instance::Instance>) {
        let storm = Self::prepare(Options::default().processes(PAIR_PROCESS), policy, workers).await.begin().await;
        let others = join_all((1..PROCESSES).map(|_| storm.pair.another_notify(ports::free()))).await;
        (storm, others)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_workers_in_four_processes_lose_nothing_double_nothing_and_keep_every_limit() {
    const RECIPIENTS: usize = 100;
    const EACH: usize = 40;
    let count = EACH * RECIPIENTS;
    let rate = Rate { sends: 20, per_ms: 1000, burst: 10 };
    let policy = policy(&[("/limits/webhook/recipient", rate.json()), ("/in_flight_percent", every_worker())]);
    let sink = Sink::start().await;
    let (storm, others) = Storm::four(&policy, 5).await;
    let begin = Instant::now();
    // Ten recipients after the other: of each four times as many at once as may pass.
    let tens = (0..RECIPIENTS / 10).flat_map(|ten| crowd(&format!("r-{ten}"), &sink, 10, EACH * 10));
    storm.publish(&tens.collect::<Vec<_>>()).await;
    storm.delivered(count).await;
    // The limits alone take one and a half seconds; the rest of what `delivered` allows is for a busy machine.
    println!("{count} in {:?}", begin.elapsed());
    assert_each_came_once(&[&sink], count);
    assert_eq!(storm.count("attempts").await, count, "one attempt each");
    assert_limits_kept(&storm, &sink, Some(rate), None).await;
    drop(others);
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domains_limit_is_kept_by_four_processes_beside_the_recipients() {
    const HOT: usize = 60;
    const REST: usize = 160;
    let domain = Rate { sends: 50, per_ms: 1000, burst: 20 };
    let recipient = Rate { sends: 8, per_ms: 1000, burst: 4 };
    let policy = policy(&[
        ("/limits/webhook/domain", domain.json()),
        ("/limits/webhook/recipient", recipient.json()),
        ("/in_flight_percent", every_worker()),
    ]);
    let sink = Sink::start().await;
    let (storm, others) = Storm::four(&policy, 5).await;
    // Some would take all that the domain may get, if they might.
    storm.publish(&crowd("hot", &sink, 2, HOT)).await;
    storm.publish(&crowd("r", &sink, 40, REST)).await;
    storm.delivered(HOT + REST).await;
    assert_each_came_once(&[&sink], HOT + REST);
    assert_limits_kept(&storm, &sink, Some(recipient), Some(domain)).await;
    drop(others);
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_survive_those_who_keep_them() {
    const COUNT: usize = 240;
    let domain = Rate { sends: 40, per_ms: 1000, burst: 60 };
    let policy = policy(&[("/limits/webhook/domain", domain.json()), ("/in_flight_percent", every_worker())]);
    let sink = Sink::start().await;
    let mut storm = Storm::apart(&policy, 16).await;
    let other = storm.pair.another_notify(ports::free()).await;
    storm.publish(&crowd("r", &sink, 30, COUNT)).await;
    // The burst is used up.
    sink.wait_for(COUNT / 3).await;
    storm.pair.kill_notify();
    other.kill();
    storm.no_session_is_left().await;
    storm.let_orphaned_leases_lapse(&[]).await;
    storm.pair.start_notify().await;
    storm.delivered(COUNT).await;
    storm.assert_repeats_are_on_record(&[&sink]).await;
    assert_limits_kept(&storm, &sink, None, Some(domain)).await;
    storm.finish().await;
}

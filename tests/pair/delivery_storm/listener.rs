//! Of one instance only the connection that listens is lost: what another one queues is found all the same, by looking.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use p2phub_tests::{
    pair::Options,
    ports,
    postgres::{Role, Server},
    proxy::{Proxy, Upstream},
    sink::{Reply, Sink},
    wait,
};

use super::{Storm, arrivals, crowd, policy, to};

const COUNT: usize = 8;
/// The queue is looked at twice a second; a turn may fail for want of one more connection.
const BOUND: Duration = Duration::from_secs(2);

impl Storm {
    /// The backends that listen.
    async fn listeners(&self) -> BTreeSet<i32> {
        let query = "SELECT pid FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name = 'notify-svc listener'";
        self.sql.query(query, &[]).await.expect("rows").iter().map(|row| row.get(0)).collect()
    }

    /// The one that listens besides these.
    async fn other_listener(&self, known: &BTreeSet<i32>) -> i32 {
        wait::until("one more listener", async || self.listeners().await.difference(known).next().copied()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_isnt_told_finds_what_another_one_has_queued() {
    let server = Server::shared().await;
    // Between the second instance and the database: what is connected stays so, new connections can be refused.
    let gate = Proxy::start(Upstream::Unix(server.socket())).await;
    let (through, is_second) = (gate.address(), AtomicBool::new(false));
    let (hanging, sink) = (Sink::start().await, Sink::start().await);
    hanging.then([Reply::hang()]);
    let policy = policy(&[]);
    let storm = Storm::prepare_with(Options::default(), &policy, 1, move |config| {
        if is_second.swap(true, Ordering::Relaxed) {
            let url = config.database_url.take().expect("a URL");
            let (start, _) = url.split_once("?host=").expect("a URL with a socket");
            config.database_url = Some(start.replacen("@/", &format!("@{through}/"), 1));
        }
    });
    let storm = storm.await.begin().await;
    let first = BTreeSet::from([storm.other_listener(&BTreeSet::new()).await]);
    // The only worker of the first instance is held up from now on, for nine seconds.
    storm.publish(&[to("hanging", &hanging.url("/"))]).await;
    hanging.wait_for(1).await;
    let second = storm.pair.another_notify(ports::free()).await;
    storm.publish(&crowd("told", &sink, 1, 1)).await;
    sink.wait_for(1).await;

    let lost = storm.other_listener(&first).await;
    gate.refuse();
    let superuser = storm.pair.notify_sql(Role::Superuser).await;
    superuser.execute("SELECT pg_terminate_backend($1)", &[&lost]).await.expect("its end");
    wait::until("the listener's end", async || (storm.listeners().await == first).then_some(())).await;
    storm.publish(&crowd("untold", &sink, COUNT, COUNT)).await;
    let begin = Instant::now();
    sink.wait_for(2).await;
    let took = begin.elapsed();
    sink.wait_for(1 + COUNT).await;
    assert_eq!(hanging.received().len(), 1, "the first instance is still held up");
    assert_eq!(storm.listeners().await, first, "the second one still isn't told");
    println!("the first came untold after {took:?}, all {COUNT} after {:?}", begin.elapsed());
    assert!(took < BOUND, "{took:?}");

    gate.resume();
    storm.other_listener(&first).await;
    storm.delivered(COUNT + 2).await;
    assert_eq!(arrivals(&[&sink]).len(), COUNT + 1, "each came");
    assert_eq!(sink.received().len(), COUNT + 1, "each came once");
    second.stop().await;
    storm.finish().await;
}

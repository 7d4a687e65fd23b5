//! What fails for a while is told when that begins and when it is over, and leaves no old figures behind.

use p2phub_tests::{
    instance::Instance,
    pair::{Options, Pair},
    postgres::Role,
    prometheus::Scrape,
    wait,
};

use crate::PAIR_PROCESS;

fn notify(pair: &Pair) -> &Instance {
    pair.notify.as_ref().expect("notify-svc runs")
}

async fn until_logged(pair: &Pair, message: &str) {
    wait::until(message, async || notify(pair).log().contains(message).then_some(())).await;
}

async fn until_depth_is(pair: &Pair, there: bool) {
    wait::until("figures of the queue to come or go", async || {
        let scrape = Scrape::of(notify(pair).http).await;
        let of = ["p2phub_delivery_queue_depth", "p2phub_delivery_queue_oldest_age_seconds"];
        of.iter().all(|name| scrape.value(name, &[]).is_some() == there).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_cannot_be_looked_at_has_no_figures() {
    let mut pair = Options::default().processes(PAIR_PROCESS).prepare().await;
    pair.start_notify().await;
    until_depth_is(&pair, true).await;
    let sql = pair.notify_sql(Role::Superuser).await;
    sql.batch_execute("ALTER TABLE deliveries RENAME TO elsewhere").await.expect("a table that is gone");
    until_depth_is(&pair, false).await;
    until_logged(&pair, "the queue can't be looked at").await;
    sql.batch_execute("ALTER TABLE elsewhere RENAME TO deliveries").await.expect("a table that is back");
    until_depth_is(&pair, true).await;
    until_logged(&pair, "the queue is looked at again").await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_feed_without_a_connection_is_one_warning() {
    let options = Options::default().processes(PAIR_PROCESS).proxied();
    let mut pair = options.variable("RUST_LOG", "info,notify_svc=debug").prepare().await;
    pair.start_notify().await;
    let sql = pair.notify_sql(Role::Superuser).await;
    let listener =
        "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'notify-svc listener'";
    let pid: i32 = wait::until("a listener", async || {
        sql.query_opt(&format!("SELECT pid {listener}"), &[]).await.expect("an answer").map(|row| row.get(0))
    })
    .await;
    pair.proxies().database.refuse();
    sql.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.expect("its end");
    until_logged(&pair, "the change feed is still interrupted").await;
    pair.proxies().database.resume();
    until_logged(&pair, "the change feed is back").await;
    let log = notify(&pair).log();
    let warnings = log.lines().filter(|line| line.contains("the change feed is interrupted")).collect::<Vec<_>>();
    assert!(matches!(warnings[..], [line] if line.contains("WARN")), "{log}");
    pair.finish().await;
}

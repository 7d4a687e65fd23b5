//! The time from the fact to its delivery: from the event's `occur_time`, by the clock of the database that committed it (of
//! the producer, where the benchmark itself publishes), to the moment when the webhook's request was at its server in full.
//! Both clocks are this machine's.

use std::collections::HashMap;

use p2phub_tests::{pair::Pair, postgres::Role};

use crate::{
    receiver::Arrival,
    table::{percentile, row},
};

/// In milliseconds, sorted; of repeated deliveries the first counts.
pub(crate) async fn since_commit(pair: &Pair, arrivals: &[Arrival]) -> Vec<f64> {
    let client = pair.notify_sql(Role::Superuser).await;
    let query = "SELECT n.notification_id::text, (extract(epoch FROM i.occur_time) * 1000000)::bigint
                   FROM notifications n JOIN inbox i ON (i.producer, i.event_id) = (n.producer, n.source_event_id)";
    let rows = client.query(query, &[]).await.expect("events");
    let mut begins: HashMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let took = |(id, time): &Arrival| Some((time.timestamp_micros() - begins.remove(id)?) as f64 / 1000.0);
    let mut all: Vec<f64> = arrivals.iter().filter_map(took).collect();
    all.sort_by(f64::total_cmp);
    all
}

pub(crate) fn rows(name: &str, sorted: &[f64]) {
    for (label, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        row(format!("{name}, {label}"), percentile(sorted, share), "ms");
    }
}

//! What settled long ago goes; nothing else does.

use p2phub_tests::{
    pair::Options,
    postgres::Role,
    sink::{Reply, Sink},
    wait,
};
use serde_json::json;

use super::{Storm, every_worker, policy, to};

/// As if all of a recipient's notifications had come, and settled if they did, so many days earlier. Their IDs are UUIDv7.
async fn age(storm: &Storm, recipient_id: &str, days: i32) {
    let begin = "SET session_replication_role = replica;
                 CREATE TEMPORARY TABLE aged AS SELECT notification_id AS old_id, notification_id AS new_id FROM notifications LIMIT 0";
    storm.sql.batch_execute(begin).await.expect("a table");
    let choose = "INSERT INTO aged
                  SELECT notification_id, (lpad(to_hex((extract(epoch FROM create_time - make_interval(days => $2)) * 1000)::bigint), 12, '0')
                                           || right(replace(notification_id::text, '-', ''), 20))::uuid
                    FROM notifications WHERE recipient_id = $1";
    storm.sql.execute(choose, &[&recipient_id, &days]).await.expect("rows");
    let change = format!(
        "UPDATE notifications n SET notification_id = new_id, create_time = create_time - interval '{days} days',
                settle_time = settle_time - interval '{days} days' FROM aged WHERE n.notification_id = old_id;
         UPDATE deliveries n SET notification_id = new_id FROM aged WHERE n.notification_id = old_id;
         UPDATE attempts n SET notification_id = new_id FROM aged WHERE n.notification_id = old_id;
         DROP TABLE aged;
         SET session_replication_role = DEFAULT"
    );
    storm.sql.batch_execute(&change).await.expect("an update");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_settled_long_ago_goes_in_batches_and_nothing_else() {
    const OLD: usize = 1_100;
    const KEPT_DAYS: i32 = 30;
    let sink = Sink::start().await;
    let mut storm = Storm::within(&policy(&[("/retention_days", json!(KEPT_DAYS))]), 64).await;
    let all = |recipient_id: &str, count| vec![to(recipient_id, &sink.url("/")); count];
    storm.publish(&all("old", OLD)).await;
    storm.publish(&all("young", 10)).await;
    storm.delivered(OLD + 10).await;
    // Never settled, however old.
    sink.otherwise(Reply::status(503).header("retry-after", "86400"));
    storm.publish(&all("open", 5)).await;
    wait::until("the open ones' attempts", async || {
        (storm.count("attempts WHERE outcome = 'TRANSIENT'").await == 5).then_some(())
    })
    .await;
    let keys = storm.count("inbox").await;
    storm.pair.stop_notify().await;
    for (recipient_id, days) in [("old", KEPT_DAYS + 1), ("young", KEPT_DAYS - 1), ("open", KEPT_DAYS + 1)] {
        age(&storm, recipient_id, days).await;
    }
    storm.pair.start_notify().await;
    wait::until("the old ones to go", async || {
        (storm.count("notifications WHERE recipient_id = 'old'").await == 0).then_some(())
    })
    .await;
    assert_eq!(storm.count("notifications").await, 15, "the young and the open ones stay");
    assert_eq!(
        (storm.count("deliveries").await, storm.count("attempts").await),
        (15, 15),
        "with all that belongs to them"
    );
    assert_eq!(storm.count("inbox").await, keys, "keys stay for ever");
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_leaves_its_room_to_what_comes() {
    const COUNT: usize = 400;
    const KEPT: usize = 5;
    let sink = Sink::start().await;
    let storm = Storm::within(&policy(&[("/in_flight_percent", every_worker())]), 64).await;
    let service = storm.pair.notify_sql(Role::Service).await;
    let mut sizes = Vec::new();
    for round in 0..5 {
        let recipient_id = format!("round-{round}");
        storm.publish(&vec![to(&recipient_id, &sink.url("/")); COUNT]).await;
        // Behind them, so that no table can simply be cut off.
        storm.publish(&vec![to("kept", &sink.url("/")); KEPT]).await;
        storm.delivered(COUNT + KEPT * (round + 1)).await;
        age(&storm, &recipient_id, 91).await;
        let remove = "SELECT remove_settled(now() - interval '90 days', 100)";
        while service.query_one(remove, &[]).await.expect("a row").get::<_, i64>(0) > 0 {}
        assert_eq!(storm.count("notifications").await, KEPT * (round + 1));
        // What autovacuum does by itself, in its own time.
        for table in ["notifications", "deliveries", "attempts"] {
            storm.sql.batch_execute(&format!("VACUUM {table}")).await.expect("a vacuum");
        }
        let size =
            "SELECT sum(pg_table_size(t))::bigint FROM unnest('{notifications,deliveries,attempts}'::regclass[]) AS t";
        sizes.push(storm.number(size).await);
    }
    println!("bytes after each round: {sizes:?}");
    // It takes two rounds until there is room for one. Without it used again, three more would take three times a round's.
    assert!(sizes[4] - sizes[1] < sizes[0], "the tables grow: {sizes:?}");
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_itself_can_remove_only_what_is_settled_and_a_day_old() {
    let sink = Sink::start().await;
    let storm = Storm::within(&policy(&[]), 8).await;
    storm.publish(&[to("one", &sink.url("")), to("two", &sink.url(""))]).await;
    storm.delivered(2).await;
    let service = storm.pair.notify_sql(Role::Service).await;
    for table in [
        "inbox",
        "rejected_records",
        "notifications",
        "deliveries",
        "attempts",
        "requests",
        "audit_events",
        "jobs",
        "signing_keys",
    ] {
        for statement in [format!("DELETE FROM {table}"), format!("TRUNCATE {table} CASCADE")] {
            let refused = service.batch_execute(&statement).await.expect_err(&statement);
            assert_eq!(refused.code(), Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE), "{statement}");
        }
    }
    let remove = "SELECT remove_settled('infinity', 1000)";
    let remove_far = "SELECT remove_settled(now() + interval '1 year', 1000)";
    for statement in [remove, remove_far] {
        let removed: i64 = service.query_one(statement, &[]).await.expect("a row").get(0);
        assert_eq!(removed, 0, "{statement}: what has just settled stays");
    }
    age(&storm, "one", 2).await;
    let removed: i64 = service.query_one(remove_far, &[]).await.expect("a row").get(0);
    assert_eq!((removed, storm.count("notifications").await), (1, 1));
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_that_stop_nothing_any_more_go_and_nothing_else_that_is_known_of_addresses() {
    const MARK_DAYS: i32 = 7;
    let policy = policy(&[("/address_mark_days", json!(MARK_DAYS))]);
    let mut storm = Storm::prepare(Options::default(), &policy, 8).await;
    let marks = format!(
        "INSERT INTO addresses (channel, address, reason, moved_to, mark_time, notification_id)
         SELECT 'webhook', name || number, 'HTTP_410', moved_to, now() - make_interval(days => age), gen_random_uuid()
           FROM (VALUES ('old', NULL, {MARK_DAYS} + 1, 1100), ('young', NULL, {MARK_DAYS} - 1, 10),
                        ('moved', 'elsewhere', {MARK_DAYS} + 1, 10)) AS v (name, moved_to, age, count),
                generate_series(1, count) AS number"
    );
    storm.sql.batch_execute(&marks).await.expect("rows");
    storm.pair.start_notify().await;
    wait::until("the old marks to go", async || {
        (storm.count("addresses WHERE address LIKE 'old%'").await == 0).then_some(())
    })
    .await;
    assert_eq!(storm.count("addresses WHERE address LIKE 'young%'").await, 10);
    assert_eq!(storm.count("addresses WHERE address LIKE 'moved%'").await, 10);
    storm.finish().await;
}

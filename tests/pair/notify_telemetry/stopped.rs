//! A provider that refuses the set-up: an error when it stops the channel, not at each probe.

use p2phub_proto::notify::v1::NotificationState;
use p2phub_tests::sink::{Reply, Sink};
use serde_json::{Value, json};

use super::{Desk, TOKEN, over};
use crate::delivery::contact;

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_one_error_until_it_is_taken_again() {
    let directory = tempfile::Builder::new().prefix("p2phub-test-").tempdir().expect("a directory");
    let file = directory.path().join("policy.json");
    let mut policy: Value =
        serde_json::from_str(include_str!("../../../notify-svc/domain/src/policy.json")).expect("JSON");
    policy["breaker"]["pause_ms"] = json!(100);
    std::fs::write(&file, policy.to_string()).expect("a file");
    let telegram = Sink::start().await;
    let refusal = Reply::json(401, &json!({ "ok": false, "description": "Unauthorized" }));
    let taken = Reply::json(200, &json!({ "ok": true, "result": { "message_id": 1 } }));
    telegram.then([refusal.clone(), refusal.clone(), taken, refusal]);
    let variables = [
        ("TELEGRAM_BOT_TOKEN", TOKEN),
        ("TELEGRAM_API_URL", &telegram.url("")),
        ("DELIVERY_POLICY_FILE", &file.display().to_string()),
        ("LOG_FORMAT", "json"),
    ];
    let mut desk = Desk::open(&variables).await;
    desk.settle(over(vec![contact("telegram", "77")]), NotificationState::Delivered).await;
    let levels = |log: &str| {
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told = lines.filter(|line| line["channel"] == "telegram");
        told.map(|line| line["level"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let log = desk.log_with("a channel is stopped: its set-up is refused").await;
    assert_eq!(levels(&log), ["WARN", "ERROR", "WARN"], "{log}");
    // Once more: another fact.
    telegram.otherwise(Reply::json(200, &json!({ "ok": true, "result": { "message_id": 2 } })));
    desk.settle(over(vec![contact("telegram", "77")]), NotificationState::Delivered).await;
    assert_eq!(levels(&desk.notify().log()), ["WARN", "ERROR", "WARN", "WARN", "ERROR"]);
    desk.close().await;
}

//! What the log says of the database: slow statements without their values, and each outage once.

use std::{sync::Arc, time::Duration};

use p2phub_proto::referral::v1::{GetPartnerRequest, get_partner_request::Key};
use p2phub_tests::{
    builders::registration,
    hold::Hold,
    instance::Instance,
    pair::{Options, Pair},
    postgres::{Role, Server},
    raw::status_of,
    wait,
};
use serde_json::Value;
use tonic::{Code, Request, Status, metadata::MetadataMap};

use crate::{PAIR_PROCESS, concurrency::at_once};

/// The values of a statement that nobody may find in the log.
const SECRET: &str = "telegram:31415926535";

fn lines(instance: Option<&Instance>) -> Vec<Value> {
    let log = instance.expect("it runs").log();
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn find(pair: &Pair) -> Request<GetPartnerRequest> {
    assert!(pair.referral.is_some());
    Request::new(GetPartnerRequest { key: Some(Key::ExternalId(SECRET.to_owned())) })
}

fn trace_id(metadata: &MetadataMap) -> Option<Value> {
    Some(metadata.get("trace-id")?.to_str().expect("text").into())
}

/// The line about the slow statement of this call.
async fn slow_line(pair: &Pair, trace_id: &Value) -> Value {
    wait::until("a line about a slow statement", async || {
        let lines = lines(pair.referral.as_ref());
        lines.into_iter().find(|line| line["target"] == "slow_statement" && line["trace_id"] == *trace_id)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_statement_is_logged_in_its_trace_without_its_values() {
    const SLOW: Duration = Duration::from_millis(50);
    let options = Options::default().processes(PAIR_PROCESS).variable("SLOW_STATEMENT_MS", "50");
    let pair = options.variable("RUST_LOG", "trace").start_alone().await;
    pair.clients.clone().register(SECRET, "").await;
    let lock = async || {
        let superuser = pair.referral_sql(Role::Superuser).await;
        let statements = "LOCK TABLE partners IN ACCESS EXCLUSIVE MODE";
        Hold::take(superuser, pair.referral_sql(Role::Superuser).await, statements).await
    };

    let hold = lock().await;
    let (mut partners, request) = (pair.clients.clone().partners, find(&pair));
    let call = tokio::spawn(async move { partners.get_partner(request).await });
    hold.blocks_someone().await;
    // How long it waits is the point here.
    tokio::time::sleep(SLOW).await;
    hold.release().await;
    let answer = call.await.expect("no panic").expect("an answer");
    let line = slow_line(&pair, &trace_id(answer.metadata()).expect("a trace ID")).await;
    assert_eq!(line["level"], "WARN");
    assert!(line["duration_ms"].as_u64() >= Some(50), "{line}");
    let statement = line["statement"].as_str().expect("a text");
    assert!(statement.starts_with("SELECT") && statement.contains("partners"), "{line}");
    assert!(line.get("error").is_none(), "{line}");

    // Nobody waits for the answer any more: that it was slow is known all the same.
    let hold = lock().await;
    let method = "p2phub.referral.v1.PartnerService/GetPartner";
    let (headers, status) = status_of(pair.referral_address, method, find(&pair).get_ref(), "1S").await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let line = slow_line(&pair, &headers["trace-id"].to_str().expect("text").into()).await;
    assert_eq!(line["error"], "cancelled");
    hold.release().await;

    let log = pair.referral.as_ref().expect("it runs").log();
    assert!(!log.contains(SECRET), "{log}");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_one_error_in_each_service_however_many_calls_fail() {
    let server = Arc::new(Server::own().await);
    let pair = Options::default().server(server.clone()).processes(PAIR_PROCESS).start().await;
    pair.clients.clone().register(SECRET, "").await;
    let mut failed = Vec::new();
    for outage in 1..=2 {
        server.kill().await.expect("a kill");
        let reads = at_once((0..40).map(|_| {
            let (mut clients, request) = (pair.clients.clone(), find(&pair));
            async move { clients.partners.get_partner(request).await.map(drop) }
        }));
        let writes = at_once((0..40).map(|turn| {
            let (mut clients, request) = (pair.clients.clone(), registration(&format!("away-{outage}-{turn}"), ""));
            async move { clients.partners.register_partner(request).await.map(drop) }
        }));
        let (reads, writes) = tokio::join!(reads, writes);
        let failures: Vec<Status> = reads.into_iter().chain(writes).filter_map(Result::err).collect();
        assert_eq!(failures.len(), 80);
        failed.extend(failures.iter().filter_map(|status| trace_id(status.metadata())));
        for instance in [&pair.referral, &pair.notify] {
            wait::until("an error", async || (errors(instance.as_ref()).len() == outage).then_some(())).await;
        }
        server.start().await.expect("a start");
        for instance in [&pair.referral, &pair.notify] {
            wait::until("the end of the outage", async || {
                let lines = lines(instance.as_ref());
                let ends = lines.iter().filter(|line| line["message"] == "the database answers again");
                (ends.filter(|line| line["level"] == "INFO").count() == outage).then_some(())
            })
            .await;
            assert_eq!(errors(instance.as_ref()).len(), outage, "{:?}", errors(instance.as_ref()));
        }
    }
    assert_eq!(failed.len(), 160);
    for (service, instance) in [("referral-svc", &pair.referral), ("notify-svc", &pair.notify)] {
        let lines = lines(instance.as_ref());
        for error in errors(instance.as_ref()) {
            assert_eq!(error["service"], service);
            // Who is first is anyone's guess: a call, or a task that polls.
            let known = failed.contains(&error["trace_id"]) || error["trace_id"] == lines[0]["trace_id"];
            assert!(known, "{error}");
        }
        let told: Vec<_> =
            lines.iter().filter(|line| line["level"] == "WARN" && failed.contains(&line["trace_id"])).collect();
        assert!(told.is_empty(), "{told:?}");
    }
    pair.finish().await;
}

fn errors(instance: Option<&Instance>) -> Vec<Value> {
    lines(instance).into_iter().filter(|line| line["level"] == "ERROR").collect()
}

//! What each service tells operators over HTTP: that it lives, whether it is ready, its metrics; and its log level, at run time.

use std::{
    net::{SocketAddr, TcpListener},
    process::Command,
    time::{Duration, Instant},
};

use p2phub_proto::referral::v1::{GetPartnerRequest, get_partner_request::Key};
use p2phub_tests::{
    builders::registration,
    clients::is_serving,
    hold::Hold,
    instance::Instance,
    pair::{Options, Pair},
    postgres::Role,
    probe::{self, Answer, ask, get},
    wait,
};
use reqwest::Method;
use serde_json::Value;

use crate::PAIR_PROCESS;

async fn processes() -> Pair {
    Options::default().processes(PAIR_PROCESS).start().await
}

/// Where the two answer: referral-svc, notify-svc.
fn addresses(pair: &Pair) -> [SocketAddr; 2] {
    [&pair.referral, &pair.notify].map(|instance| instance.as_ref().expect("it runs").http)
}

async fn ready_when(address: SocketAddr, what: &str, met: impl Fn(&Answer, &Value) -> bool) -> Value {
    wait::until(what, async || {
        let answer = get(address, "/readyz").await;
        let json = answer.json();
        met(&answer, &json).then_some(json)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_services_tell_that_they_live_and_are_ready_and_what_they_measured() {
    let mut pair = processes().await;
    pair.clients.register("root", "").await;
    for (address, peer) in addresses(&pair).into_iter().zip(["notify-svc", "referral-svc"]) {
        assert_eq!(get(address, "/livez").await.status, 200);
        let ready = ready_when(address, "the peer to be seen", |_, json| json["peer"]["status"] == "up").await;
        assert_eq!((&ready["status"], &ready["database"]["status"]), (&"ready".into(), &"up".into()));
        assert_eq!(ready["peer"]["name"], peer);
        for latency in [&ready["database"]["latency_ms"], &ready["peer"]["latency_ms"]] {
            assert!(latency.as_f64().is_some_and(|ms| ms > 0.0 && ms < 2_000.0), "{ready}");
        }
        let metrics = get(address, "/metrics").await;
        assert_eq!((metrics.status, metrics.content_type.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
        assert!(metrics.body.starts_with("# HELP "), "{}", metrics.body);
        for (method, path, status) in [
            (Method::GET, "/", 404),
            (Method::GET, "/livez/", 404),
            (Method::POST, "/livez", 405),
            (Method::PUT, "/readyz", 405),
            (Method::DELETE, "/metrics", 405),
            (Method::POST, "/log-level", 405),
            (Method::HEAD, "/readyz", 200),
        ] {
            let answer = ask(address, method.clone(), path, String::new()).await.expect("an answer");
            assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        }
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_a_service_lives_and_is_not_ready() {
    let mut pair = Options::default().processes(PAIR_PROCESS).proxied().start().await;
    pair.clients.register("root", "").await;
    pair.proxies().database.cut();
    for (http, grpc) in addresses(&pair).into_iter().zip([pair.referral_address, pair.notify_address]) {
        let ready = ready_when(http, "503", |answer, _| answer.status == 503).await;
        assert_eq!(ready["status"], "database away");
        assert_eq!(ready["database"]["status"], "down");
        let error = ready["database"]["error"].as_str().expect("an error");
        assert!(!error.is_empty() && !error.contains("referral") && !error.contains("notify"), "{error}");
        wait::until("gRPC health to agree", async || (!is_serving(grpc, "").await).then_some(())).await;
        assert_eq!(get(http, "/livez").await.status, 200);
        assert_eq!(get(http, "/metrics").await.status, 200);
    }
    pair.proxies().database.resume();
    for address in addresses(&pair) {
        ready_when(address, "200 again", |answer, _| answer.status == 200).await;
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_away_is_reported_and_decides_nothing() {
    let mut pair = Options::default().processes(PAIR_PROCESS).start_alone().await;
    let referral = pair.referral.as_ref().expect("it runs").http;
    let ready = ready_when(referral, "notify-svc to be missed", |_, json| json["peer"]["status"] == "down").await;
    assert_eq!((&ready["status"], &ready["peer"]["name"]), (&"ready".into(), &"notify-svc".into()));
    assert_eq!(get(referral, "/readyz").await.status, 200);
    pair.start_notify().await;
    ready_when(referral, "notify-svc to be seen", |_, json| json["peer"]["status"] == "up").await;
    pair.kill_notify();
    ready_when(referral, "notify-svc to be missed", |answer, json| {
        assert_eq!(answer.status, 200);
        json["peer"]["status"] == "down"
    })
    .await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_is_told_the_last_look_and_asks_the_database_nothing() {
    let pair = Options::default().processes(PAIR_PROCESS).proxied().start_alone().await;
    let address = pair.referral.as_ref().expect("it runs").http;
    assert_eq!(get(address, "/readyz").await.status, 200);
    pair.proxies().database.pause();
    let begin = Instant::now();
    let asking: Vec<_> = (0..200).map(|_| tokio::spawn(async move { get(address, "/readyz").await.json() })).collect();
    for asked in asking {
        assert!(asked.await.expect("an answer")["database"]["status"].is_string());
    }
    // A service waits two seconds for a database that says nothing.
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    ready_when(address, "silence to be noticed", |answer, _| answer.status == 503).await;
    pair.proxies().database.resume();
    ready_when(address, "an answer", |answer, _| answer.status == 200).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_changes_while_the_service_serves() {
    let mut pair = Options::default().processes(PAIR_PROCESS).variable("LOG_FORMAT", "json").start_alone().await;
    let address = pair.referral.as_ref().expect("it runs").http;
    let lines = |pair: &Pair, level: &str| {
        let log = pair.referral.as_ref().expect("it runs").log();
        log.lines().filter(|line| line.contains(&format!(r#""level":"{level}""#))).count()
    };
    let root = pair.clients.register("root", "").await;
    let ask_for_it = async |pair: &mut Pair| {
        for _ in 0..20 {
            let request = GetPartnerRequest { key: Some(Key::PartnerId(root.partner_id.clone())) };
            pair.clients.partners.get_partner(request).await.expect("an answer");
            assert!(is_serving(pair.referral_address, "").await);
        }
    };
    ask_for_it(&mut pair).await;
    assert_eq!(lines(&pair, "DEBUG"), 0);
    assert_eq!(get(address, "/log-level").await.body, "info\n");

    let raised = probe::set_log_level(address, "warn, service=debug ,access=debug\n").await;
    assert_eq!((raised.status, raised.body.as_str()), (200, "warn,service=debug,access=debug\n"));
    assert_eq!(get(address, "/log-level").await.body, raised.body);
    ask_for_it(&mut pair).await;
    wait::until("health checks in the log", async || (lines(&pair, "DEBUG") >= 20).then_some(())).await;

    // What is malformed changes nothing, and is told.
    for (bad, named) in [
        ("info,service=loud=very", "service=loud=very"),
        ("service=loud", "service=loud"),
        ("verbose", "verbose"),
        ("", "missing"),
        (" , ", "missing"),
    ] {
        let answer = probe::set_log_level(address, bad).await;
        assert!(answer.status == 400 && answer.body.contains(named), "{bad:?}: {answer:?}");
    }
    assert_eq!(probe::set_log_level(address, &"x=info,".repeat(1000)).await.status, 413);
    assert_eq!(get(address, "/log-level").await.body, raised.body);

    let lowered = probe::set_log_level(address, "off").await;
    assert_eq!(lowered.status, 200);
    let said = lines(&pair, "DEBUG");
    let all = pair.referral.as_ref().expect("it runs").log().lines().count();
    ask_for_it(&mut pair).await;
    let log = pair.referral.as_ref().expect("it runs").log();
    assert_eq!((lines(&pair, "DEBUG"), log.lines().count()), (said, all), "{log}");
    // Each change is on record, even the one to nothing.
    for (was, is) in [("info", "warn,service=debug,access=debug"), ("warn,service=debug,access=debug", "off")] {
        let line = format!(r#""was":"{was}","is":"{is}""#);
        assert_eq!(log.matches(&line).count(), 1, "{line} in {log}");
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_told_as_not_ready_until_all_is_done() {
    let mut pair = processes().await;
    let http = pair.referral.as_ref().expect("it runs").http;
    let (superuser, watcher) = (pair.referral_sql(Role::Superuser).await, pair.referral_sql(Role::Superuser).await);
    let hold = Hold::take(superuser, watcher, "LOCK TABLE partners IN EXCLUSIVE MODE").await;
    let mut clients = pair.clients.clone();
    let call = tokio::spawn(async move { clients.partners.register_partner(registration("late", "")).await });
    hold.blocks_someone().await;
    assert_eq!(get(http, "/readyz").await.status, 200);
    let process = pair.referral.as_ref().and_then(Instance::process_id).expect("a process").to_string();
    Command::new("kill").args(["-TERM", &process]).status().expect("a signal");
    let ready = ready_when(http, "503 in the drain", |answer, _| answer.status == 503).await;
    assert_eq!(ready["status"], "stopping");
    assert_eq!(ready["database"]["status"], "up");
    assert_eq!(get(http, "/livez").await.status, 200);
    hold.release().await;
    call.await.expect("no panic").expect("what was in flight is done");
    pair.stop_referral().await;
    assert!(ask(http, Method::GET, "/livez", String::new()).await.is_none(), "it outlived its process");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explicit_port_that_is_taken_stops_the_start_and_a_default_gives_way() {
    let pair = Options::default().prepare().await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let stop = tokio_util::sync::CancellationToken::new();

    let mut referral = referral_svc::Config::new(pair.server.referral_url(&pair.databases, Role::Service));
    referral.migration_url = Some(pair.server.referral_url(&pair.databases, Role::Owner));
    referral.listen = pair.referral_address;
    referral.http_listen = Some(address);
    let error = referral_svc::start(referral.clone(), stop.clone()).await.map(drop).expect_err("a refusal");
    assert!(format!("{error:#}").contains("REFERRAL_HTTP_LISTEN"), "{error:#}");

    let mut notify = notify_svc::Config::new(pair.server.notify_url(&pair.databases, Role::Service));
    notify.migration_url = Some(pair.server.notify_url(&pair.databases, Role::Owner));
    notify.listen = pair.notify_address;
    notify.http_listen = Some(address);
    let error = notify_svc::start(notify.clone(), stop.clone()).await.expect_err("a refusal");
    assert!(format!("{error:#}").contains("NOTIFY_HTTP_LISTEN"), "{error:#}");

    // Somebody has the defaults: this test, unless another process was first.
    let _defaults = [referral_svc::HTTP_LISTEN, notify_svc::HTTP_LISTEN].map(TcpListener::bind);
    referral.http_listen = None;
    notify.http_listen = None;
    let notify = notify_svc::start(notify, stop.clone()).await.expect("a start");
    let referral = referral_svc::start(referral, stop.clone()).await.expect("a start");
    for (http, default) in
        [(referral.http_addr, referral_svc::HTTP_LISTEN), (notify.http_addr, notify_svc::HTTP_LISTEN)]
    {
        assert!(http != default && http.ip().is_loopback(), "{http}");
        assert_eq!(get(http, "/livez").await.status, 200);
        // Nobody said where referral-svc is.
        if default == notify_svc::HTTP_LISTEN {
            assert_eq!(get(http, "/readyz").await.json()["peer"]["status"], "unconfigured");
        }
    }
    stop.cancel();
    referral.finished().await.expect("a clean end");
    notify.finished().await.expect("a clean end");
    pair.finish().await;
}

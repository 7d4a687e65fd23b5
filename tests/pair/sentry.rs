//! What Sentry is told: each failure once, under its trace, without what is personal; and of bad requests nothing.

mod bad_requests;
mod rejected;
mod transactions;

use std::time::{Duration, Instant};

use p2phub_proto::referral::v1::{Contact, GetPartnerRequest, RegisterPartnerRequest, get_partner_request::Key};
use p2phub_tests::{
    builders::registration,
    hold::Hold,
    pair::{Options, Pair},
    postgres::Role,
    process::{CLOCK_AHEAD, CLOCK_BROKEN},
    sentry::Sentry,
    wait,
};
use tonic::{Code, Request, Status, metadata::MetadataMap};

use crate::{PAIR_PROCESS, start};

/// What a call may hold that Sentry must never see.
pub(crate) const PLANTED: [&str; 8] = [
    "Zaphod",
    "Quibblefix",
    "Q\"uoted",
    "quibble_handle",
    "zq.plant@example.org",
    "7712345678",
    "555-010-9999",
    "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
];

/// A database error that quotes the row, as PostgreSQL's own do.
pub(crate) const QUOTING_TRIGGER: &str = r#"
    CREATE FUNCTION quote_all() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'no room for "%" ''%'', %: % bot7712345678:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw, call 555-010-9999',
            NEW.first_name, NEW.last_name, NEW.external_id, NEW.contacts;
    END $$;
    CREATE TRIGGER quote_all BEFORE INSERT ON partners FOR EACH ROW EXECUTE FUNCTION quote_all()"#;

fn options(sentry: &Sentry) -> Options {
    Options::default().processes(PAIR_PROCESS).variable("SENTRY_DSN", &sentry.dsn())
}

fn trace_id_in(metadata: &MetadataMap) -> String {
    metadata.get("trace-id").expect("a trace ID").to_str().expect("text").to_owned()
}

pub(crate) fn personal() -> RegisterPartnerRequest {
    let contact = |channel: &str, address: &str| Contact { channel: channel.to_owned(), address: address.to_owned() };
    RegisterPartnerRequest {
        username: "quibble_handle".to_owned(),
        first_name: "Zaphod Q\"uoted".to_owned(),
        last_name: "Quibblefix".to_owned(),
        contacts: vec![contact("email", "zq.plant@example.org"), contact("telegram", "7712345678")],
        ..registration("telegram:7712345678", "")
    }
}

/// Fails, and says under which trace.
async fn failing_read(pair: &Pair) -> String {
    let key = Key::ExternalId("telegram:7712345678".to_owned());
    let answer = pair.clients.clone().partners.get_partner(GetPartnerRequest { key: Some(key) }).await;
    internal(answer.expect_err("a failure"))
}

fn internal(status: Status) -> String {
    assert_eq!(status.code(), Code::Internal, "{status}");
    trace_id_in(status.metadata())
}

async fn break_reads(pair: &Pair) {
    pair.referral_sql(Role::Owner)
        .await
        .batch_execute("ALTER TABLE partners RENAME TO away")
        .await
        .expect("a new name");
}

/// The one event of a trace, once nothing more can come, and nothing planted in anything that came.
async fn the_event(sentry: &Sentry, trace_id: &str) -> p2phub_tests::sentry::Item {
    let mut events = sentry.events();
    events.retain(|event| event.trace_id() == trace_id);
    assert_eq!(events.len(), 1, "{events:#?}");
    let event = events.remove(0);
    assert_eq!(event.tag("trace_id"), trace_id);
    assert_eq!(event.tag("service"), "referral-svc");
    assert_eq!(event.content["release"], format!("referral-svc@{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(event.content["environment"], "production");
    for body in sentry.bodies() {
        for planted in PLANTED {
            assert!(!body.contains(planted), "{planted} in {body}");
        }
    }
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_arrives_once_with_its_stack() {
    let sentry = Sentry::start().await;
    let mut pair = options(&sentry).variable(CLOCK_AHEAD, &CLOCK_BROKEN.to_string()).start_alone().await;
    let trace_id = failing_read(&pair).await;
    sentry.event_of(&trace_id).await;
    pair.stop_referral().await;
    let event = the_event(&sentry, &trace_id).await;
    assert_eq!(event.tag("rpc"), "p2phub.referral.v1.PartnerService/GetPartner");
    assert_eq!(event.content["level"], "fatal");
    let exception = &event.content["exception"]["values"][0];
    assert_eq!((exception["type"].as_str(), exception["mechanism"]["handled"].as_bool()), (Some("panic"), Some(false)));
    assert!(exception["value"].as_str().is_some_and(|value| value.contains("overflowed")), "{exception}");
    let frames = exception["stacktrace"]["frames"].as_array().expect("a stack");
    let ours = |frame: &serde_json::Value| frame["function"].as_str().is_some_and(|name| name.contains("referral_svc"));
    assert!(frames.iter().any(ours), "{frames:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_failure_arrives_once_and_quotes_nobody() {
    let sentry = Sentry::start().await;
    let mut pair = options(&sentry).variable("SENTRY_TRACES_SAMPLE_RATE", "1").start_alone().await;
    pair.referral_sql(Role::Owner).await.batch_execute(QUOTING_TRIGGER).await.expect("a trigger");
    let mut call = Request::new(personal());
    call.metadata_mut().insert("authorization", "Bearer AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw".parse().expect("metadata"));
    let answer = pair.clients.clone().partners.register_partner(call).await;
    let trace_id = internal(answer.expect_err("a failure"));
    sentry.event_of(&trace_id).await;
    pair.stop_referral().await;
    let event = the_event(&sentry, &trace_id).await;
    assert_eq!(event.tag("rpc"), "p2phub.referral.v1.PartnerService/RegisterPartner");
    assert_eq!(event.content["message"], "a command can't be committed");
    let error = event.content["contexts"]["Rust Tracing Fields"]["error"].as_str().expect("the error");
    assert!(error.starts_with("no room for [scrubbed]"), "{error}");
    assert_eq!(sentry.events().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_one_event_however_many_meet_it() {
    let sentry = Sentry::start().await;
    let mut pair = options(&sentry).proxied().start_alone().await;
    let mut clients = pair.clients.clone();
    let partner_id = clients.register("somebody", "").await.partner_id;
    for outages in 1..=2 {
        pair.proxies().database.cut();
        for _ in 0..30 {
            let request = GetPartnerRequest { key: Some(Key::PartnerId(partner_id.clone())) };
            let answer = clients.partners.get_partner(request).await;
            assert_eq!(answer.expect_err("a failure").code(), Code::Unavailable);
        }
        pair.proxies().database.resume();
        wait::until("the database to be back", async || {
            let request = GetPartnerRequest { key: Some(Key::PartnerId(partner_id.clone())) };
            clients.partners.get_partner(request).await.ok()
        })
        .await;
        wait::until("an event", async || (sentry.events().len() >= outages).then_some(())).await;
        wait::until("the outage to be over", async || {
            let log = pair.referral.as_ref().expect("it runs").log();
            (log.matches("the database answers again").count() >= outages).then_some(())
        })
        .await;
    }
    pair.stop_referral().await;
    assert_eq!(sentry.events().len(), 2, "{:#?}", sentry.events());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_right_before_the_stop_arrives() {
    let sentry = Sentry::start().await;
    let mut pair = options(&sentry)
        .variable("SENTRY_ENVIRONMENT", "testing")
        .variable("SENTRY_RELEASE", "release-7")
        .start_alone()
        .await;
    break_reads(&pair).await;
    let trace_id = failing_read(&pair).await;
    pair.stop_referral().await;
    let events = sentry.events();
    let [event] = events.as_slice() else { panic!("{events:#?}") };
    assert_eq!(
        (event.trace_id(), event.tag("rpc")),
        (trace_id.as_str(), "p2phub.referral.v1.PartnerService/GetPartner")
    );
    assert_eq!((&event.content["release"], &event.content["environment"]), (&"release-7".into(), &"testing".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn breadcrumbs_are_of_the_call_alone() {
    let sentry = Sentry::start().await;
    let pair = options(&sentry).start_alone().await;
    break_reads(&pair).await;
    let mut trace_ids = Vec::new();
    for _ in 0..20 {
        trace_ids.push(failing_read(&pair).await);
    }
    for trace_id in trace_ids {
        let event = sentry.event_of(&trace_id).await;
        let crumbs = event.content["breadcrumbs"]["values"].as_array().cloned().unwrap_or_default();
        assert!(crumbs.is_empty(), "nothing was logged in this call before: {crumbs:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_statement_is_a_breadcrumb_without_its_values() {
    let sentry = Sentry::start().await;
    let mut pair = options(&sentry).variable("SLOW_STATEMENT_MS", "1").start_alone().await;
    // It waits for the table, and then finds it under another name.
    let (holder, watcher) = (pair.referral_sql(Role::Owner).await, pair.referral_sql(Role::Superuser).await);
    let hold = Hold::take(holder, watcher, "LOCK TABLE partners; ALTER TABLE partners RENAME TO away").await;
    let (trace_id, ()) = tokio::join!(failing_read(&pair), async {
        hold.blocks_someone().await;
        // How long it waits is the point here.
        tokio::time::sleep(Duration::from_millis(5)).await;
        hold.keep().await;
    });
    sentry.event_of(&trace_id).await;
    pair.stop_referral().await;
    let event = the_event(&sentry, &trace_id).await;
    let crumbs = event.content["breadcrumbs"]["values"].as_array().expect("breadcrumbs");
    let slow = crumbs.iter().filter(|crumb| crumb["category"] == "slow_statement");
    let statements: Vec<_> = slow.filter_map(|crumb| crumb["data"]["statement"].as_str()).collect();
    let is_whole = |text: &&str| text.starts_with("SELECT") && text.contains(r#""partners"."external_id" = $1"#);
    assert!(statements.iter().any(is_whole), "{crumbs:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentry_that_never_answers_holds_nothing_up() {
    let sentry = Sentry::start().await;
    let mut pair = options(&sentry).start_alone().await;
    break_reads(&pair).await;
    sentry.hang();
    let begin = Instant::now();
    for _ in 0..150 {
        failing_read(&pair).await;
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "calls waited for Sentry: {:?}", begin.elapsed());
    let begin = Instant::now();
    pair.stop_referral().await;
    assert!(begin.elapsed() < Duration::from_secs(10), "the stop waited for Sentry: {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_is_an_event_too() {
    let sentry = Sentry::start().await;
    let dsn = sentry.dsn();
    let output = tokio::task::spawn_blocking(move || {
        let database = "postgres://zaphod:Quibblefix@127.0.0.1:1/nothing";
        start::run("referral-svc", &[], &[("REFERRAL_DATABASE_URL", database), ("SENTRY_DSN", &dsn)])
    });
    assert!(!output.await.expect("an end").status.success());
    let events = sentry.events();
    let [event] = events.as_slice() else { panic!("{events:#?}") };
    let cause = event.content["exception"]["values"][0]["value"].as_str().expect("a cause");
    assert!(cause.contains("the database can't be reached") && !cause.contains("Quibblefix"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_dsn_nothing_is_on_and_the_start_says_why() {
    let pair = Options::default().processes(PAIR_PROCESS).variable("SENTRY_DSN", "").start_alone().await;
    let log = pair.referral.as_ref().expect("referral-svc runs").log();
    for why in ["off: SENTRY_DSN is not set", "off: OTEL_EXPORTER_OTLP_ENDPOINT is not set"] {
        assert!(log.contains(why), "{log}");
    }
    let sentry = Sentry::start().await;
    let pair = options(&sentry).start_alone().await;
    let log = pair.referral.as_ref().expect("referral-svc runs").log();
    assert!(log.contains("on: environment production, transactions of 0.1 of the traces"), "{log}");
    assert!(!log.contains(&sentry.dsn()) && !log.contains("key@"), "{log}");
}

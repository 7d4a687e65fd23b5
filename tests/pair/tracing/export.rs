//! What of a call is exported, and how.

use opentelemetry_proto::tonic::{metrics::v1::metric::Data, trace::v1::span::SpanKind};
use p2phub_proto::referral::v1::{GetPartnerRequest, get_partner_request::Key};
use p2phub_tests::{
    clients::channel,
    otlp::{self, Collected, Otlp},
    pair::{Options, Pair},
    postgres::Role,
    wait,
};
use tokio::net::TcpListener;
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{callers_trace, exporting, named, only, with};
use crate::{PAIR_PROCESS, sentry, wrong_input::raw};

const GET_PARTNER: &str = "p2phub.referral.v1.PartnerService/GetPartner";
const DURATION: &str = "rpc.server.call.duration";

fn nobody() -> GetPartnerRequest {
    GetPartnerRequest { key: Some(Key::ExternalId("nobody".to_owned())) }
}

fn attributes(span: &Collected) -> [Option<String>; 5] {
    ["rpc.system.name", "rpc.method", "rpc.method_original", "rpc.response.status_code", "error.type"]
        .map(|key| span.attribute(key))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_described_by_the_conventions_and_a_health_check_not_at_all() {
    let otlp = Otlp::start().await;
    let mut pair = exporting(&otlp).start_alone().await;
    let mut clients = pair.clients.clone();
    let (health_trace, traceparent) = callers_trace("01");
    let check = with(HealthCheckRequest::default(), &[("traceparent", &traceparent)]);
    let answer = HealthClient::new(channel(pair.referral_address)).check(check).await.expect("an answer");
    assert_eq!(answer.metadata().get("trace-id").expect("a trace ID"), health_trace.as_str());

    let (refused, traceparent) = callers_trace("01");
    let call = with(nobody(), &[("traceparent", &traceparent), ("p2phub-caller", "gateway-7")]);
    clients.partners.get_partner(call).await.expect_err("nobody");
    let (unknown, traceparent) = callers_trace("01");
    let path = "/p2phub.nowhere.v1.Service/Get";
    let call = with(Vec::new(), &[("traceparent", &traceparent)]);
    raw::call(&channel(pair.referral_address), path, call).await.expect_err("a refusal");
    // A clean end sends what is left.
    pair.stop_referral().await;

    let trace = otlp.trace(&refused);
    let span = only(&trace, GET_PARTNER);
    assert!(span.is(SpanKind::Server) && !span.is_error());
    assert_eq!(span.attribute("caller").as_deref(), Some("gateway-7"));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(attributes(span), [text("grpc"), text(GET_PARTNER), None, text("NOT_FOUND"), None]);
    let trace = otlp.trace(&unknown);
    let span = only(&trace, "_OTHER");
    assert!(span.is(SpanKind::Server) && span.is_error());
    let code = text("UNIMPLEMENTED");
    assert_eq!(attributes(span), [text("grpc"), text("_OTHER"), text(&path[1..]), code.clone(), code]);

    assert!(otlp.trace(&health_trace).is_empty());
    let spans = otlp.spans();
    assert!(!spans.iter().any(|span| span.name().starts_with("grpc.")), "probes are exported");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_and_metrics_go_out_over_tls() {
    let otlp = Otlp::start_tls().await;
    let certificate = otlp.certificate();
    let pair = exporting(&otlp).variable("OTEL_EXPORTER_OTLP_CERTIFICATE", &certificate.display().to_string());
    let pair = pair.start_alone().await;
    pair.clients.clone().partners.get_partner(nobody()).await.expect_err("nobody");
    otlp.wait_for("the call's span", |spans| (!named(spans, GET_PARTNER).is_empty()).then_some(())).await;
    wait::until("the call's metric", async || {
        otlp.metrics()
            .iter()
            .any(|(service, metric)| service == "referral-svc" && metric.name == DURATION)
            .then_some(())
    })
    .await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_signal_can_be_switched_off() {
    let otlp = Otlp::start().await;
    let mut pair = exporting(&otlp).variable("OTEL_TRACES_EXPORTER", "none").start_alone().await;
    let status = pair.clients.clone().partners.get_partner(Request::new(nobody())).await.expect_err("nobody");
    assert!(status.code() == Code::NotFound && status.metadata().contains_key("trace-id"));
    pair.stop_referral().await;
    assert!(otlp.spans().is_empty(), "traces, though they are switched off");
    let metrics = otlp.metrics();
    assert!(metrics.iter().any(|(_, metric)| metric.name == DURATION), "metrics are not");
    let (_, errors) = metrics.iter().rfind(|(_, metric)| metric.name == "p2phub.rpc.errors").expect("the call's error");
    let Some(Data::Sum(errors)) = &errors.data else { panic!("not a counter: {errors:?}") };
    // The health checks before it, some of which failed, don't count.
    let [point] = &errors.data_points[..] else { panic!("one error and no more: {errors:?}") };
    let label = |key| otlp::attribute(&point.attributes, key).expect(key);
    let labels = ["rpc.method", "rpc.response.status_code", "reason"].map(label);
    assert_eq!(labels, [GET_PARTNER, "NOT_FOUND", "PARTNER_NOT_FOUND"]);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_call_is_an_error_in_its_trace_and_quotes_nobody() {
    let otlp = Otlp::start().await;
    let mut pair = exporting(&otlp).start_alone().await;
    pair.referral_sql(Role::Owner).await.batch_execute(sentry::QUOTING_TRIGGER).await.expect("a trigger");
    let (trace_id, traceparent) = callers_trace("01");
    let call = with(sentry::personal(), &[("traceparent", &traceparent)]);
    let status = pair.clients.clone().partners.register_partner(call).await.expect_err("a failure");
    assert_eq!(status.code(), Code::Internal);
    // A clean end sends what is left.
    pair.stop_referral().await;
    let trace = otlp.trace(&trace_id);
    for name in ["p2phub.referral.v1.PartnerService/RegisterPartner", "commit"] {
        assert!(only(&trace, name).is_error(), "{name}: {trace:?}");
    }
    let [event] = &only(&trace, "commit").span.events[..] else { panic!("one error: {trace:?}") };
    assert_eq!(otlp::attribute(&event.attributes, "target").as_deref(), Some("referral_svc::app::queue"));
    let spans = format!("{:?}", otlp.spans());
    for planted in sentry::PLANTED.into_iter().chain(["no room for"]) {
        assert!(!spans.contains(planted), "{planted} in {spans}");
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_told_once_and_so_is_that_it_is_back() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let options = Options::default()
        .processes(PAIR_PROCESS)
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}"))
        .variable("OTEL_METRICS_EXPORTER", "none")
        .variable("OTEL_BSP_SCHEDULE_DELAY", "20");
    let pair = options.start_alone().await;
    let lines = |pair: &Pair, word: &str| -> Vec<String> {
        let log = pair.referral.as_ref().expect("it runs").log();
        log.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
    };
    let call = async |pair: &Pair| pair.clients.clone().partners.get_partner(nobody()).await.expect_err("nobody");
    call(&pair).await;
    let away = "the collector doesn't take what is sent";
    wait::until("a line about the collector", async || lines(&pair, away).pop()).await;

    let otlp = Otlp::start_at(address).await;
    otlp.refuse_spans(true);
    wait::until("batches that are refused", async || {
        call(&pair).await;
        (otlp.refused() >= 5).then_some(())
    })
    .await;
    otlp.refuse_spans(false);
    let back = wait::until("a line about its return", async || {
        call(&pair).await;
        lines(&pair, "the collector takes what is sent again").pop()
    })
    .await;
    let back: serde_json::Value = serde_json::from_str(&back).expect("JSON");
    assert_eq!((&back["level"], &back["signal"]), (&"INFO".into(), &"traces".into()));
    assert!(back["lost"].as_u64() > Some(5), "{back}");
    let told = lines(&pair, "the collector");
    let [away, _] = &told[..] else { panic!("two lines: {told:#?}") };
    assert!(away.contains("WARN") && away.contains("Unavailable") && !away.contains(&address.to_string()), "{away}");
    let others = lines(&pair, "opentelemetry");
    assert!(others.is_empty(), "{others:#?}");
    pair.finish().await;
}

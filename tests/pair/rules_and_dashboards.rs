//! Whatever the rules of Prometheus and the dashboards of Grafana name is really exported: a renamed metric or label would
//! leave an alert that never fires and a panel that stays empty.

mod expressions;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use p2phub_proto::referral::v1::{Contact, Partner, RegisterPartnerRequest};
use p2phub_tests::{
    builders::{confirmation, registration},
    pair::{Options, Pair},
    prometheus::Scrape,
    refusal::refused,
    sink::{Reply, Sink},
    wait,
};
use service::error::code_name;
use tonic::Code;

use self::expressions::Named;
use crate::PAIR_PROCESS;

/// What Prometheus itself adds, and what its histograms have.
const ADDED_LABELS: [&str; 3] = ["job", "instance", "le"];
/// On series of what went wrong only.
const RARE_LABELS: [&str; 1] = ["error_type"];
/// Has the values that gRPC knows, most of which nothing here makes happen.
const STATUS_CODE: &str = "rpc_response_status_code";

fn operations(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.docker").join(path)
}

fn rules() -> Vec<Named> {
    ["prometheus/recording.yml", "prometheus/alerts.yml"]
        .into_iter()
        .flat_map(|path| expressions::of_rules(&operations(path)))
        .collect()
}

fn dashboards() -> Vec<Named> {
    ["grafana/business.json", "grafana/machinery.json"]
        .into_iter()
        .flat_map(|path| expressions::of_dashboard(&operations(path)))
        .collect()
}

/// What both services export.
struct Exported([Scrape; 2]);

impl Exported {
    async fn by(pair: &Pair) -> Self {
        let referral = pair.referral.as_ref().expect("referral-svc runs").http;
        let notify = pair.notify.as_ref().expect("notify-svc runs").http;
        Self([Scrape::of(referral).await, Scrape::of(notify).await])
    }

    fn has(&self, metric: &str, labels: &[(&str, &str)]) -> bool {
        self.0.iter().any(|scrape| scrape.value(metric, labels).is_some())
    }

    fn labels(&self, metric: &str) -> BTreeSet<String> {
        let stems = ["_bucket", "_sum", "_count"].into_iter().filter_map(|suffix| metric.strip_suffix(suffix));
        let families = stems.chain([metric]);
        families.flat_map(|family| self.0.iter().flat_map(|scrape| scrape.labels(family))).collect()
    }
}

/// Ten in a line, of whom the first hears of everything over a webhook that fails at first; the last one's sale; a refusal.
async fn exercise(pair: &Pair, sink: &Sink) {
    sink.then([Reply::status(503)]);
    let mut clients = pair.clients.clone();
    let contact = Contact { channel: "webhook".to_owned(), address: sink.url("/hook") };
    let mut request = RegisterPartnerRequest { contacts: vec![contact], ..registration("line-0", "") };
    for index in 1..=10 {
        let answer = clients.partners.register_partner(request).await.expect("a registration");
        let last: Partner = answer.into_inner().partner.expect("a partner");
        request = registration(&format!("line-{index}"), &last.referral_code);
        if index == 10 {
            let payment = clients.open_payment(&last.partner_id).await;
            let confirmed = confirmation(&payment.payment_id, "the sale");
            clients.payments.confirm_payment(confirmed).await.expect("a confirmation");
            let other = confirmation(&payment.payment_id, "another");
            let refusal = clients.payments.confirm_payment(other).await;
            refused(refusal, Code::FailedPrecondition, "PAYMENT_ALREADY_CONFIRMED");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_dashboards_name_what_is_exported() {
    let sink = Sink::start().await;
    let secret = format!("whsec_{}", BASE64_STANDARD.encode([7; 32]));
    let options = Options::default().processes(PAIR_PROCESS).variable("WEBHOOK_SIGNING_SECRET", &secret);
    let pair = options.start().await;
    let (rules, dashboards) = (rules(), dashboards());

    // A counter that first appears at 1 has not risen: those that rules look at are there before anything happens.
    let exported = Exported::by(&pair).await;
    for metric in rules.iter().flat_map(|named| &named.metrics).filter(|metric| metric.ends_with("_total")) {
        assert!(exported.has(metric, &[]), "{metric} is not there from the start");
    }
    for (metric, label, value) in rules.iter().flat_map(|named| &named.equal) {
        let is_there = !metric.ends_with("_total") || exported.has(metric, &[(label, value)]);
        assert!(is_there, "{metric} with {label}={value:?} is not there from the start");
    }

    exercise(&pair, &sink).await;
    // What takes its time, or is looked at now and then.
    for metric in [
        "p2phub_delivery_retries_total",
        "p2phub_delivery_latency_seconds_count",
        "p2phub_delivery_queue_depth",
        "p2phub_outbox_depth",
        "p2phub_sweep_oldest_age_seconds",
        "p2phub_ledger_check_offenders",
    ] {
        wait::until(metric, async || Exported::by(&pair).await.has(metric, &[]).then_some(())).await;
    }
    let exported = Exported::by(&pair).await;
    let wrong: Vec<_> = rules.iter().chain(&dashboards).flat_map(|named| wrong_with(named, &exported)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    pair.finish().await;
}

/// What an expression names and nobody exports.
fn wrong_with(named: &Named, exported: &Exported) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut labels: BTreeSet<String> = ADDED_LABELS.into_iter().chain(RARE_LABELS).map(str::to_owned).collect();
    for metric in &named.metrics {
        labels.extend(exported.labels(metric));
        if !exported.has(metric, &[]) {
            wrong.push(format!("no metric {metric}: {}", named.text));
        }
    }
    for (metric, label, value) in &named.equal {
        let is_known = if label == STATUS_CODE { is_code(value) } else { exported.has(metric, &[(label, value)]) };
        if named.metrics.contains(metric) && !is_known {
            wrong.push(format!("no {metric} with {label}={value:?}: {}", named.text));
        }
    }
    // Of what is recorded, the rule that records it has told.
    for label in named.labels.difference(&labels).filter(|_| !named.metrics.is_empty()) {
        wrong.push(format!("no label {label}: {}", named.text));
    }
    wrong
}

fn is_code(name: &str) -> bool {
    (0..=16).any(|code| code_name(Code::from_i32(code)) == name)
}

#[test]
fn what_is_recorded_elsewhere_is_recorded() {
    let recorded = expressions::recorded_by(&operations("prometheus/recording.yml"));
    for named in rules().iter().chain(&dashboards()) {
        for name in &named.recorded {
            assert!(recorded.contains(name), "nothing records {name}: {}", named.text);
        }
    }
}

//! The logs of both services as processes: every line is JSON under a trace, what a call caused is found by its trace ID, and
//! nobody's name, address or secret is there.

use std::{collections::HashSet, future::Future};

use base64::{Engine, prelude::BASE64_STANDARD};
use p2phub_proto::{
    notify::v1::{ListNotificationsRequest, Notification},
    referral::v1::{Contact, Partner, RegisterPartnerRequest, RejectPaymentRequest},
};
use p2phub_tests::{
    builders::{confirmation, registration, request_id},
    pair::{DATABASE_PASSWORD, Options, Pair},
    sink::{Reply, Sink},
    smtp::{self, SmtpSink, Stage},
    wait,
};
use serde_json::{Value, json};
use tonic::{Request, Response, Status, metadata::MetadataValue};
use uuid::Uuid;

use crate::PAIR_PROCESS;

const NAMES: [&str; 3] = ["Plantedfirst", "Plantedlast", "planted_username"];
const CHAT: &str = "7700112233445";
const EMAIL: &str = "planted.address@example.org";
const WEBHOOK_SECRET: &str = "planted-webhook-path";
const SLACK_SECRET: &str = "T0PLANTED/B0PLANTED/plantedslacktoken";
const BOT_TOKEN: &str = "12345:planted-bot-token";
const SMTP_PASSWORD: &str = "planted-smtp-password";
const SIGNING_KEY: &[u8] = b"planted key, thirty-two bytes in";
const REASON: &str = "Planted reason with someone's story";
const BAD: &str = "planted*bad*code";

/// A call under a trace of its own, and the trace's ID.
async fn traced<T, R, F>(message: T, call: impl FnOnce(Request<T>) -> F) -> (String, Result<R, Status>)
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    let trace_id = Uuid::new_v4().simple().to_string();
    let traceparent = format!("00-{trace_id}-00f067aa0ba902b7-01");
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", MetadataValue::try_from(traceparent).expect("metadata"));
    (trace_id, call(request).await.map(Response::into_inner))
}

/// Everyone who can be reached somehow, and the services that reach them.
struct World {
    webhook: Sink,
    telegram: Sink,
    slack: Sink,
    smtp: SmtpSink,
}

impl World {
    async fn new() -> Self {
        let login = Some(("planted-user".to_owned(), SMTP_PASSWORD.to_owned()));
        let smtp = SmtpSink::start(smtp::Setup { login, ..Default::default() }).await;
        let (telegram, slack) = (Sink::start().await, Sink::start().await);
        slack.otherwise(Reply::text(200, "ok"));
        telegram.otherwise(Reply::json(200, &json!({ "ok": true, "result": { "message_id": 1 } })));
        Self { webhook: Sink::start().await, telegram, slack, smtp }
    }

    fn options(&self) -> Options {
        Options::default()
            .processes(PAIR_PROCESS)
            .variable("LOG_FORMAT", "json")
            .variable("TELEGRAM_BOT_TOKEN", BOT_TOKEN)
            .variable("TELEGRAM_API_URL", &self.telegram.url(""))
            .variable("WEBHOOK_SIGNING_SECRET", &format!("whsec_{}", BASE64_STANDARD.encode(SIGNING_KEY)))
            .variable("SLACK_API_URL", &self.slack.url(""))
            .variable("SMTP_URL", &self.smtp.url_with_login("127.0.0.1"))
    }

    fn contacts(&self) -> [(&'static str, String); 4] {
        [
            ("telegram", CHAT.to_owned()),
            ("email", EMAIL.to_owned()),
            ("webhook", self.webhook.url(&format!("/{WEBHOOK_SECRET}"))),
            ("slack", self.slack.url(&format!("/services/{SLACK_SECRET}"))),
        ]
    }

    /// Each channel fails once, in its own words, which quote whom they were meant for.
    fn fail_once(&self) {
        let quoting = format!("no such user: {CHAT} {EMAIL} {}", NAMES[0]);
        let telegram = json!({ "ok": false, "error_code": 500, "description": quoting });
        self.telegram.then([Reply::json(500, &telegram)]);
        self.webhook.then([Reply::text(503, &quoting), Reply::lost()]);
        self.slack.then([Reply::text(500, &quoting)]);
        self.smtp.then(Stage::Recipient, [smtp::Reply::say(&format!("450 4.2.1 <{EMAIL}> is busy"))]);
    }
}

/// Below `above`; everything about them is planted.
fn planted(external_id: &str, above: &str, contacts: &[(&str, String)]) -> RegisterPartnerRequest {
    let contact =
        |(channel, address): &(&str, String)| Contact { channel: (*channel).to_owned(), address: address.clone() };
    RegisterPartnerRequest {
        first_name: NAMES[0].to_owned(),
        last_name: NAMES[1].to_owned(),
        username: NAMES[2].to_owned(),
        contacts: contacts.iter().map(contact).collect(),
        ..registration(external_id, above)
    }
}

async fn register(pair: &mut Pair, request: RegisterPartnerRequest) -> (String, Partner) {
    let (trace_id, answer) = traced(request, |request| pair.clients.partners.register_partner(request)).await;
    (trace_id, answer.expect("a registration").partner.expect("a partner"))
}

/// The notifications of a trace, once all of so many are settled.
async fn settled(pair: &Pair, trace_id: &str, count: usize) -> Vec<Notification> {
    wait::until("settled notifications", async || {
        let filter = ListNotificationsRequest { trace_id: trace_id.to_owned(), ..Default::default() };
        let answer = pair.clients.clone().notifications.list_notifications(filter).await.expect("an answer");
        let found = answer.into_inner().notifications;
        (found.len() == count && found.iter().all(|one| one.settle_time.is_some())).then_some(found)
    })
    .await
}

fn parsed(log: &str) -> Vec<Value> {
    let is_id = |value: &Value, length: usize| {
        let id = value.as_str().unwrap_or_default();
        id.len() == length && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let parse = |line: &str| {
        let json: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(is_id(&json["trace_id"], 32) && is_id(&json["span_id"], 16), "{line}");
        for name in ["timestamp", "level", "target", "message"] {
            assert!(json[name].is_string(), "{name}: {line}");
        }
        // What is meant for exporters alone.
        for name in json.as_object().expect("an object").keys() {
            assert!(!name.contains('.'), "{name}: {line}");
        }
        json
    };
    log.lines().map(parse).collect()
}

fn of_trace<'a>(lines: &'a [Value], trace_id: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["trace_id"] == trace_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_stands_under_a_trace_and_names_nobody() {
    let world = World::new().await;
    let mut pair = world.options().start().await;
    let mut logs = Vec::new();

    // Four people with a contact each, and one with none: a chain of five.
    world.fail_once();
    let mut chain = vec![register(&mut pair, planted("log:0", "", &[])).await.1];
    for (index, contact) in world.contacts().iter().enumerate() {
        let code = chain[index].referral_code.clone();
        let request = planted(&format!("log:{}", index + 1), &code, std::slice::from_ref(contact));
        let (trace_id, partner) = register(&mut pair, request).await;
        settled(&pair, &trace_id, chain.len()).await;
        chain.push(partner);
    }

    // A sale, and what is refused.
    let buyer = &chain[4].partner_id;
    let payment = pair.clients.open_payment(buyer).await.payment_id;
    let sale = confirmation(&payment, "planted-ref-1");
    let (sale, answer) = traced(sale, |request| pair.clients.payments.confirm_payment(request)).await;
    answer.expect("a sale");
    let sold = settled(&pair, &sale, 5).await;
    let again = confirmation(&payment, "planted-ref-2");
    let (refused, answer) = traced(again, |request| pair.clients.payments.confirm_payment(request)).await;
    answer.expect_err("a refusal");
    let other = pair.clients.open_payment(buyer).await.payment_id;
    let reject = RejectPaymentRequest { request_id: request_id(), payment_id: other, reason: REASON.to_owned() };
    let (rejected, answer) = traced(reject, |request| pair.clients.payments.reject_payment(request)).await;
    answer.expect("a rejection");
    settled(&pair, &rejected, 1).await;

    // Bad input that holds what nobody should read.
    let bad = RegisterPartnerRequest { locale: BAD.to_owned(), ..planted(BAD, BAD, &[("email", BAD.to_owned())]) };
    let (bad, answer) = traced(bad, |request| pair.clients.partners.register_partner(request)).await;
    answer.expect_err("bad input");

    // notify-svc is away for a while: what waits for it is told later, under its own trace.
    logs.push(pair.notify.as_ref().expect("it runs").log());
    pair.stop_notify().await;
    let code = chain[4].referral_code.clone();
    let (late, _) = register(&mut pair, planted("log:late", &code, &[])).await;
    wait::until("the outage in the log", async || {
        pair.referral.as_ref().expect("it runs").log().contains("not publishing").then_some(())
    })
    .await;
    pair.start_notify().await;
    // Five ancestors, one of whom has PRO and so goes up a level.
    let told = settled(&pair, &late, 6).await;

    let referral = pair.referral.as_ref().expect("it runs").log();
    logs.push(pair.notify.as_ref().expect("it runs").log());
    let notify = logs.concat();
    let signing_key = BASE64_STANDARD.encode(SIGNING_KEY);
    let secrets = [CHAT, EMAIL, WEBHOOK_SECRET, SLACK_SECRET, BOT_TOKEN, SMTP_PASSWORD, DATABASE_PASSWORD, REASON, BAD];
    for planted in secrets.iter().chain(&NAMES).chain(&["planted-ref", &signing_key, "planted*"]) {
        for line in referral.lines().chain(notify.lines()) {
            assert!(!line.to_lowercase().contains(&planted.to_lowercase()), "{planted} in {line}");
        }
    }

    let (referral, notify) = (parsed(&referral), parsed(&notify));
    for trace_id in [&sale, &refused, &rejected, &bad, &late] {
        let calls = of_trace(&referral, trace_id).into_iter().filter(|line| line["target"] == "access").count();
        assert_eq!(calls, 1, "{trace_id}");
    }
    assert!(of_trace(&notify, &refused).is_empty() && of_trace(&notify, &bad).is_empty());
    for (trace_id, notifications) in [(&sale, &sold), (&late, &told)] {
        assert!(!of_trace(&notify, trace_id).is_empty(), "{trace_id} left nothing behind");
        let ids: HashSet<_> = notifications.iter().map(|one| one.notification_id.as_str()).collect();
        for line in &notify {
            if line["notification_id"].as_str().is_some_and(|id| ids.contains(id)) {
                assert_eq!(line["trace_id"], trace_id.as_str(), "{line}");
            }
        }
    }
    // Each channel failed once, and the line stands under the trace of what it failed to tell.
    let failed: HashSet<_> = notify.iter().filter(|line| line["message"] == "attempt failed").collect();
    let channels: HashSet<_> = failed.iter().filter_map(|line| line["channel"].as_str()).collect();
    assert_eq!(channels, HashSet::from(["telegram", "email", "webhook", "slack"]));

    // What no call caused stands under one trace, the process's.
    let own = |lines: &[Value], message: &str| {
        let line = lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("no {message:?}"));
        line["trace_id"].clone()
    };
    let process = own(&referral, "telemetry started");
    assert_eq!(own(&referral, "operators are answered over HTTP"), process);
    assert_ne!(own(&notify, "telemetry started"), process);
    pair.finish().await;
}

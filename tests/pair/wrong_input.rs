//! Every method of both contracts with input that is wrong in every field and as a whole: refused with a reason, at once,
//! and never as a defect of the server's.

pub(crate) mod raw;

use p2phub_tests::{builders::ASSET, clients, pair::Pair};
use prost_types::{FieldDescriptorProto, field_descriptor_proto::Type};
use raw::{Channels, Contract, Rpc, Value, field, is_message, length_delimited};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

/// Texts that a client must never see, whatever it sent.
const INNER: [&str; 12] = [
    "SELECT",
    "INSERT",
    "UPDATE ",
    "DELETE",
    "diesel",
    "ostgres",
    "relation",
    "violates",
    "constraint",
    ".rs",
    "/src",
    "panick",
];

const LARGE: usize = 100 * 1024;

/// What a wrong value must lead to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect {
    /// Any refusal, or an answer.
    Sense,
    /// INVALID_ARGUMENT that names the field.
    Refusal,
}

/// Names of things that exist, for messages that are right but for one field.
struct World {
    partner_id: String,
    referral_code: String,
    payment_id: String,
    transaction_id: String,
}

impl World {
    async fn make(pair: &Pair) -> Self {
        let mut clients = pair.clients.clone();
        let partner = clients.register("somebody", "").await;
        let (payment, _) = clients.buy_pro(&partner.partner_id).await;
        Self {
            partner_id: partner.partner_id,
            referral_code: partner.referral_code,
            payment_id: payment.payment_id,
            transaction_id: payment.transaction_id,
        }
    }

    /// A value that is right.
    fn right(&self, contract: &Contract, descriptor: &FieldDescriptorProto) -> Value {
        if is_message(descriptor) {
            return Value::Message(self.message(contract, descriptor.type_name()));
        }
        if descriptor.r#type() != Type::String {
            let is_flag = descriptor.r#type() == Type::Bool;
            return Value::Number(i64::from(!is_flag));
        }
        Value::Text(match descriptor.name() {
            "request_id" | "notification_id" | "job_id" | "payout_id" | "adjustment_id" => Uuid::new_v4().to_string(),
            "partner_id" | "earner_id" | "subject_id" | "recipient_id" => self.partner_id.clone(),
            "payment_id" => self.payment_id.clone(),
            "transaction_id" => self.transaction_id.clone(),
            "commission_id" => format!("{}.1", self.payment_id),
            "referral_code" => self.referral_code.clone(),
            "external_id" | "external_ref" => format!("x:{}", Uuid::new_v4()),
            "ancestor_id" => self.partner_id.clone(),
            "broadcast_id" => Uuid::new_v4().to_string(),
            "button_url" => "https://example.org/".to_owned(),
            "asset" => ASSET.to_owned(),
            "method" => "trusted".to_owned(),
            "locale" => "en".to_owned(),
            "channel" => "email".to_owned(),
            "address" => "someone@example.org".to_owned(),
            "page_token" | "checkpoint" | "resume_token" | "trace_id" | "source_event_id" | "override_reason" => {
                String::new()
            }
            _ => "some".to_owned(),
        })
    }

    /// A message that is right, with the first of each oneof.
    fn message(&self, contract: &Contract, name: &str) -> Vec<u8> {
        let fields = contract.fields(name).iter();
        let real_oneof = |field: &FieldDescriptorProto| field.oneof_index.is_some() && !field.proto3_optional();
        let mut chosen = false;
        let fields = fields.filter(|field| !real_oneof(field) || !std::mem::replace(&mut chosen, true));
        fields.flat_map(|descriptor| field(descriptor, &self.right(contract, descriptor))).collect()
    }

    /// The same, each time with one field wrong.
    fn wrong(&self, contract: &Contract, name: &str) -> Vec<(String, Expect, Vec<u8>)> {
        let mut cases = Vec::new();
        for descriptor in contract.fields(name) {
            let mut add = |what: String, expect, value: &Value| {
                let bytes = [self.message(contract, name), field(descriptor, value)].concat();
                cases.push((what, expect, bytes));
            };
            if is_message(descriptor) {
                for (what, expect, message) in self.wrong(contract, descriptor.type_name()) {
                    add(format!("{}.{what}", descriptor.name()), expect, &Value::Message(message));
                }
                continue;
            }
            for (expect, value) in wrong_values(name, descriptor) {
                let shown: String = format!("{value:?}").chars().take(50).collect();
                add(format!("{} {shown}", descriptor.name()), expect, &value);
            }
        }
        cases
    }
}

fn wrong_values(message: &str, descriptor: &FieldDescriptorProto) -> Vec<(Expect, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let name = descriptor.name();
    match descriptor.r#type() {
        Type::String => {
            // Free in notify-svc: it is whatever the producer says, or a channel's name.
            let is_free = name == "recipient_id" || name == "subject_id" && message.contains(".notify.");
            let is_id = name.ends_with("_id") && name != "external_id" && !is_free;
            let opaque = is_id || ["page_token", "checkpoint", "resume_token"].contains(&name);
            let garbage = if opaque { Expect::Refusal } else { Expect::Sense };
            vec![
                (Expect::Refusal, Value::Text("x".repeat(LARGE))),
                (garbage, text("' OR 1=1; --")),
                (garbage, text("не-uuid \u{202e}🦀")),
                (garbage, text("a\0b")),
                (garbage, text("AAAA")),
                (Expect::Sense, Value::Text(Uuid::new_v4().to_string())),
                (Expect::Sense, text("")),
            ]
        }
        Type::Enum => [-1, 99, i64::from(i32::MAX)].map(|number| (Expect::Refusal, Value::Number(number))).into(),
        Type::Bool => vec![(Expect::Sense, Value::Number(1))],
        _ => {
            let numbers = [-1, i64::from(i32::MIN), i64::from(i32::MAX), i64::MAX, i64::MIN];
            // A longer number is cut to the field's width, as protobuf demands: no fault there.
            let expect = |number| match i32::try_from(number) {
                Ok(_) if name == "page_size" || name == "level" => Expect::Refusal,
                _ => Expect::Sense,
            };
            numbers.map(|number| (expect(number), Value::Number(number))).into()
        }
    }
}

fn check(rpc: &Rpc, what: &str, expect: Expect, answer: Result<Response<()>, Status>) {
    let what = format!("{} with {what}", rpc.path);
    let status = match answer {
        Ok(answer) => {
            assert!(answer.metadata().contains_key("trace-id"), "{what}: no trace ID");
            assert!(expect == Expect::Sense, "{what}: was answered");
            return;
        }
        Err(status) => status,
    };
    let code = status.code();
    let allowed = [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition, Code::AlreadyExists];
    assert!(allowed.contains(&code), "{what}: {status:?}");
    assert!(!INNER.iter().any(|inner| status.message().contains(inner)), "{what}: {}", status.message());
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{what}: no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, rpc.domain, "{what}");
    let shape = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    assert!(!info.reason.is_empty() && info.reason.bytes().all(shape), "{what}: {}", info.reason);
    let trace_id = status.metadata().get("trace-id").and_then(|id| id.to_str().ok()).expect("a trace ID");
    assert_eq!(trace_id.len(), 32, "{what}");
    assert_eq!(details.request_info().map(|info| info.request_id.as_str()), Some(trace_id), "{what}");
    let fields: Vec<_> = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    assert_eq!(!fields.is_empty(), code == Code::InvalidArgument, "{what}: {status:?}");
    if expect == Expect::Refusal {
        let name = what.rsplit_once(" with ").and_then(|(_, what)| what.split(['.', ' ']).next()).expect("a name");
        assert_eq!(code, Code::InvalidArgument, "{what}: {status:?}");
        assert!(fields.iter().any(|field| field.field.contains(name)), "{what}: {fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_with_every_wrong_value_is_refused_by_name_or_makes_sense() {
    let pair = Pair::start().await;
    let (world, contract, channels) = (World::make(&pair).await, Contract::read(), Channels::of(&pair));
    assert!(contract.rpcs.len() >= 28, "{} methods", contract.rpcs.len());
    let mut cases = 0;
    for rpc in &contract.rpcs {
        for (what, expect, bytes) in world.wrong(&contract, &rpc.input) {
            let answer = raw::call(channels.to(rpc.domain), &rpc.path, Request::new(bytes)).await;
            check(rpc, &what, expect, answer);
            cases += 1;
        }
    }
    assert!(cases > 400, "{cases} cases");
    let check =
        pair.clients.clone().ledger.check_ledger(p2phub_proto::referral::v1::CheckLedgerRequest::default()).await;
    assert!(check.expect("an answer").into_inner().ok, "the books after {cases} wrong calls");
    for address in [pair.referral_address, pair.notify_address] {
        assert!(clients::is_serving(address, "").await);
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_refuses_a_message_that_is_empty_malformed_or_too_large() {
    let pair = Pair::start().await;
    let (contract, channels) = (Contract::read(), Channels::of(&pair));
    let mut too_large = Vec::new();
    length_delimited(1, &vec![b'x'; 1024 * 1024 + 1], &mut too_large);
    let mut not_utf8 = Vec::new();
    length_delimited(1, &[0xc3, 0x28], &mut not_utf8);
    for rpc in &contract.rpcs {
        let channel = channels.to(rpc.domain);
        check(rpc, "nothing", Expect::Sense, raw::call(channel, &rpc.path, Request::new(Vec::new())).await);
        let malformed = [("noise", vec![0xff; 8]), ("a cut field", vec![0x0a, 0x7f, b'x']), ("a lone tag", vec![0x0a])];
        for (what, bytes) in malformed.into_iter().chain([("too much", too_large.clone())]) {
            let answer = raw::call(channel, &rpc.path, Request::new(bytes)).await;
            let status = answer.as_ref().expect_err("a refusal");
            assert_eq!(status.code(), Code::InvalidArgument, "{} with {what}: {status:?}", rpc.path);
            check(rpc, what, Expect::Sense, answer);
        }
        // Unless there is no such field, which is then passed over.
        check(rpc, "no UTF-8", Expect::Sense, raw::call(channel, &rpc.path, Request::new(not_utf8.clone())).await);
    }
    pair.finish().await;
}

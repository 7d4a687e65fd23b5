//! Payments in TON, verified against an endpoint that speaks like TonAPI: over real HTTP, with every answer it may give.

mod findings;
mod outages;

use std::{sync::Mutex, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use p2phub_proto::referral::v1::{
    ConfirmPaymentRequest, CreatePaymentRequest, GetPaymentRequest, GetPaymentResponse, Payment, PaymentState, Product,
    SubmitPaymentRequest, TonTerms, Verification,
};
use p2phub_tests::{
    builders::{confirmation, request_id},
    pair::{Options, Pair},
    sink::{Reply, Sink},
    wait,
};
use referral_svc::{Clock, Config};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::{concurrency::reason, reconcile::reconcile_csv};

/// Raw: what TonAPI names accounts by.
const ADDRESS: &str = "0:ca6e321c7cce9ecedf0a8ca2492ec8592494aa5fb5ce0387dff96ef6af982a3e";

/// A pair whose referral-svc takes payments in TON, and the endpoint that it asks.
struct Stage {
    pair: Pair,
    api: Sink,
    clock: Clock,
    hashes: Mutex<u8>,
}

fn unknown() -> Reply {
    Reply::json(404, &json!({"error": "entity not found"}))
}

fn rate() -> Reply {
    // 39 USDT are 7.8 TON.
    Reply::json(200, &json!({"rates": {"TON": {"prices": {"USD": 5.0}}}}))
}

fn open_ton(config: &mut Config, api_url: &str) {
    config.payment_methods = "trusted,manual,ton".to_owned();
    config.ton_address = Some(ADDRESS.to_owned());
    config.ton_api_url = api_url.to_owned();
    config.ton_api_key = Some("planted-ton-key".to_owned());
}

impl Stage {
    async fn set() -> Self {
        let api = Sink::start().await;
        // Whatever isn't told of is unknown; the rate is asked for now and then.
        api.otherwise(unknown());
        api.then_with("/v2/rates", std::iter::repeat_with(rate).take(100));
        let (clock, url) = (Clock::default(), api.url(""));
        let shared = clock.clone();
        let options = Options::default().referral(move |config| {
            open_ton(config, &url);
            config.clock = shared.clone();
        });
        Self { pair: options.start().await, api, clock, hashes: Mutex::new(0) }
    }

    /// A transaction hash that was not used before: in base64, as wallets show it, and in hex, as it is kept.
    fn hash(&self) -> (String, String) {
        let mut hashes = self.hashes.lock().expect("a counter");
        *hashes += 1;
        let bytes = [*hashes; 32];
        (BASE64_STANDARD.encode(bytes), bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    async fn create(&self, partner_id: &str) -> Result<Payment, Status> {
        let request = CreatePaymentRequest {
            request_id: request_id(),
            partner_id: partner_id.to_owned(),
            product: Product::ProMonthly.into(),
            method: "ton".to_owned(),
        };
        let answer = self.pair.clients.clone().payments.create_payment(request).await?;
        Ok(answer.into_inner().payment.expect("a payment"))
    }

    /// An open payment, once the rate is known.
    async fn open(&self, partner_id: &str) -> Payment {
        wait::until("a payment in TON", async || match self.create(partner_id).await {
            Ok(payment) => Some(payment),
            Err(status) => {
                assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "RATE_UNAVAILABLE"));
                None
            }
        })
        .await
    }

    async fn submit(&self, payment_id: &str, hash: &str) -> Payment {
        let request = SubmitPaymentRequest {
            request_id: request_id(),
            payment_id: payment_id.to_owned(),
            external_ref: hash.to_owned(),
        };
        let answer = self.pair.clients.clone().payments.submit_payment(request).await.expect("submitted");
        answer.into_inner().payment.expect("a payment")
    }

    async fn confirm(&self, payment_id: &str, override_reason: &str) -> Result<Payment, Status> {
        let request = ConfirmPaymentRequest {
            request_id: request_id(),
            payment_id: payment_id.to_owned(),
            override_reason: override_reason.to_owned(),
            ..Default::default()
        };
        let answer = self.pair.clients.clone().payments.confirm_payment(request).await?;
        Ok(answer.into_inner().payment.expect("a payment"))
    }

    /// Why no payment by another method can have this reference, whoever says so.
    async fn used(&self, reference: &str) -> String {
        let mut clients = self.pair.clients.clone();
        let buyer = clients.register(&request_id(), "").await;
        let mut reasons = Vec::new();
        for method in ["trusted", "manual"] {
            let other = clients.open_payment_by(&buyer.partner_id, method).await;
            let override_reason = "seen in the wallet".to_owned();
            let request = ConfirmPaymentRequest { override_reason, ..confirmation(&other.payment_id, reference) };
            reasons.push(reason(&clients.payments.confirm_payment(request).await.expect_err("a refusal")));
        }
        assert_eq!(reasons[0], reasons[1]);
        reasons.remove(0)
    }

    async fn get(&self, payment_id: &str) -> GetPaymentResponse {
        let request = GetPaymentRequest { payment_id: payment_id.to_owned() };
        self.pair.clients.clone().payments.get_payment(request).await.expect("an answer").into_inner()
    }

    async fn payment(&self, payment_id: &str) -> Payment {
        self.get(payment_id).await.payment.expect("a payment")
    }

    /// Waits until an attempt came to that.
    async fn found(&self, payment_id: &str, finding: &str) -> Payment {
        wait::until(&format!("the finding {finding}"), async || {
            let payment = self.payment(payment_id).await;
            (verification(&payment).finding == finding).then_some(payment)
        })
        .await
    }

    /// How often a transaction was asked about.
    fn asked(&self, hex: &str) -> usize {
        self.api.received().iter().filter(|request| request.path.ends_with(hex)).count()
    }
}

fn terms(payment: &Payment) -> TonTerms {
    payment.ton.clone().expect("terms")
}

fn verification(payment: &Payment) -> Verification {
    payment.verification.clone().unwrap_or_default()
}

/// The sender's transaction of the same transfer.
fn senders(payment: &Payment, hash: &str) -> Value {
    let mut sent = transaction(payment, hash);
    let mut message = sent["in_msg"].take();
    message["hash"] = json!("the-message");
    sent["out_msgs"] = json!([{"value": 1, "destination": {"address": "0:00"}}, message]);
    sent
}

/// A transaction of our account as TonAPI tells it, if it pays as agreed.
fn transaction(payment: &Payment, hash: &str) -> Value {
    let terms = terms(payment);
    json!({
        "hash": hash,
        "success": true,
        "utime": payment.create_time.expect("a time").seconds + 60,
        "in_msg": {
            "value": terms.nanotons,
            "bounced": false,
            "destination": {"address": terms.address},
            "decoded_op_name": "text_comment",
            "decoded_body": {"text": terms.memo},
        },
        "out_msgs": [],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_in_ton_is_confirmed_by_its_transaction() {
    let stage = Stage::set().await;
    let chain = stage.pair.clients.clone().chain("ton", 3).await;
    let opened = stage.open(&chain[2].partner_id).await;
    let terms = terms(&opened);
    assert_eq!((terms.address.as_str(), terms.nanotons, terms.tolerance_bps), (ADDRESS, 7_800_000_000, 100));
    assert_eq!((terms.rate_minor_units, terms.rate_source.as_str()), (5_000_000, "127.0.0.1"));
    assert_eq!(terms.memo, format!("P2PHUB-{}", opened.payment_id.replace('-', "")));
    assert!(terms.rate_time.is_some() && opened.verification.is_none());

    let refused = stage.confirm(&opened.payment_id, "").await.expect_err("a refusal");
    assert_eq!(refused.code(), Code::InvalidArgument, "nothing was handed in yet: {refused:?}");

    let (base64, hex) = stage.hash();
    stage.api.then_with(&hex, [Reply::json(200, &transaction(&opened, &hex))]);
    let submitted = stage.submit(&opened.payment_id, &base64).await;
    assert_eq!((submitted.state(), submitted.external_ref.as_str()), (PaymentState::InReview, hex.as_str()));
    assert!(verification(&submitted).next_attempt_time.is_some(), "{submitted:?}");

    let paid = stage.found(&opened.payment_id, "PAID").await;
    assert_eq!((paid.state(), paid.external_ref.as_str()), (PaymentState::Succeeded, hex.as_str()));
    assert_eq!((verification(&paid).attempts, verification(&paid).next_attempt_time), (1, None));
    assert_eq!(verification(&paid).incoming_ref, hex);
    assert_eq!(stage.get(&opened.payment_id).await.commissions.len(), 2);
    assert!(stage.pair.clients.clone().partner(&chain[2].partner_id).await.pro_active);
    let asked = stage.api.received();
    let asked = asked.iter().find(|request| request.path.ends_with(&hex)).expect("asked");
    assert_eq!(asked.path, format!("/v2/blockchain/transactions/{hex}"));
    assert_eq!(asked.headers["authorization"], "Bearer planted-ton-key");

    // The chain's own statement is in TON; what was sent may be as far off as for the payment itself.
    for (sent, ok) in [("7.8", true), ("7.723", true), ("7.721", false)] {
        let csv = format!("external_ref,amount,asset\n{base64},{sent},TON\n");
        let (findings, summary) = reconcile_csv(&mut stage.pair.clients.clone(), csv.as_bytes()).await;
        assert_eq!((summary.ok, findings.is_empty()), (ok, ok), "{sent}: {findings:?}");
        assert_eq!(summary.stated[0].asset, "TON");
    }
    crate::concurrency::assert_books_balance(&mut stage.pair.clients.clone()).await;
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_senders_transaction_proves_it_too_and_all_of_it_is_one_trace() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let stage = Stage::set().await;
    let buyer = stage.pair.clients.clone().register("sender", "").await;
    let opened = stage.open(&buyer.partner_id).await;
    let (base64, hex) = stage.hash();
    // What the wallet shows is the sender's transaction; its message tells which one received the money.
    let (_, incoming) = stage.hash();
    let (sent, received) = (senders(&opened, &hex), transaction(&opened, &incoming));
    stage.api.then_with(&hex, [Reply::json(200, &sent), Reply::json(200, &sent)]);
    stage.api.then_with("/messages/the-message/transaction", [unknown(), Reply::json(200, &received)]);
    let mut request = tonic::Request::new(SubmitPaymentRequest {
        request_id: request_id(),
        payment_id: opened.payment_id.clone(),
        external_ref: base64,
    });
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    request.metadata_mut().insert("traceparent", traceparent.parse().expect("ASCII"));
    stage.pair.clients.clone().payments.submit_payment(request).await.expect("submitted");
    assert_eq!(stage.found(&opened.payment_id, "NOT_FOUND").await.state(), PaymentState::InReview, "it is on its way");
    assert_eq!(stage.found(&opened.payment_id, "PAID").await.state(), PaymentState::Succeeded);
    let request = p2phub_proto::referral::v1::ListAuditEventsRequest {
        subject_id: opened.payment_id.clone(),
        trace_id: TRACE.to_owned(),
        ..Default::default()
    };
    let events = stage.pair.clients.clone().audit.list_audit_events(request).await.expect("an answer").into_inner();
    let actions: Vec<_> =
        events.audit_events.iter().map(|event| (event.action.as_str(), event.detail.as_str())).collect();
    let (paid, unknown) = (format!("PAID: {hex}, received by {incoming}"), format!("NOT_FOUND: {hex}"));
    assert_eq!(
        actions,
        [("SettleVerification", paid.as_str()), ("SettleVerification", &unknown), ("SubmitPayment", hex.as_str())]
    );
    stage.pair.finish().await;
}

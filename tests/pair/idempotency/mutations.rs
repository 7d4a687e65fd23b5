//! Every mutation of the contract, as bytes: what answers are compared by.

use std::net::SocketAddr;

use http::uri::PathAndQuery;
use p2phub_proto::referral::v1::{
    ApproveAdjustmentRequest, ApprovePayoutRequest, AttachReferrerRequest, BroadcastFilter, CancelBroadcastRequest,
    CancelPayoutRequest, CompletePayoutRequest, ConfirmPaymentRequest, CreateBroadcastRequest, CreatePaymentRequest,
    FailPayoutRequest, Product, ProposeAdjustmentRequest, RefundPaymentRequest, RejectAdjustmentRequest,
    RejectPaymentRequest, RequestPayoutRequest, SubmitPaymentRequest, UpdatePartnerRequest,
};
use p2phub_tests::{
    builders::{adjustment_proposal, payout_completion, payout_request, refund, registration, request_id},
    clients::{Clients, channel},
    raw::Bytes,
};
use prost::Message;
use tonic::{Request, Response, Status, client::Grpc};

/// One mutation, by its path or what that has behind the package: content that succeeds, and content that differs. Neither has a request ID.
pub(crate) struct Mutation {
    pub(crate) path: &'static str,
    pub(crate) content: Vec<u8>,
    pub(crate) other: Vec<u8>,
}

impl Mutation {
    pub(crate) fn new<M: Message>(path: &'static str, content: &M, other: &M) -> Self {
        Self { path, content: content.encode_to_vec(), other: other.encode_to_vec() }
    }
}

/// Every mutation that works so far, each on partners and payments of its own.
pub(super) async fn mutations(clients: &mut Clients) -> Vec<Mutation> {
    let chain = clients.chain("mutated", 2).await;
    let root = clients.register("mutated-root", "").await.partner_id;
    let (code, buyer) = (&chain[0].referral_code, &chain[1].partner_id);
    let mut payments = Vec::new();
    for _ in 0..3 {
        payments.push(clients.open_payment(buyer).await.payment_id);
    }
    let registered = |external_id: &str| {
        let mut request = registration(external_id, code);
        request.request_id.clear();
        request
    };
    let attached = |partner_id: &str| AttachReferrerRequest {
        partner_id: partner_id.to_owned(),
        referral_code: code.clone(),
        ..Default::default()
    };
    let updated = |name: &str| UpdatePartnerRequest {
        partner_id: root.clone(),
        first_name: Some(name.to_owned()),
        ..Default::default()
    };
    let opened = |method: &str| CreatePaymentRequest {
        partner_id: buyer.clone(),
        product: Product::ProMonthly.into(),
        method: method.to_owned(),
        ..Default::default()
    };
    let submitted = |external_ref: &str| SubmitPaymentRequest {
        payment_id: payments[0].clone(),
        external_ref: external_ref.to_owned(),
        ..Default::default()
    };
    let confirmed = |external_ref: &str| ConfirmPaymentRequest {
        payment_id: payments[1].clone(),
        external_ref: external_ref.to_owned(),
        ..Default::default()
    };
    let rejected = |reason: &str| RejectPaymentRequest {
        payment_id: payments[2].clone(),
        reason: reason.to_owned(),
        ..Default::default()
    };
    let broadcast = |text: &str| CreateBroadcastRequest {
        filter: Some(BroadcastFilter { all: true, ..Default::default() }),
        text: text.to_owned(),
        // One after the other: it is still running when it is to be cancelled.
        recipients_per_second: 1,
        ..Default::default()
    };
    let crowd = (0..60).map(|number| {
        let mut clients = clients.clone();
        async move { clients.register(&format!("mutated-crowd-{number}"), "").await }
    });
    futures_util::future::join_all(crowd).await;
    let begun = CreateBroadcastRequest { request_id: request_id(), ..broadcast("Hello") };
    let begun = clients.broadcasts.create_broadcast(begun).await.expect("a broadcast").into_inner().broadcast;
    let broadcast_id = begun.expect("a broadcast").broadcast_id;
    let cancelled = |reason: &str| CancelBroadcastRequest {
        broadcast_id: broadcast_id.clone(),
        reason: reason.to_owned(),
        ..Default::default()
    };
    let mut mutations = vec![
        Mutation::new("PartnerService/RegisterPartner", &registered("new"), &registered("newer")),
        Mutation::new("PartnerService/AttachReferrer", &attached(&root), &attached(buyer)),
        Mutation::new("PartnerService/UpdatePartner", &updated("Ann"), &updated("Bob")),
        Mutation::new("PaymentService/CreatePayment", &opened("trusted"), &opened("manual")),
        Mutation::new("PaymentService/SubmitPayment", &submitted("handed-in"), &submitted("other")),
        Mutation::new("PaymentService/ConfirmPayment", &confirmed("money"), &confirmed("other")),
        Mutation::new("PaymentService/RejectPayment", &rejected("no money came"), &rejected("other")),
        Mutation::new("BroadcastService/CreateBroadcast", &broadcast("Hello"), &broadcast("Bye")),
        Mutation::new("BroadcastService/CancelBroadcast", &cancelled("a wrong date"), &cancelled("other")),
    ];
    mutations.extend(money(clients, buyer).await);
    mutations
}

/// Refunds, payouts and adjustments, each on one of its own; calls come from `local`, who asked for none of them.
async fn money(clients: &mut Clients, buyer: &str) -> Vec<Mutation> {
    let (paid, earned) = clients.buy_pro(buyer).await;
    let partner = &earned[0].earner_id;
    clients.adjust(partner, 100_000_000).await;
    let mut payouts = Vec::new();
    for _ in 0..4 {
        payouts.push(clients.request_payout(partner, Some(10_000_000)).await.payout_id);
    }
    for payout_id in &payouts[1..3] {
        clients.approve_payout(payout_id).await;
    }
    let proposed = [
        clients.propose_adjustment(partner, 1).await.adjustment_id,
        clients.propose_adjustment(partner, 2).await.adjustment_id,
        clients.propose_adjustment(partner, 3).await.adjustment_id,
    ];
    let refunded = |units| RefundPaymentRequest { request_id: String::new(), ..refund(&paid.payment_id, Some(units)) };
    let requested = |units| RequestPayoutRequest { request_id: String::new(), ..payout_request(partner, Some(units)) };
    let approved = |payout_id: &str| ApprovePayoutRequest { payout_id: payout_id.to_owned(), ..Default::default() };
    let completed = |external_ref| CompletePayoutRequest {
        request_id: String::new(),
        ..payout_completion(&payouts[1], external_ref)
    };
    let failed = |reason: &str| FailPayoutRequest {
        payout_id: payouts[2].clone(),
        reason: reason.to_owned(),
        ..Default::default()
    };
    let cancelled = |reason: &str| CancelPayoutRequest {
        payout_id: payouts[3].clone(),
        reason: reason.to_owned(),
        ..Default::default()
    };
    let proposal =
        |units| ProposeAdjustmentRequest { request_id: String::new(), ..adjustment_proposal(partner, units) };
    let booked = |id: &str| ApproveAdjustmentRequest { adjustment_id: id.to_owned(), ..Default::default() };
    let declined = |reason: &str| RejectAdjustmentRequest {
        adjustment_id: proposed[1].clone(),
        reason: reason.to_owned(),
        ..Default::default()
    };
    vec![
        Mutation::new("PaymentService/RefundPayment", &refunded(5), &refunded(6)),
        Mutation::new("PayoutService/RequestPayout", &requested(10_000_000), &requested(10_000_001)),
        Mutation::new("PayoutService/ApprovePayout", &approved(&payouts[0]), &approved(&payouts[1])),
        Mutation::new("PayoutService/CompletePayout", &completed("transfer"), &completed("other")),
        Mutation::new("PayoutService/FailPayout", &failed("the address is closed"), &failed("other")),
        Mutation::new("PayoutService/CancelPayout", &cancelled("a wrong address"), &cancelled("other")),
        Mutation::new("LedgerService/ProposeAdjustment", &proposal(5), &proposal(-5)),
        Mutation::new("LedgerService/ApproveAdjustment", &booked(&proposed[0]), &booked(&proposed[2])),
        Mutation::new("LedgerService/RejectAdjustment", &declined("counted twice"), &declined("other")),
    ]
}

/// Sends `content` under a request ID, which is field 1 of every mutation; gives the answer's bytes.
pub(crate) async fn call(
    address: SocketAddr,
    mutation: &Mutation,
    request_id: &str,
    content: &[u8],
) -> Result<Response<Vec<u8>>, Status> {
    let length = u8::try_from(request_id.len()).expect("a short ID");
    let body = if length == 0 { content.to_vec() } else { [&[0x0a, length], request_id.as_bytes(), content].concat() };
    let mut grpc = Grpc::new(channel(address));
    grpc.ready().await.expect("a connection");
    let path = match mutation.path {
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/p2phub.referral.v1.{path}"),
    };
    let path = PathAndQuery::try_from(path).expect("a path");
    grpc.unary(Request::new(body), path, Bytes).await
}

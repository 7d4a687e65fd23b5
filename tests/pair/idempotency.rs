//! A request ID stands for one answer: asked again, from anywhere and at any time, that answer comes again.

pub(crate) mod mutations;

use p2phub_proto::referral::v1::{
    AttachReferrerRequest, ConfirmPaymentRequest, CreatePaymentRequest, ListAuditEventsRequest, Product,
    RegisterPartnerRequest, RegisterPartnerResponse, SubmitPaymentRequest,
};
use p2phub_tests::{
    builders::{confirmation, registration, request_id},
    pair::{Options, Pair},
    ports,
    postgres::Role,
    refusal::{is_marked, refused},
};
use prost::Message;
use tonic::{Code, Request};

use mutations::{Mutation, call, mutations};

/// Where `rows` has the records.
const AUDIT_EVENTS: usize = 5;

/// How many rows there are of what mutations make: equal means nothing was done.
async fn rows(pair: &Pair) -> Vec<i64> {
    let client = pair.referral_sql(Role::Service).await;
    let mut counts = Vec::new();
    for table in [
        "partners",
        "payments",
        "ledger_entries",
        "commissions",
        "xp_awards",
        // A job may do its own meanwhile.
        "audit_events WHERE request_id IS NOT NULL",
        "requests",
        "refunds",
        "payouts",
        "adjustments",
    ] {
        let row = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.expect("a count");
        counts.push(row.get(0));
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mutation_asked_again_gives_its_first_answer_and_does_nothing() {
    let pair = Options::default().start_alone().await;
    let mutations = mutations(&mut pair.clients.clone()).await;
    for mutation in &mutations {
        let id = request_id();
        let first = call(pair.referral_address, mutation, &id, &mutation.content).await;
        let first = first.unwrap_or_else(|status| panic!("{}: {status}", mutation.path));
        assert!(!is_marked(&first, "idempotent-replay"), "{}", mutation.path);
        let mut before = rows(&pair).await;

        // Another spelling of a UUID is the same UUID.
        for same_id in [id.clone(), id.to_uppercase(), id.replace('-', "")] {
            let again = call(pair.referral_address, mutation, &same_id, &mutation.content).await;
            let again = again.unwrap_or_else(|status| panic!("{} by {same_id}: {status}", mutation.path));
            assert_eq!(again.get_ref(), first.get_ref(), "{}", mutation.path);
            assert!(is_marked(&again, "idempotent-replay"), "{}", mutation.path);
            let trace = |answer: &tonic::Response<Vec<u8>>| answer.metadata().get("trace-id").cloned();
            assert!(trace(&again).is_some() && trace(&again) != trace(&first), "{}: the trace is old", mutation.path);
        }
        let other_content = call(pair.referral_address, mutation, &id, &mutation.other).await;
        refused(other_content, Code::AlreadyExists, "REQUEST_ID_REUSED");
        let other_method = if mutation.path.ends_with("RegisterPartner") { &mutations[2] } else { &mutations[0] };
        let answer = call(pair.referral_address, other_method, &id, &other_method.content).await;
        refused(answer, Code::AlreadyExists, "REQUEST_ID_REUSED");
        // The two refusals are on record, and all that there is of them.
        before[AUDIT_EVENTS] += 2;
        assert_eq!(rows(&pair).await, before, "{}", mutation.path);
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mutation_needs_a_uuid_as_request_id() {
    let pair = Options::default().start_alone().await;
    let mutations = mutations(&mut pair.clients.clone()).await;
    let before = rows(&pair).await;
    for mutation in &mutations {
        for id in ["", "1", "not-a-uuid", "00000000-0000-0000-0000-00000000000g"] {
            let answer = call(pair.referral_address, mutation, id, &mutation.content).await;
            let status = refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
            assert_eq!(p2phub_tests::refusal::fields(&status), ["request_id"], "{} by {id:?}", mutation.path);
        }
    }
    assert_eq!(rows(&pair).await, before);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_remembered_even_when_its_cause_is_gone() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let root = clients.register("root", "").await;
    let open = CreatePaymentRequest {
        request_id: request_id(),
        partner_id: root.partner_id.clone(),
        product: Product::ProMonthly.into(),
        method: "manual".to_owned(),
    };
    let manual = clients.payments.create_payment(open).await.expect("a payment").into_inner().payment;
    let manual = manual.expect("a payment").payment_id;
    let (paid, _) = clients.buy_pro(&chain[1].partner_id).await;
    let other = clients.open_payment(&chain[1].partner_id).await;

    let unsubmitted = confirmation(&manual, "money");
    let nobodys = AttachReferrerRequest {
        request_id: request_id(),
        partner_id: root.partner_id.clone(),
        referral_code: "P2P-LATER001".to_owned(),
    };
    let used = confirmation(&other.payment_id, &paid.external_ref);
    let (precondition, missing, exists) = (Code::FailedPrecondition, Code::NotFound, Code::AlreadyExists);
    let mut first = Vec::new();
    first.push(refused(
        clients.payments.confirm_payment(unsubmitted.clone()).await,
        precondition,
        "PAYMENT_NOT_SUBMITTED",
    ));
    first.push(refused(clients.partners.attach_referrer(nobodys.clone()).await, missing, "REFERRAL_CODE_NOT_FOUND"));
    first.push(refused(clients.payments.confirm_payment(used.clone()).await, exists, "EXTERNAL_REF_USED"));

    // The causes go away: the payment is handed in, the code comes to belong to somebody.
    let submission =
        SubmitPaymentRequest { request_id: request_id(), payment_id: manual, external_ref: "money".to_owned() };
    clients.payments.submit_payment(submission).await.expect("a submission");
    let owner = pair.referral_sql(Role::Owner).await;
    let sql = "UPDATE partners SET referral_code = 'P2P-LATER001' WHERE external_id = 'chain-0'";
    owner.batch_execute(sql).await.expect("a code");

    let again = [
        refused(clients.payments.confirm_payment(unsubmitted.clone()).await, precondition, "PAYMENT_NOT_SUBMITTED"),
        refused(clients.partners.attach_referrer(nobodys.clone()).await, missing, "REFERRAL_CODE_NOT_FOUND"),
        refused(clients.payments.confirm_payment(used).await, exists, "EXTERNAL_REF_USED"),
    ];
    for (first, again) in first.iter().zip(&again) {
        assert_eq!(again.message(), first.message());
        assert!(first.metadata().get("idempotent-replay").is_none());
        assert_eq!(again.metadata().get("idempotent-replay").expect("a replay"), "true");
        assert_ne!(again.metadata().get("trace-id"), first.metadata().get("trace-id"));
    }
    // Under a new ID both are done.
    let fresh = ConfirmPaymentRequest { request_id: request_id(), ..unsubmitted };
    clients.payments.confirm_payment(fresh).await.expect("a confirmation");
    let fresh = AttachReferrerRequest { request_id: request_id(), ..nobodys };
    clients.partners.attach_referrer(fresh).await.expect("an attachment");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_not_remembered() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let good = registration("somebody", "");
    let bad = RegisterPartnerRequest { external_id: "some body".to_owned(), ..good.clone() };
    for _ in 0..2 {
        let answer = clients.partners.register_partner(bad.clone()).await;
        refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
    }
    let answer = clients.partners.register_partner(good).await.expect("a registration");
    assert!(answer.get_ref().created && !is_marked(&answer, "idempotent-replay"));

    // Bad for the state that it met, yet bad input all the same: no reference, and none handed in.
    let partner = answer.into_inner().partner.expect("a partner");
    let payment = clients.open_payment(&partner.partner_id).await;
    let good = confirmation(&payment.payment_id, "money");
    let bad = ConfirmPaymentRequest { external_ref: String::new(), ..good.clone() };
    refused(clients.payments.confirm_payment(bad).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    let answer = clients.payments.confirm_payment(good).await.expect("a confirmation");
    assert!(!is_marked(&answer, "idempotent-replay"));
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_callers_id_is_another_request() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let ours = registration("ours", "");
    let theirs = RegisterPartnerRequest { external_id: "theirs".to_owned(), ..ours.clone() };
    let mut seen = Vec::new();
    for (caller, request) in [("gateway", &ours), ("batch", &theirs), ("gateway", &ours), ("batch", &theirs)] {
        let mut request = Request::new(request.clone());
        request.metadata_mut().insert("p2phub-caller", caller.parse().expect("a name"));
        let answer = clients.partners.register_partner(request).await.expect("a registration");
        seen.push((
            answer.get_ref().partner.clone().expect("a partner").external_id,
            is_marked(&answer, "idempotent-replay"),
        ));
    }
    let expected = [("ours", false), ("theirs", false), ("ours", true), ("theirs", true)];
    assert_eq!(seen, expected.map(|(external_id, replay)| (external_id.to_owned(), replay)));
    for actor in ["gateway", "batch"] {
        let request = ListAuditEventsRequest { actor: actor.to_owned(), ..Default::default() };
        let events = clients.audit.list_audit_events(request).await.expect("an answer").into_inner().audit_events;
        let ids: Vec<_> = events.iter().map(|event| event.request_id.as_str()).collect();
        assert_eq!(ids, [&ours.request_id], "{actor}: one record for each thing done");
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_and_a_restarted_one_give_the_first_answer() {
    let mut pair = Options::default().start_alone().await;
    let other = pair.another_referral(ports::free()).await;
    let mutations = mutations(&mut pair.clients.clone()).await;
    let mut first = Vec::new();
    for mutation in &mutations {
        let id = request_id();
        let answer = call(pair.referral_address, mutation, &id, &mutation.content).await.expect("an answer");
        first.push((id, answer.into_inner()));
    }
    let before = rows(&pair).await;
    pair.stop_referral().await;
    pair.start_referral().await;
    for address in [other.address, pair.referral_address] {
        for (mutation, (id, expected)) in mutations.iter().zip(&first) {
            let again = call(address, mutation, id, &mutation.content).await.expect("an answer");
            assert!(is_marked(&again, "idempotent-replay"), "{}", mutation.path);
            assert_eq!(again.get_ref(), expected, "{}", mutation.path);
        }
    }
    assert_eq!(rows(&pair).await, before);
    other.stop().await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_at_two_instances_at_once_is_done_once() {
    let pair = Options::default().start_alone().await;
    let other = pair.another_referral(ports::free()).await;
    let before = rows(&pair).await;
    let request = registration("somebody", "");
    let content = RegisterPartnerRequest { request_id: String::new(), ..request.clone() };
    let mutation = Mutation::new("PartnerService/RegisterPartner", &content, &content);
    let calls = (0..16).map(|number| {
        let address = if number % 2 == 0 { pair.referral_address } else { other.address };
        call(address, &mutation, &request.request_id, &mutation.content)
    });
    let answers = futures_util::future::join_all(calls).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("an answer")).collect();
    assert_eq!(answers.iter().filter(|answer| !is_marked(answer, "idempotent-replay")).count(), 1);
    assert!(answers.iter().all(|answer| answer.get_ref() == answers[0].get_ref()));
    let answer = RegisterPartnerResponse::decode(answers[0].get_ref().as_slice()).expect("a message");
    assert!(answer.created);
    let after = rows(&pair).await;
    assert_eq!(
        after.iter().zip(&before).map(|(after, before)| after - before).collect::<Vec<_>>(),
        [1, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    );
    other.stop().await;
    pair.finish().await;
}

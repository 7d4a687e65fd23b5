//! Signed heads: whose signature is taken, and whose isn't.

use p2phub_proto::referral::v1::{
    AuditFaultKind::BadSignature, AuditHead, ExportAuditHeadRequest, VerifyAuditChainRequest,
};
use p2phub_tests::{pair::Options, refusal::refused};
use ring::signature::{ED25519, UnparsedPublicKey};
use tonic::Code;

use super::{KEY, export, found, verify};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_taken_only_as_it_was_signed() {
    let options = Options::default().referral(|config| config.audit_signing_key = Some(KEY.to_owned()));
    let pair = options.start_alone().await;
    pair.clients.clone().chain("anchored", 2).await;
    let head = export(&pair.clients).await;
    let key = UnparsedPublicKey::new(&ED25519, bytes(&head.public_key));
    key.verify(head.payload.as_bytes(), &bytes(&head.signature)).expect("anybody can check it");
    let payload: serde_json::Value = serde_json::from_str(&head.payload).expect("JSON");
    assert_eq!((payload["blocks"].as_i64(), payload["chains"][0]["position"].as_i64()), (Some(2), Some(2)));

    let other = Options::default().referral(|config| config.audit_signing_key = Some(KEY.replace('0', "f")));
    let other = other.start_alone().await;
    other.clients.clone().register("elsewhere", "").await;
    let anothers = export(&other.clients).await;
    let with = |change: fn(&mut AuditHead)| {
        let mut head = head.clone();
        change(&mut head);
        head
    };
    let anchors = [
        head.clone(),
        anothers.clone(),
        with(|head| head.payload = head.payload.replace("\"position\":2", "\"position\":1")),
        with(|head| head.payload.push(' ')),
        with(|head| head.signature = head.signature.replace(['0', '1', '2'], "3")),
        with(|head| head.signature.clear()),
        AuditHead { public_key: anothers.public_key.clone(), ..head.clone() },
        AuditHead { public_key: head.public_key.clone(), ..anothers },
        AuditHead::default(),
    ];
    let proof = verify(&pair.clients, &anchors, "").await;
    assert_eq!(found(&proof), vec![(BadSignature, String::new()); anchors.len() - 1]);
    let named: Vec<_> = proof.faults.iter().map(|fault| fault.detail.clone()).collect();
    assert_eq!(named[0], "anchors[1]", "the first is sound: {named:?}");
    let too_many = VerifyAuditChainRequest { anchors: vec![head; 101], ..Default::default() };
    let answer = pair.clients.clone().audit.verify_audit_chain(too_many).await;
    refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
    other.finish().await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_is_signed_or_recognised() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let answer = clients.audit.export_audit_head(ExportAuditHeadRequest {}).await;
    refused(answer, Code::FailedPrecondition, "SIGNING_KEY_MISSING");
    let request = VerifyAuditChainRequest { anchors: vec![AuditHead::default()], ..Default::default() };
    refused(clients.audit.verify_audit_chain(request).await, Code::FailedPrecondition, "SIGNING_KEY_MISSING");
    assert!(verify(&clients, &[], "").await.ok, "without anchors none is needed");
    pair.finish().await;
}

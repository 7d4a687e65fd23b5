//! The audit records: what is on them, what seals them, and how whatever was done to them is found and named.

mod anchors;
mod chains;
mod list;
mod records;
mod tampering;

use p2phub_proto::referral::v1::{
    AuditFaultKind, AuditHead, ExportAuditHeadRequest, VerifyAuditChainRequest, VerifyAuditChainResponse,
};
use p2phub_tests::clients::Clients;

/// 32 bytes in hex; a key for tests.
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

pub(crate) async fn verify(clients: &Clients, anchors: &[AuditHead], checkpoint: &str) -> VerifyAuditChainResponse {
    let request = VerifyAuditChainRequest { anchors: anchors.to_vec(), checkpoint: checkpoint.to_owned() };
    clients.clone().audit.verify_audit_chain(request).await.expect("an answer").into_inner()
}

async fn export(clients: &Clients) -> AuditHead {
    let answer = clients.clone().audit.export_audit_head(ExportAuditHeadRequest {}).await;
    answer.expect("an answer").into_inner().head.expect("heads")
}

/// What was found: kind, and the audit event or the block (chain and position) or neither.
fn found(proof: &VerifyAuditChainResponse) -> Vec<(AuditFaultKind, String)> {
    let name = |fault: &p2phub_proto::referral::v1::AuditFault| match (&fault.audit_event_id, &fault.chain_id) {
        (event, _) if !event.is_empty() => event.clone(),
        (_, chain) if chain.is_empty() => String::new(),
        (_, chain) => format!("{chain} {}", fault.position),
    };
    let faults = proof.faults.iter().map(|fault| (fault.kind(), name(fault))).collect::<Vec<_>>();
    assert_eq!(proof.ok, faults.is_empty());
    faults
}

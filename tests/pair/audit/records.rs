//! What is on record: each refusal that depended on how things stand, whether or not the request ID remembers it.

use p2phub_proto::referral::v1::{ListAuditEventsRequest, RegisterPartnerRequest};
use p2phub_tests::{
    builders::{confirmation, registration},
    pair::Options,
    refusal::refused,
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn refusals_that_no_request_id_remembers_are_on_record() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let first = registration("first", "");
    let answer = clients.partners.register_partner(first.clone()).await.expect("a registration").into_inner();
    let payment = clients.open_payment(&answer.partner.expect("a partner").partner_id).await;
    let reused = RegisterPartnerRequest { external_id: "second".to_owned(), ..first.clone() };
    refused(clients.partners.register_partner(reused).await, Code::AlreadyExists, "REQUEST_ID_REUSED");
    let without_reference = confirmation(&payment.payment_id, "");
    let answer = clients.payments.confirm_payment(without_reference.clone()).await;
    refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
    // Neither the same answer once more, nor what is bad by itself.
    clients.partners.register_partner(first.clone()).await.expect("the same answer");
    let malformed = confirmation("nonsense", "");
    refused(clients.payments.confirm_payment(malformed).await, Code::InvalidArgument, "INVALID_ARGUMENT");

    let events = clients.audit.list_audit_events(ListAuditEventsRequest::default()).await.expect("an answer");
    let events = events.into_inner().audit_events;
    let seen: Vec<_> =
        events.iter().map(|event| (event.action.as_str(), event.outcome.as_str(), event.request_id.as_str())).collect();
    let id = first.request_id.as_str();
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert_eq!(seen[0], ("ConfirmPayment", "INVALID_ARGUMENT", without_reference.request_id.as_str()));
    assert_eq!(seen[1], ("RegisterPartner", "REQUEST_ID_REUSED", id));
    assert_eq!(seen[3], ("RegisterPartner", "OK", id));
    assert_eq!(events[0].subject_id, payment.payment_id);
    assert_eq!(events[1].detail, "first used for RegisterPartner");
    let tables = pair.referral_sql(p2phub_tests::postgres::Role::Service).await;
    let kept = tables.query_one("SELECT count(*) FROM requests", &[]).await.expect("a row");
    assert_eq!(kept.get::<_, i64>(0), 2, "they can be asked again");
    pair.finish().await;
}

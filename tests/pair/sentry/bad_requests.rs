//! Ten thousand requests that are wrong, and the one failure that shows that the wire was open all along.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use p2phub_proto::{
    notify::v1::{GetNotificationRequest, PublishRequest},
    referral::v1::{
        CreatePaymentRequest, GetPartnerRequest, ListTopPartnersRequest, Product, get_partner_request::Key,
    },
};
use p2phub_tests::{
    builders::{confirmation, registration, request_id},
    clients::{Clients, channel},
    sentry::{Item, Sentry},
};
use tonic::{Code, Request, Response, Status, transport::Channel};
use uuid::Uuid;

use super::{break_reads, failing_read, options};
use crate::wrong_input::raw;

const REQUESTS: usize = 10_000;
const CALLERS: usize = 20;

/// One wrong request of each kind, and the codes that they must get.
async fn refused(clients: &mut Clients, channel: &Channel) -> usize {
    let unknown = || Uuid::new_v4().to_string();
    let partner = |key| GetPartnerRequest { key: Some(key) };
    let payment = |request_id: String| CreatePaymentRequest {
        request_id,
        partner_id: unknown(),
        product: Product::ProMonthly.into(),
        method: "trusted".to_owned(),
    };
    let mut invalid_caller = Request::new(partner(Key::PartnerId(unknown())));
    invalid_caller.metadata_mut().insert("p2phub-caller", "two words".parse().expect("metadata"));
    let page = ListTopPartnersRequest { page_token: "%%%".to_owned(), ..Default::default() };
    let reused = request_id();
    let no_frame = tokio_stream::iter([PublishRequest { frame: None }]);
    let streamed = match clients.ingest.publish(no_frame).await {
        Ok(answer) => answer.into_inner().message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    let codes = [
        (Code::InvalidArgument, code(clients.partners.get_partner(partner(Key::PartnerId("7".to_owned()))).await)),
        (Code::InvalidArgument, code(clients.partners.get_partner(invalid_caller).await)),
        (Code::InvalidArgument, code(clients.partners.register_partner(registration("two words", "")).await)),
        (Code::InvalidArgument, code(clients.leaderboard.list_top_partners(page).await)),
        (Code::NotFound, code(clients.partners.get_partner(partner(Key::ExternalId(unknown()))).await)),
        (Code::NotFound, code(clients.payments.create_payment(payment(reused.clone())).await)),
        (Code::AlreadyExists, code(clients.payments.create_payment(payment(reused)).await)),
        (Code::NotFound, code(clients.payments.confirm_payment(confirmation(&unknown(), "ref-1")).await)),
        (
            Code::NotFound,
            code(clients.notifications.get_notification(GetNotificationRequest { notification_id: unknown() }).await),
        ),
        (Code::FailedPrecondition, streamed.expect_err("a refusal").code()),
        (Code::Unimplemented, code(raw::call(channel, "/p2phub.referral.v1.Nothing/At", Request::new(vec![])).await)),
    ];
    for (number, (expected, code)) in codes.iter().enumerate() {
        assert_eq!(expected, code, "request {number}");
    }
    codes.len()
}

fn code<T>(answer: Result<Response<T>, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

/// Whether this is the stream between the pair's services, which nobody refused.
fn is_own_stream(item: &Item) -> bool {
    let is_stream = item.content["transaction"].as_str().is_some_and(|name| name.ends_with("/Publish"));
    item.kind == "transaction" && is_stream && item.content["contexts"]["trace"]["status"] != "failed_precondition"
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_bad_requests_send_nothing() {
    let sentry = Sentry::start().await;
    let mut pair = options(&sentry).start().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let callers = (0..CALLERS).map(|_| {
        let (mut clients, channel, sent) = (pair.clients.clone(), channel(pair.referral_address), sent.clone());
        tokio::spawn(async move {
            while sent.load(Ordering::Relaxed) < REQUESTS {
                sent.fetch_add(refused(&mut clients, &channel).await, Ordering::Relaxed);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("refusals");
    }
    break_reads(&pair).await;
    let trace_id = failing_read(&pair).await;
    sentry.event_of(&trace_id).await;
    pair.stop_referral().await;
    pair.stop_notify().await;
    let mut items = sentry.items();
    // A tenth of all failures are transactions too, and of the pair's own streams; the refused ones end FAILED_PRECONDITION.
    items.retain(|item| item.kind == "event" || item.trace_id() != trace_id && !is_own_stream(item));
    assert_eq!(items.len(), 1, "{items:#?}");
}

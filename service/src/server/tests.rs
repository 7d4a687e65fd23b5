//! The edge over real TCP: what a caller sees of trace IDs, limits and the library's own errors.

use std::time::Duration;

use p2phub_proto::referral::v1::audit_service_client::AuditServiceClient;
use p2phub_proto::referral::v1::leaderboard_service_client::LeaderboardServiceClient;
use p2phub_proto::referral::v1::leaderboard_service_server::{LeaderboardService, LeaderboardServiceServer};
use p2phub_proto::referral::v1::{
    GetPartnerRankRequest, GetPartnerRankResponse, ListAuditEventsRequest, ListTopPartnersRequest,
    ListTopPartnersResponse,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use super::GrpcServer;
use crate::call::CallContext;
use crate::database::{DatabaseConfig, pool};

const DOMAIN: &str = "test.p2phub";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

/// Panics, sleeps, or says in a status who called.
struct Stub;

#[tonic::async_trait]
impl LeaderboardService for Stub {
    async fn list_top_partners(
        &self,
        _: Request<ListTopPartnersRequest>,
    ) -> Result<Response<ListTopPartnersResponse>, Status> {
        panic!("on purpose")
    }

    async fn get_partner_rank(
        &self,
        request: Request<GetPartnerRankRequest>,
    ) -> Result<Response<GetPartnerRankResponse>, Status> {
        let context = CallContext::of(&request);
        if request.get_ref().partner_id == "slow" {
            std::future::pending::<()>().await;
        }
        let message = format!("{} {}", context.caller, context.traceparent);
        Err(Status::failed_precondition(message))
    }
}

async fn start() -> (Channel, CancellationToken) {
    let config = DatabaseConfig {
        url: "postgres://nobody@localhost/none?host=/nonexistent".to_owned(),
        migration_url: None,
        pool_size: 1,
    };
    let shutdown = CancellationToken::new();
    let listen = "127.0.0.1:0".parse().unwrap();
    let running = GrpcServer::new(DOMAIN, &["p2phub.referral.v1.LeaderboardService"])
        .max_in_flight(1)
        .add_service(LeaderboardServiceServer::new(Stub))
        .serve(listen, pool(&config, "test").unwrap(), shutdown.clone())
        .await
        .unwrap();
    let url = format!("http://{}", running.local_addr);
    (Channel::from_shared(url).unwrap().connect().await.unwrap(), shutdown)
}

fn with<T>(message: T, metadata: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (key, value) in metadata {
        request.metadata_mut().insert(*key, value.parse().unwrap());
    }
    request
}

fn rank_of(partner_id: &str) -> GetPartnerRankRequest {
    GetPartnerRankRequest { partner_id: partner_id.to_owned() }
}

/// The reason, after checking what every error must have.
fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no details: {status:?}"));
    assert_eq!(info.domain, DOMAIN);
    let trace_id = status.metadata().get("trace-id").unwrap().to_str().unwrap();
    assert_eq!(details.request_info().unwrap().request_id, trace_id);
    assert_eq!(trace_id.len(), 32);
    info.reason.clone()
}

#[tokio::test]
async fn the_callers_trace_goes_on_and_comes_back() {
    let (channel, _shutdown) = start().await;
    let traceparent = format!("00-{TRACE_ID}-b7ad6b7169203331-01");
    let mut health = HealthClient::new(channel.clone());
    let check = HealthCheckRequest::default();
    let answer = health.check(with(check.clone(), &[("traceparent", &traceparent)])).await.unwrap();
    assert_eq!(answer.metadata().get("trace-id").unwrap(), TRACE_ID);
    // NOT_SERVING: the database is away.
    assert_eq!(answer.get_ref().status, 2);

    let mut leaderboard = LeaderboardServiceClient::new(channel);
    let request = with(rank_of("x"), &[("traceparent", &traceparent), ("p2phub-caller", "gateway")]);
    let status = leaderboard.get_partner_rank(request).await.unwrap_err();
    assert_eq!(reason(&status), "FAILED_PRECONDITION");
    assert!(status.message().starts_with(&format!("gateway 00-{TRACE_ID}-")), "{status:?}");
    assert!(!status.message().contains("b7ad6b7169203331"), "a span of its own");

    let invalid = with(rank_of("x"), &[("traceparent", "00-abc-def-01")]);
    let status = leaderboard.get_partner_rank(invalid).await.unwrap_err();
    assert_eq!(reason(&status), "FAILED_PRECONDITION");
    assert!(status.message().starts_with("local 00-"));
}

#[tokio::test]
async fn errors_of_the_library_itself_have_details() {
    let (channel, _shutdown) = start().await;
    let mut absent = AuditServiceClient::new(channel.clone());
    let status = absent.list_audit_events(ListAuditEventsRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "METHOD_NOT_FOUND"));

    let mut leaderboard = LeaderboardServiceClient::new(channel.clone());
    let status = leaderboard.get_partner_rank(rank_of(&"x".repeat(5 << 20))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "MESSAGE_TOO_LARGE"));

    // Field 1 is a string here and an integer there.
    let mut raw = tonic::client::Grpc::new(channel);
    raw.ready().await.unwrap();
    let codec: tonic_prost::ProstCodec<GetPartnerRankRequest, ListTopPartnersResponse> =
        tonic_prost::ProstCodec::default();
    let path = "/p2phub.referral.v1.LeaderboardService/ListTopPartners".parse().unwrap();
    let status = raw.unary(Request::new(rank_of("x")), path, codec).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "MALFORMED_MESSAGE"));
}

#[tokio::test]
async fn callers_names_are_bounded() {
    let (channel, _shutdown) = start().await;
    let mut leaderboard = LeaderboardServiceClient::new(channel);
    for name in ["", "two words", &"x".repeat(65)] {
        let request = with(rank_of("x"), &[("p2phub-caller", name)]);
        let status = leaderboard.get_partner_rank(request).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_ARGUMENT"));
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "p2phub-caller");
    }
}

#[tokio::test]
async fn a_panic_costs_its_own_call_only() {
    let (channel, _shutdown) = start().await;
    let mut leaderboard = LeaderboardServiceClient::new(channel);
    let status = leaderboard.list_top_partners(ListTopPartnersRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Internal, "INTERNAL"));
    assert!(!status.message().contains("purpose"));
    let status = leaderboard.get_partner_rank(rank_of("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn one_call_too_many_is_told_to_retry() {
    let (channel, _shutdown) = start().await;
    let mut leaderboard = LeaderboardServiceClient::new(channel);
    let mut slow = leaderboard.clone();
    let slow = tokio::spawn(async move { slow.get_partner_rank(rank_of("slow")).await });
    let status = loop {
        let status = leaderboard.get_partner_rank(rank_of("x")).await.unwrap_err();
        if status.code() != Code::FailedPrecondition {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "TOO_MANY_CALLS"));
    assert!(status.get_error_details().retry_info().is_some());

    // A caller that gives up gives its place back.
    slow.abort();
    while leaderboard.get_partner_rank(rank_of("x")).await.unwrap_err().code() != Code::FailedPrecondition {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline_with_details_in_the_trailers() {
    let (channel, _shutdown) = start().await;
    let request = with(HealthCheckRequest::default(), &[("grpc-timeout", "200m")]);
    let mut stream = HealthClient::new(channel).watch(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let status = stream.message().await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
}

//! PayoutService.

use p2phub_proto::referral::v1::{self as pb, payout_service_server::PayoutService};
use service::error::Failure;
use tonic::{Request, Response, Status};

use super::{Api, status};

#[tonic::async_trait]
impl PayoutService for Api {
    async fn request_payout(
        &self,
        _request: Request<pb::RequestPayoutRequest>,
    ) -> Result<Response<pb::RequestPayoutResponse>, Status> {
        Err(status::finish(Failure::unimplemented("RequestPayout")))
    }

    async fn approve_payout(
        &self,
        _request: Request<pb::ApprovePayoutRequest>,
    ) -> Result<Response<pb::ApprovePayoutResponse>, Status> {
        Err(status::finish(Failure::unimplemented("ApprovePayout")))
    }

    async fn complete_payout(
        &self,
        _request: Request<pb::CompletePayoutRequest>,
    ) -> Result<Response<pb::CompletePayoutResponse>, Status> {
        Err(status::finish(Failure::unimplemented("CompletePayout")))
    }

    async fn fail_payout(
        &self,
        _request: Request<pb::FailPayoutRequest>,
    ) -> Result<Response<pb::FailPayoutResponse>, Status> {
        Err(status::finish(Failure::unimplemented("FailPayout")))
    }

    async fn cancel_payout(
        &self,
        _request: Request<pb::CancelPayoutRequest>,
    ) -> Result<Response<pb::CancelPayoutResponse>, Status> {
        Err(status::finish(Failure::unimplemented("CancelPayout")))
    }

    async fn get_payout(
        &self,
        _request: Request<pb::GetPayoutRequest>,
    ) -> Result<Response<pb::GetPayoutResponse>, Status> {
        Err(status::finish(Failure::unimplemented("GetPayout")))
    }

    async fn list_payouts(
        &self,
        _request: Request<pb::ListPayoutsRequest>,
    ) -> Result<Response<pb::ListPayoutsResponse>, Status> {
        Err(status::finish(Failure::unimplemented("ListPayouts")))
    }
}

//! OperatorService: one line each.

use p2phub_proto::notify::v1::{self as wire, operator_service_server::OperatorService};
use tonic::{Request, Response, Status};

use super::{
    NotificationApi,
    addresses::ResetAddress,
    answer,
    channels::{Pause, Resume},
    jobs::CancelJob,
};

#[tonic::async_trait]
impl OperatorService for NotificationApi {
    async fn list_channels(
        &self,
        _: Request<wire::ListChannelsRequest>,
    ) -> Result<Response<wire::ListChannelsResponse>, Status> {
        answer(self.channels().await)
    }

    async fn pause_channel(
        &self,
        request: Request<wire::PauseChannelRequest>,
    ) -> Result<Response<wire::PauseChannelResponse>, Status> {
        self.once(request, |message| &mut message.request_id, |message| Pause::check(message, &self.channels)).await
    }

    async fn resume_channel(
        &self,
        request: Request<wire::ResumeChannelRequest>,
    ) -> Result<Response<wire::ResumeChannelResponse>, Status> {
        self.once(request, |message| &mut message.request_id, |message| Resume::check(message, &self.channels)).await
    }

    async fn list_gates(
        &self,
        request: Request<wire::ListGatesRequest>,
    ) -> Result<Response<wire::ListGatesResponse>, Status> {
        answer(self.gates(request.into_inner()).await)
    }

    async fn get_address(
        &self,
        request: Request<wire::GetAddressRequest>,
    ) -> Result<Response<wire::GetAddressResponse>, Status> {
        answer(self.address(request.into_inner()).await)
    }

    async fn reset_address(
        &self,
        request: Request<wire::ResetAddressRequest>,
    ) -> Result<Response<wire::ResetAddressResponse>, Status> {
        self.once(request, |message| &mut message.request_id, ResetAddress::check).await
    }

    async fn get_job(&self, request: Request<wire::GetJobRequest>) -> Result<Response<wire::GetJobResponse>, Status> {
        answer(self.job(request.into_inner()).await)
    }

    async fn list_jobs(
        &self,
        request: Request<wire::ListJobsRequest>,
    ) -> Result<Response<wire::ListJobsResponse>, Status> {
        answer(self.jobs(request.into_inner()).await)
    }

    async fn cancel_job(
        &self,
        request: Request<wire::CancelJobRequest>,
    ) -> Result<Response<wire::CancelJobResponse>, Status> {
        self.once(request, |message| &mut message.request_id, CancelJob::check).await
    }

    async fn list_audit_events(
        &self,
        request: Request<wire::ListAuditEventsRequest>,
    ) -> Result<Response<wire::ListAuditEventsResponse>, Status> {
        answer(self.audit_events(request.into_inner()).await)
    }
}

//! PayoutService.

use p2phub_proto::referral::v1::{self as pb, payout_service_server::PayoutService};
use referral_domain::{
    id::{PartnerId, PayoutId},
    payout::PayoutState,
};
use service::error::Failure;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Api, existing_partner, status};
use crate::{
    store::{partners::Key, payouts},
    wire::{
        fields::{self, Checked},
        inward::payouts as inward,
        outward,
        page::Page,
    },
};

#[tonic::async_trait]
impl PayoutService for Api {
    async fn request_payout(
        &self,
        request: Request<pb::RequestPayoutRequest>,
    ) -> Result<Response<pb::RequestPayoutResponse>, Status> {
        self.command(request, "RequestPayout", |message| &mut message.request_id, inward::request).await
    }

    async fn approve_payout(
        &self,
        request: Request<pb::ApprovePayoutRequest>,
    ) -> Result<Response<pb::ApprovePayoutResponse>, Status> {
        self.command(request, "ApprovePayout", |message| &mut message.request_id, inward::approve).await
    }

    async fn complete_payout(
        &self,
        request: Request<pb::CompletePayoutRequest>,
    ) -> Result<Response<pb::CompletePayoutResponse>, Status> {
        self.command(request, "CompletePayout", |message| &mut message.request_id, inward::complete).await
    }

    async fn fail_payout(
        &self,
        request: Request<pb::FailPayoutRequest>,
    ) -> Result<Response<pb::FailPayoutResponse>, Status> {
        self.command(request, "FailPayout", |message| &mut message.request_id, inward::fail).await
    }

    async fn cancel_payout(
        &self,
        request: Request<pb::CancelPayoutRequest>,
    ) -> Result<Response<pb::CancelPayoutResponse>, Status> {
        self.command(request, "CancelPayout", |message| &mut message.request_id, inward::cancel).await
    }

    async fn get_payout(
        &self,
        request: Request<pb::GetPayoutRequest>,
    ) -> Result<Response<pb::GetPayoutResponse>, Status> {
        self.read(async |connection| {
            let payout_id: PayoutId = fields::id("payout_id", &request.into_inner().payout_id)?;
            let payout = payouts::find(connection, payout_id)
                .await?
                .ok_or_else(|| status::not_found("PAYOUT_NOT_FOUND", "no such payout"))?;
            Ok(pb::GetPayoutResponse { payout: Some(outward::payout(&payout)) })
        })
        .await
    }

    async fn list_payouts(
        &self,
        request: Request<pb::ListPayoutsRequest>,
    ) -> Result<Response<pb::ListPayoutsResponse>, Status> {
        self.read(async |connection| {
            let message = request.into_inner();
            let partner_id: Option<PartnerId> = fields::optional_id("partner_id", &message.partner_id)?;
            let state = state_filter(message.state)?;
            let list = ["payouts", &message.partner_id, &message.state.to_string()];
            let page = Page::new(message.page_size, &message.page_token, &list)?;
            if let Some(partner_id) = partner_id {
                existing_partner(connection, &Key::Id(partner_id)).await?;
            }
            let before = page.after_or(Uuid::max());
            let mut payouts = payouts::list(connection, partner_id, state, before, page.limit()).await?;
            let next_page_token = page.cut(&mut payouts, |payout| payout.payout_id.into());
            Ok(pb::ListPayoutsResponse { payouts: payouts.iter().map(outward::payout).collect(), next_page_token })
        })
        .await
    }
}

/// Which state is asked for; none: any.
fn state_filter(state: i32) -> Checked<Option<PayoutState>> {
    use pb::PayoutState as Asked;
    let asked = Asked::try_from(state).map_err(|_| Failure::violation("state", "must be a PayoutState"))?;
    Ok(match asked {
        Asked::Unspecified => None,
        Asked::Requested => Some(PayoutState::Requested),
        Asked::Approved => Some(PayoutState::Approved),
        Asked::Completed => Some(PayoutState::Completed),
        Asked::Failed => Some(PayoutState::Failed),
        Asked::Cancelled => Some(PayoutState::Cancelled),
    })
}

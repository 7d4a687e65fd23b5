//! LedgerService's list of adjustments.

use p2phub_proto::referral::v1 as pb;
use referral_domain::{adjustment::AdjustmentState, id::PartnerId};
use service::error::Failure;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Api, existing_partner};
use crate::{
    store::{adjustments, partners::Key},
    wire::{
        fields::{self, Checked},
        outward,
        page::Page,
    },
};

impl Api {
    pub(super) async fn read_adjustments(
        &self,
        request: Request<pb::ListAdjustmentsRequest>,
    ) -> Result<Response<pb::ListAdjustmentsResponse>, Status> {
        self.read(async |connection| {
            let message = request.into_inner();
            let partner_id: Option<PartnerId> = fields::optional_id("partner_id", &message.partner_id)?;
            let state = state_filter(message.state)?;
            let list = ["adjustments", &message.partner_id, &message.state.to_string()];
            let page = Page::new(message.page_size, &message.page_token, &list)?;
            if let Some(partner_id) = partner_id {
                existing_partner(connection, &Key::Id(partner_id)).await?;
            }
            let before = page.after_or(Uuid::max());
            let mut adjustments = adjustments::list(connection, partner_id, state, before, page.limit()).await?;
            let next_page_token = page.cut(&mut adjustments, |adjustment| adjustment.adjustment_id.into());
            let adjustments = adjustments.iter().map(outward::adjustment).collect();
            Ok(pb::ListAdjustmentsResponse { adjustments, next_page_token })
        })
        .await
    }
}

/// Which state is asked for; none: any.
fn state_filter(state: i32) -> Checked<Option<AdjustmentState>> {
    use pb::AdjustmentState as Asked;
    let asked = Asked::try_from(state).map_err(|_| Failure::violation("state", "must be an AdjustmentState"))?;
    Ok(match asked {
        Asked::Unspecified => None,
        Asked::Proposed => Some(AdjustmentState::Proposed),
        Asked::Approved => Some(AdjustmentState::Approved),
        Asked::Rejected => Some(AdjustmentState::Rejected),
    })
}

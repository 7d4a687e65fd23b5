//! LeaderboardService.

use p2phub_proto::referral::v1::{self as pb, leaderboard_service_server::LeaderboardService};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Api, status};
use crate::{
    store::{leaderboard, partners},
    wire::{fields, outward, page::Page},
};

#[tonic::async_trait]
impl LeaderboardService for Api {
    async fn list_top_partners(
        &self,
        request: Request<pb::ListTopPartnersRequest>,
    ) -> Result<Response<pb::ListTopPartnersResponse>, Status> {
        self.read(async |connection| {
            let now = self.clock.now(connection).await?;
            let message = request.into_inner();
            let page = Page::new(message.page_size, &message.page_token, &["top_partners"])?;
            let ids = leaderboard::top(connection, page.after_or((i64::MAX, Uuid::nil())), page.limit()).await?;
            let mut views = partners::find_all(connection, &ids).await?;
            views.sort_by_key(|view| (std::cmp::Reverse(view.standing.xp), view.partner.partner_id));
            let next_page_token = page.cut(&mut views, |view| (view.standing.xp, view.partner.partner_id.into()));
            let partners = views.iter().map(|view| outward::partner(view, now)).collect();
            Ok(pb::ListTopPartnersResponse { partners, next_page_token })
        })
        .await
    }

    async fn get_partner_rank(
        &self,
        request: Request<pb::GetPartnerRankRequest>,
    ) -> Result<Response<pb::GetPartnerRankResponse>, Status> {
        self.read(async |connection| {
            let partner_id = fields::id("partner_id", &request.into_inner().partner_id)?;
            let (rank, xp) = leaderboard::rank(connection, partner_id)
                .await?
                .ok_or_else(|| status::not_found("PARTNER_NOT_FOUND", "no such partner"))?;
            Ok(pb::GetPartnerRankResponse { rank, xp })
        })
        .await
    }
}

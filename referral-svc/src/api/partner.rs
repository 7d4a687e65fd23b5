//! PartnerService.

use chrono::DateTime;
use p2phub_proto::referral::v1::{self as pb, partner_service_server::PartnerService};
use referral_domain::{id::PartnerId, partner::ReferralCode};
use service::error::Failure;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Api, existing_partner};
use crate::{
    store::{
        network,
        partners::{self, Key},
        xp_awards,
    },
    wire::{fields, inward, outward, page::Page},
};

#[tonic::async_trait]
impl PartnerService for Api {
    async fn register_partner(
        &self,
        request: Request<pb::RegisterPartnerRequest>,
    ) -> Result<Response<pb::RegisterPartnerResponse>, Status> {
        let parse = |message: &_| inward::register(message, rand::random);
        self.command(request, "RegisterPartner", |message| &mut message.request_id, parse).await
    }

    async fn attach_referrer(
        &self,
        request: Request<pb::AttachReferrerRequest>,
    ) -> Result<Response<pb::AttachReferrerResponse>, Status> {
        self.command(request, "AttachReferrer", |message| &mut message.request_id, inward::attach).await
    }

    async fn update_partner(
        &self,
        request: Request<pb::UpdatePartnerRequest>,
    ) -> Result<Response<pb::UpdatePartnerResponse>, Status> {
        self.command(request, "UpdatePartner", |message| &mut message.request_id, inward::update).await
    }

    async fn get_partner(
        &self,
        request: Request<pb::GetPartnerRequest>,
    ) -> Result<Response<pb::GetPartnerResponse>, Status> {
        use pb::get_partner_request::Key as Asked;
        self.read(async |connection| {
            let now = self.clock.now(connection).await?;
            let key = match request.into_inner().key {
                Some(Asked::PartnerId(id)) => Key::Id(fields::id("partner_id", &id)?),
                Some(Asked::ExternalId(external_id)) => Key::ExternalId(fields::external_id(&external_id)?),
                Some(Asked::ReferralCode(code)) => {
                    Key::Code(ReferralCode::from_input(&fields::required_text("referral_code", &code, 64)?))
                }
                None => {
                    return Err(Failure::violation(
                        "key",
                        "one of partner_id, external_id and referral_code is required",
                    )
                    .into());
                }
            };
            let view = existing_partner(connection, &key).await?;
            Ok(pb::GetPartnerResponse { partner: Some(outward::partner(&view, now)) })
        })
        .await
    }

    async fn list_referrals(
        &self,
        request: Request<pb::ListReferralsRequest>,
    ) -> Result<Response<pb::ListReferralsResponse>, Status> {
        self.read(async |connection| {
            let now = self.clock.now(connection).await?;
            let message = request.into_inner();
            let partner_id: PartnerId = fields::id("partner_id", &message.partner_id)?;
            let level = match message.level {
                0 => 1,
                level @ 1..=9 => level,
                _ => return Err(Failure::violation("level", "must be 0 to 9").into()),
            };
            let list = ["referrals", &partner_id.to_string(), &level.to_string()];
            let page = Page::new(message.page_size, &message.page_token, &list)?;
            existing_partner(connection, &Key::Id(partner_id)).await?;
            let mut ids =
                partners::at_level(connection, partner_id, level, page.after_or(Uuid::nil()), page.limit()).await?;
            let next_page_token = page.cut(&mut ids, |id| *id);
            let mut views = partners::find_all(connection, &ids).await?;
            views.sort_by_key(|view| view.partner.partner_id);
            let partners = views.iter().map(|view| outward::partner(view, now)).collect();
            Ok(pb::ListReferralsResponse { partners, next_page_token })
        })
        .await
    }

    async fn get_network(
        &self,
        request: Request<pb::GetNetworkRequest>,
    ) -> Result<Response<pb::GetNetworkResponse>, Status> {
        self.read(async |connection| {
            let message = request.into_inner();
            let partner_id = fields::id("partner_id", &message.partner_id)?;
            let at_time = self.past(connection, "at_time", message.at_time.as_ref()).await?;
            let standing = existing_partner(connection, &Key::Id(partner_id)).await?.standing;
            let counts: Vec<(i64, i64)> = match at_time {
                Some(time) => network::at(connection, partner_id, time).await?.into(),
                None => standing.members.into_iter().zip(standing.pro_members).collect(),
            };
            let levels = (1..)
                .zip(counts)
                .map(|(level, (members, pro_members))| pb::NetworkLevel { level, members, pro_members })
                .collect();
            Ok(pb::GetNetworkResponse { levels })
        })
        .await
    }

    async fn get_lineage(
        &self,
        request: Request<pb::GetLineageRequest>,
    ) -> Result<Response<pb::GetLineageResponse>, Status> {
        self.read(async |connection| {
            let partner_id = fields::id("partner_id", &request.into_inner().partner_id)?;
            let partner = existing_partner(connection, &Key::Id(partner_id)).await?.partner;
            let ancestors = (1..)
                .zip(&partner.lineage)
                .map(|(level, id)| pb::Ancestor { level, partner_id: id.to_string() })
                .collect();
            Ok(pb::GetLineageResponse { ancestors })
        })
        .await
    }

    async fn list_xp_awards(
        &self,
        request: Request<pb::ListXpAwardsRequest>,
    ) -> Result<Response<pb::ListXpAwardsResponse>, Status> {
        self.read(async |connection| {
            let message = request.into_inner();
            let partner_id: PartnerId = fields::id("partner_id", &message.partner_id)?;
            let list = ["xp_awards", &partner_id.to_string()];
            let page = Page::new(message.page_size, &message.page_token, &list)?;
            existing_partner(connection, &Key::Id(partner_id)).await?;
            let after = page.after_or((DateTime::from_timestamp_nanos(i64::MAX), Uuid::max()));
            let mut awards = xp_awards::list(connection, partner_id, after, page.limit()).await?;
            let next_page_token = page.cut(&mut awards, |award| (award.create_time, award.source_partner_id.into()));
            Ok(pb::ListXpAwardsResponse { xp_awards: awards.iter().map(outward::xp_award).collect(), next_page_token })
        })
        .await
    }
}

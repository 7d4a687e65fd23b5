//! BroadcastService.

use p2phub_proto::referral::v1::{self as pb, broadcast_service_server::BroadcastService};
use referral_domain::{
    broadcast::{self, BroadcastState, NewBroadcast},
    command::{Command, Refusal},
};
use service::{call::CallContext, error::Failure};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Api, existing_partner, status};
use crate::{
    store::{broadcasts, partners::Key},
    wire::{
        fields::{self, Checked},
        inward, outward,
        page::Page,
    },
};

#[tonic::async_trait]
impl BroadcastService for Api {
    async fn create_broadcast(
        &self,
        request: Request<pb::CreateBroadcastRequest>,
    ) -> Result<Response<pb::CreateBroadcastResponse>, Status> {
        let asked = asked(&request).map_err(status::finish)?;
        let dry_run = request.get_ref().dry_run;
        // Counted before it is queued: a long count holds up no other command.
        let counted = self.read(async |connection| {
            let now = self.clock.now(connection).await?;
            if dry_run {
                broadcast::expire_time(asked.expire_time, now)
                    .ok_or_else(|| status::of_invalid(&Refusal::ExpireTimeOutOfRange))?;
                if let Some(ancestor_id) = asked.filter.ancestor_id {
                    existing_partner(connection, &Key::Id(ancestor_id)).await?;
                }
            }
            Ok(broadcasts::count(connection, &asked.filter, now).await?)
        });
        let matched = counted.await?.into_inner();
        let asked = NewBroadcast { matched, ..asked };
        if dry_run {
            let broadcast = Some(outward::asked_broadcast(&asked));
            return Ok(Response::new(pb::CreateBroadcastResponse { broadcast }));
        }
        let parse = |_: &_| Ok(Command::CreateBroadcast(asked));
        self.command(request, "CreateBroadcast", |message| &mut message.request_id, parse).await
    }

    async fn get_broadcast(
        &self,
        request: Request<pb::GetBroadcastRequest>,
    ) -> Result<Response<pb::GetBroadcastResponse>, Status> {
        self.read(async |connection| {
            let broadcast_id = fields::id("broadcast_id", &request.into_inner().broadcast_id)?;
            let found = broadcasts::find(connection, broadcast_id).await?;
            let found = found.ok_or_else(|| status::not_found("BROADCAST_NOT_FOUND", "no such broadcast"))?;
            Ok(pb::GetBroadcastResponse { broadcast: Some(outward::broadcast(&found)) })
        })
        .await
    }

    async fn list_broadcasts(
        &self,
        request: Request<pb::ListBroadcastsRequest>,
    ) -> Result<Response<pb::ListBroadcastsResponse>, Status> {
        self.read(async |connection| {
            let message = request.into_inner();
            let state = state_filter(message.state)?;
            let list = ["broadcasts", &message.state.to_string()];
            let page = Page::new(message.page_size, &message.page_token, &list)?;
            let mut found = broadcasts::list(connection, state, page.after_or(Uuid::max()), page.limit()).await?;
            let next_page_token = page.cut(&mut found, |broadcast| broadcast.broadcast_id.into());
            let broadcasts = found.iter().map(outward::broadcast).collect();
            Ok(pb::ListBroadcastsResponse { broadcasts, next_page_token })
        })
        .await
    }

    async fn cancel_broadcast(
        &self,
        request: Request<pb::CancelBroadcastRequest>,
    ) -> Result<Response<pb::CancelBroadcastResponse>, Status> {
        self.command(request, "CancelBroadcast", |message| &mut message.request_id, inward::cancel_broadcast).await
    }
}

/// What is asked for, not counted yet.
fn asked(request: &Request<pb::CreateBroadcastRequest>) -> Checked<NewBroadcast> {
    let call = CallContext::of(request);
    let message = request.get_ref();
    fields::id::<Uuid>("request_id", &message.request_id)?;
    Ok(NewBroadcast {
        filter: inward::broadcast_filter(message.filter.as_ref())?,
        message: inward::broadcast_message(message)?,
        expire_time: fields::time("expire_time", message.expire_time.as_ref())?,
        recipients_per_second: inward::recipients_per_second(message.recipients_per_second)?,
        matched: 0,
        caller: call.caller,
        traceparent: call.traceparent,
    })
}

fn state_filter(state: i32) -> Checked<Option<BroadcastState>> {
    use pb::BroadcastState as Asked;
    let asked = Asked::try_from(state).map_err(|_| Failure::violation("state", "must be a BroadcastState"))?;
    Ok(match asked {
        Asked::Unspecified => None,
        Asked::Running => Some(BroadcastState::Running),
        Asked::Done => Some(BroadcastState::Done),
        Asked::Cancelled => Some(BroadcastState::Cancelled),
        Asked::Expired => Some(BroadcastState::Expired),
    })
}

//! AuditService.

use p2phub_proto::referral::v1::{self as pb, audit_service_server::AuditService};
use service::error::Failure;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Api, status};
use crate::{
    store::audit::{self, AuditEvent, Filter},
    wire::{
        fields::{self, Checked},
        outward::timestamp,
        page::Page,
    },
};

#[tonic::async_trait]
impl AuditService for Api {
    async fn list_audit_events(
        &self,
        request: Request<pb::ListAuditEventsRequest>,
    ) -> Result<Response<pb::ListAuditEventsResponse>, Status> {
        self.read(async |connection, _now| {
            let message = request.into_inner();
            let list = ["audit_events", &message.subject_id, &message.actor, &message.action, &message.trace_id];
            let page = Page::new(message.page_size, &message.page_token, &list)?;
            let filter = filter(&message)?;
            let mut events = audit::list(connection, &filter, page.after_or(Uuid::max()), page.limit()).await?;
            let next_page_token = page.cut(&mut events, |event| event.audit_event_id);
            Ok(pb::ListAuditEventsResponse { audit_events: events.iter().map(audit_event).collect(), next_page_token })
        })
        .await
    }

    async fn verify_audit_chain(
        &self,
        _request: Request<pb::VerifyAuditChainRequest>,
    ) -> Result<Response<pb::VerifyAuditChainResponse>, Status> {
        Err(status::finish(Failure::unimplemented("VerifyAuditChain")))
    }

    async fn export_audit_head(
        &self,
        _request: Request<pb::ExportAuditHeadRequest>,
    ) -> Result<Response<pb::ExportAuditHeadResponse>, Status> {
        Err(status::finish(Failure::unimplemented("ExportAuditHead")))
    }
}

fn filter(message: &pb::ListAuditEventsRequest) -> Checked<Filter> {
    let given = |text: String| (!text.is_empty()).then_some(text);
    let subject: Option<Uuid> = fields::optional_id("subject_id", &message.subject_id)?;
    Ok(Filter {
        subject_id: subject.map(|subject| subject.to_string()),
        actor: given(fields::text("actor", &message.actor, 128)?),
        action: given(fields::text("action", &message.action, 64)?),
        trace_id: fields::trace_id("trace_id", &message.trace_id)?,
    })
}

fn audit_event(event: &AuditEvent) -> pb::AuditEvent {
    pb::AuditEvent {
        audit_event_id: event.audit_event_id.to_string(),
        create_time: timestamp(event.create_time),
        actor: event.actor.clone(),
        action: event.action.clone(),
        subject_id: event.subject_id.clone(),
        outcome: event.outcome.clone(),
        trace_id: event.trace_id.simple().to_string(),
        request_id: event.request_id.map(|id| id.to_string()).unwrap_or_default(),
        detail: event.detail.clone(),
    }
}

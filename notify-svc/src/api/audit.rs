//! The record of what was done and refused.

use p2phub_proto::notify::v1 as wire;
use service::error::Failure;

use super::{NotificationApi, fields, page::Page};
use crate::{
    convert::timestamp,
    store::audit::{self, AuditEvent, Filter},
};

const SUBJECT_BYTES_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 64;

impl NotificationApi {
    pub(super) async fn audit_events(
        &self,
        request: wire::ListAuditEventsRequest,
    ) -> Result<wire::ListAuditEventsResponse, Failure> {
        let filter = Filter {
            subject_id: fields::optional_name("subject_id", &request.subject_id, SUBJECT_BYTES_MAX)?,
            actor: fields::optional_name("actor", &request.actor, NAME_BYTES_MAX)?,
            action: fields::optional_name("action", &request.action, NAME_BYTES_MAX)?,
            trace_id: fields::trace_id("trace_id", &request.trace_id)?,
        };
        let page = Page::new(request.page_size, &request.page_token, scope(&filter))?;
        let found =
            self.read(async |connection| audit::list(connection, &filter, page.before, page.limit()).await).await?;
        let (audit_events, next_page_token) = page.cut(found, |event| event.audit_event_id, audit_event);
        Ok(wire::ListAuditEventsResponse { audit_events, next_page_token })
    }
}

fn scope(filter: &Filter) -> Vec<String> {
    let fields = [&filter.subject_id, &filter.actor, &filter.action, &filter.trace_id];
    let fields = fields.into_iter().map(|field| field.clone().unwrap_or_default());
    std::iter::once("audit_events".to_owned()).chain(fields).collect()
}

fn audit_event(row: AuditEvent) -> wire::AuditEvent {
    wire::AuditEvent {
        audit_event_id: row.audit_event_id.to_string(),
        create_time: Some(timestamp(row.create_time)),
        actor: row.actor,
        action: row.action,
        subject_id: row.subject_id,
        outcome: row.outcome,
        trace_id: row.trace_id,
        request_id: row.request_id,
        detail: row.detail,
    }
}

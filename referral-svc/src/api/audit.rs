//! AuditService.

use chrono::TimeDelta;
use p2phub_proto::referral::v1::{self as pb, audit_service_server::AuditService};
use prost_types::Timestamp;
use referral_domain::{id, seal::Head};
use service::error::Failure;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use super::{Api, one_of, status};
use crate::{
    app::{Checkpoint, FaultKind, Proof, Signed, Signer, prove},
    store::{
        audit::{self, AuditEvent, Filter},
        blocks,
    },
    wire::{
        fields::{self, Checked},
        outward::timestamp,
        page::Page,
    },
};

/// How many anchors one proof takes.
const ANCHORS_MAX: usize = 100;

/// The longest texts of an anchor, in bytes: a payload of some hundred heads, and what is hex.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
const HEX_BYTES_MAX: usize = 128;

#[tonic::async_trait]
impl AuditService for Api {
    async fn list_audit_events(
        &self,
        request: Request<pb::ListAuditEventsRequest>,
    ) -> Result<Response<pb::ListAuditEventsResponse>, Status> {
        self.read(async |connection| {
            let message = request.into_inner();
            let (from, to) = (bound("start_time", message.start_time)?, bound("end_time", message.end_time)?);
            let times = [from, to].map(|bound| bound.map(|id| id.to_string()).unwrap_or_default());
            let [subject, actor, action] = [&message.subject_id, &message.actor, &message.action];
            let list = ["audit_events", subject, actor, action, &message.trace_id, &times[0], &times[1]];
            let page = Page::new(message.page_size, &message.page_token, &list)?;
            let filter = Filter { from, ..filter(&message)? };
            let before = page.after_or(to.unwrap_or(Uuid::max()));
            let mut events = audit::list(connection, &filter, before, page.limit()).await?;
            let next_page_token = page.cut(&mut events, |event| event.audit_event_id);
            Ok(pb::ListAuditEventsResponse { audit_events: events.iter().map(audit_event).collect(), next_page_token })
        })
        .await
    }

    async fn verify_audit_chain(
        &self,
        request: Request<pb::VerifyAuditChainRequest>,
    ) -> Result<Response<pb::VerifyAuditChainResponse>, Status> {
        let message = request.into_inner();
        let since = checkpoint(&message.checkpoint).map_err(status::finish)?;
        let anchors = self.anchors(message.anchors).map_err(status::finish)?;
        let _place = one_of(&self.proving).map_err(status::finish)?;
        self.read(async |connection| {
            let now = self.clock.now(connection).await?;
            let proof = prove(connection, &anchors, since.as_ref(), now).await?;
            let elsewhere = "of this database, and of after its last restore or failover";
            Ok(answer(&proof.ok_or_else(|| checkpoint_violation(elsewhere))?))
        })
        .await
    }

    async fn export_audit_head(
        &self,
        _request: Request<pb::ExportAuditHeadRequest>,
    ) -> Result<Response<pb::ExportAuditHeadResponse>, Status> {
        self.read(async |connection| {
            let now = self.clock.now(connection).await?;
            let signer = self.signer()?;
            let (open, blocks) = blocks::open_heads(connection).await?;
            let signed = signer.sign(&open, blocks, now).map_err(|_| Failure::internal())?;
            let Signed { payload, signature, public_key } = signed;
            Ok(pb::ExportAuditHeadResponse { head: Some(pb::AuditHead { payload, signature, public_key }) })
        })
        .await
    }
}

impl Api {
    fn signer(&self) -> Checked<&Signer> {
        self.signer.as_deref().ok_or_else(|| {
            let message = "AUDIT_SIGNING_KEY is not set: heads are neither signed nor recognised";
            Failure::new(Code::FailedPrecondition, "SIGNING_KEY_MISSING", message)
        })
    }

    /// The heads of each anchor; None: it isn't this service's.
    fn anchors(&self, anchors: Vec<pb::AuditHead>) -> Checked<Vec<Option<Vec<Head>>>> {
        if anchors.is_empty() {
            return Ok(Vec::new());
        }
        if anchors.len() > ANCHORS_MAX {
            return Err(Failure::violation("anchors", format!("must be at most {ANCHORS_MAX}")));
        }
        for (number, anchor) in anchors.iter().enumerate() {
            check_lengths(number, anchor)?;
        }
        let signer = self.signer()?;
        let verify = |anchor: pb::AuditHead| {
            let pb::AuditHead { payload, signature, public_key } = anchor;
            signer.verify(&Signed { payload, signature, public_key })
        };
        Ok(anchors.into_iter().map(verify).collect())
    }
}

/// What is longer than any head that this service exports is none; all else is, at worst, not signed by it.
fn check_lengths(number: usize, anchor: &pb::AuditHead) -> Checked<()> {
    let pb::AuditHead { payload, signature, public_key } = anchor;
    for (name, text, bytes_max) in [
        ("payload", payload, PAYLOAD_BYTES_MAX),
        ("signature", signature, HEX_BYTES_MAX),
        ("public_key", public_key, HEX_BYTES_MAX),
    ] {
        if text.len() > bytes_max {
            let field = format!("anchors[{number}].{name}");
            return Err(Failure::violation(field, format!("must be at most {bytes_max} bytes")));
        }
    }
    Ok(())
}

/// None: everything is to be proved.
fn checkpoint(text: &str) -> Checked<Option<Checkpoint>> {
    match text {
        "" => Ok(None),
        text => Checkpoint::from_text(text).map(Some).ok_or_else(|| checkpoint_violation("of an answer before")),
    }
}

fn checkpoint_violation(what: &str) -> Failure {
    Failure::violation("checkpoint", format!("must be {what}"))
}

fn answer(proof: &Proof) -> pb::VerifyAuditChainResponse {
    let faults = proof.faults.iter().map(|fault| {
        let (chain_id, position) = fault.place.map(|(chain, place)| (chain.to_string(), place)).unwrap_or_default();
        pb::AuditFault {
            kind: kind(fault.kind).into(),
            audit_event_id: fault.audit_event_id.map(|id| id.to_string()).unwrap_or_default(),
            chain_id,
            position,
            detail: fault.detail.clone(),
        }
    });
    pb::VerifyAuditChainResponse {
        ok: proof.faults.is_empty(),
        faults: faults.collect(),
        blocks: proof.blocks,
        audit_events: proof.audit_events,
        unsealed: proof.unsealed,
        checkpoint: proof.checkpoint.as_ref().map(Checkpoint::to_text).unwrap_or_default(),
    }
}

fn kind(kind: FaultKind) -> pb::AuditFaultKind {
    match kind {
        FaultKind::Edited => pb::AuditFaultKind::Edited,
        FaultKind::Deleted => pb::AuditFaultKind::Deleted,
        FaultKind::Inserted => pb::AuditFaultKind::Inserted,
        FaultKind::BlockBroken => pb::AuditFaultKind::BlockBroken,
        FaultKind::BlockMissing => pb::AuditFaultKind::BlockMissing,
        FaultKind::CutOff => pb::AuditFaultKind::CutOff,
        FaultKind::Rewritten => pb::AuditFaultKind::Rewritten,
        FaultKind::BadSignature => pb::AuditFaultKind::BadSignature,
    }
}

/// The lowest ID of a time: events of that time or later have no lower one.
fn bound(field: &'static str, time: Option<Timestamp>) -> Checked<Option<Uuid>> {
    let time = fields::time(field, time.as_ref())?;
    // Between two microseconds there is nothing.
    Ok(time.map(|time| id::lowest_at(time.checked_add_signed(TimeDelta::nanoseconds(999)).unwrap_or(time))))
}

fn filter(message: &pb::ListAuditEventsRequest) -> Checked<Filter> {
    let given = |text: String| (!text.is_empty()).then_some(text);
    let subject: Option<Uuid> = fields::optional_id("subject_id", &message.subject_id)?;
    Ok(Filter {
        subject_id: subject.map(|subject| subject.to_string()),
        actor: given(fields::text("actor", &message.actor, 128)?),
        action: given(fields::text("action", &message.action, 64)?),
        trace_id: fields::trace_id("trace_id", &message.trace_id)?,
        from: None,
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

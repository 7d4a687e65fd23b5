//! Jobs: showing them, stopping one.

use diesel_async::AsyncPgConnection;
use p2phub_proto::notify::v1 as wire;
use service::{call::CallContext, error::Failure};
use tonic::Code;
use uuid::Uuid;

use super::{
    NotificationApi, fields,
    once::{Done, Mutation, Undone},
    page::Page,
};
use crate::{
    convert::timestamp,
    store::jobs::{self, Job},
};

/// A job as it is shown.
pub(super) fn job(row: Job) -> wire::Job {
    let state = match row.state.as_str() {
        jobs::RUNNING => wire::JobState::Running,
        jobs::DONE => wire::JobState::Done,
        jobs::CANCELLED => wire::JobState::Cancelled,
        _ => wire::JobState::Unspecified,
    };
    wire::Job {
        job_id: row.job_id.to_string(),
        kind: row.kind,
        state: state.into(),
        matched: row.matched,
        done: row.done,
        per_second: row.per_second,
        caller: row.caller,
        reason: row.reason,
        trace_id: row.trace_id,
        create_time: Some(timestamp(row.create_time)),
        end_time: row.end_time.map(timestamp),
    }
}

fn unknown(id: Uuid) -> Failure {
    Failure::new(Code::NotFound, "JOB_NOT_FOUND", format!("job {id} is not known"))
}

impl NotificationApi {
    pub(super) async fn job(&self, request: wire::GetJobRequest) -> Result<wire::GetJobResponse, Failure> {
        let id = fields::uuid("job_id", &request.job_id)?;
        let found = self.read(async |connection| jobs::get(connection, id).await).await?;
        Ok(wire::GetJobResponse { job: Some(job(found.ok_or_else(|| unknown(id))?)) })
    }

    pub(super) async fn jobs(&self, request: wire::ListJobsRequest) -> Result<wire::ListJobsResponse, Failure> {
        let state = match wire::JobState::try_from(request.state) {
            Ok(wire::JobState::Unspecified) => None,
            Ok(wire::JobState::Running) => Some(jobs::RUNNING),
            Ok(wire::JobState::Done) => Some(jobs::DONE),
            Ok(wire::JobState::Cancelled) => Some(jobs::CANCELLED),
            Err(_) => return Err(Failure::violation("state", "is not a known state")),
        };
        let scope = vec!["jobs".to_owned(), state.unwrap_or_default().to_owned()];
        let page = Page::new(request.page_size, &request.page_token, scope)?;
        let found =
            self.read(async |connection| jobs::list(connection, state, page.before, page.limit()).await).await?;
        let (jobs, next_page_token) = page.cut(found, |job| job.job_id, job);
        Ok(wire::ListJobsResponse { jobs, next_page_token })
    }
}

pub(super) struct CancelJob {
    job_id: Uuid,
    reason: String,
}

impl CancelJob {
    pub(super) fn check(request: &wire::CancelJobRequest) -> Result<Self, Failure> {
        Ok(Self {
            job_id: fields::uuid("job_id", &request.job_id)?,
            reason: fields::reason("reason", &request.reason)?,
        })
    }

    fn refused(&self, failure: Failure) -> Undone {
        Undone::Refused { failure, subject_id: self.job_id.to_string(), detail: self.reason.clone() }
    }
}

impl Mutation for CancelJob {
    const METHOD: &'static str = "CancelJob";
    type Answer = wire::CancelJobResponse;

    async fn work(&self, connection: &mut AsyncPgConnection, _: &CallContext) -> Result<Done<Self::Answer>, Undone> {
        let id = self.job_id;
        let found = jobs::lock(connection, id).await?.ok_or_else(|| self.refused(unknown(id)))?;
        if found.state != jobs::RUNNING {
            let message = format!("job {id} has ended already: {}", found.state);
            return Err(self.refused(Failure::new(Code::FailedPrecondition, "JOB_ENDED", message)));
        }
        let ended = jobs::end(connection, id, jobs::CANCELLED).await?;
        let detail = format!("{} of {} done: {}", ended.done, ended.matched, self.reason);
        Ok(Done { answer: wire::CancelJobResponse { job: Some(job(ended)) }, subject_id: id.to_string(), detail })
    }
}

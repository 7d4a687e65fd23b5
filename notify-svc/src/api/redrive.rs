//! Queueing notifications again that ended without delivery: counted now, done by a job.

use diesel_async::AsyncPgConnection;
use notify_domain::state::NotificationState;
use p2phub_proto::notify::v1 as wire;
use service::{call::CallContext, error::Failure};
use tonic::{Request, Response, Status};

use super::{
    NotificationApi, fields, filter,
    jobs::job,
    once::{Done, Mutation, Undone},
};
use crate::{
    status,
    store::{clock, jobs, notifications::Filter, redrive},
};

const PER_SECOND_DEFAULT: i32 = 100;
const PER_SECOND_MAX: i32 = 10_000;

struct Redrive {
    filter: Filter,
    per_second: i32,
    reason: String,
}

impl NotificationApi {
    pub(super) async fn redrive(
        &self,
        request: Request<wire::RedriveNotificationsRequest>,
    ) -> Result<Response<wire::RedriveNotificationsResponse>, Status> {
        if request.get_ref().dry_run {
            return self.count_redrive(request.get_ref()).await.map(Response::new).map_err(status::of);
        }
        let answer = self.once(request, |message| &mut message.request_id, Redrive::check).await?;
        self.job_created.notify_one();
        Ok(answer)
    }

    async fn count_redrive(
        &self,
        request: &wire::RedriveNotificationsRequest,
    ) -> Result<wire::RedriveNotificationsResponse, Failure> {
        fields::uuid("request_id", &request.request_id)?;
        per_second(request)?;
        let filter = wanted(request)?;
        let matched = self.read(async |connection| redrive::count(connection, &filter).await).await?;
        Ok(wire::RedriveNotificationsResponse { matched, job: None })
    }
}

/// What is meant; a filter that says nothing would mean everything.
fn wanted(request: &wire::RedriveNotificationsRequest) -> Result<Filter, Failure> {
    let given = filter::filter("filter.", request.filter.as_ref().unwrap_or(&wire::NotificationFilter::default()))?;
    if given == Filter::default() {
        return Err(Failure::violation("filter", "at least one field is required"));
    }
    match given.state {
        None => Ok(Filter { state: Some(NotificationState::Dead), ..given }),
        Some(NotificationState::Dead | NotificationState::Expired | NotificationState::Cancelled) => Ok(given),
        Some(_) => Err(Failure::violation("filter.state", "must be DEAD, EXPIRED or CANCELLED")),
    }
}

fn per_second(request: &wire::RedriveNotificationsRequest) -> Result<i32, Failure> {
    match request.per_second {
        0 => Ok(PER_SECOND_DEFAULT),
        given @ 1..=PER_SECOND_MAX => Ok(given),
        _ => Err(Failure::violation("per_second", format!("must be 1 to {PER_SECOND_MAX}, or 0"))),
    }
}

impl Redrive {
    fn check(request: &wire::RedriveNotificationsRequest) -> Result<Self, Failure> {
        Ok(Self {
            per_second: per_second(request)?,
            reason: fields::reason("reason", &request.reason)?,
            filter: wanted(request)?,
        })
    }
}

impl Mutation for Redrive {
    const METHOD: &'static str = redrive::ACTION;
    type Answer = wire::RedriveNotificationsResponse;

    async fn work(&self, connection: &mut AsyncPgConnection, call: &CallContext) -> Result<Done<Self::Answer>, Undone> {
        let matched = redrive::count(connection, &self.filter).await?;
        let job_id = clock::id_at(clock::now(connection).await?);
        let new = jobs::NewJob {
            job_id,
            filter: &self.filter,
            per_second: self.per_second,
            matched,
            caller: &call.caller,
            reason: &self.reason,
            trace_id: &call.trace_id,
        };
        let made = jobs::insert(connection, &new).await?;
        Ok(Done {
            answer: wire::RedriveNotificationsResponse { matched, job: Some(job(made)) },
            subject_id: job_id.to_string(),
            detail: format!("{matched} match: {}", self.reason),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_must_be_said_and_must_have_ended_without_delivery() {
        let request = |filter| wire::RedriveNotificationsRequest { filter, ..Default::default() };
        let in_state = |state: wire::NotificationState| {
            Some(wire::NotificationFilter { state: state.into(), ..Default::default() })
        };
        for nothing in [None, in_state(wire::NotificationState::Unspecified)] {
            assert_eq!(wanted(&request(nothing)).expect_err("a fault").violations[0].0, "filter");
        }
        use wire::NotificationState::{Cancelled, Dead, Delivered, Expired, Queued, Sending, Suppressed};
        for state in [Queued, Sending, Delivered, Suppressed] {
            let failure = wanted(&request(in_state(state))).expect_err("a fault");
            assert_eq!(failure.violations[0].0, "filter.state", "{state:?}");
        }
        for state in [Dead, Expired, Cancelled] {
            assert!(wanted(&request(in_state(state))).is_ok(), "{state:?}");
        }
        let ada = Some(wire::NotificationFilter { recipient_id: "ada".to_owned(), ..Default::default() });
        assert_eq!(wanted(&request(ada)).expect("a filter").state, Some(NotificationState::Dead));
    }
}

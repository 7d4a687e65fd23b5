//! Stopping a notification.

use diesel_async::AsyncPgConnection;
use p2phub_proto::notify::v1 as wire;
use service::{call::CallContext, error::Failure};
use tonic::Code;
use uuid::Uuid;

use super::{
    fields,
    once::{Done, Mutation, Undone},
};
use crate::{
    convert,
    store::cancel::{self, Cancelled},
};

pub(super) struct Cancel {
    notification_id: Uuid,
    reason: String,
}

impl Cancel {
    pub(super) fn check(request: &wire::CancelNotificationRequest) -> Result<Self, Failure> {
        Ok(Self {
            notification_id: fields::uuid("notification_id", &request.notification_id)?,
            reason: fields::reason("reason", &request.reason)?,
        })
    }

    fn refused(&self, code: Code, reason: &'static str, message: String) -> Undone {
        Undone::Refused {
            failure: Failure::new(code, reason, message),
            subject_id: self.notification_id.to_string(),
            detail: self.reason.clone(),
        }
    }
}

impl Mutation for Cancel {
    const METHOD: &'static str = "CancelNotification";
    type Answer = wire::CancelNotificationResponse;

    async fn work(&self, connection: &mut AsyncPgConnection, _: &CallContext) -> Result<Done<Self::Answer>, Undone> {
        let id = self.notification_id;
        match cancel::cancel(connection, id).await? {
            Cancelled::Done(history) => Ok(Done {
                answer: wire::CancelNotificationResponse { notification: Some(convert::notification(*history)) },
                subject_id: id.to_string(),
                detail: self.reason.clone(),
            }),
            Cancelled::Settled(state) => {
                let message = format!("notification {id} has ended already: {state}");
                Err(self.refused(Code::FailedPrecondition, "NOTIFICATION_SETTLED", message))
            }
            Cancelled::Unknown => {
                let message = format!("notification {id} is not known");
                Err(self.refused(Code::NotFound, "NOTIFICATION_NOT_FOUND", message))
            }
        }
    }
}

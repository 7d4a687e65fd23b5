//! What recipients want: setting and showing it, and the one click that stops e-mail.

use diesel_async::{AsyncConnection, AsyncPgConnection};
use notify_domain::{channel::Channel, preference::Mute, preference::Preferences};
use p2phub_proto::notify::v1 as wire;
use service::{call::CallContext, error::Failure};
use tonic::Request;

use super::{
    NotificationApi, fields,
    once::{Done, Mutation, Undone},
    wishes,
};
use crate::store::{
    StoreError,
    audit::{self, AuditEvent},
    clock, preferences,
};

/// Far more than any token that was issued.
const TOKEN_BYTES_MAX: usize = 1024;

pub(super) struct SetPreferences {
    recipient_id: String,
    wanted: Preferences,
}

impl SetPreferences {
    pub(super) fn check(request: &wire::SetPreferencesRequest) -> Result<Self, Failure> {
        let given = request.preferences.as_ref();
        Ok(Self {
            recipient_id: fields::recipient("recipient_id", &request.recipient_id)?,
            wanted: given.map(wishes::inward).transpose()?.unwrap_or_default(),
        })
    }
}

impl Mutation for SetPreferences {
    const METHOD: &'static str = "SetPreferences";
    type Answer = wire::SetPreferencesResponse;

    async fn work(&self, connection: &mut AsyncPgConnection, _: &CallContext) -> Result<Done<Self::Answer>, Undone> {
        preferences::set(connection, &self.recipient_id, &self.wanted).await?;
        Ok(Done {
            answer: wire::SetPreferencesResponse { preferences: Some(wishes::outward(&self.wanted)) },
            subject_id: self.recipient_id.clone(),
            detail: wishes::summary(&self.wanted),
        })
    }
}

impl NotificationApi {
    pub(super) async fn preferences(
        &self,
        request: wire::GetPreferencesRequest,
    ) -> Result<wire::GetPreferencesResponse, Failure> {
        let recipient_id = fields::recipient("recipient_id", &request.recipient_id)?;
        let wanted = self.read(async |connection| preferences::get(connection, &recipient_id).await).await?;
        Ok(wire::GetPreferencesResponse { preferences: Some(wishes::outward(&wanted)) })
    }

    /// Needs no request ID: whoever redeems the token again changes nothing.
    pub(super) async fn redeem(
        &self,
        request: Request<wire::UnsubscribeRequest>,
    ) -> Result<wire::UnsubscribeResponse, Failure> {
        let call = CallContext::of(&request);
        let token = &request.get_ref().token;
        let recipient_id = Some(token)
            .filter(|token| token.len() <= TOKEN_BYTES_MAX)
            .and_then(|token| self.unsubscribe.read(token))
            .ok_or_else(|| Failure::violation("token", "was never issued"))?;
        let wanted = self.read(async |connection| stop_email(connection, &call, &recipient_id).await).await?;
        Ok(wire::UnsubscribeResponse { recipient_id, preferences: Some(wishes::outward(&wanted)) })
    }
}

async fn stop_email(
    connection: &mut AsyncPgConnection,
    call: &CallContext,
    recipient_id: &str,
) -> Result<Preferences, StoreError> {
    connection
        .transaction(async |connection| {
            let mute = Mute { kind: None, channel: Some(Channel::Email) };
            if preferences::add_mute(connection, recipient_id, mute).await? {
                let now = clock::now(connection).await?;
                audit::insert(connection, &AuditEvent::of_call(call, "Unsubscribe", recipient_id, now)).await?;
            }
            preferences::get(connection, recipient_id).await
        })
        .await
}

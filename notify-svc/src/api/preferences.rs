//! What recipients want: setting and showing it, and the one click that stops e-mail.

use diesel_async::AsyncPgConnection;
use notify_domain::{channel::Channel, preference::Mute, preference::Preferences};
use p2phub_proto::notify::v1 as wire;
use service::{call::CallContext, error::Failure};

use super::{
    NotificationApi, fields,
    once::{Done, Mutation, Undone},
    wishes,
};
use crate::{store::preferences, unsubscribe::UnsubscribeTokens};

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
        preferences::decide_anew(connection, &self.recipient_id).await?;
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
}

pub(super) struct Unsubscribe {
    recipient_id: String,
}

impl Unsubscribe {
    pub(super) fn check(request: &wire::UnsubscribeRequest, tokens: &UnsubscribeTokens) -> Result<Self, Failure> {
        let recipient_id = Some(&request.token)
            .filter(|token| token.len() <= TOKEN_BYTES_MAX)
            .and_then(|token| tokens.read(token))
            .ok_or_else(|| Failure::violation("token", "was never issued"))?;
        Ok(Self { recipient_id })
    }
}

impl Mutation for Unsubscribe {
    const METHOD: &'static str = "Unsubscribe";
    type Answer = wire::UnsubscribeResponse;

    async fn work(&self, connection: &mut AsyncPgConnection, _: &CallContext) -> Result<Done<Self::Answer>, Undone> {
        let mute = Mute { kind: None, channel: Some(Channel::Email) };
        let is_new = preferences::add_mute(connection, &self.recipient_id, mute).await?;
        let wanted = preferences::get(connection, &self.recipient_id).await?;
        let (recipient_id, preferences) = (self.recipient_id.clone(), Some(wishes::outward(&wanted)));
        Ok(Done {
            answer: wire::UnsubscribeResponse { recipient_id, preferences },
            subject_id: self.recipient_id.clone(),
            detail: if is_new { wishes::summary(&wanted) } else { "had been done before".to_owned() },
        })
    }
}

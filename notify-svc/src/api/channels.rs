//! Channels and gates: how they are doing, pausing and resuming.

use diesel_async::AsyncPgConnection;
use notify_domain::channel::{Channel, Channels};
use p2phub_proto::notify::v1 as wire;
use service::{call::CallContext, error::Failure};

use super::{
    NotificationApi, fields,
    once::{Done, Mutation, Undone},
    page::Page,
};
use crate::{
    convert::timestamp,
    store::channels::{self, ChannelRow, GateRow},
};

impl NotificationApi {
    pub(super) async fn channels(&self) -> Result<wire::ListChannelsResponse, Failure> {
        let rows = self.read(async |connection| channels::list(connection).await).await?;
        let channels = Channel::ALL.iter().map(|channel| status(*channel, &self.channels, &rows)).collect();
        Ok(wire::ListChannelsResponse { channels })
    }

    pub(super) async fn gates(&self, request: wire::ListGatesRequest) -> Result<wire::ListGatesResponse, Failure> {
        let page = Page::new(request.page_size, &request.page_token, vec!["gates".to_owned()])?;
        let after = page.before.clone();
        let rows = self.read(async |connection| channels::gates(connection, after, page.limit()).await).await?;
        let (gates, next_page_token) = page.cut(rows, |row| (row.open_time, row.gate.clone()), gate);
        Ok(wire::ListGatesResponse { gates, next_page_token })
    }
}

fn gate(row: GateRow) -> wire::Gate {
    wire::Gate {
        gate: row.gate,
        open_time: Some(timestamp(row.open_time)),
        reason: row.reason,
        failures: row.failure_count,
        waiting: row.waiting,
    }
}

fn status(channel: Channel, on: &Channels, rows: &[ChannelRow]) -> wire::ChannelStatus {
    let row = rows.iter().find(|row| row.channel == channel.as_str());
    wire::ChannelStatus {
        channel: channel.as_str().to_owned(),
        on: on.is_on(channel),
        paused: row.is_some_and(|row| row.paused),
        pause_reason: row.map(|row| row.note.clone()).unwrap_or_default(),
        paused_by: row.map(|row| row.closed_by.clone()).unwrap_or_default(),
        queued: row.map(|row| row.queued).unwrap_or_default(),
        held: row.map(|row| row.held).unwrap_or_default(),
    }
}

/// How it was doing before the open transaction did anything to it, as far as that can be counted in time.
async fn before(connection: &mut AsyncPgConnection, channel: Channel, on: &Channels) -> wire::ChannelStatus {
    status(channel, on, &channels::try_list(connection).await.unwrap_or_default())
}

pub(super) struct Pause {
    channel: Channel,
    reason: String,
    on: Channels,
}

impl Pause {
    pub(super) fn check(request: &wire::PauseChannelRequest, on: &Channels) -> Result<Self, Failure> {
        Ok(Self {
            channel: fields::channel("channel", &request.channel)?,
            reason: fields::reason("reason", &request.reason)?,
            on: on.clone(),
        })
    }
}

impl Mutation for Pause {
    const METHOD: &'static str = "PauseChannel";
    type Answer = wire::PauseChannelResponse;

    async fn work(&self, connection: &mut AsyncPgConnection, call: &CallContext) -> Result<Done<Self::Answer>, Undone> {
        let before = before(connection, self.channel, &self.on).await;
        channels::pause(connection, self.channel, &call.caller, &self.reason).await?;
        let (pause_reason, paused_by) = (self.reason.clone(), call.caller.clone());
        let channel = Some(wire::ChannelStatus { paused: true, pause_reason, paused_by, ..before });
        Ok(Done {
            answer: wire::PauseChannelResponse { channel },
            subject_id: self.channel.as_str().to_owned(),
            detail: self.reason.clone(),
        })
    }
}

pub(super) struct Resume {
    channel: Channel,
    reason: String,
    on: Channels,
}

impl Resume {
    pub(super) fn check(request: &wire::ResumeChannelRequest, on: &Channels) -> Result<Self, Failure> {
        Ok(Self {
            channel: fields::channel("channel", &request.channel)?,
            reason: fields::reason("reason", &request.reason)?,
            on: on.clone(),
        })
    }
}

impl Mutation for Resume {
    const METHOD: &'static str = "ResumeChannel";
    type Answer = wire::ResumeChannelResponse;

    async fn work(&self, connection: &mut AsyncPgConnection, _: &CallContext) -> Result<Done<Self::Answer>, Undone> {
        let before = before(connection, self.channel, &self.on).await;
        let was_paused = channels::resume(connection, self.channel).await?;
        let (pause_reason, paused_by) = (String::new(), String::new());
        let channel = Some(wire::ChannelStatus { paused: false, pause_reason, paused_by, held: 0, ..before });
        let detail = if was_paused { self.reason.clone() } else { format!("was not paused: {}", self.reason) };
        Ok(Done {
            answer: wire::ResumeChannelResponse { channel },
            subject_id: self.channel.as_str().to_owned(),
            detail,
        })
    }
}

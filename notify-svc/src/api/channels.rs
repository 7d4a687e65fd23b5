//! Channels and gates: how they are doing, pausing and resuming.

use diesel_async::AsyncPgConnection;
use notify_domain::channel::{Channel, Channels};
use p2phub_proto::notify::v1 as wire;
use service::{call::CallContext, error::Failure};

use super::{
    NotificationApi, fields,
    once::{Done, Mutation, Undone},
    page,
};
use crate::{
    convert::timestamp,
    store::{
        StoreError,
        channels::{self, ChannelRow, GateRow},
    },
};

impl NotificationApi {
    pub(super) async fn channels(&self) -> Result<wire::ListChannelsResponse, Failure> {
        let rows = self.read(async |connection| channels::list(connection).await).await?;
        let channels = Channel::ALL.iter().map(|channel| status(*channel, &self.channels, &rows)).collect();
        Ok(wire::ListChannelsResponse { channels })
    }

    pub(super) async fn gates(&self, request: wire::ListGatesRequest) -> Result<wire::ListGatesResponse, Failure> {
        let limit = i64::try_from(page::size(request.page_size)?).unwrap_or(i64::MAX);
        let rows = self.read(async |connection| channels::gates(connection, limit).await).await?;
        Ok(wire::ListGatesResponse { gates: rows.into_iter().map(gate).collect() })
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

/// How it is doing, as the open transaction sees it.
async fn current(
    connection: &mut AsyncPgConnection,
    channel: Channel,
    on: &Channels,
) -> Result<wire::ChannelStatus, StoreError> {
    Ok(status(channel, on, &channels::list(connection).await?))
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
        channels::pause(connection, self.channel, &call.caller, &self.reason).await?;
        let channel = Some(current(connection, self.channel, &self.on).await?);
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
        let was_paused = channels::resume(connection, self.channel).await?;
        let channel = Some(current(connection, self.channel, &self.on).await?);
        let detail = if was_paused { self.reason.clone() } else { format!("was not paused: {}", self.reason) };
        Ok(Done {
            answer: wire::ResumeChannelResponse { channel },
            subject_id: self.channel.as_str().to_owned(),
            detail,
        })
    }
}

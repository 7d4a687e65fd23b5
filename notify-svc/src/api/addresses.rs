//! What has been learnt about addresses, and forgetting it.

use diesel_async::AsyncPgConnection;
use notify_domain::channel::Channel;
use p2phub_proto::notify::v1 as wire;
use service::{call::CallContext, error::Failure};
use sha2::{Digest, Sha256};
use tonic::Code;

use super::{
    NotificationApi, fields,
    once::{Done, Mutation, Undone},
};
use crate::{
    convert::timestamp,
    store::marks::{self, AddressRow},
};

fn address(row: AddressRow) -> wire::Address {
    wire::Address {
        channel: row.channel,
        address: row.address,
        reason: row.reason,
        moved_to: row.moved_to.unwrap_or_default(),
        mark_time: Some(timestamp(row.mark_time)),
        notification_id: row.notification_id.to_string(),
    }
}

fn unknown() -> Failure {
    Failure::new(Code::NotFound, "ADDRESS_NOT_MARKED", "nothing is known of this address")
}

impl NotificationApi {
    pub(super) async fn address(&self, request: wire::GetAddressRequest) -> Result<wire::GetAddressResponse, Failure> {
        let channel = fields::contact_channel("channel", &request.channel)?;
        let asked = fields::address("address", &request.address)?;
        let found = self.read(async |connection| marks::get(connection, channel, &asked).await).await?;
        Ok(wire::GetAddressResponse { address: Some(address(found.ok_or_else(unknown)?)) })
    }
}

pub(super) struct ResetAddress {
    channel: Channel,
    address: String,
    reason: String,
}

impl ResetAddress {
    pub(super) fn check(request: &wire::ResetAddressRequest) -> Result<Self, Failure> {
        Ok(Self {
            channel: fields::contact_channel("channel", &request.channel)?,
            address: fields::address("address", &request.address)?,
            reason: fields::reason("reason", &request.reason)?,
        })
    }

    /// An audit record stays for ever: the address itself, which is personal, must not stand in it.
    fn subject_id(&self) -> String {
        let digest = Sha256::digest(&self.address);
        let digest: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("{}/{digest}", self.channel.as_str())
    }
}

impl Mutation for ResetAddress {
    const METHOD: &'static str = "ResetAddress";
    type Answer = wire::ResetAddressResponse;

    async fn work(&self, connection: &mut AsyncPgConnection, _: &CallContext) -> Result<Done<Self::Answer>, Undone> {
        let subject_id = self.subject_id();
        match marks::reset(connection, self.channel, &self.address).await? {
            Some(row) => {
                let detail = format!("{}: {}", row.reason, self.reason);
                // The first answer is kept for ever, as the audit record is.
                let known = wire::Address { address: String::new(), moved_to: String::new(), ..address(row) };
                Ok(Done { answer: wire::ResetAddressResponse { address: Some(known) }, subject_id, detail })
            }
            None => Err(Undone::Refused { failure: unknown(), subject_id, detail: self.reason.clone() }),
        }
    }
}

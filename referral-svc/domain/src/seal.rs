//! The hashes that seal the records: of an audit event, of a ledger transaction, and of the block that covers those of one
//! database transaction and its parents.
//!
//! What is hashed can't be read in two ways: whatever varies in length comes after its length, integers are big-endian, and
//! times are microseconds as PostgreSQL stores them.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::posting::Entry;

/// SHA-256.
pub type Hash = [u8; 32];

/// From 1970 to where PostgreSQL begins to count, 2000-01-01 UTC.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// What is hashed, piece by piece.
struct Bytes(Sha256);

impl Bytes {
    fn new() -> Self {
        Self(Sha256::new())
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// How many of something follow.
    fn count(self, count: usize) -> Self {
        self.raw(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes())
    }

    fn text(self, text: &str) -> Self {
        self.count(text.len()).raw(text.as_bytes())
    }

    fn integer(self, number: i64) -> Self {
        self.raw(&number.to_be_bytes())
    }

    fn time(self, time: DateTime<Utc>) -> Self {
        self.integer(time.timestamp_micros().saturating_sub(POSTGRES_EPOCH_MICROS))
    }

    fn id(self, id: Uuid) -> Self {
        self.raw(id.as_bytes())
    }

    /// One byte says whether there is one.
    fn optional<T>(self, value: Option<T>, write: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => write(self.raw(&[1]), value),
            None => self.raw(&[0]),
        }
    }

    fn sealed(self, records: &[(Uuid, Hash)]) -> Self {
        records.iter().fold(self.count(records.len()), |bytes, (id, hash)| bytes.id(*id).raw(hash))
    }

    fn hash(self) -> Hash {
        self.0.finalize().into()
    }
}

/// An audit event, column by column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventFields<'a> {
    /// Permanent.
    pub audit_event_id: Uuid,
    /// When.
    pub create_time: DateTime<Utc>,
    /// Who.
    pub actor: &'a str,
    /// What.
    pub action: &'a str,
    /// On what.
    pub subject_id: &'a str,
    /// With what result.
    pub outcome: &'a str,
    /// In which trace.
    pub trace_id: Uuid,
    /// By which request; none: a job of the service.
    pub request_id: Option<Uuid>,
    /// What else should be seen.
    pub detail: &'a str,
    /// How many notices it asked for; none: an older version wrote it.
    pub notices: Option<i32>,
}

impl EventFields<'_> {
    /// The event's seal.
    pub fn hash(&self) -> Hash {
        Bytes::new()
            .text("audit event")
            .id(self.audit_event_id)
            .time(self.create_time)
            .text(self.actor)
            .text(self.action)
            .text(self.subject_id)
            .text(self.outcome)
            .id(self.trace_id)
            .optional(self.request_id, Bytes::id)
            .text(self.detail)
            .optional(self.notices, |bytes, notices| bytes.integer(notices.into()))
            .hash()
    }
}

/// A ledger transaction, column by column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransactionFields<'a> {
    /// Permanent.
    pub transaction_id: Uuid,
    /// As the database has it.
    pub kind: &'a str,
    /// When.
    pub create_time: DateTime<Utc>,
    /// Which payment it is about, if one.
    pub payment_id: Option<Uuid>,
    /// Which payout it is about, if one.
    pub payout_id: Option<Uuid>,
    /// Which adjustment it is about, if one.
    pub adjustment_id: Option<Uuid>,
    /// The record of the command that booked it.
    pub audit_event_id: Option<Uuid>,
    /// In any order.
    pub entries: &'a [Entry],
}

impl TransactionFields<'_> {
    /// The transaction's seal: what the database's function `transaction_hash` computes.
    pub fn hash(&self) -> Hash {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|entry| (entry.account_id, entry.version));
        let head = Bytes::new()
            .id(self.transaction_id)
            .text(self.kind)
            .time(self.create_time)
            .optional(self.payment_id, Bytes::id)
            .optional(self.payout_id, Bytes::id)
            .optional(self.adjustment_id, Bytes::id)
            .optional(self.audit_event_id, Bytes::id)
            .count(entries.len());
        let of_entry = |bytes: Bytes, entry: &Entry| {
            bytes.integer(entry.account_id).integer(entry.version).integer(entry.amount).integer(entry.balance_after)
        };
        entries.into_iter().fold(head, of_entry).hash()
    }
}

/// Where a chain ends, or is linked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Which chain.
    pub chain_id: Uuid,
    /// Its block there; the first is 1.
    pub position: i64,
    /// That block's hash.
    pub hash: Hash,
}

/// What one database transaction recorded and booked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// Which chain it belongs to.
    pub chain_id: Uuid,
    /// Its place there, from 1.
    pub position: i64,
    /// When.
    pub create_time: DateTime<Utc>,
    /// Of a first block: other chains, and the place in each that it follows.
    pub parents: Vec<(Uuid, i64)>,
    /// Audit events with their hashes.
    pub audit_events: Vec<(Uuid, Hash)>,
    /// Ledger transactions with their hashes.
    pub transactions: Vec<(Uuid, Hash)>,
}

impl Block {
    /// The block's hash; `follows` are the hashes of its parents, in their order, or that of the block before it.
    pub fn hash(&self, follows: &[Hash]) -> Hash {
        let head = Bytes::new()
            .text("audit block")
            .id(self.chain_id)
            .integer(self.position)
            .time(self.create_time)
            .count(self.parents.len());
        let parents = self.parents.iter().fold(head, |bytes, (chain_id, place)| bytes.id(*chain_id).integer(*place));
        let follows = follows.iter().fold(parents.count(follows.len()), |bytes, hash| bytes.raw(hash));
        follows.sealed(&self.audit_events).sealed(&self.transactions).hash()
    }

    /// Where the chain ends with this block.
    pub fn head(&self, follows: &[Hash]) -> Head {
        Head { chain_id: self.chain_id, position: self.position, hash: self.hash(follows) }
    }
}

#[cfg(test)]
mod tests;

//! Typed identifiers, and where new ones come from.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// A partner. The order of IDs is the order of registration.
    PartnerId;
    /// A payment. The order of IDs is the order of opening.
    PaymentId;
    /// A ledger transaction.
    TransactionId;
    /// A refund. The order of IDs is the order of refunding.
    RefundId;
    /// A payout. The order of IDs is the order of requesting.
    PayoutId;
    /// An adjustment. The order of IDs is the order of proposing.
    AdjustmentId;
    /// A broadcast. The order of IDs is the order of creation.
    BroadcastId;
}

/// Makes UUIDs (version 7, RFC 9562) for one batch: ordered by the batch's time to the microsecond, then by call.
pub struct IdSource {
    now: DateTime<Utc>,
    made: u16,
    random: Box<dyn FnMut() -> u64 + Send>,
}

impl IdSource {
    /// `now` is the batch's time; `random` gives 64 fresh random bits a call.
    pub fn new(now: DateTime<Utc>, random: impl FnMut() -> u64 + Send + 'static) -> Self {
        Self { now, made: 0, random: Box::new(random) }
    }

    /// A UUID that sorts after every one made before.
    ///
    /// RFC 9562 section 6.2 leaves `rand_a` and the head of `rand_b` to finer time and a counter.
    pub fn uuid(&mut self) -> Uuid {
        let counter = self.made;
        self.made = self.made.wrapping_add(1);
        assemble(self.now, counter & 0x3fff, (self.random)())
    }

    /// A fresh ID of any type.
    pub fn make<T: From<Uuid>>(&mut self) -> T {
        self.uuid().into()
    }
}

/// The lowest ID of a time, to the microsecond: every ID made then or later is as high at least, every one made before lower.
pub fn lowest_at(time: DateTime<Utc>) -> Uuid {
    assemble(time, 0, 0)
}

fn assemble(time: DateTime<Utc>, counter: u16, random: u64) -> Uuid {
    let millis = u64::try_from(time.timestamp_millis()).unwrap_or(0);
    let micros = u16::try_from(time.timestamp_subsec_micros() % 1000).unwrap_or(0);
    let mut bytes = [0; 10];
    // The builder overwrites the top four bits of byte 0 (version) and the top two of byte 2 (variant).
    bytes[..2].copy_from_slice(&micros.to_be_bytes());
    bytes[2..4].copy_from_slice(&counter.to_be_bytes());
    bytes[4..].copy_from_slice(&random.to_be_bytes()[..6]);
    Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_then_by_call() {
        let start = DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("a time");
        let mut made = Vec::new();
        for micros in 0..3 {
            let mut ids = IdSource::new(start + chrono::TimeDelta::microseconds(micros), || u64::MAX);
            made.extend((0..1000).map(|_| ids.uuid()));
        }
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(made.iter().all(|id| id.get_version_num() == 7));
    }

    #[test]
    fn a_times_lowest_id_parts_those_before_from_those_since() {
        let start = DateTime::from_timestamp_micros(1_700_000_000_123_999).expect("a time");
        let at = |micros, random| IdSource::new(start + chrono::TimeDelta::microseconds(micros), move || random).uuid();
        for micros in [0, 1, 2] {
            let lowest = lowest_at(start + chrono::TimeDelta::microseconds(micros));
            assert!(at(micros - 1, u64::MAX) < lowest && lowest <= at(micros, 0), "{micros}");
        }
    }
}

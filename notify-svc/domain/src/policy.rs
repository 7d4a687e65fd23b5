//! The delivery policy: retries, lifetimes and lanes by kind, limits by channel. It is data, read at start.

mod written;

use std::collections::BTreeMap;

use chrono::TimeDelta;

use crate::{
    gate::{Breaker, GateKey, Rate, Scope},
    kind::Kind,
    lane::{LANES, Lane},
    retry::RetryPolicy,
};
use written::{Percents, Weights, Written};

/// The policy that holds unless another is given.
const BUILTIN: &str = include_str!("policy.json");

/// A policy that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    written: Written,
    by_kind: BTreeMap<Kind, Terms>,
}

/// How notifications of one kind are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// When to try again.
    pub retry: RetryPolicy,
    /// How long one is worth sending whose sender didn't say.
    pub lifetime: TimeDelta,
    /// Which queue it stands in.
    pub lane: Lane,
}

/// How many of an instance's workers may wait in front of one gate at once: what hangs leaves the rest to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlightMax {
    channel: u32,
    provider: u32,
    domain: u32,
    recipient: u32,
}

impl InFlightMax {
    /// The same for every gate.
    #[cfg(test)]
    pub(crate) fn same(most: u32) -> Self {
        Self { channel: most, provider: most, domain: most, recipient: most }
    }

    /// Before a gate of this scope.
    pub fn before(&self, scope: Scope) -> u32 {
        match scope {
            Scope::Channel => self.channel,
            Scope::Provider => self.provider,
            Scope::Domain => self.domain,
            Scope::Recipient => self.recipient,
        }
    }

    /// Before one that has failed since it was last well.
    pub fn before_failing(&self, scope: Scope) -> u32 {
        self.before(scope).div_ceil(4)
    }
}

/// Why a policy makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// It isn't JSON of this shape.
    #[error("{0}")]
    Malformed(String),
    /// A number is out of its bounds.
    #[error("{name} is {value}, but must be {least} to {most}")]
    OutOfBounds {
        /// The field.
        name: String,
        /// What it is.
        value: u64,
        /// The least that makes sense.
        least: u64,
        /// The most that makes sense.
        most: u64,
    },
    /// There is no such kind or channel.
    #[error("{field}: there is no {name:?}")]
    Unknown {
        /// Where it stands.
        field: &'static str,
        /// What it says.
        name: String,
    },
}

impl Policy {
    /// The built-in one.
    ///
    /// # Panics
    /// Never: a test reads it.
    pub fn builtin() -> Self {
        #[expect(clippy::expect_used, reason = "it is a constant, and a test reads it")]
        Self::parse(BUILTIN).expect("the built-in policy is sound")
    }

    /// Reads a policy, and refuses one that makes no sense.
    pub fn parse(json: &str) -> Result<Self, InvalidPolicy> {
        let written: Written =
            serde_json::from_str(json).map_err(|error| InvalidPolicy::Malformed(error.to_string()))?;
        written.check()?;
        let by_kind = Kind::ALL.iter().map(|kind| (*kind, written.terms(*kind))).collect();
        Ok(Self { written, by_kind })
    }

    /// How notifications of a kind are treated; of one that this version doesn't know, as any other.
    pub fn terms(&self, kind: Option<Kind>) -> Terms {
        kind.and_then(|kind| self.by_kind.get(&kind).copied()).unwrap_or_else(|| self.written.common())
    }

    /// The limit of a gate.
    pub fn rate(&self, key: &GateKey) -> Option<&Rate> {
        let limits = self.written.limits.get(key.channel.as_str())?;
        match key.scope {
            Scope::Channel => limits.channel.as_ref(),
            Scope::Provider => limits.provider.as_ref(),
            Scope::Domain => limits.domain.as_ref(),
            Scope::Recipient => limits.recipient.as_ref(),
        }
    }

    /// When a provider that fails is left in peace.
    pub fn breaker(&self) -> &Breaker {
        &self.written.breaker
    }

    /// The lanes' shares.
    pub fn lane_weights(&self) -> [u32; LANES] {
        let Weights { urgent, normal, bulk } = self.written.lane_weights;
        [urgent, normal, bulk]
    }

    /// How many of an instance's workers may wait in front of one gate at once.
    pub fn in_flight_max(&self, workers: u32) -> InFlightMax {
        let part = |percent| workers.saturating_mul(percent).div_ceil(100).max(1);
        let Percents { channel, provider, domain, recipient } = self.written.in_flight_percent;
        InFlightMax {
            channel: part(channel),
            provider: part(provider),
            domain: part(domain),
            recipient: part(recipient),
        }
    }

    /// How long a marked address is left alone before it is tried again.
    pub fn address_mark(&self) -> TimeDelta {
        TimeDelta::days(self.written.address_mark_days.into())
    }

    /// How long settled notifications are kept.
    pub fn retention(&self) -> TimeDelta {
        TimeDelta::days(self.written.retention_days.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(from: &str, to: &str) -> Result<Policy, InvalidPolicy> {
        assert!(BUILTIN.contains(from), "{from}");
        Policy::parse(&BUILTIN.replacen(from, to, 1))
    }

    #[test]
    fn the_builtin_one_is_sound_and_keeps_the_promised_times() {
        let policy = Policy::builtin();
        assert_eq!(policy.terms(Some(Kind::SignupL1)).retry, RetryPolicy::default());
        assert_eq!(policy.terms(Some(Kind::CommissionReceived)).lane, Lane::Urgent);
        assert_eq!(policy.terms(Some(Kind::OperatorBroadcast)).lane, Lane::Bulk);
        assert_eq!(policy.terms(Some(Kind::ProExpiring1Day)).lifetime, TimeDelta::days(1));
        assert_eq!(policy.terms(None).lifetime, TimeDelta::days(7));
        let before = |workers, scope| policy.in_flight_max(workers).before(scope);
        assert_eq!([1, 5, 64, 128].map(|workers| before(workers, Scope::Domain)), [1, 2, 16, 32]);
        assert_eq!([1, 5, 64, 128].map(|workers| before(workers, Scope::Recipient)), [1, 1, 2, 4]);
        assert_eq!([1, 5, 64, 128].map(|workers| before(workers, Scope::Channel)), [1, 3, 39, 77]);
    }

    #[test]
    fn a_kind_changes_what_it_names_and_nothing_else() {
        let policy =
            changed(r#""OPERATOR_BROADCAST": { "lane": "bulk" }"#, r#""OPERATOR_BROADCAST": { "tries_max": 2 }"#)
                .expect("sound");
        let terms = policy.terms(Some(Kind::OperatorBroadcast));
        assert_eq!(terms.retry, RetryPolicy { tries_max: 2, ..RetryPolicy::default() });
        assert_eq!(terms.lane, Lane::Normal);
    }

    #[test]
    fn nonsense_is_refused_by_its_place() {
        for (from, to, place) in [
            (r#""tries_max": 8"#, r#""tries_max": 0"#, "retry.tries_max"),
            (r#""delay_max_ms": 3600000"#, r#""delay_max_ms": 1"#, "retry.delay_max_ms"),
            (r#""sends": 20"#, r#""sends": 0"#, "limits.telegram.provider.sends"),
            (r#""bulk": 1"#, r#""bulk": 0"#, "lane_weights.bulk"),
            (r#""PAYOUT_STATE""#, r#""PAYOUT""#, "PAYOUT"),
            (r#""slack""#, r#""pigeon""#, "pigeon"),
            (r#""lane": "bulk""#, r#""lane": "slow""#, "slow"),
            (r#""lane": "bulk""#, r#""lines": "bulk""#, "lines"),
            (r#""lifetime_s": 86400"#, r#""lifetime_s": 0"#, "kinds.PRO_EXPIRING_1_DAY.lifetime_s"),
            (r#""retention_days": 90"#, r#""retention_days": 0"#, "retention_days"),
            (r#""tries_max": 8"#, r#""tries_max": -8"#, "-8"),
        ] {
            let error = changed(from, to).expect_err(to).to_string();
            assert!(error.contains(place), "{error}");
        }
    }
}

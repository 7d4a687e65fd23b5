//! The delivery policy: retries, lifetimes and lanes by kind, limits by channel. It is data, read at start.

use std::{collections::BTreeMap, time::Duration};

use chrono::TimeDelta;
use serde::Deserialize;

use crate::{
    channel::Channel,
    gate::{Breaker, GateKey, Rate, Scope},
    kind::Kind,
    lane::{LANES, Lane},
    retry::RetryPolicy,
};

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

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    retry: WrittenRetry,
    lifetime_s: u32,
    lane: Lane,
    lane_weights: Weights,
    kinds: BTreeMap<String, WrittenKind>,
    limits: BTreeMap<String, Limits>,
    in_flight_percent: u32,
    breaker: Breaker,
    address_mark_days: u32,
    retention_days: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRetry {
    first_delay_ms: u32,
    factor: u32,
    delay_max_ms: u32,
    jitter_percent: u32,
    tries_max: u32,
}

/// What is left out is as for every other kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKind {
    #[serde(default)]
    first_delay_ms: Option<u32>,
    #[serde(default)]
    factor: Option<u32>,
    #[serde(default)]
    delay_max_ms: Option<u32>,
    #[serde(default)]
    jitter_percent: Option<u32>,
    #[serde(default)]
    tries_max: Option<u32>,
    #[serde(default)]
    lifetime_s: Option<u32>,
    #[serde(default)]
    lane: Option<Lane>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weights {
    urgent: u32,
    normal: u32,
    bulk: u32,
}

/// A channel's limits; what is left out is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    #[serde(default)]
    channel: Option<Rate>,
    #[serde(default)]
    provider: Option<Rate>,
    #[serde(default)]
    domain: Option<Rate>,
    #[serde(default)]
    recipient: Option<Rate>,
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

    /// How many of an instance's workers may wait for one domain at once.
    pub fn in_flight_max(&self, workers: u32) -> u32 {
        workers.saturating_mul(self.written.in_flight_percent).div_ceil(100).max(1)
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

impl Written {
    fn check(&self) -> Result<(), InvalidPolicy> {
        self.retry.check("retry")?;
        within("lifetime_s", self.lifetime_s, LIFETIME_S)?;
        for (lane, weight) in [
            ("urgent", self.lane_weights.urgent),
            ("normal", self.lane_weights.normal),
            ("bulk", self.lane_weights.bulk),
        ] {
            within(&format!("lane_weights.{lane}"), weight, (1, 1000))?;
        }
        for (name, kind) in &self.kinds {
            if Kind::parse(name).is_none() {
                return Err(InvalidPolicy::Unknown { field: "kinds", name: name.clone() });
            }
            self.retry.with(kind).check(&format!("kinds.{name}"))?;
            within(&format!("kinds.{name}.lifetime_s"), kind.lifetime_s.unwrap_or(self.lifetime_s), LIFETIME_S)?;
        }
        for (name, limits) in &self.limits {
            if Channel::parse(name).is_none() {
                return Err(InvalidPolicy::Unknown { field: "limits", name: name.clone() });
            }
            limits.check(name)?;
        }
        within("in_flight_percent", self.in_flight_percent, (1, 100))?;
        within("breaker.failures", self.breaker.failures, (1, 1_000_000))?;
        within("breaker.failing_ms", self.breaker.failing_ms, (0, DAY_MS))?;
        within("breaker.pause_ms", self.breaker.pause_ms, (100, DAY_MS))?;
        within("breaker.pause_max_ms", self.breaker.pause_max_ms, (self.breaker.pause_ms, DAY_MS))?;
        within("address_mark_days", self.address_mark_days, (1, 3650))?;
        within("retention_days", self.retention_days, (1, 3650))
    }

    fn common(&self) -> Terms {
        Terms { retry: self.retry.policy(), lifetime: TimeDelta::seconds(self.lifetime_s.into()), lane: self.lane }
    }

    fn terms(&self, kind: Kind) -> Terms {
        let Some(own) = self.kinds.get(kind.as_str()) else {
            return self.common();
        };
        Terms {
            retry: self.retry.with(own).policy(),
            lifetime: TimeDelta::seconds(own.lifetime_s.unwrap_or(self.lifetime_s).into()),
            lane: own.lane.unwrap_or(self.lane),
        }
    }
}

/// A year, in seconds.
const LIFETIME_S: (u32, u32) = (1, 31_536_000);
const DAY_MS: u32 = 86_400_000;

impl WrittenRetry {
    fn with(self, own: &WrittenKind) -> Self {
        Self {
            first_delay_ms: own.first_delay_ms.unwrap_or(self.first_delay_ms),
            factor: own.factor.unwrap_or(self.factor),
            delay_max_ms: own.delay_max_ms.unwrap_or(self.delay_max_ms),
            jitter_percent: own.jitter_percent.unwrap_or(self.jitter_percent),
            tries_max: own.tries_max.unwrap_or(self.tries_max),
        }
    }

    fn check(self, place: &str) -> Result<(), InvalidPolicy> {
        within(&format!("{place}.first_delay_ms"), self.first_delay_ms, (10, DAY_MS))?;
        within(&format!("{place}.factor"), self.factor, (1, 100))?;
        within(&format!("{place}.delay_max_ms"), self.delay_max_ms, (self.first_delay_ms, DAY_MS))?;
        within(&format!("{place}.jitter_percent"), self.jitter_percent, (0, 100))?;
        within(&format!("{place}.tries_max"), self.tries_max, (1, 100))
    }

    fn policy(self) -> RetryPolicy {
        RetryPolicy {
            first_delay: Duration::from_millis(self.first_delay_ms.into()),
            factor: self.factor,
            delay_max: Duration::from_millis(self.delay_max_ms.into()),
            jitter_permille: self.jitter_percent.saturating_mul(10),
            tries_max: self.tries_max,
        }
    }
}

impl Limits {
    fn check(&self, channel: &str) -> Result<(), InvalidPolicy> {
        let rates = [
            ("channel", self.channel),
            ("provider", self.provider),
            ("domain", self.domain),
            ("recipient", self.recipient),
        ];
        for (scope, rate) in rates {
            let Some(rate) = rate else { continue };
            let place = format!("limits.{channel}.{scope}");
            within(&format!("{place}.sends"), rate.sends, (1, 1_000_000))?;
            within(&format!("{place}.per_ms"), rate.per_ms, (1, DAY_MS))?;
            within(&format!("{place}.burst"), rate.burst, (1, 1_000_000))?;
        }
        Ok(())
    }
}

fn within(name: &str, value: u32, (least, most): (u32, u32)) -> Result<(), InvalidPolicy> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(InvalidPolicy::OutOfBounds {
        name: name.to_owned(),
        value: value.into(),
        least: least.into(),
        most: most.into(),
    })
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
        assert_eq!([1, 5, 64].map(|workers| policy.in_flight_max(workers)), [1, 2, 16]);
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
            (r#""sends": 30"#, r#""sends": 0"#, "limits.telegram.provider.sends"),
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

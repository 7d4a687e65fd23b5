//! The policy as it is written, and the bounds of what makes sense.

use std::{collections::BTreeMap, time::Duration};

use chrono::TimeDelta;
use serde::Deserialize;

use super::{InvalidPolicy, Terms};
use crate::{
    channel::Channel,
    gate::{Breaker, Rate},
    kind::Kind,
    lane::Lane,
    retry::RetryPolicy,
};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    retry: WrittenRetry,
    lifetime_s: u32,
    lane: Lane,
    pub(super) lane_weights: Weights,
    kinds: BTreeMap<String, WrittenKind>,
    pub(super) limits: BTreeMap<String, Limits>,
    pub(super) in_flight_percent: Percents,
    pub(super) breaker: Breaker,
    pub(super) address_mark_days: u32,
    pub(super) retention_days: u32,
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
pub(super) struct Weights {
    pub(super) urgent: u32,
    pub(super) normal: u32,
    pub(super) bulk: u32,
}

/// Of an instance's workers, how many may wait for one channel, one provider, one domain, one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Percents {
    pub(super) channel: u32,
    pub(super) provider: u32,
    pub(super) domain: u32,
    pub(super) recipient: u32,
}

/// A channel's limits; what is left out is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    #[serde(default)]
    pub(super) channel: Option<Rate>,
    #[serde(default)]
    pub(super) provider: Option<Rate>,
    #[serde(default)]
    pub(super) domain: Option<Rate>,
    #[serde(default)]
    pub(super) recipient: Option<Rate>,
}

impl Written {
    pub(super) fn check(&self) -> Result<(), InvalidPolicy> {
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
        let Percents { channel, provider, domain, recipient } = self.in_flight_percent;
        for (scope, percent) in
            [("channel", channel), ("provider", provider), ("domain", domain), ("recipient", recipient)]
        {
            within(&format!("in_flight_percent.{scope}"), percent, (1, 100))?;
        }
        within("breaker.failures", self.breaker.failures, (1, 1_000_000))?;
        within("breaker.failing_ms", self.breaker.failing_ms, (0, DAY_MS))?;
        within("breaker.pause_ms", self.breaker.pause_ms, (100, DAY_MS))?;
        within("breaker.pause_max_ms", self.breaker.pause_max_ms, (self.breaker.pause_ms, DAY_MS))?;
        within("address_mark_days", self.address_mark_days, (1, 3650))?;
        within("retention_days", self.retention_days, (1, 3650))
    }

    pub(super) fn common(&self) -> Terms {
        Terms { retry: self.retry.policy(), lifetime: TimeDelta::seconds(self.lifetime_s.into()), lane: self.lane }
    }

    pub(super) fn terms(&self, kind: Kind) -> Terms {
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

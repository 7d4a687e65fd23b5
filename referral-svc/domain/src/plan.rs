//! The plan: every number that the product may want to change, versioned, checked before anything runs on it.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::{
    LEVELS,
    money::{Amount, Asset},
};

/// A year; no window or duration is longer.
const SECONDS_MAX: u32 = 366 * 24 * 60 * 60;

/// The numbers as they stand in a plan file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbers {
    version: i32,
    asset: Asset,
    pro_price_minor_units: i64,
    pro_duration_days: u16,
    payment_window_seconds: u32,
    attribution_window_seconds: u32,
    commission_rates_bps: Vec<i32>,
    signup_xp: Vec<i32>,
    pro_xp_multiplier: i32,
    // Younger than the first plans: left out of the canonical text where it says the default.
    #[serde(default, skip_serializing_if = "is_default_holding")]
    commission_holding_days: u16,
    #[serde(default = "payout_minimum", skip_serializing_if = "is_default_minimum")]
    payout_minimum_minor_units: i64,
}

/// 10.00 USDT.
const fn payout_minimum() -> i64 {
    10_000_000
}

fn is_default_minimum(minimum: &i64) -> bool {
    *minimum == payout_minimum()
}

fn is_default_holding(days: &u16) -> bool {
    *days == 0
}

/// A plan that makes sense.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    numbers: Numbers,
    rates_bps: [u16; LEVELS],
    xp: [u32; LEVELS],
    multiplier: u16,
}

/// Why a plan does not make sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlan {
    /// Not JSON, a field missing, unknown, or of the wrong type.
    #[error("the plan can't be read: {0}")]
    Unreadable(String),
    /// One field's number makes no sense.
    #[error("{field}: {reason}")]
    Field {
        /// The field's name in the file.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

fn invalid(field: &'static str, reason: impl Into<String>) -> InvalidPlan {
    InvalidPlan::Field { field, reason: reason.into() }
}

impl Plan {
    /// Reads and checks a plan.
    pub fn from_json(json: &str) -> Result<Self, InvalidPlan> {
        let numbers: Numbers =
            serde_json::from_str(json).map_err(|error| InvalidPlan::Unreadable(error.to_string()))?;
        if numbers.version < 1 {
            return Err(invalid("version", "must be 1 or more"));
        }
        if numbers.pro_price_minor_units < 1 {
            return Err(invalid("pro_price_minor_units", "must be 1 or more"));
        }
        if !(1..=366).contains(&numbers.pro_duration_days) {
            return Err(invalid("pro_duration_days", "must be 1 to 366"));
        }
        if !(1..=SECONDS_MAX).contains(&numbers.payment_window_seconds) {
            return Err(invalid("payment_window_seconds", format!("must be 1 to {SECONDS_MAX}")));
        }
        if numbers.attribution_window_seconds > SECONDS_MAX {
            return Err(invalid("attribution_window_seconds", format!("must be 0 to {SECONDS_MAX}")));
        }
        if numbers.commission_holding_days > 366 {
            return Err(invalid("commission_holding_days", "must be 0 to 366"));
        }
        if numbers.payout_minimum_minor_units < 1 {
            return Err(invalid("payout_minimum_minor_units", "must be 1 or more"));
        }
        let rates_bps = by_level("commission_rates_bps", &numbers.commission_rates_bps, 10_000)?;
        let total: i32 = numbers.commission_rates_bps.iter().sum();
        if total > 10_000 {
            return Err(invalid("commission_rates_bps", format!("sum to {total}: more than 10000, the whole price")));
        }
        let xp = by_level("signup_xp", &numbers.signup_xp, 1_000_000)?;
        let multiplier = u16::try_from(numbers.pro_xp_multiplier)
            .ok()
            .filter(|multiplier| (1..=1000).contains(multiplier))
            .ok_or_else(|| invalid("pro_xp_multiplier", "must be 1 to 1000"))?;
        Ok(Self { numbers, rates_bps, xp, multiplier })
    }

    /// The plan of the product's specification.
    pub fn built_in() -> Self {
        #[expect(clippy::expect_used, reason = "a constant that a test reads too")]
        Self::from_json(include_str!("plan.json")).expect("the built-in plan is sound")
    }

    /// The same text for the same numbers: what a version's content is compared by.
    pub fn canonical_json(&self) -> String {
        serde_json::to_string(&self.numbers).unwrap_or_default()
    }

    /// Its version; one version has one content, for ever.
    pub fn version(&self) -> i32 {
        self.numbers.version
    }

    /// What PRO costs.
    pub fn pro_price(&self) -> Amount {
        Amount::new(self.numbers.asset, self.numbers.pro_price_minor_units)
            .unwrap_or_else(|| unreachable!("checked when the plan was read"))
    }

    /// How long one payment's PRO lasts.
    pub fn pro_duration(&self) -> TimeDelta {
        TimeDelta::days(i64::from(self.numbers.pro_duration_days))
    }

    /// How long a commission is held; none: not at all.
    pub fn holding_period(&self) -> Option<TimeDelta> {
        let days = self.numbers.commission_holding_days;
        (days > 0).then(|| TimeDelta::days(i64::from(days)))
    }

    /// The least that is paid out at once.
    pub fn payout_minimum(&self) -> Amount {
        Amount::new(self.numbers.asset, self.numbers.payout_minimum_minor_units)
            .unwrap_or_else(|| unreachable!("checked when the plan was read"))
    }

    /// How long a payment can be confirmed.
    pub fn payment_window(&self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.numbers.payment_window_seconds))
    }

    /// How long after registration a referrer can be attached; zero: never.
    pub fn attribution_window(&self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.numbers.attribution_window_seconds))
    }

    /// Commission rates by level, level 1 first, in hundredths of a percent.
    pub fn rates_bps(&self) -> &[u16; LEVELS] {
        &self.rates_bps
    }

    /// XP for a signup by level, level 1 first.
    pub fn signup_xp(&self) -> &[u32; LEVELS] {
        &self.xp
    }

    /// What signup XP is multiplied with while the receiver's PRO is active.
    pub fn pro_xp_multiplier(&self) -> u16 {
        self.multiplier
    }
}

/// Nine numbers from 0 to `max`, none after a zero.
fn by_level<T: TryFrom<i32> + Copy + Default>(
    field: &'static str,
    numbers: &[i32],
    max: i32,
) -> Result<[T; LEVELS], InvalidPlan> {
    if numbers.len() != LEVELS {
        return Err(invalid(field, format!("has {} levels, must have {LEVELS}", numbers.len())));
    }
    let mut by_level = [T::default(); LEVELS];
    let mut ended = false;
    for ((level, &number), slot) in (1..).zip(numbers).zip(&mut by_level) {
        if !(0..=max).contains(&number) {
            return Err(invalid(field, format!("level {level} is {number}, must be 0 to {max}")));
        }
        if ended && number > 0 {
            return Err(invalid(field, format!("level {level} follows a level with 0: a gap")));
        }
        ended = number == 0;
        *slot = T::try_from(number).map_err(|_| invalid(field, format!("level {level} is out of range")))?;
    }
    Ok(by_level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built_in_with(field: &str, value: serde_json::Value) -> Result<Plan, InvalidPlan> {
        let mut json: serde_json::Value = serde_json::from_str(include_str!("plan.json")).expect("JSON");
        json[field] = value;
        Plan::from_json(&json.to_string())
    }

    #[test]
    fn the_built_in_plan_is_the_specification() {
        let plan = Plan::built_in();
        assert_eq!(plan.rates_bps(), &[3000, 500, 300, 100, 100, 100, 100, 100, 100]);
        assert_eq!(plan.signup_xp(), &[35, 10, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(plan.pro_price().minor_units(), 39_000_000);
        assert_eq!(plan.pro_duration(), TimeDelta::days(30));
        assert_eq!(plan.attribution_window(), TimeDelta::hours(24));
        assert_eq!(plan.pro_xp_multiplier(), 5);
        assert_eq!(plan.holding_period(), None);
        assert_eq!(plan.payout_minimum().minor_units(), 10_000_000);
    }

    #[test]
    fn a_version_from_before_holds_and_payouts_has_the_same_content_as_ever() {
        let text = Plan::built_in().canonical_json();
        assert!(!text.contains("holding") && !text.contains("payout"), "{text}");
        let held = built_in_with("commission_holding_days", 14.into()).expect("sound");
        assert_eq!(held.holding_period(), Some(TimeDelta::days(14)));
        assert_ne!(held.canonical_json(), text);
    }

    #[test]
    fn plans_that_make_no_sense_are_refused_by_field() {
        for (field, value) in [
            ("version", 0.into()),
            ("pro_price_minor_units", (-1).into()),
            ("pro_duration_days", 0.into()),
            ("payment_window_seconds", 0.into()),
            ("attribution_window_seconds", u32::MAX.into()),
            ("commission_rates_bps", vec![9000, 500, 300, 100, 100, 100, 100, 100, 100].into()),
            ("commission_rates_bps", vec![3000, -500, 300, 100, 100, 100, 100, 100, 100].into()),
            ("commission_rates_bps", vec![3000, 0, 300, 100, 100, 100, 100, 100, 100].into()),
            ("commission_rates_bps", vec![3000, 500].into()),
            ("signup_xp", vec![35, 10, 1, 1, 1, 1, 1, 1, 1, 1].into()),
            ("pro_xp_multiplier", 0.into()),
            ("commission_holding_days", 367.into()),
            ("payout_minimum_minor_units", 0.into()),
        ] {
            match built_in_with(field, value) {
                Err(InvalidPlan::Field { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        assert!(matches!(built_in_with("prize", 1.into()), Err(InvalidPlan::Unreadable(_))));
        assert!(matches!(built_in_with("asset", "EUR".into()), Err(InvalidPlan::Unreadable(_))));
    }

    #[test]
    fn a_later_plan_may_pay_fewer_levels() {
        let plan = built_in_with("commission_rates_bps", vec![3000, 500, 0, 0, 0, 0, 0, 0, 0].into()).expect("sound");
        assert_eq!(plan.rates_bps()[1], 500);
    }
}

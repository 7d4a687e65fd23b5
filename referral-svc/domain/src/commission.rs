//! What each ancestor earns on a sale.

use chrono::{DateTime, Utc};

use crate::{
    id::{PartnerId, PaymentId, TransactionId},
    money::Amount,
    plan::Plan,
};

/// Names a commission: a payment pays each level once.
pub type CommissionKey = (PaymentId, u8);

/// One ancestor's share of one payment, with the terms it was computed from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commission {
    /// What paid it.
    pub payment_id: PaymentId,
    /// Who earned it.
    pub earner_id: PartnerId,
    /// 1 to 9.
    pub level: u8,
    /// In hundredths of a percent.
    pub rate_bps: u16,
    /// The plan that the rate is from.
    pub plan_version: i32,
    /// What the rate was applied to.
    pub base: Amount,
    /// The share.
    pub amount: Amount,
    /// The transaction that booked it.
    pub transaction_id: TransactionId,
    /// When it was earned.
    pub create_time: DateTime<Utc>,
    /// Whether it is still held, and until when it is or was; none: it never was. A term of the sale.
    pub hold: Option<Hold>,
    /// What refunds took back, in minor units: 0 to the amount.
    pub reversed: i64,
    /// What open payouts have reserved, in minor units; below zero: a debt that they settle.
    pub reserved: i64,
    /// What was paid out, in minor units.
    pub paid: i64,
}

/// How long a commission is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Until then.
    pub release_time: DateTime<Utc>,
    /// Whether it still is.
    pub is_held: bool,
    /// What booked the release; none while it is held, or if refunds had left nothing to release.
    pub transaction_id: Option<TransactionId>,
}

/// Where a commission stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommissionState {
    /// Held.
    Pending,
    /// Part of the available balance, or reserved.
    Available,
    /// All that refunds left of it was paid out.
    Paid,
    /// Taken back whole.
    Reversed,
}

impl Commission {
    /// Its name.
    pub fn key(&self) -> CommissionKey {
        (self.payment_id, self.level)
    }

    /// Whether it is still held.
    pub fn is_held(&self) -> bool {
        self.hold.is_some_and(|hold| hold.is_held)
    }

    /// What refunds left of it, in minor units.
    pub fn left(&self) -> i64 {
        self.amount.minor_units().saturating_sub(self.reversed)
    }

    /// What its earner can claim of it, in minor units; below zero: a debt. Nothing while it is held.
    pub fn open(&self) -> i64 {
        if self.is_held() { 0 } else { self.left().saturating_sub(self.reserved).saturating_sub(self.paid) }
    }

    /// Where it stands.
    pub fn state(&self) -> CommissionState {
        if self.amount.minor_units() > 0 && self.left() == 0 {
            CommissionState::Reversed
        } else if self.is_held() {
            CommissionState::Pending
        } else if self.paid > 0 && self.reserved == 0 && self.open() == 0 {
            CommissionState::Paid
        } else {
            CommissionState::Available
        }
    }

    /// What refunds of `refunded` minor units in all take back of it: floor(amount × refunded ÷ base), all of it for all.
    pub fn reversed_by(&self, refunded: i64) -> i64 {
        let (amount, base) = (i128::from(self.amount.minor_units()), i128::from(self.base.minor_units()));
        let share = amount.saturating_mul(i128::from(refunded)).checked_div_euclid(base).unwrap_or(amount);
        i64::try_from(share.clamp(0, amount)).unwrap_or(i64::MAX)
    }
}

impl Commission {
    /// The rule that it was computed by, with its numbers, for people.
    pub fn formula(&self) -> String {
        let (base, amount) = (self.base.minor_units(), self.amount.minor_units());
        format!("floor({base} × {} ÷ 10000) = {amount}", self.rate_bps)
    }

    /// What rounding down left to the platform, in ten-thousandths of a minor unit: 0 to 9999.
    pub fn rounded_off(&self) -> i32 {
        let product = i128::from(self.base.minor_units()).saturating_mul(i128::from(self.rate_bps));
        i32::try_from(product.rem_euclid(10_000)).unwrap_or(0)
    }

    /// The rule that a refund took some of it back by, with its numbers, for people: `refunded` is what was refunded of the
    /// payment up to and with it, `before` what earlier refunds took, `taken` what it took.
    pub fn clawback_formula(&self, refunded: i64, before: i64, taken: i64) -> String {
        let (base, amount) = (self.base.minor_units(), self.amount.minor_units());
        format!("floor({amount} × {refunded} ÷ {base}) − {before} = {taken}")
    }
}

/// A sale's share for one ancestor, before it is booked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Who earns it.
    pub earner_id: PartnerId,
    /// 1 to 9.
    pub level: u8,
    /// In hundredths of a percent.
    pub rate_bps: u16,
    /// Rounded down.
    pub amount: Amount,
}

/// Splits `base` among `lineage`, the direct referrer first; levels that the plan pays nothing get no row.
pub fn shares(plan: &Plan, base: Amount, lineage: &[PartnerId]) -> Vec<Share> {
    (1..)
        .zip(plan.rates_bps())
        .zip(lineage)
        .filter(|((_, rate_bps), _)| **rate_bps > 0)
        .map(|((level, &rate_bps), &earner_id)| Share { earner_id, level, rate_bps, amount: base.share(rate_bps) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Asset;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn lineage(length: usize) -> Vec<PartnerId> {
        (0..length).map(|n| Uuid::from_u128(n as u128 + 1).into()).collect()
    }

    #[test]
    fn a_sale_with_nine_ancestors_pays_44_percent() {
        let plan = Plan::built_in();
        let paid: Vec<i64> =
            shares(&plan, plan.pro_price(), &lineage(12)).iter().map(|share| share.amount.minor_units()).collect();
        assert_eq!(paid, [11_700_000, 1_950_000, 1_170_000, 390_000, 390_000, 390_000, 390_000, 390_000, 390_000]);
        assert_eq!(paid.iter().sum::<i64>(), 17_160_000);
    }

    proptest! {
        #[test]
        fn shares_never_exceed_the_sale_and_follow_the_lineage(units in 0..=i64::MAX, ancestors in 0..15_usize) {
            let plan = Plan::built_in();
            let base = Amount::new(Asset::Usdt, units).expect("not negative");
            let lineage = lineage(ancestors);
            let shares = shares(&plan, base, &lineage);
            prop_assert_eq!(shares.len(), ancestors.min(9));
            let total: i128 = shares.iter().map(|share| i128::from(share.amount.minor_units())).sum();
            prop_assert!(total <= i128::from(units));
            for (index, share) in shares.iter().enumerate() {
                prop_assert_eq!(usize::from(share.level), index + 1);
                prop_assert_eq!(share.earner_id, lineage[index]);
            }
        }
    }
}

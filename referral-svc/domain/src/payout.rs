//! Payouts, and which claims they pay.

use chrono::{DateTime, Utc};

use crate::{
    commission::CommissionKey,
    id::{AdjustmentId, PartnerId, PayoutId, TransactionId},
    money::Amount,
    reference::ExternalRef,
};

/// Something that a partner can claim money for, or owes money for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Claim {
    /// An available commission.
    Commission(CommissionKey),
    /// An approved adjustment.
    Adjustment(AdjustmentId),
}

/// What a payout pays of one claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PayoutItem {
    /// Which.
    pub claim: Claim,
    /// Minor units; below zero: a debt that is settled. Never zero.
    pub amount: i64,
}

/// Where a payout stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PayoutState {
    /// Its money is set aside.
    Requested,
    /// A second caller agreed.
    Approved,
    /// Paid.
    Completed,
    /// It could not be paid.
    Failed,
    /// Taken back before it was approved.
    Cancelled,
}

impl PayoutState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Requested, Self::Approved, Self::Completed, Self::Failed, Self::Cancelled];

    /// The name in messages and in the store.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requested => "REQUESTED",
            Self::Approved => "APPROVED",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Who approved a payout, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Approval {
    /// The caller; not the requester.
    pub approver: String,
    /// When.
    pub approve_time: DateTime<Utc>,
}

/// How a payout ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// When.
    pub end_time: DateTime<Utc>,
    /// What paid or returned the money.
    pub transaction_id: TransactionId,
}

/// How far a payout has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Asked for.
    Requested,
    /// Agreed to.
    Approved(Approval),
    /// Paid.
    Completed {
        /// By whom it was approved.
        approval: Approval,
        /// Under which reference it was paid; no other payout has it.
        external_ref: ExternalRef,
        /// When.
        end: End,
    },
    /// Not paid.
    Failed {
        /// By whom it was approved.
        approval: Approval,
        /// Why.
        reason: String,
        /// When.
        end: End,
    },
    /// Taken back.
    Cancelled {
        /// Why.
        reason: String,
        /// When.
        end: End,
    },
}

/// One payout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payout {
    /// Permanent.
    pub payout_id: PayoutId,
    /// Who is paid.
    pub partner_id: PartnerId,
    /// How much, more than zero.
    pub amount: Amount,
    /// Where the money goes; may be empty.
    pub destination: String,
    /// The caller who asked.
    pub requester: String,
    /// When.
    pub create_time: DateTime<Utc>,
    /// What set the money aside.
    pub reserve_transaction_id: TransactionId,
    /// How far it has come.
    pub stage: Stage,
    /// What it pays, oldest first; they sum to the amount. Empty where it was read without them.
    pub items: Vec<PayoutItem>,
}

impl Payout {
    /// Where it stands.
    pub fn state(&self) -> PayoutState {
        match &self.stage {
            Stage::Requested => PayoutState::Requested,
            Stage::Approved(_) => PayoutState::Approved,
            Stage::Completed { .. } => PayoutState::Completed,
            Stage::Failed { .. } => PayoutState::Failed,
            Stage::Cancelled { .. } => PayoutState::Cancelled,
        }
    }

    /// Who approved it, if it came so far.
    pub fn approval(&self) -> Option<&Approval> {
        match &self.stage {
            Stage::Requested | Stage::Cancelled { .. } => None,
            Stage::Approved(approval) | Stage::Completed { approval, .. } | Stage::Failed { approval, .. } => {
                Some(approval)
            }
        }
    }

    /// How it ended, if it did.
    pub fn end(&self) -> Option<&End> {
        match &self.stage {
            Stage::Requested | Stage::Approved(_) => None,
            Stage::Completed { end, .. } | Stage::Failed { end, .. } | Stage::Cancelled { end, .. } => Some(end),
        }
    }

    /// Under which reference it was paid.
    pub fn external_ref(&self) -> Option<&ExternalRef> {
        match &self.stage {
            Stage::Completed { external_ref, .. } => Some(external_ref),
            _ => None,
        }
    }

    /// Why its money went back.
    pub fn reason(&self) -> Option<&str> {
        match &self.stage {
            Stage::Failed { reason, .. } | Stage::Cancelled { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// What a payout of `amount` minor units pays of the `open` claims, which come oldest first: every debt is settled whole, and
/// of the others the oldest are paid, until the items sum to the amount. None: what is open doesn't reach so far.
pub fn allocate(amount: i64, open: &[(Claim, i64)]) -> Option<Vec<PayoutItem>> {
    let debts = open.iter().filter(|(_, open)| *open < 0);
    let mut left = debts.map(|(_, debt)| *debt).try_fold(amount, i64::checked_sub)?;
    let mut items = Vec::new();
    for (claim, open) in open {
        let taken = if *open < 0 { *open } else { left.min(*open) };
        if taken != 0 {
            items.push(PayoutItem { claim: *claim, amount: taken });
        }
        left = left.checked_sub(taken.max(0))?;
    }
    (left == 0).then_some(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn claims(opens: &[i64]) -> Vec<(Claim, i64)> {
        (1..).zip(opens).map(|(n, open)| (Claim::Adjustment(Uuid::from_u128(n).into()), *open)).collect()
    }

    fn amounts(amount: i64, opens: &[i64]) -> Option<Vec<i64>> {
        allocate(amount, &claims(opens)).map(|items| items.iter().map(|item| item.amount).collect())
    }

    #[test]
    fn the_oldest_are_paid_first_and_debts_settled_whole() {
        assert_eq!(amounts(10, &[4, 5, 6]), Some(vec![4, 5, 1]));
        assert_eq!(amounts(10, &[4, -5, 20]), Some(vec![4, -5, 11]));
        assert_eq!(amounts(10, &[10, 3, -2]), Some(vec![10, 2, -2]), "a debt of later date is settled too");
        assert_eq!(amounts(16, &[4, 5, 6]), None);
        assert_eq!(amounts(1, &[i64::MIN]), None);
    }

    proptest! {
        #[test]
        fn items_sum_to_the_amount_and_none_exceeds_its_claim(
            opens in proptest::collection::vec(-1_000_i64..1_000, 0..20), amount in 1_i64..5_000,
        ) {
            let open = claims(&opens);
            let items = allocate(amount, &open);
            prop_assert_eq!(items.is_some(), amount <= opens.iter().sum());
            let Some(items) = items else { return Ok(()) };
            prop_assert_eq!(items.iter().map(|item| item.amount).sum::<i64>(), amount);
            let taken = |claim: &Claim| items.iter().find(|item| item.claim == *claim).map_or(0, |item| item.amount);
            // Whoever comes after one that isn't paid whole gets nothing.
            let mut is_used_up = false;
            for (claim, open) in &open {
                let taken = taken(claim);
                if *open < 0 {
                    prop_assert_eq!(taken, *open, "a debt is settled whole");
                } else {
                    prop_assert!((0..=*open).contains(&taken) && (taken == 0 || !is_used_up));
                    is_used_up |= taken < *open;
                }
            }
            prop_assert!(items.iter().all(|item| item.amount != 0));
            let places: Vec<_> = items.iter().map(|item| open.iter().position(|(claim, _)| *claim == item.claim)).collect();
            prop_assert!(places.is_sorted() && places.iter().all(Option::is_some), "each once, oldest first");
        }
    }
}

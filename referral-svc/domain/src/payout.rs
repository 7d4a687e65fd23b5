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

/// How many claims one payout names at most: each is a row that its transactions lock and rewrite, and a part of its answer.
pub const ITEMS_MAX: usize = 1_000;

/// What a partner can claim, and owes, the oldest first; none is zero. Of each kind there may be more than what is here, but
/// only younger ones, and only if here are as many as one payout names.
pub struct OpenClaims<'a> {
    open: &'a [(Claim, i64)],
    items_max: usize,
}

impl<'a> OpenClaims<'a> {
    /// Of these a payout names [`ITEMS_MAX`].
    pub fn new(open: &'a [(Claim, i64)]) -> Self {
        Self { open, items_max: ITEMS_MAX }
    }

    /// Whether there is more money than one payout can name.
    pub fn exceed_one_payout(&self) -> bool {
        self.open.iter().filter(|(_, open)| *open > 0).count() >= self.items_max
    }

    /// The most that one payout can pay, in minor units, however many debts are left for the next one.
    pub fn most(&self) -> i64 {
        self.covered(0)
    }

    /// What a payout pays that is to pay as much as it can, but for the debts that it settles: these it settles as long as
    /// `enough` is left.
    pub fn most_beside_debts(&self, enough: i64) -> i64 {
        self.covered(self.settled(enough).unwrap_or(0))
    }

    /// What a payout of `amount` minor units pays: debts are settled whole, as many of them as items allow, and of the others
    /// the oldest are paid, until the items sum to the amount. None: one payout doesn't reach so far.
    pub fn allocate(&self, amount: i64) -> Option<Vec<PayoutItem>> {
        let mut debts_left = self.settled(amount)?;
        let mut left = amount;
        for debt in self.debts().take(debts_left) {
            left = left.checked_sub(debt)?;
        }
        let mut items = Vec::new();
        for (claim, open) in self.open {
            let taken = if *open > 0 {
                left.min(*open)
            } else if debts_left > 0 {
                debts_left = debts_left.saturating_sub(1);
                *open
            } else {
                0
            };
            if taken != 0 {
                items.push(PayoutItem { claim: *claim, amount: taken });
            }
            left = left.checked_sub(taken.max(0))?;
        }
        (left == 0).then_some(items)
    }

    /// How many debts, the oldest first, a payout of so much can settle; none: it can't come to so much.
    fn settled(&self, amount: i64) -> Option<usize> {
        let most = self.debts().count().min(self.items_max);
        (0..=most).rev().find(|settled| self.covered(*settled) >= amount)
    }

    /// What all items come to, in minor units, if so many of them settle debts.
    fn covered(&self, settled: usize) -> i64 {
        let credits = self.open.iter().map(|(_, open)| *open).filter(|open| *open > 0);
        let paid = credits.take(self.items_max.saturating_sub(settled)).fold(0, i64::saturating_add);
        self.debts().take(settled).fold(paid, i64::saturating_add)
    }

    fn debts(&self) -> impl Iterator<Item = i64> {
        self.open.iter().map(|(_, open)| *open).filter(|open| *open < 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn claims(opens: &[i64]) -> Vec<(Claim, i64)> {
        (1..).zip(opens).map(|(n, open)| (Claim::Adjustment(Uuid::from_u128(n).into()), *open)).collect()
    }

    fn amounts(amount: i64, opens: &[i64], items_max: usize) -> Option<Vec<i64>> {
        let items = OpenClaims { open: &claims(opens), items_max }.allocate(amount);
        items.map(|items| items.iter().map(|item| item.amount).collect())
    }

    #[test]
    fn the_oldest_are_paid_first_and_debts_settled_whole() {
        assert_eq!(amounts(10, &[4, 5, 6], 9), Some(vec![4, 5, 1]));
        assert_eq!(amounts(10, &[4, -5, 20], 9), Some(vec![4, -5, 11]));
        assert_eq!(amounts(10, &[10, 3, -2], 9), Some(vec![10, 2, -2]), "a debt of later date is settled too");
        assert_eq!(amounts(16, &[4, 5, 6], 9), None);
        assert_eq!(amounts(1, &[i64::MIN], 9), None);
    }

    #[test]
    fn a_payout_names_only_so_many_and_leaves_debts_rather_than_paying_nothing() {
        assert_eq!(amounts(9, &[4, 5, 6], 2), Some(vec![4, 5]));
        assert_eq!(amounts(10, &[4, 5, 6], 2), None);
        assert_eq!(amounts(5, &[-3, -3, 8, 9], 3), Some(vec![-3, 8]), "one of the debts waits for the next payout");
        assert_eq!(amounts(15, &[-3, -3, 8, 9], 3), Some(vec![8, 7]), "or both");
        assert_eq!(amounts(18, &[-3, -3, 8, 9], 3), None);
        let open = claims(&[-3, 8, 9, -3]);
        let open = OpenClaims { open: &open, items_max: 2 };
        assert!(open.exceed_one_payout());
        assert_eq!(
            (open.most(), open.most_beside_debts(5), open.most_beside_debts(6), open.most_beside_debts(99)),
            (17, 5, 17, 17)
        );
    }

    proptest! {
        #[test]
        fn items_sum_to_the_amount_and_none_exceeds_its_claim(
            opens in proptest::collection::vec((-1_000_i64..1_000).prop_filter("open", |open| *open != 0), 0..20),
            amount in 1_i64..5_000,
            items_max in 1_usize..25,
        ) {
            let claims = claims(&opens);
            let open = OpenClaims { open: &claims, items_max };
            let items = open.allocate(amount);
            prop_assert_eq!(items.is_some(), amount <= open.most());
            let Some(items) = items else { return Ok(()) };
            prop_assert!(items.len() <= items_max);
            prop_assert_eq!(items.iter().map(|item| item.amount).sum::<i64>(), amount);
            let taken = |claim: &Claim| items.iter().find(|item| item.claim == *claim).map_or(0, |item| item.amount);
            // Whoever comes after one that isn't paid whole gets nothing, and so with debts, all of which are settled if there is room.
            let (mut is_used_up, mut is_owed) = (false, false);
            for (claim, open) in &claims {
                let taken = taken(claim);
                if *open < 0 {
                    prop_assert!(taken == 0 || (taken == *open && !is_owed));
                    is_owed |= taken == 0;
                } else {
                    prop_assert!((0..=*open).contains(&taken) && (taken == 0 || !is_used_up));
                    is_used_up |= taken < *open;
                }
            }
            let has_room = opens.len() <= items_max && amount <= opens.iter().sum();
            prop_assert!(!is_owed || !has_room, "a debt is left without need");
            prop_assert!(items.iter().all(|item| item.amount != 0));
            let places: Vec<_> = items.iter().map(|item| claims.iter().position(|(claim, _)| *claim == item.claim)).collect();
            prop_assert!(places.is_sorted() && places.iter().all(Option::is_some), "each once, oldest first");
        }

        #[test]
        fn what_is_the_most_can_be_paid(
            opens in proptest::collection::vec((-1_000_i64..1_000).prop_filter("open", |open| *open != 0), 1..20),
            enough in 1_i64..500,
            items_max in 1_usize..25,
        ) {
            let claims = claims(&opens);
            let open = OpenClaims { open: &claims, items_max };
            for most in [open.most(), open.most_beside_debts(enough)] {
                prop_assert!(most <= open.most() && (most == 0 || open.allocate(most).is_some()));
            }
        }
    }
}

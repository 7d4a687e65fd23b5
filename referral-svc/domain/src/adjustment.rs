//! Operators' corrections of a partner's available balance.

use chrono::{DateTime, Utc};

use crate::{
    id::{AdjustmentId, PartnerId, TransactionId},
    money::Asset,
};

/// Where an adjustment stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AdjustmentState {
    /// Asked for.
    Proposed,
    /// Booked.
    Approved,
    /// Declined.
    Rejected,
}

impl AdjustmentState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Proposed, Self::Approved, Self::Rejected];

    /// The name in messages and in the store.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proposed => "PROPOSED",
            Self::Approved => "APPROVED",
            Self::Rejected => "REJECTED",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Who decided, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decided {
    /// The caller.
    pub decider: String,
    /// When.
    pub decide_time: DateTime<Utc>,
}

/// How far an adjustment has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Asked for.
    Proposed,
    /// Booked.
    Approved {
        /// By whom; not the proposer.
        decided: Decided,
        /// What booked it.
        transaction_id: TransactionId,
    },
    /// Declined.
    Rejected {
        /// By whom.
        decided: Decided,
        /// Why.
        reason: String,
    },
}

/// One adjustment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Adjustment {
    /// Permanent.
    pub adjustment_id: AdjustmentId,
    /// Whose balance.
    pub partner_id: PartnerId,
    /// In what.
    pub asset: Asset,
    /// Minor units: above zero a credit to the partner, below zero a debit; never zero.
    pub amount: i64,
    /// Why.
    pub reason: String,
    /// The caller who asked.
    pub proposer: String,
    /// When.
    pub create_time: DateTime<Utc>,
    /// How far it has come.
    pub stage: Stage,
    /// What open payouts have reserved of it, in minor units, with the amount's sign.
    pub reserved: i64,
    /// What was paid out of it, in minor units, with the amount's sign.
    pub paid: i64,
}

impl Adjustment {
    /// Where it stands.
    pub fn state(&self) -> AdjustmentState {
        match &self.stage {
            Stage::Proposed => AdjustmentState::Proposed,
            Stage::Approved { .. } => AdjustmentState::Approved,
            Stage::Rejected { .. } => AdjustmentState::Rejected,
        }
    }

    /// What booked it, if it was.
    pub fn transaction_id(&self) -> Option<TransactionId> {
        match &self.stage {
            Stage::Approved { transaction_id, .. } => Some(*transaction_id),
            _ => None,
        }
    }

    /// Who decided it, if somebody did.
    pub fn decided(&self) -> Option<&Decided> {
        match &self.stage {
            Stage::Proposed => None,
            Stage::Approved { decided, .. } | Stage::Rejected { decided, .. } => Some(decided),
        }
    }

    /// What its partner can claim of it, in minor units; below zero: a debt. Nothing until it is booked.
    pub fn open(&self) -> i64 {
        match &self.stage {
            Stage::Approved { .. } => self.amount.saturating_sub(self.reserved).saturating_sub(self.paid),
            _ => 0,
        }
    }
}

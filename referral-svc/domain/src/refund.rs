//! Refunds: money given back, and what they take back of each ancestor's commission.

use chrono::{DateTime, Utc};

use crate::{
    id::{PartnerId, PaymentId, RefundId, TransactionId},
    money::Amount,
};

/// Money given back to a buyer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refund {
    /// Permanent.
    pub refund_id: RefundId,
    /// Of which payment.
    pub payment_id: PaymentId,
    /// How much.
    pub amount: Amount,
    /// Why.
    pub reason: String,
    /// What booked it.
    pub transaction_id: TransactionId,
    /// When.
    pub create_time: DateTime<Utc>,
    /// By level; none where rounding left nothing to take.
    pub clawbacks: Vec<Clawback>,
}

/// What a refund took of one commission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clawback {
    /// The commission's level.
    pub level: u8,
    /// Who loses it.
    pub earner_id: PartnerId,
    /// How much, more than zero.
    pub amount: Amount,
}

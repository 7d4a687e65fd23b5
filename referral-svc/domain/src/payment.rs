//! Payments and their states.

use chrono::{DateTime, Utc};

use crate::{
    id::{PartnerId, PaymentId, TransactionId},
    money::Amount,
    reference::ExternalRef,
    ton::TonPayment,
};

/// Who says whether the money came.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// The caller vouches.
    Trusted,
    /// An operator decides.
    Manual,
    /// The chain is asked.
    Ton,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 3] = [Self::Trusted, Self::Manual, Self::Ton];

    /// The name in API and configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Manual => "manual",
            Self::Ton => "ton",
        }
    }

    /// The method of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// Where a payment stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PaymentState {
    /// Money is awaited.
    Pending,
    /// Somebody decides.
    InReview,
    /// The money came.
    Succeeded,
    /// Declined.
    Rejected,
    /// The window closed.
    Expired,
    /// Some was given back.
    PartiallyRefunded,
    /// All was given back.
    Refunded,
}

impl PaymentState {
    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::InReview => "IN_REVIEW",
            Self::Succeeded => "SUCCEEDED",
            Self::Rejected => "REJECTED",
            Self::Expired => "EXPIRED",
            Self::PartiallyRefunded => "PARTIALLY_REFUNDED",
            Self::Refunded => "REFUNDED",
        }
    }
}

/// What a success adds to a payment. Refunds count up, and let its period begin and end earlier; the rest stays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Success {
    /// Used up by this payment.
    pub external_ref: ExternalRef,
    /// When.
    pub confirm_time: DateTime<Utc>,
    /// Start of the PRO period that it bought, inclusive.
    pub pro_start: DateTime<Utc>,
    /// Its end, exclusive.
    pub pro_end: DateTime<Utc>,
    /// What booked it.
    pub transaction_id: TransactionId,
    /// Why it was confirmed out of the ordinary.
    pub override_reason: Option<String>,
    /// What was given back so far, in minor units: 0 to the price.
    pub refunded: i64,
}

/// Progress as it is stored: `Pending` may have expired meanwhile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Opened.
    Pending,
    /// A reference was handed in.
    InReview {
        /// What was handed in.
        submitted: ExternalRef,
    },
    /// Declined.
    Rejected {
        /// What had been handed in.
        submitted: Option<ExternalRef>,
        /// Shown to the partner.
        reason: String,
    },
    /// Done.
    Succeeded {
        /// What had been handed in.
        submitted: Option<ExternalRef>,
        /// The rest.
        success: Success,
    },
}

/// A confirmation that came too late.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LateReference {
    /// Which payment it was for.
    pub payment_id: PaymentId,
    /// What came.
    pub external_ref: ExternalRef,
    /// In TON: the transaction by which the account received it, if the chain told.
    pub incoming_ref: Option<ExternalRef>,
    /// When.
    pub create_time: DateTime<Utc>,
}

impl LateReference {
    /// What somebody's statement may have.
    pub fn references(&self) -> impl Iterator<Item = &ExternalRef> {
        std::iter::once(&self.external_ref).chain(&self.incoming_ref)
    }
}

/// One payment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payment {
    /// Permanent.
    pub payment_id: PaymentId,
    /// Who buys.
    pub partner_id: PartnerId,
    /// The price.
    pub amount: Amount,
    /// Who says whether the money came.
    pub method: Method,
    /// The plan that the price is from.
    pub plan_version: i32,
    /// When it was opened.
    pub create_time: DateTime<Utc>,
    /// Until when it can be confirmed while pending.
    pub expire_time: DateTime<Utc>,
    /// How far it has come.
    pub progress: Progress,
    /// Newest first.
    pub late_references: Vec<LateReference>,
    /// Of a payment in TON.
    pub ton: Option<TonPayment>,
}

impl Payment {
    /// Its state at `now`: a pending payment past its window is expired, whether or not anything noted so.
    pub fn state_at(&self, now: DateTime<Utc>) -> PaymentState {
        match &self.progress {
            Progress::Pending if now < self.expire_time => PaymentState::Pending,
            Progress::Pending => PaymentState::Expired,
            Progress::InReview { .. } => PaymentState::InReview,
            Progress::Rejected { .. } => PaymentState::Rejected,
            Progress::Succeeded { success, .. } => match success.refunded {
                0 => PaymentState::Succeeded,
                refunded if refunded < self.amount.minor_units() => PaymentState::PartiallyRefunded,
                _ => PaymentState::Refunded,
            },
        }
    }

    /// What was handed in for review.
    pub fn submitted(&self) -> Option<&ExternalRef> {
        match &self.progress {
            Progress::Pending => None,
            Progress::InReview { submitted } => Some(submitted),
            Progress::Rejected { submitted, .. } | Progress::Succeeded { submitted, .. } => submitted.as_ref(),
        }
    }

    /// What its success added, if it succeeded.
    pub fn success(&self) -> Option<&Success> {
        match &self.progress {
            Progress::Succeeded { success, .. } => Some(success),
            _ => None,
        }
    }

    /// What the chain is to be asked about: what was handed in; and once an operator has confirmed it past the chain, by which
    /// transaction that came.
    pub fn to_verify(&self) -> Option<&ExternalRef> {
        let ton = self.ton.as_ref()?;
        match &self.progress {
            Progress::InReview { submitted } => Some(submitted),
            Progress::Succeeded { success, .. } => {
                Some(&success.external_ref).filter(|_| ton.verification.next_attempt_time.is_some())
            }
            Progress::Pending | Progress::Rejected { .. } => None,
        }
    }

    /// The references that its success used up: no other payment can have them.
    pub fn used_refs(&self) -> impl Iterator<Item = &ExternalRef> {
        let incoming = self.ton.as_ref().and_then(|ton| ton.incoming_ref.as_ref());
        self.success().into_iter().flat_map(move |success| std::iter::once(&success.external_ref).chain(incoming))
    }

    /// The reference to show: that of the success, else the one handed in.
    pub fn external_ref(&self) -> Option<&ExternalRef> {
        self.success().map(|success| &success.external_ref).or_else(|| self.submitted())
    }
}

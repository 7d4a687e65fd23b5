//! What can be asked for, what can come of it, and why it can be refused.

use crate::{
    adjustment::{Adjustment, AdjustmentState},
    broadcast::{Broadcast, BroadcastState, NewBroadcast},
    commission::{Commission, CommissionKey},
    id::{AdjustmentId, BroadcastId, PartnerId, PaymentId, PayoutId},
    money::{Amount, Asset},
    partner::{Contact, Partner, Profile, ReferralCode, Standing},
    payment::{Method, Payment, PaymentState},
    payout::{ITEMS_MAX, Payout, PayoutState},
    reference::ExternalRef,
    refund::Refund,
    ton::Finding,
};

/// A change that somebody asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Register a person.
    RegisterPartner(RegisterPartner),
    /// Put a root below a referrer.
    AttachReferrer {
        /// Whom.
        partner_id: PartnerId,
        /// Below the owner of this.
        code: ReferralCode,
    },
    /// Change personal data.
    UpdatePartner {
        /// Whose.
        partner_id: PartnerId,
        /// To what.
        change: ProfileChange,
    },
    /// Open a payment.
    CreatePayment {
        /// Who buys.
        partner_id: PartnerId,
        /// Who will say whether the money came.
        method: Method,
    },
    /// Hand in a reference for review.
    SubmitPayment {
        /// For which payment.
        payment_id: PaymentId,
        /// What.
        external_ref: ExternalRef,
    },
    /// Say that the money came.
    ConfirmPayment {
        /// For which payment.
        payment_id: PaymentId,
        /// Its proof; none: the one handed in.
        external_ref: Option<ExternalRef>,
        /// An operator's reason to accept it out of the ordinary.
        override_reason: Option<String>,
    },
    /// Decline.
    RejectPayment {
        /// Which payment.
        payment_id: PaymentId,
        /// Shown to the partner.
        reason: String,
    },
    /// Give money back.
    RefundPayment {
        /// Of which payment.
        payment_id: PaymentId,
        /// How much; none: all that is left.
        amount: Option<Amount>,
        /// Why.
        reason: String,
    },
    /// Take in what a verifier found about a submitted payment; a job's command.
    SettleVerification {
        /// Which payment.
        payment_id: PaymentId,
        /// What was looked for.
        external_ref: ExternalRef,
        /// What came of it.
        finding: Finding,
    },
    /// Let held commissions become available whose time has come; a job's command.
    ReleaseCommissions {
        /// Which.
        commissions: Vec<CommissionKey>,
    },
    /// Ask for a payout.
    RequestPayout {
        /// Who is to be paid.
        partner_id: PartnerId,
        /// How much; none: all that is available.
        amount: Option<Amount>,
        /// Where the money goes; may be empty.
        destination: String,
    },
    /// Agree to a payout.
    ApprovePayout {
        /// Which.
        payout_id: PayoutId,
    },
    /// Say that a payout was paid.
    CompletePayout {
        /// Which.
        payout_id: PayoutId,
        /// Under which reference.
        external_ref: ExternalRef,
    },
    /// Say that a payout could not be paid.
    FailPayout {
        /// Which.
        payout_id: PayoutId,
        /// Why.
        reason: String,
    },
    /// Take a payout back before it is approved.
    CancelPayout {
        /// Which.
        payout_id: PayoutId,
        /// Why.
        reason: String,
    },
    /// Ask for a correction of a balance.
    ProposeAdjustment {
        /// Whose.
        partner_id: PartnerId,
        /// In what.
        asset: Asset,
        /// Minor units; above zero a credit. Never zero.
        amount: i64,
        /// Why.
        reason: String,
    },
    /// Book a correction.
    ApproveAdjustment {
        /// Which.
        adjustment_id: AdjustmentId,
    },
    /// Decline a correction.
    RejectAdjustment {
        /// Which.
        adjustment_id: AdjustmentId,
        /// Why.
        reason: String,
    },
    /// Tell partners whose PRO ends soon, or has ended; a job's command.
    SendProNotices {
        /// Who may be due for a notice.
        partner_ids: Vec<PartnerId>,
    },
    /// Tell many partners something.
    CreateBroadcast(NewBroadcast),
    /// Stop a broadcast.
    CancelBroadcast {
        /// Which.
        broadcast_id: BroadcastId,
        /// Why.
        reason: String,
    },
    /// Let the ancestors' PRO counts follow these partners' PRO; a job's command.
    CountProMembers {
        /// Whose PRO began or ended.
        partner_ids: Vec<PartnerId>,
    },
}

/// A registration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegisterPartner {
    /// The identity elsewhere.
    pub external_id: String,
    /// Personal data.
    pub profile: Profile,
    /// The inviter's, if any.
    pub code: Option<ReferralCode>,
    /// Codes that the new partner may get: the first that is free.
    pub candidates: [ReferralCode; 2],
}

/// What to change about a profile; None leaves a field as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProfileChange {
    /// Public handle.
    pub username: Option<String>,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// BCP 47 tag.
    pub locale: Option<String>,
    /// All of them.
    pub contacts: Option<Vec<Contact>>,
}

impl ProfileChange {
    /// The profile after the change.
    pub fn apply(self, profile: &Profile) -> Profile {
        let old = profile.clone();
        Profile {
            username: self.username.unwrap_or(old.username),
            first_name: self.first_name.unwrap_or(old.first_name),
            last_name: self.last_name.unwrap_or(old.last_name),
            locale: self.locale.unwrap_or(old.locale),
            contacts: self.contacts.unwrap_or(old.contacts),
        }
    }
}

/// How a signup was attributed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attribution {
    /// To the code's owner.
    Attributed,
    /// No code came.
    NoCode,
    /// The code belongs to nobody.
    UnknownCode,
    /// Nothing was changed.
    AlreadyRegistered,
}

/// A partner as callers see one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartnerView {
    /// Identity and place.
    pub partner: Partner,
    /// What was reached.
    pub standing: Standing,
}

/// What came of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Of RegisterPartner.
    Registered {
        /// New or old.
        view: PartnerView,
        /// To whom it was attributed.
        attribution: Attribution,
    },
    /// Of AttachReferrer.
    Attached(PartnerView),
    /// Of UpdatePartner.
    Updated(PartnerView),
    /// Of CreatePayment.
    Opened(Payment),
    /// Of SubmitPayment.
    Submitted(Payment),
    /// Of ConfirmPayment.
    Confirmed {
        /// As it now is.
        payment: Payment,
        /// By level.
        commissions: Vec<Commission>,
        /// Whether an earlier call had confirmed it.
        already: bool,
    },
    /// Of RejectPayment.
    Rejected(Payment),
    /// Of RefundPayment.
    Refunded {
        /// As it now is.
        payment: Payment,
        /// What was given back.
        refund: Refund,
    },
    /// Of SettleVerification.
    VerificationSettled,
    /// Of ReleaseCommissions.
    Released,
    /// Of RequestPayout.
    PayoutRequested(Payout),
    /// Of ApprovePayout.
    PayoutApproved(Payout),
    /// Of CompletePayout.
    PayoutCompleted(Payout),
    /// Of FailPayout.
    PayoutFailed(Payout),
    /// Of CancelPayout.
    PayoutCancelled(Payout),
    /// Of ProposeAdjustment.
    AdjustmentProposed(Adjustment),
    /// Of ApproveAdjustment.
    AdjustmentApproved(Adjustment),
    /// Of RejectAdjustment.
    AdjustmentRejected(Adjustment),
    /// Of SendProNotices.
    Noticed,
    /// Of CreateBroadcast.
    BroadcastBegun(Broadcast),
    /// Of CancelBroadcast.
    BroadcastCancelled(Broadcast),
    /// Of CountProMembers.
    Counted,
}

/// Why a well-formed command was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// No such partner.
    #[error("partner_id: no such partner")]
    PartnerNotFound,
    /// No such payment.
    #[error("payment_id: no such payment")]
    PaymentNotFound,
    /// Nobody's code.
    #[error("referral_code: this code belongs to nobody")]
    ReferralCodeNotFound,
    /// The first referrer wins.
    #[error("the partner has a referrer already; the first one stays")]
    ReferrerAlreadySet,
    /// Too late.
    #[error("a referrer can no longer be attached: the attribution window is closed")]
    AttributionWindowClosed,
    /// The referrer is the partner, or stands below.
    #[error("the referrer is the partner, or stands below the partner: the tree would have a cycle")]
    ReferralCycle,
    /// Not open by configuration.
    #[error("method: {} is not open for payments", .0.name())]
    PaymentMethodClosed(Method),
    /// Money for an expired or rejected payment.
    #[error(
        "the payment is {}: the reference is recorded, and an operator may confirm it with an override_reason",
        .0.name()
    )]
    PaymentExpired(PaymentState),
    /// Confirmed with another reference.
    #[error("the payment was confirmed with another reference")]
    PaymentAlreadyConfirmed,
    /// Not from this state.
    #[error("the payment is {}: {wanted}", .state.name())]
    PaymentWrongState {
        /// Where it stands.
        state: PaymentState,
        /// What would be needed.
        wanted: &'static str,
    },
    /// Manual means: reviewed.
    #[error("a manual payment is confirmed after SubmitPayment, or with an override_reason")]
    PaymentNotSubmitted,
    /// One reference, one payment.
    #[error("external_ref: this reference was used for another payment")]
    ExternalRefUsed,
    /// Neither given nor handed in.
    #[error("external_ref: required, since none was handed in before")]
    ExternalRefRequired,
    /// The chain says whether the money came.
    #[error("a ton payment is confirmed by its verification, or with an override_reason")]
    PaymentNotVerified,
    /// Nothing to compute the price in TON with.
    #[error("the rate of TON is not known at the moment")]
    RateUnavailable,
    /// Another asset than the payment's or the plan's.
    #[error("amount.asset: must be {}", .0.ticker())]
    WrongAsset(Asset),
    /// More than is left.
    #[error("amount: {} {} of the payment are left to be refunded", .0.to_decimal(), .0.asset().ticker())]
    RefundExceedsPayment(Amount),
    /// No such payout.
    #[error("payout_id: no such payout")]
    PayoutNotFound,
    /// Not from this state.
    #[error("the payout is {}: {wanted}", .state.name())]
    PayoutWrongState {
        /// Where it stands.
        state: PayoutState,
        /// What would be needed.
        wanted: &'static str,
    },
    /// Too little to be worth a transfer.
    #[error("amount: at least {} {} are paid out at once", .0.to_decimal(), .0.asset().ticker())]
    PayoutBelowMinimum(Amount),
    /// One payout names only so many claims.
    #[error(
        "amount: a payout pays {} commissions and adjustments at most, which come to {} {}: ask for the rest in another one",
        ITEMS_MAX, .0.to_decimal(), .0.asset().ticker()
    )]
    PayoutTooManyItems(Amount),
    /// More than is available.
    #[error("amount: not as much is available")]
    InsufficientBalance,
    /// Two pairs of eyes.
    #[error("another caller than the one who asked must approve")]
    FourEyesRequired,
    /// A refund came in between.
    #[error("the partner is in debt since the payout was requested")]
    AccountInDebt,
    /// One reference, one payout.
    #[error("external_ref: this reference was used for another payout")]
    PayoutRefUsed,
    /// No such adjustment.
    #[error("adjustment_id: no such adjustment")]
    AdjustmentNotFound,
    /// Decided already.
    #[error("the adjustment is {} already", .0.name())]
    AdjustmentDecided(AdjustmentState),
    /// No such partner to be below of.
    #[error("filter.ancestor_id: no such partner")]
    AncestorNotFound,
    /// Over already, or too far ahead.
    #[error("expire_time: must be in the future, at most 90 days ahead")]
    ExpireTimeOutOfRange,
    /// No such broadcast.
    #[error("broadcast_id: no such broadcast")]
    BroadcastNotFound,
    /// There is nothing left to stop.
    #[error("the broadcast is {} already", .0.name())]
    BroadcastEnded(BroadcastState),
}

/// The class of a refusal decides the gRPC code, and whether it is remembered for the request ID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalClass {
    /// The request itself is wrong; never remembered.
    InvalidArgument,
    /// What it names does not exist.
    NotFound,
    /// What it wants to use is used.
    AlreadyExists,
    /// Not in this state.
    FailedPrecondition,
    /// Not at the moment; never remembered.
    Unavailable,
}

impl RefusalClass {
    /// Whether the same request ID gets the same refusal again.
    pub const fn is_remembered(self) -> bool {
        !matches!(self, Self::InvalidArgument | Self::Unavailable)
    }
}

impl RefusalClass {
    /// The class of a stored reason.
    pub fn of_reason(reason: &str) -> Option<Self> {
        use PaymentState::Expired;
        const NOTHING: Amount = Amount::zero(Asset::Usdt);
        [
            Refusal::PartnerNotFound,
            Refusal::PaymentNotFound,
            Refusal::ReferralCodeNotFound,
            Refusal::ReferrerAlreadySet,
            Refusal::AttributionWindowClosed,
            Refusal::ReferralCycle,
            Refusal::PaymentMethodClosed(Method::Trusted),
            Refusal::PaymentExpired(Expired),
            Refusal::PaymentAlreadyConfirmed,
            Refusal::PaymentWrongState { state: Expired, wanted: "" },
            Refusal::PaymentNotSubmitted,
            Refusal::ExternalRefUsed,
            Refusal::PaymentNotVerified,
            Refusal::RefundExceedsPayment(NOTHING),
            Refusal::PayoutNotFound,
            Refusal::PayoutWrongState { state: PayoutState::Failed, wanted: "" },
            Refusal::PayoutBelowMinimum(NOTHING),
            Refusal::PayoutTooManyItems(NOTHING),
            Refusal::InsufficientBalance,
            Refusal::FourEyesRequired,
            Refusal::AccountInDebt,
            Refusal::AdjustmentNotFound,
            Refusal::AdjustmentDecided(AdjustmentState::Rejected),
            Refusal::BroadcastNotFound,
            Refusal::BroadcastEnded(BroadcastState::Done),
        ]
        .iter()
        .map(Refusal::kind)
        .find_map(|(known, class)| (known == reason).then_some(class))
    }
}

impl Refusal {
    /// The stable reason and the class: the published table of refusals.
    pub const fn kind(&self) -> (&'static str, RefusalClass) {
        use RefusalClass::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable};
        match self {
            Self::PartnerNotFound | Self::AncestorNotFound => ("PARTNER_NOT_FOUND", NotFound),
            Self::PaymentNotFound => ("PAYMENT_NOT_FOUND", NotFound),
            Self::ReferralCodeNotFound => ("REFERRAL_CODE_NOT_FOUND", NotFound),
            Self::ReferrerAlreadySet => ("REFERRER_ALREADY_SET", FailedPrecondition),
            Self::AttributionWindowClosed => ("ATTRIBUTION_WINDOW_CLOSED", FailedPrecondition),
            Self::ReferralCycle => ("REFERRAL_CYCLE", FailedPrecondition),
            Self::PaymentMethodClosed(_) => ("PAYMENT_METHOD_CLOSED", FailedPrecondition),
            Self::PaymentExpired(_) => ("PAYMENT_EXPIRED", FailedPrecondition),
            Self::PaymentAlreadyConfirmed => ("PAYMENT_ALREADY_CONFIRMED", FailedPrecondition),
            Self::PaymentWrongState { .. } => ("PAYMENT_WRONG_STATE", FailedPrecondition),
            Self::PaymentNotSubmitted => ("PAYMENT_NOT_SUBMITTED", FailedPrecondition),
            Self::ExternalRefUsed | Self::PayoutRefUsed => ("EXTERNAL_REF_USED", AlreadyExists),
            Self::PaymentNotVerified => ("PAYMENT_NOT_VERIFIED", FailedPrecondition),
            Self::RateUnavailable => ("RATE_UNAVAILABLE", Unavailable),
            Self::RefundExceedsPayment(_) => ("REFUND_EXCEEDS_PAYMENT", FailedPrecondition),
            Self::PayoutNotFound => ("PAYOUT_NOT_FOUND", NotFound),
            Self::PayoutWrongState { .. } => ("PAYOUT_WRONG_STATE", FailedPrecondition),
            Self::PayoutBelowMinimum(_) => ("PAYOUT_BELOW_MINIMUM", FailedPrecondition),
            Self::PayoutTooManyItems(_) => ("PAYOUT_TOO_MANY_ITEMS", FailedPrecondition),
            Self::InsufficientBalance => ("INSUFFICIENT_BALANCE", FailedPrecondition),
            Self::FourEyesRequired => ("FOUR_EYES_REQUIRED", FailedPrecondition),
            Self::AccountInDebt => ("ACCOUNT_IN_DEBT", FailedPrecondition),
            Self::AdjustmentNotFound => ("ADJUSTMENT_NOT_FOUND", NotFound),
            Self::AdjustmentDecided(_) => ("ADJUSTMENT_DECIDED", FailedPrecondition),
            Self::ExternalRefRequired | Self::ExpireTimeOutOfRange | Self::WrongAsset(_) => {
                ("INVALID_ARGUMENT", InvalidArgument)
            }
            Self::BroadcastNotFound => ("BROADCAST_NOT_FOUND", NotFound),
            Self::BroadcastEnded(_) => ("BROADCAST_ENDED", FailedPrecondition),
        }
    }
}

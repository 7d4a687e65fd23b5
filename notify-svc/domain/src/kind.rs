//! What a notification is about, and the arguments that its template needs.

use crate::state::named;

named! {
    /// The kinds of notification.
    Kind {
        /// Someone signed up directly below the recipient.
        SignupL1 = "SIGNUP_L1",
        /// Someone signed up two levels below.
        SignupL2 = "SIGNUP_L2",
        /// Someone signed up three to nine levels below.
        SignupDeeper = "SIGNUP_DEEPER",
        /// The recipient reached a level.
        LevelUp = "LEVEL_UP",
        /// The recipient earned a commission.
        CommissionReceived = "COMMISSION_RECEIVED",
        /// The recipient's PRO began or was renewed.
        ProWelcome = "PRO_WELCOME",
        /// The recipient's payment was rejected.
        PaymentRejected = "PAYMENT_REJECTED",
        /// The recipient's PRO ends in three days.
        ProExpiring3Days = "PRO_EXPIRING_3_DAYS",
        /// The recipient's PRO ends in one day.
        ProExpiring1Day = "PRO_EXPIRING_1_DAY",
        /// The recipient's PRO has ended.
        ProExpired = "PRO_EXPIRED",
        /// A commission was taken back after a refund.
        CommissionReversed = "COMMISSION_REVERSED",
        /// A payout changed state.
        PayoutState = "PAYOUT_STATE",
        /// An operator's message.
        OperatorBroadcast = "OPERATOR_BROADCAST",
    }
}

impl Kind {
    /// The arguments that every notification of this kind brings; the contract documents them.
    pub const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::SignupL1 | Self::SignupL2 => &["name", "xp"],
            Self::SignupDeeper => &["name", "level", "xp"],
            Self::LevelUp => &["level", "xp"],
            Self::CommissionReceived => &["amount", "asset", "level", "rate", "name"],
            Self::ProWelcome | Self::ProExpiring3Days | Self::ProExpiring1Day | Self::ProExpired => &["expires"],
            Self::PaymentRejected => &["amount", "asset", "reason"],
            Self::CommissionReversed => &["amount", "asset"],
            Self::PayoutState => &["amount", "asset", "state"],
            Self::OperatorBroadcast => &["text"],
        }
    }

    /// Whether it is about the recipient's money: those can't be muted, and no quiet hours hold them up.
    pub const fn is_money(self) -> bool {
        matches!(self, Self::CommissionReceived | Self::CommissionReversed | Self::PaymentRejected | Self::PayoutState)
    }

    /// The arguments that it may bring besides; one that did not come counts as empty.
    pub const fn optional_arguments(self) -> &'static [&'static str] {
        match self {
            Self::OperatorBroadcast => &["subject", "button_label", "button_url"],
            _ => &[],
        }
    }
}

//! Payments in TON: what has to be sent, and how its verification goes.

use chrono::{DateTime, TimeDelta, Utc};

/// What a buyer has to send; fixed when the payment was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TonTerms {
    /// The account to pay to, raw: workchain, colon, 64 lower-case hex digits.
    pub address: String,
    /// 10^-9 TON.
    pub nanotons: i64,
    /// The transfer's comment; no other payment has it.
    pub memo: String,
    /// By how much the amount may differ either way, in hundredths of a percent.
    pub tolerance_bps: u16,
    /// Where the amount comes from.
    pub rate: Rate,
}

/// What a TON is worth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Minor units of the price's asset for one TON, more than zero.
    pub minor_units: i64,
    /// Who told it.
    pub source: String,
    /// When it was told.
    pub time: DateTime<Utc>,
}

/// How the verification goes of what was handed in last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verification {
    /// How often the chain was asked.
    pub attempts: i32,
    /// When it was asked first.
    pub first_attempt_time: Option<DateTime<Utc>>,
    /// When it is asked next; none: nothing waits for it.
    pub next_attempt_time: Option<DateTime<Utc>>,
    /// What the last attempt came to, a stable word; empty: none yet.
    pub finding: String,
}

/// What a payment in TON has beside the rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TonPayment {
    /// What has to be sent.
    pub terms: TonTerms,
    /// How it goes.
    pub verification: Verification,
}

/// What a verifier found about a payment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The money came.
    Paid,
    /// It did not, or not as agreed: the payment goes back to PENDING. A stable word says why.
    NotPaid(&'static str),
    /// Nothing is known yet: asked again then. A stable word says why.
    Later(&'static str, DateTime<Utc>),
}

impl Finding {
    /// The stable word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Paid => "PAID",
            Self::NotPaid(word) | Self::Later(word, _) => word,
        }
    }
}

/// What payments in TON are made of, as configured and as last heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TonOffer {
    /// The account to pay to, raw.
    pub address: String,
    /// By how much an amount may differ, in hundredths of a percent.
    pub tolerance_bps: u16,
    /// How old a rate may be.
    pub rate_max_age: TimeDelta,
    /// The rate heard last.
    pub rate: Option<Rate>,
}

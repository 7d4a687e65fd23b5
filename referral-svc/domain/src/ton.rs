//! Payments in TON: what has to be sent, and how its verification goes.

mod address;
mod judge;

use chrono::{DateTime, TimeDelta, Utc};

pub use self::{
    address::{InvalidAddress, raw_address},
    judge::{Facts, Looked, judge},
};
use crate::{
    id::PaymentId,
    money::{Amount, Asset},
    reference::ExternalRef,
};

/// How many nanotons a TON has.
const NANOTONS: i128 = 1_000_000_000;

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

impl TonTerms {
    /// How much, and how exactly.
    pub fn price(&self) -> TonPrice {
        TonPrice { nanotons: self.nanotons, tolerance_bps: self.tolerance_bps }
    }
}

/// An amount in TON, and how exactly it has to be met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TonPrice {
    /// 10^-9 TON.
    pub nanotons: i64,
    /// By how much it may differ either way, in hundredths of a percent.
    pub tolerance_bps: u16,
}

impl TonPrice {
    /// Whether so many nanotons will do.
    pub fn is_met_by(self, nanotons: i64) -> bool {
        let expected = i128::from(self.nanotons);
        let difference = expected.abs_diff(i128::from(nanotons));
        let allowed = expected.unsigned_abs().saturating_mul(u128::from(self.tolerance_bps));
        difference.saturating_mul(10_000) <= allowed
    }
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
    /// When it was asked first and answered.
    pub first_answer_time: Option<DateTime<Utc>>,
    /// When it is asked next; none: nothing waits for it.
    pub next_attempt_time: Option<DateTime<Utc>>,
    /// What the last attempt came to, a stable word; empty: none yet.
    pub finding: String,
    /// W3C `traceparent` of whoever handed it in: the trace that the verification goes on in.
    pub traceparent: String,
}

/// What a payment in TON has beside the rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TonPayment {
    /// What has to be sent.
    pub terms: TonTerms,
    /// How it goes.
    pub verification: Verification,
    /// The transaction by which the account received the money, once the chain told: of the two hashes that a transfer has
    /// the one in the account's statement. It is used up as the one that was handed in is.
    pub incoming_ref: Option<ExternalRef>,
}

/// What a verifier found about a payment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The money came, by this transaction of the account.
    Paid(ExternalRef),
    /// It did not, or not as agreed: the payment goes back to PENDING. A stable word says why; and whatever came to the account
    /// came by this transaction.
    NotPaid(&'static str, Option<ExternalRef>),
    /// Nothing is known yet: asked again then. A stable word says why.
    Later(&'static str, DateTime<Utc>),
}

impl Finding {
    /// The transaction by which money came to the account, as agreed or not.
    pub fn incoming(&self) -> Option<&ExternalRef> {
        match self {
            Self::Paid(incoming) => Some(incoming),
            Self::NotPaid(_, incoming) => incoming.as_ref(),
            Self::Later(..) => None,
        }
    }

    /// Nobody could be asked.
    pub const UNAVAILABLE: &str = "VERIFIER_UNAVAILABLE";

    /// Whether nobody could be asked.
    pub fn is_outage(&self) -> bool {
        self.word() == Self::UNAVAILABLE
    }

    /// The stable word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Paid(_) => "PAID",
            Self::NotPaid(word, _) | Self::Later(word, _) => word,
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

impl TonOffer {
    /// What a payment of `price` has to be, if the rate is known and young enough.
    pub fn terms(&self, payment_id: PaymentId, price: Amount, now: DateTime<Utc>) -> Option<TonTerms> {
        let rate = self.rate.as_ref()?;
        // A rate from the future says that a clock jumped: it is as good as one told now.
        if now.signed_duration_since(rate.time) > self.rate_max_age {
            return None;
        }
        Some(TonTerms {
            address: self.address.clone(),
            nanotons: nanotons(price, rate.minor_units)?,
            memo: format!("P2PHUB-{}", payment_id.to_string().replace('-', "")),
            tolerance_bps: self.tolerance_bps,
            rate: rate.clone(),
        })
    }
}

/// `price` at so many minor units a TON, rounded up to a nanoton. None: out of range.
fn nanotons(price: Amount, minor_units_a_ton: i64) -> Option<i64> {
    let scaled = i128::from(price.minor_units()).checked_mul(NANOTONS)?;
    let rate = i128::from(minor_units_a_ton);
    let rounded_up = scaled.checked_add(rate.checked_sub(1)?)?.checked_div(rate)?;
    i64::try_from(rounded_up).ok().filter(|nanotons| *nanotons > 0)
}

/// A decimal price of one TON, such as "5.1234", in minor units of `asset`; what is smaller than one is left out. None: it is
/// no plain decimal above zero.
pub fn rate_minor_units(price: &str, asset: Asset) -> Option<i64> {
    let (whole, fraction) = price.split_once('.').unwrap_or((price, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let decimals = asset.decimals();
    let digits: String = whole.chars().chain(fraction.chars().chain(std::iter::repeat('0')).take(decimals)).collect();
    digits.parse().ok().filter(|minor_units: &i64| *minor_units > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn offer(age: TimeDelta) -> (TonOffer, DateTime<Utc>) {
        let now = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let rate = Rate { minor_units: 5_000_000, source: "tonapi.io".to_owned(), time: now - age };
        let address = format!("0:{}", "00".repeat(32));
        (TonOffer { address, tolerance_bps: 100, rate_max_age: TimeDelta::minutes(10), rate: Some(rate) }, now)
    }

    #[test]
    fn no_young_rate_no_terms() {
        let (price, payment_id) = (Amount::new(Asset::Usdt, 39_000_000).expect("a price"), Uuid::from_u128(7).into());
        let (young, now) = offer(TimeDelta::minutes(10));
        let terms = young.terms(payment_id, price, now).expect("terms");
        assert_eq!((terms.nanotons, terms.memo.as_str()), (7_800_000_000, "P2PHUB-00000000000000000000000000000007"));
        let (old, now) = offer(TimeDelta::seconds(601));
        assert_eq!(old.terms(payment_id, price, now), None);
        assert_eq!(TonOffer { rate: None, ..young }.terms(payment_id, price, now), None);
    }

    #[test]
    fn a_rate_is_read_exactly_or_not_at_all() {
        for (text, minor_units) in [
            ("5", Some(5_000_000)),
            ("5.1234", Some(5_123_400)),
            ("0.0000019", Some(1)),
            ("0.0000009", None),
            ("-5", None),
            ("5e3", None),
            (".5", None),
            ("5.5.5", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(rate_minor_units(text, Asset::Usdt), minor_units, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_asked_for_is_worth_the_price_and_not_a_nanoton_more(units in 1..=i64::MAX, rate in 1..=i64::MAX) {
            let price = Amount::new(Asset::Usdt, units).expect("a price");
            if let Some(nanotons) = nanotons(price, rate) {
                let (nanotons, rate, price) = (i128::from(nanotons), i128::from(rate), i128::from(units) * NANOTONS);
                prop_assert!(nanotons * rate >= price && (nanotons - 1) * rate < price);
            }
        }
    }
}

//! Money: whole minor units of an asset, never a float.

use serde::{Deserialize, Serialize};

/// What money is counted in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Asset {
    /// Tether USD, 6 decimals.
    Usdt,
}

impl Asset {
    /// Every asset that is known.
    pub const ALL: [Self; 1] = [Self::Usdt];

    /// The ticker.
    pub const fn ticker(self) -> &'static str {
        match self {
            Self::Usdt => "USDT",
        }
    }

    /// How many decimals a minor unit stands for.
    pub const fn decimals(self) -> usize {
        match self {
            Self::Usdt => 6,
        }
    }

    /// The asset with exactly this ticker.
    pub fn from_ticker(ticker: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|asset| asset.ticker() == ticker)
    }

    /// Exact, for people and files: at least two decimals, no needless zeros: "11.70", "-0.39", "0.000001".
    pub fn to_decimal(self, minor_units: i64) -> String {
        decimal_of(minor_units, self.decimals())
    }

    /// Minor units of a decimal such as "39", "+39.00" or "-0.39". None: no such number, or finer than a minor unit, or beyond
    /// what can be counted.
    pub fn from_decimal(self, text: &str) -> Option<i64> {
        units_of(text, self.decimals())
    }
}

/// Exact, for people and files, with so many decimals at most.
pub(crate) fn decimal_of(units: i64, decimals: usize) -> String {
    let sign = if units < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", units.unsigned_abs(), width = decimals.saturating_add(1));
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(decimals));
    format!("{sign}{whole}.{:0<2}", fraction.trim_end_matches('0'))
}

/// Units of which so many decimals make one.
pub(crate) fn units_of(text: &str, decimals: usize) -> Option<i64> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fraction = are_digits(fraction).then(|| fraction.trim_end_matches('0'))?;
    if !are_digits(whole) || fraction.len() > decimals {
        return None;
    }
    let units: i128 = format!("{whole}{fraction:0<decimals$}").parse().ok()?;
    i64::try_from(if is_negative { units.checked_neg()? } else { units }).ok()
}

/// An amount of an asset; never negative.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Amount {
    asset: Asset,
    minor_units: i64,
}

impl Amount {
    /// Nothing of it.
    pub const fn zero(asset: Asset) -> Self {
        Self { asset, minor_units: 0 }
    }

    /// None if `minor_units` is negative.
    pub fn new(asset: Asset, minor_units: i64) -> Option<Self> {
        (minor_units >= 0).then_some(Self { asset, minor_units })
    }

    /// What it is counted in.
    pub fn asset(self) -> Asset {
        self.asset
    }

    /// The smallest units, never negative.
    pub fn minor_units(self) -> i64 {
        self.minor_units
    }

    /// `rate_bps` hundredths of a percent of it, rounded down to a minor unit.
    pub fn share(self, rate_bps: u16) -> Self {
        let share = i128::from(self.minor_units).saturating_mul(i128::from(rate_bps)).div_euclid(10_000);
        // A rate of up to 655.35 % of an i64 fits an i128; beyond i64 only for rates above 100 %, which no plan has.
        Self { asset: self.asset, minor_units: i64::try_from(share).unwrap_or(i64::MAX) }
    }

    /// For people: "11.70", "0.000001".
    pub fn to_decimal(self) -> String {
        self.asset.to_decimal(self.minor_units)
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.to_decimal(), self.asset.ticker())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_read_well() {
        let text = |units| Amount::new(Asset::Usdt, units).expect("not negative").to_decimal();
        assert_eq!(text(11_700_000), "11.70");
        assert_eq!(text(390_000), "0.39");
        assert_eq!(text(1), "0.000001");
        assert_eq!(text(0), "0.00");
        assert_eq!(text(1_234_567_890), "1234.56789");
        assert_eq!(Asset::Usdt.to_decimal(-390_000), "-0.39");
        assert_eq!(Asset::Usdt.to_decimal(i64::MIN), "-9223372036854.775808");
    }

    #[test]
    fn decimals_are_read_exactly_or_not_at_all() {
        let read = |text| Asset::Usdt.from_decimal(text);
        for (text, units) in
            [("39", 39_000_000), ("+39.00", 39_000_000), ("-0.39", -390_000), ("0.00000100", 1), ("-0", 0)]
        {
            assert_eq!(read(text), Some(units), "{text}");
        }
        let wrong =
            ["", "-", "+-1", "1,5", "1.", ".5", "1e3", "0.0000001", " 1", "1 USDT", "٣", "9223372036854.775808"];
        for text in wrong.into_iter().chain(["99999999999999999999999999999999999999999999"]) {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(units: i64) {
            prop_assert_eq!(Asset::Usdt.from_decimal(&Asset::Usdt.to_decimal(units)), Some(units));
        }

        #[test]
        fn a_share_is_rounded_down_and_never_more_than_the_whole(units in 0..=i64::MAX, bps in 0_u16..=10_000) {
            let share = Amount::new(Asset::Usdt, units).expect("not negative").share(bps).minor_units();
            prop_assert!(share >= 0 && share <= units);
            let exact = i128::from(units) * i128::from(bps);
            prop_assert!(i128::from(share) * 10_000 <= exact);
            prop_assert!((i128::from(share) + 1) * 10_000 > exact);
        }
    }
}

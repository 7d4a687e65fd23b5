//! Comparing somebody else's statement with the payments that were confirmed.
//!
//! A statement's lines are summed by reference, since one payment may come in parts, and be refunded in parts.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use crate::{
    id::PaymentId,
    money::{self, Asset},
    reference::ExternalRef,
    ton::TonPrice,
};

/// What a statement counts in: a payment's asset, or what was sent for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Currency {
    /// As prices are.
    Asset(Asset),
    /// As the chain's own statements are: nanotons.
    Ton,
}

impl Currency {
    const TON_DECIMALS: usize = 9;

    /// The ticker.
    pub const fn ticker(self) -> &'static str {
        match self {
            Self::Asset(asset) => asset.ticker(),
            Self::Ton => "TON",
        }
    }

    /// The currency with exactly this ticker.
    pub fn from_ticker(ticker: &str) -> Option<Self> {
        if ticker == Self::Ton.ticker() { Some(Self::Ton) } else { Asset::from_ticker(ticker).map(Self::Asset) }
    }

    const fn decimals(self) -> usize {
        match self {
            Self::Asset(asset) => asset.decimals(),
            Self::Ton => Self::TON_DECIMALS,
        }
    }

    /// Minor units of a decimal, as [`Asset::from_decimal`] has them.
    pub fn from_decimal(self, text: &str) -> Option<i64> {
        money::units_of(text, self.decimals())
    }

    /// Exact, for people, as [`Asset::to_decimal`] has it.
    pub fn to_decimal(self, minor_units: i64) -> String {
        money::decimal_of(minor_units, self.decimals())
    }
}

/// One line of a statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Under which reference.
    pub reference: ExternalRef,
    /// In what.
    pub currency: Currency,
    /// Minor units that came, or, below zero, went back.
    pub amount: i64,
    /// When, if the statement says so.
    pub time: Option<DateTime<Utc>>,
}

/// What a statement has under one reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stated {
    /// The number of the first line, 1 and up.
    pub line: i64,
    /// In what.
    pub currency: Currency,
    /// What came, in minor units; not below zero.
    pub came: i64,
    /// What went back, in minor units; not below zero.
    pub went: i64,
    /// The first line's time.
    pub time: Option<DateTime<Utc>>,
}

impl Stated {
    /// What came, less what went back, in minor units.
    pub fn net(&self) -> i64 {
        self.came.saturating_sub(self.went)
    }
}

/// A confirmed payment, as far as a statement can tell of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Booked {
    /// The payment.
    pub payment_id: PaymentId,
    /// The reference that it was confirmed with.
    pub reference: ExternalRef,
    /// Of one paid in TON: the transaction by which the account received the money.
    pub incoming: Option<ExternalRef>,
    /// In what.
    pub asset: Asset,
    /// The price, in minor units.
    pub amount: i64,
    /// What was given back of it, in minor units.
    pub refunded: i64,
    /// What was to be sent for it in TON, if it was paid so.
    pub ton: Option<TonPrice>,
    /// When the money came.
    pub confirm_time: DateTime<Utc>,
}

impl Booked {
    /// What is left of it, in minor units.
    pub fn net(&self) -> i64 {
        self.amount.saturating_sub(self.refunded)
    }

    /// What a statement may know it by.
    pub fn references(&self) -> impl Iterator<Item = &ExternalRef> {
        let incoming = self.incoming.as_ref().filter(|incoming| **incoming != self.reference);
        std::iter::once(&self.reference).chain(incoming)
    }

    /// Whether the statement tells the same of it. Statements differ in what they list:
    ///
    /// - money both ways: then what is left is equal;
    /// - incoming money alone: then it is the price, whatever was refunded since;
    /// - a refund alone, of money that came before the statement `begins`: then it is what was refunded.
    ///
    /// A statement in TON has what was sent, within the payment's tolerance. How much goes back in TON for a refund is not
    /// fixed here: any amount agrees with a refund, and none with a payment that has none.
    pub fn agrees_with(&self, stated: &Stated, begins: Option<DateTime<Utc>>) -> bool {
        let came_earlier = begins.is_some_and(|begins| self.confirm_time < begins);
        let asset = match stated.currency {
            Currency::Asset(asset) => asset,
            Currency::Ton => {
                let came = if stated.came == 0 {
                    came_earlier
                } else {
                    self.ton.is_some_and(|price| price.is_met_by(stated.came))
                };
                return came && self.ton.is_some() && (stated.went == 0 || self.refunded > 0);
            }
        };
        self.asset == asset
            && (stated.net() == self.net()
                || (stated.went == 0 && stated.came == self.amount)
                || (stated.came == 0 && stated.went == self.refunded && came_earlier))
    }
}

/// Why a line can't be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidLine {
    /// One payment has one asset.
    #[error("another asset than in an earlier line of the same reference")]
    AssetDiffers,
    /// Beyond what can be counted.
    #[error("the amounts of this reference sum to more than can be counted")]
    Overflow,
}

/// A statement, summed by reference.
#[derive(Clone, Default, Debug)]
pub struct Statement {
    by_reference: HashMap<ExternalRef, Stated>,
}

impl Statement {
    /// Adds a line under its number; one that can't be taken changes nothing.
    pub fn add(&mut self, number: i64, line: Line) -> Result<(), InvalidLine> {
        let moved = line.amount.checked_abs().ok_or(InvalidLine::Overflow)?;
        let nothing = Stated { line: number, currency: line.currency, came: 0, went: 0, time: line.time };
        let stated = self.by_reference.entry(line.reference).or_insert(nothing);
        if stated.currency != line.currency {
            return Err(InvalidLine::AssetDiffers);
        }
        let side = if line.amount < 0 { &mut stated.went } else { &mut stated.came };
        *side = side.checked_add(moved).ok_or(InvalidLine::Overflow)?;
        Ok(())
    }

    /// What it has under this reference.
    pub fn get(&self, reference: &ExternalRef) -> Option<&Stated> {
        self.by_reference.get(reference)
    }

    /// Every reference, in the order of their first lines.
    pub fn references(&self) -> Vec<(&ExternalRef, &Stated)> {
        let mut references: Vec<_> = self.by_reference.iter().collect();
        references.sort_unstable_by_key(|(_, stated)| stated.line);
        references
    }

    /// What it sums to by asset, in minor units.
    pub fn totals(&self) -> BTreeMap<Currency, i64> {
        let mut totals = BTreeMap::new();
        for stated in self.by_reference.values() {
            let total: &mut i64 = totals.entry(stated.currency).or_default();
            *total = total.saturating_add(stated.net());
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn reference(name: &str) -> ExternalRef {
        ExternalRef::normalise(name).expect("a reference")
    }

    fn line(name: &str, amount: i64) -> Line {
        Line { reference: reference(name), currency: Currency::Asset(Asset::Usdt), amount, time: None }
    }

    fn day(day: u32) -> DateTime<Utc> {
        DateTime::from_timestamp(i64::from(day) * 86_400, 0).expect("a time")
    }

    fn booked(amount: i64, refunded: i64) -> Booked {
        Booked {
            incoming: None,
            payment_id: Uuid::nil().into(),
            reference: reference("a"),
            asset: Asset::Usdt,
            amount,
            refunded,
            ton: None,
            confirm_time: day(10),
        }
    }

    fn agrees(lines: &[i64], booked: &Booked, begins: Option<DateTime<Utc>>) -> bool {
        let mut statement = Statement::default();
        for (number, amount) in (1..).zip(lines) {
            statement.add(number, line("a", *amount)).expect("a line");
        }
        booked.agrees_with(statement.get(&reference("a")).expect("it is there"), begins)
    }

    #[test]
    fn a_statement_may_list_both_ways_or_one() {
        let partly = booked(39, 10);
        for (lines, expected) in [
            (vec![39, -10], true),
            (vec![20, 19, -4, -6], true),
            (vec![29], true),
            (vec![39], true),
            (vec![38], false),
            (vec![39, -9], false),
            (vec![-10], false),
            (vec![], false),
        ] {
            let stated = !lines.is_empty() && agrees(&lines, &partly, None);
            assert_eq!(stated, expected, "{lines:?}");
        }
        let whole = booked(39, 39);
        assert!(agrees(&[39, -39], &whole, None) && agrees(&[39], &whole, None) && !agrees(&[-39], &whole, None));
        assert!(!agrees(&[39, -39], &booked(39, 0), None));
    }

    #[test]
    fn a_statement_in_ton_has_what_was_sent_within_its_tolerance() {
        let price = TonPrice { nanotons: 10_000_000_000, tolerance_bps: 100 };
        let agrees = |came, went, booked: &Booked, begins| {
            let stated = Stated { line: 1, currency: Currency::Ton, came, went, time: None };
            booked.agrees_with(&stated, begins)
        };
        let paid = Booked { ton: Some(price), ..booked(39, 0) };
        for (came, expected) in [(9_900_000_000, true), (10_100_000_000, true), (9_899_999_999, false), (39, false)] {
            assert_eq!(agrees(came, 0, &paid, None), expected, "{came}");
            assert!(!agrees(came, 0, &booked(39, 0), None), "it was not paid in TON");
        }
        assert!(!agrees(10_000_000_000, 1, &paid, None));
        let refunded = Booked { ton: Some(price), ..booked(39, 39) };
        assert!(agrees(10_000_000_000, 9_500_000_000, &refunded, None));
        assert!(agrees(0, 9_500_000_000, &refunded, Some(day(11))) && !agrees(0, 9_500_000_000, &refunded, None));
        // And it can be told in USDT still.
        let in_usdt = Stated { line: 1, currency: Currency::Asset(Asset::Usdt), came: 39, went: 0, time: None };
        assert!(paid.agrees_with(&in_usdt, None));
    }

    #[test]
    fn a_refund_alone_agrees_if_its_money_came_before_the_statement_begins() {
        let refunded = booked(39, 39);
        assert!(agrees(&[-39], &refunded, Some(day(11))));
        assert!(!agrees(&[-38], &refunded, Some(day(11))));
        assert!(!agrees(&[-39], &refunded, Some(day(10))), "its money is expected here");
    }

    #[test]
    fn what_cannot_be_summed_is_refused_and_changes_nothing() {
        let mut statement = Statement::default();
        statement.add(1, line("a", i64::MAX)).expect("a line");
        assert_eq!(statement.add(2, line("a", 1)), Err(InvalidLine::Overflow));
        assert_eq!(statement.add(3, line("b", i64::MIN)), Err(InvalidLine::Overflow));
        assert_eq!(statement.get(&reference("a")).map(Stated::net), Some(i64::MAX));
        assert_eq!(statement.get(&reference("b")), None);
    }

    proptest! {
        #[test]
        fn the_sums_are_the_lines_whatever_their_order(amounts in prop::collection::vec((0..5_u8, -1000_i64..1000), 1..60)) {
            let mut statement = Statement::default();
            for (number, (name, amount)) in (1..).zip(&amounts) {
                statement.add(number, line(&format!("r{name}"), *amount)).expect("a line");
            }
            let total: i64 = amounts.iter().map(|(_, amount)| amount).sum();
            prop_assert_eq!(statement.totals(), BTreeMap::from([(Currency::Asset(Asset::Usdt), total)]));
            let references = statement.references();
            prop_assert!(references.windows(2).all(|pair| pair[0].1.line < pair[1].1.line));
            for (reference, stated) in references {
                let own = || (1..).zip(&amounts).filter(|(_, (name, _))| format!("r{name}") == reference.as_str());
                prop_assert_eq!(stated.net(), own().map(|(_, (_, amount))| amount).sum::<i64>());
                prop_assert_eq!(own().map(|(number, _)| number).min(), Some(stated.line));
            }
        }
    }
}

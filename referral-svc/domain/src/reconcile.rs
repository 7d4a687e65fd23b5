//! Comparing somebody else's statement with the payments that were confirmed.
//!
//! A statement's lines are summed by reference, since one payment may come in parts, and be refunded in parts.

#[cfg(test)]
mod tests;

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
    /// What was given back of it within the statement's time, in minor units.
    pub refunded: i64,
    /// Whether its money came before that time.
    pub is_earlier: bool,
    /// What was to be sent for it in TON, if it was paid so.
    pub ton: Option<TonPrice>,
    /// When the money came.
    pub confirm_time: DateTime<Utc>,
}

impl Booked {
    /// What it moved within the statement's time, in minor units: what came, less what went back.
    pub fn net(&self) -> i64 {
        let came = if self.is_earlier { 0 } else { self.amount };
        came.saturating_sub(self.refunded)
    }

    /// What a statement may know it by.
    pub fn references(&self) -> impl Iterator<Item = &ExternalRef> {
        let incoming = self.incoming.as_ref().filter(|incoming| **incoming != self.reference);
        std::iter::once(&self.reference).chain(incoming)
    }

    /// Whether the statement tells the same of it. Statements differ in what they list:
    ///
    /// - money both ways: what came is the price, unless it came before the statement begins; what went back is what was
    ///   refunded within its time;
    /// - the difference of the two alone, within its time;
    /// - incoming money alone, in a statement that has no refund at all (`with_refunds` is false): then it is the price,
    ///   whatever was refunded.
    ///
    /// A statement in TON has what was sent, within the payment's tolerance. What goes back on the chain has a reference of its
    /// own there: under the payment's any amount agrees with a refund, and none with a payment that has none.
    pub fn agrees_with(&self, stated: &Stated, with_refunds: bool) -> bool {
        let is_earlier = stated.came == 0 && self.is_earlier;
        match stated.currency {
            Currency::Asset(asset) => {
                let came = stated.came == self.amount || is_earlier;
                let went = stated.went == self.refunded || !with_refunds;
                let in_one = (stated.came == 0 || stated.went == 0) && stated.net() == self.net();
                self.asset == asset && ((came && went) || in_one)
            }
            Currency::Ton => self.ton.is_some_and(|price| {
                let came = price.is_met_by(stated.came) || is_earlier;
                came && (stated.went == 0 || self.refunded > 0)
            }),
        }
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
    /// Whether it lists refunds. A line below zero says so.
    pub with_refunds: bool,
}

impl Statement {
    /// An empty one that lists refunds, or may.
    pub fn new(with_refunds: bool) -> Self {
        Self { with_refunds, ..Self::default() }
    }

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
        self.with_refunds |= line.amount < 0;
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

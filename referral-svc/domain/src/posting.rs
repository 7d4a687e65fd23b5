//! Double-entry posting: transactions that cannot be written down unbalanced.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::{
    commission::Share,
    id::{AdjustmentId, PartnerId, PaymentId, PayoutId, TransactionId},
    money::{Amount, Asset},
};

/// What an account is for, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Purpose {
    /// A partner's money that can be paid out; below zero: a debt.
    PartnerAvailable(PartnerId),
    /// A partner's commissions that are still held.
    PartnerPending(PartnerId),
    /// A partner's money that open payouts have reserved.
    PartnerReserved(PartnerId),
    /// Money received from buyers, less refunds and payouts; its balance is negative by that much.
    PlatformClearing,
    /// What remains of sales.
    PlatformRevenue,
    /// The other side of adjustments.
    PlatformAdjustments,
}

/// Names an account.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AccountKey {
    /// For what and whose.
    pub purpose: Purpose,
    /// In what.
    pub asset: Asset,
}

/// An account as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account {
    /// The store's number for it.
    pub account_id: i64,
    /// The sum of its entries, in minor units; a credit balance is positive.
    pub balance: i64,
    /// How many entries it has.
    pub version: i64,
}

/// One side of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Which account.
    pub account: AccountKey,
    /// Its number.
    pub account_id: i64,
    /// The entry's number in the account, without gaps.
    pub version: i64,
    /// Minor units; positive is a credit.
    pub amount: i64,
    /// The account's balance after it.
    pub balance_after: i64,
}

/// What a transaction records, and of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A payment with its commissions.
    Sale(PaymentId),
    /// Held commissions of one earner become available.
    Release,
    /// Money of a payment given back, and the commissions' share taken back.
    Refund(PaymentId),
    /// Money set aside for a payout.
    PayoutReserved(PayoutId),
    /// A payout was paid.
    PayoutPaid(PayoutId),
    /// A payout's money is available again.
    PayoutReturned(PayoutId),
    /// An operator's correction.
    Adjustment(AdjustmentId),
}

/// A booked transaction: its entries sum to zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Permanent.
    pub transaction_id: TransactionId,
    /// What it records.
    pub subject: Subject,
    /// When.
    pub create_time: DateTime<Utc>,
    /// At most one an account.
    pub entries: Vec<Entry>,
}

/// Why a posting is impossible: a defect or an exhausted number range, never a caller's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PostingError {
    /// The state lacks an account.
    #[error("an account was not loaded: {0:?}")]
    AccountMissing(AccountKey),
    /// A balance or version would leave its number range.
    #[error("a balance would overflow")]
    Overflow,
    /// An amount in another asset than the source's.
    #[error("the assets differ")]
    AssetMismatch,
}

/// Money moving between accounts: whatever is credited to some is debited to others.
pub struct Movement {
    asset: Asset,
    sides: Vec<(Purpose, i64)>,
}

impl Movement {
    /// `sides` are credited, or below zero debited; `balancing` takes the rest.
    fn against(balancing: Purpose, asset: Asset, mut sides: Vec<(Purpose, i64)>) -> Result<Self, PostingError> {
        let mut total = 0_i64;
        for (_, amount) in &sides {
            total = total.checked_add(*amount).ok_or(PostingError::Overflow)?;
        }
        sides.insert(0, (balancing, total.checked_neg().ok_or(PostingError::Overflow)?));
        Ok(Self { asset, sides })
    }

    /// Of a sale: clearing is debited with the price, each earner credited with a share (held or not), revenue with what is
    /// left.
    pub fn sale(price: Amount, shares: &[Share], is_held: bool) -> Result<Self, PostingError> {
        let mut left = price.minor_units();
        let mut credits = Vec::with_capacity(shares.len().saturating_add(1));
        for share in shares {
            if share.amount.asset() != price.asset() {
                return Err(PostingError::AssetMismatch);
            }
            left =
                left.checked_sub(share.amount.minor_units()).filter(|left| *left >= 0).ok_or(PostingError::Overflow)?;
            let earned = if is_held { Purpose::PartnerPending } else { Purpose::PartnerAvailable };
            credits.push((earned(share.earner_id), share.amount.minor_units()));
        }
        credits.push((Purpose::PlatformRevenue, left));
        Self::against(Purpose::PlatformClearing, price.asset(), credits)
    }

    /// Of a release: what one earner's commissions held becomes available.
    pub fn release(earner_id: PartnerId, asset: Asset, amount: i64) -> Result<Self, PostingError> {
        Self::against(Purpose::PartnerPending(earner_id), asset, vec![(Purpose::PartnerAvailable(earner_id), amount)])
    }

    /// Of a refund: clearing gets the amount back, each of `taken` (an earner, whether the commission is held, how much) is
    /// debited, and revenue bears the rest.
    pub fn refund(amount: Amount, taken: &[(PartnerId, bool, i64)]) -> Result<Self, PostingError> {
        let mut sides = vec![(Purpose::PlatformClearing, amount.minor_units())];
        for (earner_id, is_held, taken) in taken {
            let earned = if *is_held { Purpose::PartnerPending } else { Purpose::PartnerAvailable };
            sides.push((earned(*earner_id), taken.checked_neg().ok_or(PostingError::Overflow)?));
        }
        Self::against(Purpose::PlatformRevenue, amount.asset(), sides)
    }

    /// Of a payout's request.
    pub fn payout_reserved(partner_id: PartnerId, amount: Amount) -> Result<Self, PostingError> {
        let reserved = (Purpose::PartnerReserved(partner_id), amount.minor_units());
        Self::against(Purpose::PartnerAvailable(partner_id), amount.asset(), vec![reserved])
    }

    /// Of a payout's completion.
    pub fn payout_paid(partner_id: PartnerId, amount: Amount) -> Result<Self, PostingError> {
        let paid = (Purpose::PlatformClearing, amount.minor_units());
        Self::against(Purpose::PartnerReserved(partner_id), amount.asset(), vec![paid])
    }

    /// Of a payout that failed or was cancelled.
    pub fn payout_returned(partner_id: PartnerId, amount: Amount) -> Result<Self, PostingError> {
        let returned = (Purpose::PartnerAvailable(partner_id), amount.minor_units());
        Self::against(Purpose::PartnerReserved(partner_id), amount.asset(), vec![returned])
    }

    /// Of an adjustment: above zero a credit to the partner.
    pub fn adjustment(partner_id: PartnerId, asset: Asset, amount: i64) -> Result<Self, PostingError> {
        Self::against(Purpose::PlatformAdjustments, asset, vec![(Purpose::PartnerAvailable(partner_id), amount)])
    }

    /// The entries against `accounts` as they stand; nothing moves nothing, so zeros leave no entry.
    pub fn entries(self, accounts: &HashMap<AccountKey, Account>) -> Result<Vec<Entry>, PostingError> {
        self.sides
            .into_iter()
            .filter(|(_, amount)| *amount != 0)
            .map(|(purpose, amount)| entry(AccountKey { purpose, asset: self.asset }, amount, accounts))
            .collect()
    }
}

fn entry(account: AccountKey, amount: i64, accounts: &HashMap<AccountKey, Account>) -> Result<Entry, PostingError> {
    let current = accounts.get(&account).ok_or(PostingError::AccountMissing(account))?;
    Ok(Entry {
        account,
        account_id: current.account_id,
        version: current.version.checked_add(1).ok_or(PostingError::Overflow)?,
        amount,
        balance_after: current.balance.checked_add(amount).ok_or(PostingError::Overflow)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{commission::shares, plan::Plan};
    use proptest::prelude::*;
    use uuid::Uuid;

    proptest! {
        #[test]
        fn every_sale_balances_and_continues_its_accounts(
            units in 1..=i64::MAX / 4, ancestors in 0..10_u128, balance in -1_000_000_i64..1_000_000_000, version in 0..1_000_i64,
        ) {
            let plan = Plan::built_in();
            let price = Amount::new(Asset::Usdt, units).expect("positive");
            let lineage: Vec<PartnerId> = (1..=ancestors).map(|n| Uuid::from_u128(n).into()).collect();
            let accounts: HashMap<_, _> = lineage
                .iter()
                .map(|id| Purpose::PartnerAvailable(*id))
                .chain([Purpose::PlatformClearing, Purpose::PlatformRevenue])
                .zip(1..)
                .map(|(purpose, account_id)| (AccountKey { purpose, asset: Asset::Usdt }, Account { account_id, balance, version }))
                .collect();
            let entries = Movement::sale(price, &shares(&plan, price, &lineage), false).expect("splits").entries(&accounts).expect("posts");
            prop_assert_eq!(entries.iter().map(|entry| i128::from(entry.amount)).sum::<i128>(), 0);
            for entry in &entries {
                prop_assert_eq!(entry.version, version + 1);
                prop_assert_eq!(entry.balance_after, balance + entry.amount);
                prop_assert_ne!(entry.amount, 0);
            }
            prop_assert_eq!(entries[0].amount, -units);
        }
    }

    #[test]
    fn an_overflowing_balance_is_an_error_not_a_wrap() {
        let accounts = HashMap::from([
            (
                AccountKey { purpose: Purpose::PlatformClearing, asset: Asset::Usdt },
                Account { account_id: 1, balance: i64::MIN, version: 1 },
            ),
            (
                AccountKey { purpose: Purpose::PlatformRevenue, asset: Asset::Usdt },
                Account { account_id: 2, balance: 0, version: 1 },
            ),
        ]);
        let price = Amount::new(Asset::Usdt, 1).expect("positive");
        let movement = Movement::sale(price, &[], false).expect("splits");
        assert_eq!(movement.entries(&accounts), Err(PostingError::Overflow));
    }
}

//! Double-entry posting: transactions that cannot be written down unbalanced.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::{
    commission::Share,
    id::{PartnerId, PaymentId, TransactionId},
    money::{Amount, Asset},
};

/// What an account is for, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Purpose {
    /// A partner's money that can be paid out.
    PartnerAvailable(PartnerId),
    /// Money received from buyers; its balance is negative by that much.
    PlatformClearing,
    /// What remains of sales.
    PlatformRevenue,
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

/// A booked transaction: its entries sum to zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Permanent.
    pub transaction_id: TransactionId,
    /// The payment behind it.
    pub payment_id: PaymentId,
    /// When.
    pub create_time: DateTime<Utc>,
    /// At most one an account.
    pub entries: Vec<Entry>,
}

/// Why a posting is impossible: a defect or an exhausted number range, never a caller's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PostingError {
    /// The state lacks an account.
    #[error("an account was not loaded")]
    AccountMissing,
    /// A balance or version would leave its number range.
    #[error("a balance would overflow")]
    Overflow,
    /// An amount in another asset than the source's.
    #[error("the assets differ")]
    AssetMismatch,
}

/// Money moving out of one account into others: whatever is credited is debited at the source.
pub struct Split {
    source: Purpose,
    asset: Asset,
    credits: Vec<(Purpose, i64)>,
}

impl Split {
    /// Of a sale: clearing is debited with the price, each earner credited with a share, revenue with what is left.
    pub fn of_sale(price: Amount, shares: &[Share]) -> Result<Self, PostingError> {
        let mut left = price.minor_units();
        let mut credits = Vec::with_capacity(shares.len().saturating_add(1));
        for share in shares {
            if share.amount.asset() != price.asset() {
                return Err(PostingError::AssetMismatch);
            }
            left =
                left.checked_sub(share.amount.minor_units()).filter(|left| *left >= 0).ok_or(PostingError::Overflow)?;
            credits.push((Purpose::PartnerAvailable(share.earner_id), share.amount.minor_units()));
        }
        credits.push((Purpose::PlatformRevenue, left));
        Ok(Self { source: Purpose::PlatformClearing, asset: price.asset(), credits })
    }

    /// The entries against `accounts` as they stand; nothing moves nothing, so zero credits leave no entry.
    pub fn entries(self, accounts: &HashMap<AccountKey, Account>) -> Result<Vec<Entry>, PostingError> {
        let mut total = 0_i64;
        for (_, amount) in &self.credits {
            total = total.checked_add(*amount).ok_or(PostingError::Overflow)?;
        }
        let debit = (self.source, total.checked_neg().ok_or(PostingError::Overflow)?);
        std::iter::once(debit)
            .chain(self.credits)
            .filter(|(_, amount)| *amount != 0)
            .map(|(purpose, amount)| entry(AccountKey { purpose, asset: self.asset }, amount, accounts))
            .collect()
    }
}

fn entry(account: AccountKey, amount: i64, accounts: &HashMap<AccountKey, Account>) -> Result<Entry, PostingError> {
    let current = accounts.get(&account).ok_or(PostingError::AccountMissing)?;
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
            let entries = Split::of_sale(price, &shares(&plan, price, &lineage)).expect("splits").entries(&accounts).expect("posts");
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
        let split = Split::of_sale(price, &[]).expect("splits");
        assert_eq!(split.entries(&accounts), Err(PostingError::Overflow));
    }
}

//! The figures that the product's rules give for the demo, and the checks against them.

use p2phub_proto::{
    notify::v1::{NotificationKind, NotificationState},
    referral::v1::{AccountPurpose, AuditEvent, Transaction},
};

use super::Seen;

const ASSET: &str = "USDT";
const MINOR_PER_UNIT: i64 = 1_000_000;
const PRICE: i64 = 39_000_000;
const COMMISSIONS_SUM: i64 = 17_160_000;
const REVENUE: i64 = 21_840_000;
/// By level, nearest first: the rate in basis points and the share of the price.
const SHARES: [(i32, i64); 9] = [
    (3_000, 11_700_000),
    (500, 1_950_000),
    (300, 1_170_000),
    (100, 390_000),
    (100, 390_000),
    (100, 390_000),
    (100, 390_000),
    (100, 390_000),
    (100, 390_000),
];
/// By level, nearest first: XP for a signup.
const SIGNUP_XP: [i64; 9] = [35, 10, 1, 1, 1, 1, 1, 1, 1];

/// What had to be so, and whether it was.
#[derive(Default)]
pub(crate) struct Expectations {
    pub(crate) held: usize,
    pub(crate) broken: Vec<String>,
}

impl Expectations {
    pub(crate) fn that(&mut self, what: impl Into<String>, holds: bool) {
        if holds {
            self.held += 1;
        } else {
            self.broken.push(what.into());
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: impl Into<String>, found: T, expected: T) {
        let holds = found == expected;
        let what = what.into();
        self.that(format!("{what}: expected {expected:?}, found {found:?}"), holds);
    }
}

pub(super) fn check_people(expect: &mut Expectations, seen: &Seen) {
    let count = seen.people.len();
    for (index, person) in seen.people.iter().enumerate() {
        let xp: i64 = SIGNUP_XP.iter().take(count - 1 - index).sum();
        let name = &person.first_name;
        let referrer = index.checked_sub(1).map_or("", |above| &seen.people[above].partner_id);
        expect.same(format!("{name}'s XP"), person.xp, xp);
        expect.same(format!("{name}'s level"), person.level, 1);
        expect.same(format!("{name}'s depth"), usize::try_from(person.depth).ok(), Some(index));
        expect.same(format!("{name}'s referrer"), person.referrer_id.as_str(), referrer);
        expect.same(format!("{name}'s network"), usize::try_from(person.network_size).ok(), Some(count - 1 - index));
        expect.same(format!("{name}'s PRO"), person.pro_active, index + 1 == count);
    }
}

pub(super) fn check_money(expect: &mut Expectations, seen: &Seen, balances: &[i64]) {
    expect.same("the number of commissions", seen.commissions.len(), SHARES.len());
    for ((commission, (rate, share)), level) in seen.commissions.iter().zip(SHARES).zip(1..) {
        // The chain is a line: level 1 is the last but one, level 9 the first.
        let earner = seen.people.iter().rev().nth(usize::try_from(level).unwrap_or(usize::MAX));
        let amount = commission.amount.clone().unwrap_or_default();
        expect.same(format!("the level of commission {level}"), commission.level, level);
        expect.same(format!("the rate at level {level}"), commission.rate_bps, rate);
        expect.same(
            format!("the amount at level {level}"),
            (amount.asset.as_str(), amount.minor_units),
            (ASSET, share),
        );
        expect.same(
            format!("the earner at level {level}"),
            Some(&commission.earner_id),
            earner.map(|person| &person.partner_id),
        );
    }
    let due = SHARES.iter().rev().map(|(_, share)| *share).chain([0]);
    for ((person, balance), due) in seen.people.iter().zip(balances).zip(due) {
        expect.same(format!("{}'s balance", person.first_name), *balance, due);
    }
    expect.same("the sum of the balances", balances.iter().sum(), COMMISSIONS_SUM);
}

pub(super) fn check_transaction(expect: &mut Expectations, transaction: &Transaction) {
    let units = |purpose: AccountPurpose| -> i64 {
        let matching = transaction.entries.iter().filter(|entry| entry.purpose() == purpose);
        matching.filter_map(|entry| entry.amount.as_ref()).map(|amount| amount.minor_units).sum()
    };
    let partners = units(AccountPurpose::PartnerAvailable);
    let revenue = units(AccountPurpose::PlatformRevenue);
    let clearing = units(AccountPurpose::PlatformClearing);
    expect.same("entries", transaction.entries.len(), 11);
    expect.same("commissions booked", partners, COMMISSIONS_SUM);
    expect.same("revenue", revenue, REVENUE);
    expect.same("money received", clearing, -PRICE);
    expect.same("the transaction's sum", partners + revenue + clearing, 0);
}

pub(super) fn check_notifications(expect: &mut Expectations, seen: &Seen) {
    expect.same("the number of notifications", seen.notifications.len(), seen.people.len());
    let buyer = seen.people.len() - 1;
    for (index, person) in seen.people.iter().enumerate() {
        let theirs: Vec<_> = seen.notifications.iter().filter(|one| one.recipient_id == person.partner_id).collect();
        let kind = if index == buyer { NotificationKind::ProWelcome } else { NotificationKind::CommissionReceived };
        let name = &person.first_name;
        let kinds: Vec<_> = theirs.iter().map(|one| one.kind()).collect();
        expect.same(format!("what {name} was told"), kinds, vec![kind]);
        let delivered = theirs.iter().all(|one| one.state() == NotificationState::Delivered);
        expect.that(format!("what {name} was told was delivered"), delivered);
    }
}

pub(super) fn check_trace(expect: &mut Expectations, seen: &Seen, audit: &[AuditEvent]) {
    let confirmed = |event: &AuditEvent| {
        event.action == "ConfirmPayment" && event.outcome == "OK" && event.trace_id == seen.sale.trace_id
    };
    expect.that("the audit record carries the caller's trace", audit.iter().any(confirmed));
    let carried = seen.notifications.iter().all(|one| one.trace_id == seen.sale.trace_id);
    expect.that("every notification carries the caller's trace", carried);
}

/// An amount of the demo's only asset, for a person to read.
pub(super) fn money(minor_units: i64) -> String {
    let sign = if minor_units < 0 { "-" } else { "" };
    let (whole, fraction) = (minor_units / MINOR_PER_UNIT, minor_units % MINOR_PER_UNIT);
    let fraction = format!("{:06}", fraction.abs());
    let (cents, rest) = fraction.split_at(2);
    format!("{sign}{}.{cents}{}", whole.abs(), rest.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::money;

    #[test]
    fn money_reads_as_people_write_it() {
        let cases = [(0, "0.00"), (39_000_000, "39.00"), (390_000, "0.39"), (-390_001, "-0.390001"), (1_500, "0.0015")];
        for (minor_units, text) in cases {
            assert_eq!(money(minor_units), text);
        }
    }
}

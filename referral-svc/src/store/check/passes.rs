//! Every check, by the statement that carries it out.

use super::things::Things;

/// One statement that goes through things slice by slice.
pub(super) struct Pass {
    /// Its own: the statement's file.
    pub(super) name: &'static str,
    pub(super) things: Things,
    /// The names of the checks that it carries out.
    pub(super) checks: &'static [&'static str],
    /// Where `SLICE(key)` stands, a condition on the slice's keys comes in.
    pub(super) query: &'static str,
}

macro_rules! pass {
    ($things:ident, $file:literal, $($check:literal),+) => {
        Pass { name: $file, things: Things::$things, checks: &[$($check),+], query: include_str!($file) }
    };
}

pub(super) const PASSES: [Pass; 20] = [
    pass!(
        Transactions,
        "transactions.sql",
        "transactions_sum_to_zero",
        "entries_belong_to_transactions",
        "transactions_have_facts",
        "sales_are_whole",
        "commissions_are_booked",
        "facts_have_their_notices"
    ),
    pass!(Transactions, "seals.sql", "transactions_equal_their_seals"),
    pass!(Blocks, "blocks.sql", "sealed_transactions_exist", "transactions_equal_their_seals"),
    pass!(Blocks, "events.sql", "events_are_settled_or_waiting"),
    pass!(Entries, "entries.sql", "entries_follow_one_another"),
    pass!(Accounts, "accounts.sql", "balances_equal_entries"),
    pass!(
        Payments,
        "payments.sql",
        "payments_are_booked",
        "references_used_once",
        "refunds_equal_payments",
        "reversals_equal_refunds",
        "commissions_equal_payouts"
    ),
    pass!(Payments, "rejections.sql", "facts_have_their_notices"),
    pass!(Refunds, "refunds.sql", "refunds_are_booked"),
    pass!(Payouts, "payouts.sql", "payouts_are_whole"),
    pass!(Payouts, "approvals.sql", "facts_have_their_notices"),
    pass!(Adjustments, "adjustments.sql", "adjustments_are_whole"),
    pass!(
        Earners,
        "money.sql",
        "claims_equal_balances",
        "held_commissions_equal_balances",
        "payouts_equal_reservations",
        "partners_add_up"
    ),
    pass!(Earners, "releases.sql", "releases_equal_commissions"),
    pass!(Tree, "tree.sql", "lineages_equal_the_tree"),
    pass!(Grown, "networks.sql", "networks_equal_the_tree"),
    pass!(Awarded, "xp.sql", "xp_equals_awards", "ranks_equal_standings"),
    pass!(Ranks, "ranks.sql", "ranks_equal_standings"),
    pass!(Joined, "signups.sql", "signups_have_their_notices"),
    pass!(Buyers, "pro.sql", "pro_equals_periods", "notices_equal_their_count"),
];

//! What decisions add to the business counters: a sum, to be counted once it is known to be committed.

use std::collections::BTreeMap;

use referral_domain::{
    command::{Attribution, Command, Outcome},
    payout::PayoutState,
    posting::Subject,
    state::{Changes, Decision, State},
};

/// A confirmation made an upgrade.
pub(super) const SUCCEEDED: &str = "succeeded";
/// A confirmation was refused by the rules.
pub(super) const REFUSED: &str = "refused";
/// The buyer never had PRO before.
pub(super) const NEW: &str = "new";
/// The buyer has, or once had, PRO.
pub(super) const RENEWAL: &str = "renewal";

/// What one command, or a batch of them, adds up to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    /// New partners by attribution.
    pub(super) signups: BTreeMap<&'static str, u64>,
    /// By outcome.
    pub(super) confirmations: BTreeMap<&'static str, u64>,
    /// By type, and whether the buyer had anybody above at the sale.
    pub(super) upgrades: BTreeMap<(&'static str, bool), u64>,
    /// By level.
    pub(super) commissions: BTreeMap<u8, u64>,
    /// Minor units of commissions by asset.
    pub(super) amounts: BTreeMap<&'static str, u64>,
    pub(super) xp: u64,
    pub(super) refunds: u64,
    /// By the state that they came to.
    pub(super) payouts: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Of one command, decided on a state that hasn't taken its changes in yet.
    pub(crate) fn of(state: &State, command: &Command, decision: &Decision) -> Self {
        let mut tally = Self::default();
        match &decision.outcome {
            Ok(Outcome::Registered { attribution, .. }) => {
                if let Some(attribution) = attribution_name(*attribution) {
                    *tally.signups.entry(attribution).or_default() += 1;
                }
            }
            Ok(Outcome::Confirmed { already: false, .. }) => {
                *tally.confirmations.entry(SUCCEEDED).or_default() += 1;
            }
            // Bad input is no confirmation that the rules had to refuse.
            Err(refusal) if matches!(command, Command::ConfirmPayment { .. }) && refusal.kind().1.is_remembered() => {
                *tally.confirmations.entry(REFUSED).or_default() += 1;
            }
            _ => {}
        }
        tally.add_changes(state, &decision.changes);
        tally
    }

    /// Of a batch.
    pub(crate) fn sum<'a>(tallies: impl Iterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for tally in tallies {
            add(&mut sum.signups, &tally.signups);
            add(&mut sum.confirmations, &tally.confirmations);
            add(&mut sum.upgrades, &tally.upgrades);
            add(&mut sum.commissions, &tally.commissions);
            add(&mut sum.amounts, &tally.amounts);
            sum.xp += tally.xp;
            sum.refunds += tally.refunds;
            add(&mut sum.payouts, &tally.payouts);
        }
        sum
    }

    fn add_changes(&mut self, state: &State, changes: &Changes) {
        if let Some(Subject::Sale(payment_id)) = changes.transactions.first().map(|transaction| transaction.subject)
            && let Some(buyer) = state.payments.get(&payment_id).map(|payment| payment.partner_id)
        {
            let had_pro = state.standings.get(&buyer).is_some_and(|standing| standing.pro_expires_at.is_some());
            let referred = state.partners.get(&buyer).is_some_and(|partner| !partner.lineage.is_empty());
            *self.upgrades.entry((if had_pro { RENEWAL } else { NEW }, referred)).or_default() += 1;
        }
        for commission in &changes.commissions {
            *self.commissions.entry(commission.level).or_default() += 1;
            // Never negative.
            let amount = commission.amount.minor_units().unsigned_abs();
            *self.amounts.entry(commission.amount.asset().ticker()).or_default() += amount;
        }
        self.refunds += u64::from(changes.refund.is_some());
        if let Some(payout) = &changes.payout {
            *self.payouts.entry(payout_state(payout.state())).or_default() += 1;
        }
        self.xp += changes.awards.iter().map(|award| award.xp.unsigned_abs()).sum::<u64>();
    }
}

pub(super) const fn payout_state(state: PayoutState) -> &'static str {
    match state {
        PayoutState::Requested => "requested",
        PayoutState::Approved => "approved",
        PayoutState::Completed => "completed",
        PayoutState::Failed => "failed",
        PayoutState::Cancelled => "cancelled",
    }
}

/// None: it was no signup.
pub(super) const fn attribution_name(attribution: Attribution) -> Option<&'static str> {
    match attribution {
        Attribution::Attributed => Some("attributed"),
        Attribution::NoCode => Some("no_code"),
        Attribution::UnknownCode => Some("unknown_code"),
        Attribution::AlreadyRegistered => None,
    }
}

fn add<K: Copy + Ord>(sum: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (key, count) in more {
        *sum.entry(*key).or_default() += count;
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;

//! What must hold.

use std::collections::{HashMap, HashSet};

use super::world::{Memory, World};
use crate::{
    LEVELS,
    adjustment::AdjustmentState,
    broadcast::{Broadcast, BroadcastState},
    command::{Command, Outcome, Refusal},
    id::{BroadcastId, PartnerId},
    money::Asset,
    payout::{Claim, PayoutState},
    posting::{Account, AccountKey, Purpose},
    state::{About, Decision, State},
};

impl World {
    /// Tree, counts, XP, periods and references, at a history's end.
    pub(super) fn check(&self) {
        let mut members: HashMap<PartnerId, [i64; LEVELS]> = HashMap::new();
        for id in &self.partners {
            assert!(!self.above(*id).contains(id), "a cycle");
            for (slot, ancestor) in self.state.partners[id].lineage.iter().enumerate() {
                members.entry(*ancestor).or_default()[slot] += 1;
            }
        }
        for id in &self.partners {
            let standing = &self.state.standings[id];
            assert_eq!(standing.xp, self.awarded.get(id).copied().unwrap_or_default());
            assert_eq!(standing.members, members.get(id).copied().unwrap_or_default());
            let periods = self.state.payments.values().filter(|payment| payment.partner_id == *id);
            let last = periods.filter_map(|payment| payment.success()).map(|success| success.pro_end).max();
            assert_eq!(standing.pro_expires_at, last);
        }
        let used: Vec<_> = self.state.payments.values().filter_map(|payment| payment.success()).collect();
        let distinct: HashSet<_> = used.iter().map(|success| &success.external_ref).collect();
        assert_eq!(used.len(), distinct.len(), "a reference was used twice");
    }
}

/// A refusal changes nothing, but that money which came too late is put on record.
pub(super) fn refusal(decision: &Decision) {
    let changes = &decision.changes;
    if let Err(refusal) = &decision.outcome {
        assert!(
            changes.broadcast.is_none()
                && changes.payout.is_none()
                && changes.adjustments.is_empty()
                && changes.changed_commissions.is_empty()
                && changes.payments.is_empty()
                && changes.transactions.is_empty()
                && changes.notices.is_empty()
        );
        assert!(changes.late_reference.is_none() || matches!(refusal, Refusal::PaymentExpired(_)));
    }
}

/// Only a running broadcast can be stopped, and only a broadcast's own commands touch it.
pub(super) fn broadcasts(
    command: &Command,
    decision: &Decision,
    before: &HashMap<BroadcastId, Broadcast>,
    state: &State,
) {
    let touched = match command {
        Command::CancelBroadcast { broadcast_id, .. } => {
            let was_running = before[broadcast_id].state() == BroadcastState::Running;
            assert_eq!(decision.outcome.is_ok(), was_running);
            let expected = if was_running { BroadcastState::Cancelled } else { before[broadcast_id].state() };
            assert_eq!(state.broadcasts[broadcast_id].state(), expected);
            assert_eq!(state.broadcasts[broadcast_id].published, before[broadcast_id].published);
            Some(*broadcast_id)
        }
        _ => None,
    };
    assert!(before.iter().all(|(id, broadcast)| Some(*id) == touched || state.broadcasts[id] == *broadcast));
}

fn balance(accounts: &HashMap<AccountKey, Account>, purpose: Purpose) -> i64 {
    accounts[&AccountKey { purpose, asset: Asset::Usdt }].balance
}

/// The books say what commissions, adjustments, payments and payouts say.
pub(super) fn money(state: &State) {
    assert_eq!(state.accounts.values().map(|account| i128::from(account.balance)).sum::<i128>(), 0);
    let (mut available, mut pending, mut reserved): (HashMap<_, i64>, HashMap<_, i64>, HashMap<_, i64>) =
        Default::default();
    for commission in state.commissions.values() {
        *available.entry(commission.earner_id).or_default() += commission.open();
        let held = if commission.is_held() { commission.left() } else { 0 };
        *pending.entry(commission.earner_id).or_default() += held;
        let refunded = state.payments[&commission.payment_id].success().expect("a sale").refunded;
        assert_eq!(commission.reversed, commission.reversed_by(refunded));
    }
    for adjustment in state.adjustments.values() {
        *available.entry(adjustment.partner_id).or_default() += adjustment.open();
    }
    let mut clearing = 0;
    for success in state.payments.values().filter_map(|payment| Some((payment.amount, payment.success()?))) {
        clearing -= success.0.minor_units() - success.1.refunded;
    }
    for payout in state.payouts.values() {
        assert_eq!(payout.items.iter().map(|item| item.amount).sum::<i64>(), payout.amount.minor_units());
        match payout.state() {
            PayoutState::Requested | PayoutState::Approved => {
                *reserved.entry(payout.partner_id).or_default() += payout.amount.minor_units();
            }
            PayoutState::Completed => clearing += payout.amount.minor_units(),
            PayoutState::Failed | PayoutState::Cancelled => {}
        }
    }
    assert_eq!(balance(&state.accounts, Purpose::PlatformClearing), clearing);
    for id in state.partners.keys() {
        let of = |sums: &HashMap<PartnerId, i64>| sums.get(id).copied().unwrap_or_default();
        assert_eq!(balance(&state.accounts, Purpose::PartnerAvailable(*id)), of(&available), "available");
        assert_eq!(balance(&state.accounts, Purpose::PartnerPending(*id)), of(&pending), "pending");
        assert_eq!(balance(&state.accounts, Purpose::PartnerReserved(*id)), of(&reserved), "reserved");
    }
    claims(state);
}

/// What each claim has reserved and paid is what payouts' items say, and no more than it is about, as the schema has it.
fn claims(state: &State) {
    let mut items: HashMap<Claim, (i64, i64)> = HashMap::new();
    for payout in state.payouts.values() {
        for item in &payout.items {
            let (reserved, paid) = items.entry(item.claim).or_default();
            match payout.state() {
                PayoutState::Requested | PayoutState::Approved => *reserved += item.amount,
                PayoutState::Completed => *paid += item.amount,
                PayoutState::Failed | PayoutState::Cancelled => {}
            }
        }
    }
    let of = |claim| items.get(&claim).copied().unwrap_or_default();
    let fits =
        |reserved: i64, paid: i64, amount: i64| paid.abs() <= amount.abs() && (reserved + paid).abs() <= amount.abs();
    for (key, commission) in &state.commissions {
        assert_eq!((commission.reserved, commission.paid), of(Claim::Commission(*key)));
        assert!(fits(commission.reserved, commission.paid, commission.amount.minor_units()), "{commission:?}");
    }
    for (id, adjustment) in &state.adjustments {
        assert_eq!((adjustment.reserved, adjustment.paid), of(Claim::Adjustment(*id)));
        assert!(fits(adjustment.reserved, adjustment.paid, adjustment.amount), "{adjustment:?}");
    }
}

/// Payouts and adjustments go forward where their state, the callers and the balance let them, and whoever is paid hears of it.
pub(super) fn transition(command: &Command, caller: &str, decision: &Decision, before: &Memory) {
    use PayoutState::{Approved, Completed, Requested};
    let available = |id| balance(&before.accounts, Purpose::PartnerAvailable(id));
    let is_allowed = match command {
        Command::RequestPayout { partner_id, amount, .. } => {
            let available = available(*partner_id);
            amount.map_or(available, |amount| amount.minor_units()) >= 1_000_000
                && amount.is_none_or(|amount| amount.minor_units() <= available)
        }
        Command::ApprovePayout { payout_id } => {
            let payout = &before.payouts[payout_id];
            payout.state() == Requested && payout.requester != caller && available(payout.partner_id) >= 0
        }
        Command::CompletePayout { payout_id, external_ref } => {
            let payout = &before.payouts[payout_id];
            payout.state() == Approved && !before.used_payout_refs.contains(external_ref)
                || payout.external_ref() == Some(external_ref)
        }
        Command::FailPayout { payout_id, .. } => before.payouts[payout_id].state() == Approved,
        Command::CancelPayout { payout_id, .. } => before.payouts[payout_id].state() == Requested,
        Command::ApproveAdjustment { adjustment_id } => {
            let adjustment = &before.adjustments[adjustment_id];
            adjustment.state() == AdjustmentState::Proposed && adjustment.proposer != caller
        }
        Command::RejectAdjustment { adjustment_id, .. } => {
            before.adjustments[adjustment_id].state() == AdjustmentState::Proposed
        }
        _ => return,
    };
    assert_eq!(decision.outcome.is_ok(), is_allowed, "{command:?}: {:?}", decision.outcome);
    let told: Vec<_> = decision.changes.notices.iter().map(|notice| (notice.recipient_id, &notice.about)).collect();
    match &decision.changes.payout {
        Some(payout) => {
            let about = About::Payout { amount: payout.amount, state: payout.state() };
            assert_eq!(told, [(payout.partner_id, &about)]);
        }
        None => assert!(told.is_empty()),
    }
    // A payout that was completed before is answered, and nothing is done.
    if let Ok(Outcome::PayoutCompleted(payout)) = &decision.outcome
        && before.payouts[&payout.payout_id].state() == Completed
    {
        assert!(decision.changes.payout.is_none() && decision.changes.transactions.is_empty());
    }
}

//! What payouts and adjustments need: whose they are, their accounts, and the claims that they are about.

use std::collections::{BTreeSet, HashMap, HashSet};

use referral_domain::{
    adjustment::Adjustment,
    commission::CommissionKey,
    id::{AdjustmentId, PartnerId},
    payout::{Claim, ITEMS_MAX},
    posting::Purpose,
    state::State,
};
use uuid::Uuid;

use super::{Named, uuids};
use crate::store::{Result, adjustments, commissions, payouts, transaction::Transaction};

/// Whose payouts and adjustments are named.
#[derive(Default)]
pub(super) struct Owners {
    pub(super) of_payouts: BTreeSet<PartnerId>,
    of_adjustments: BTreeSet<PartnerId>,
}

impl Owners {
    /// Of what the commands name; no row is locked for it, since none ever changes hands.
    pub(super) async fn of(transaction: &mut Transaction, named: &Named<'_>) -> Result<Self> {
        let mut owners = Self::default();
        if !named.payouts.is_empty() {
            owners.of_payouts = payouts::owners(transaction, &uuids(&named.payouts)).await?;
        }
        if !named.adjustments.is_empty() {
            owners.of_adjustments = adjustments::owners(transaction, &uuids(&named.adjustments)).await?;
        }
        Ok(owners)
    }

    /// The accounts of what may be booked. Whoever locks a payout's or an adjustment's row holds its owner's available account.
    pub(super) fn purposes(&self, named: &Named<'_>, state: &State) -> Vec<Purpose> {
        let paid_out = named.paid_out.iter().filter(|id| state.partners.contains_key(id));
        let mut purposes: Vec<Purpose> = paid_out
            .chain(&self.of_payouts)
            .flat_map(|id| [Purpose::PartnerAvailable(*id), Purpose::PartnerReserved(*id)])
            .chain(self.of_adjustments.iter().map(|id| Purpose::PartnerAvailable(*id)))
            .collect();
        if !named.payout_references.is_empty() {
            purposes.push(Purpose::PlatformClearing);
        }
        if !self.of_adjustments.is_empty() {
            purposes.push(Purpose::PlatformAdjustments);
        }
        purposes
    }
}

/// Loads payouts and adjustments, and the claims that may be paid or returned. The accounts are locked by now, so that no
/// claim changes any more.
pub(super) async fn load(transaction: &mut Transaction, named: &Named<'_>, state: &mut State) -> Result<()> {
    if !named.payouts.is_empty() {
        let payouts = payouts::lock(transaction, &uuids(&named.payouts)).await?;
        state.payouts = payouts.into_iter().map(|payout| (payout.payout_id, payout)).collect();
    }
    if !named.payout_references.is_empty() {
        let references: Vec<&str> = named.payout_references.iter().copied().collect();
        state.used_payout_refs = payouts::used_refs(transaction, &references).await?;
    }
    load_items(transaction, named, state).await?;
    load_open(transaction, named, state).await
}

/// The adjustments named, and the commissions and adjustments that payouts are about which may end.
async fn load_items(transaction: &mut Transaction, named: &Named<'_>, state: &mut State) -> Result<()> {
    let (mut keys, mut ids): (Vec<CommissionKey>, BTreeSet<AdjustmentId>) = (Vec::new(), named.adjustments.clone());
    for item in state.payouts.values().filter(|payout| payout.end().is_none()).flat_map(|payout| &payout.items) {
        match item.claim {
            Claim::Commission(key) => keys.push(key),
            Claim::Adjustment(id) => _ = ids.insert(id),
        }
    }
    if !keys.is_empty() {
        let commissions = commissions::load_each(transaction, &keys).await?;
        state.commissions.extend(commissions.into_iter().map(|commission| (commission.key(), commission)));
    }
    if !ids.is_empty() {
        admit(state, adjustments::lock(transaction, &uuids(&ids)).await?);
    }
    Ok(())
}

/// What is open of those who ask for a payout: what one payout can name, and as much more as refunds of this batch may take.
/// A partner asks once a batch.
async fn load_open(transaction: &mut Transaction, named: &Named<'_>, state: &mut State) -> Result<()> {
    let partners: Vec<Uuid> =
        named.paid_out.iter().filter(|id| state.partners.contains_key(id)).map(|id| (*id).into()).collect();
    if partners.is_empty() {
        return Ok(());
    }
    let limit = i64::try_from(ITEMS_MAX + named.refunded.len()).unwrap_or(i64::MAX);
    let mut claims: HashMap<PartnerId, HashSet<Claim>> =
        partners.iter().map(|id| ((*id).into(), HashSet::new())).collect();
    for commission in commissions::open(transaction, &partners, limit).await? {
        claims.entry(commission.earner_id).or_default().insert(Claim::Commission(commission.key()));
        state.commissions.insert(commission.key(), commission);
    }
    let adjustments = adjustments::open(transaction, &partners, limit).await?;
    for adjustment in &adjustments {
        claims.entry(adjustment.partner_id).or_default().insert(Claim::Adjustment(adjustment.adjustment_id));
    }
    admit(state, adjustments);
    state.claims = claims;
    Ok(())
}

fn admit(state: &mut State, adjustments: Vec<Adjustment>) {
    state.adjustments.extend(adjustments.into_iter().map(|adjustment| (adjustment.adjustment_id, adjustment)));
}

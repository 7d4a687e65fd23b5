//! Loads what a batch's decisions need, in a few set-based queries, locking rows in the fixed order.

use std::collections::BTreeSet;

use referral_domain::{
    command::Command,
    id::{BroadcastId, PartnerId, PaymentId},
    partner::Partner,
    payment::Payment,
    plan::Plan,
    posting::{AccountKey, Purpose},
    state::State,
};
use uuid::Uuid;

use crate::store::{
    Result, broadcasts, commissions, ledger, locks::Stripes, partners, payments, standings, transaction::Transaction,
};

/// What a batch's commands name.
#[derive(Default)]
struct Named<'a> {
    payments: BTreeSet<PaymentId>,
    /// Of them, those to be confirmed.
    confirmed: BTreeSet<PaymentId>,
    /// Of those, the ones whose reference was handed in before.
    confirmed_as_handed_in: BTreeSet<PaymentId>,
    partners: BTreeSet<PartnerId>,
    /// Of them, those whose rows change.
    changed: BTreeSet<PartnerId>,
    /// Of them, those whose PRO is to be counted.
    counted: BTreeSet<PartnerId>,
    external_ids: BTreeSet<&'a str>,
    /// Codes of referrers.
    codes: BTreeSet<&'a str>,
    /// Codes that must be free.
    candidates: BTreeSet<&'a str>,
    references: BTreeSet<&'a str>,
    broadcasts: BTreeSet<BroadcastId>,
}

impl<'a> Named<'a> {
    fn by(commands: impl Iterator<Item = &'a Command>) -> Self {
        let mut named = Self::default();
        for command in commands {
            named.add(command);
        }
        named
    }

    fn add(&mut self, command: &'a Command) {
        match command {
            Command::RegisterPartner(registration) => {
                self.external_ids.insert(&registration.external_id);
                self.codes.extend(registration.code.as_ref().map(|code| code.as_str()));
                self.candidates.extend(registration.candidates.iter().map(|code| code.as_str()));
            }
            Command::AttachReferrer { partner_id, code } => {
                self.partners.insert(*partner_id);
                self.changed.insert(*partner_id);
                self.codes.insert(code.as_str());
            }
            Command::UpdatePartner { partner_id, .. } => {
                self.partners.insert(*partner_id);
                self.changed.insert(*partner_id);
            }
            Command::CountProMembers { partner_ids } => {
                self.partners.extend(partner_ids);
                self.counted.extend(partner_ids);
            }
            Command::CreatePayment { partner_id, .. } => {
                self.partners.insert(*partner_id);
            }
            Command::SubmitPayment { payment_id, external_ref } => {
                self.payments.insert(*payment_id);
                self.references.insert(external_ref.as_str());
            }
            Command::ConfirmPayment { payment_id, external_ref, .. } => {
                self.payments.insert(*payment_id);
                self.confirmed.insert(*payment_id);
                if external_ref.is_none() {
                    self.confirmed_as_handed_in.insert(*payment_id);
                }
                self.references.extend(external_ref.as_ref().map(|reference| reference.as_str()));
            }
            Command::RejectPayment { payment_id, .. } => {
                self.payments.insert(*payment_id);
            }
            Command::CreateBroadcast(asked) => {
                self.partners.extend(asked.filter.ancestor_id);
            }
            Command::CancelBroadcast { broadcast_id, .. } => {
                self.broadcasts.insert(*broadcast_id);
            }
        }
    }
}

fn uuids<T: Copy + Into<Uuid>>(ids: &BTreeSet<T>) -> Vec<Uuid> {
    ids.iter().map(|id| (*id).into()).collect()
}

/// Adds the keys that the commands look up or create.
pub(super) async fn stripes<'a>(
    transaction: &mut Transaction,
    commands: impl Iterator<Item = &'a Command>,
    stripes: &mut Stripes,
) -> Result<()> {
    let named = Named::by(commands);
    if !named.confirmed_as_handed_in.is_empty() {
        // One handed in between here and the lock is caught by the unique key.
        for reference in payments::handed_in(transaction, &uuids(&named.confirmed_as_handed_in)).await? {
            stripes.add("external_ref", reference.as_bytes());
        }
    }
    for external_id in named.external_ids {
        stripes.add("external_id", external_id.as_bytes());
    }
    for code in named.candidates {
        stripes.add("referral_code", code.as_bytes());
    }
    for reference in named.references {
        stripes.add("external_ref", reference.as_bytes());
    }
    Ok(())
}

/// Loads and locks. The tree lock and the stripes are held already.
pub(super) async fn state<'a>(
    transaction: &mut Transaction,
    commands: impl Iterator<Item = &'a Command> + Clone,
    plan: &Plan,
) -> Result<State> {
    let mut state = State::default();
    let named = Named::by(commands.clone());
    if !named.broadcasts.is_empty() {
        let broadcasts = broadcasts::lock(transaction, &uuids(&named.broadcasts)).await?;
        state.broadcasts = broadcasts.into_iter().map(|broadcast| (broadcast.broadcast_id, broadcast)).collect();
    }
    load_payments(transaction, &named, &mut state).await?;
    load_partners(transaction, &named, &mut state).await?;
    if commands.clone().any(|command| matches!(command, Command::AttachReferrer { .. })) {
        let owners: Vec<PartnerId> =
            named.codes.iter().filter_map(|code| owner(&state, code)).map(|owner| owner.partner_id).collect();
        for owner in owners {
            state.above.insert(owner, partners::above(transaction, owner).await?);
        }
    }
    state.standings = standings::lock(transaction, &uuids(&standings_needed(&named, &state))).await?;
    let accounts = accounts_needed(&named, &state, plan);
    if !accounts.is_empty() {
        state.accounts = ledger::open_accounts(transaction, &accounts).await?;
    }
    Ok(state)
}

async fn load_payments(transaction: &mut Transaction, named: &Named<'_>, state: &mut State) -> Result<()> {
    if named.payments.is_empty() {
        return Ok(());
    }
    let payments = payments::lock(transaction, &uuids(&named.payments)).await?;
    let mut references = named.references.clone();
    for payment in &payments {
        references.extend(payment.submitted().map(|reference| reference.as_str()));
        references.extend(payment.late_references.iter().map(|late| late.external_ref.as_str()));
    }
    state.used_refs = payments::used_refs(transaction, &references.into_iter().collect::<Vec<_>>()).await?;
    let succeeded: Vec<PaymentId> = payments
        .iter()
        .filter(|payment| payment.success().is_some() && named.confirmed.contains(&payment.payment_id))
        .map(|payment| payment.payment_id)
        .collect();
    if !succeeded.is_empty() {
        for commission in commissions::load(transaction, &succeeded).await? {
            state.commissions.entry(commission.payment_id).or_default().push(commission);
        }
    }
    state.payments = payments.into_iter().map(|payment| (payment.payment_id, payment)).collect();
    Ok(())
}

async fn load_partners(transaction: &mut Transaction, named: &Named<'_>, state: &mut State) -> Result<()> {
    if !named.changed.is_empty() {
        partners::lock(transaction, &uuids(&named.changed)).await?;
    }
    let ids: BTreeSet<PartnerId> =
        named.partners.iter().copied().chain(state.payments.values().map(|payment| payment.partner_id)).collect();
    let external_ids: Vec<&str> = named.external_ids.iter().copied().collect();
    let codes: Vec<&str> = named.codes.union(&named.candidates).copied().collect();
    for partner in partners::load(transaction, &uuids(&ids), &external_ids, &codes).await? {
        admit(state, partner);
    }
    let above: BTreeSet<PartnerId> = rewarded(named, state)
        .flat_map(|partner| &partner.lineage)
        .filter(|id| !state.partners.contains_key(id))
        .copied()
        .collect();
    if !above.is_empty() {
        for partner in partners::load(transaction, &uuids(&above), &[], &[]).await? {
            admit(state, partner);
        }
    }
    Ok(())
}

fn admit(state: &mut State, partner: Partner) {
    state.by_external_id.insert(partner.external_id.clone(), partner.partner_id);
    state.by_code.insert(partner.referral_code.clone(), partner.partner_id);
    state.partners.insert(partner.partner_id, partner);
}

fn owner<'s>(state: &'s State, code: &str) -> Option<&'s Partner> {
    let code = referral_domain::partner::ReferralCode::from_input(code);
    state.by_code.get(&code).and_then(|id| state.partners.get(id))
}

fn to_confirm<'s>(named: &Named<'_>, state: &'s State) -> impl Iterator<Item = &'s Payment> {
    let confirmed = named.confirmed.clone();
    state
        .payments
        .values()
        .filter(move |payment| confirmed.contains(&payment.payment_id) && payment.success().is_none())
}

/// Those whose lineage is rewarded and told: owners of codes, and buyers.
fn rewarded<'s>(named: &Named<'_>, state: &'s State) -> impl Iterator<Item = &'s Partner> {
    let owners: Vec<&Partner> = named.codes.iter().filter_map(|code| owner(state, code)).collect();
    let buyers: Vec<&Partner> =
        to_confirm(named, state).filter_map(|payment| state.partners.get(&payment.partner_id)).collect();
    owners.into_iter().chain(buyers)
}

/// Whose standings a decision reads or changes.
fn standings_needed(named: &Named<'_>, state: &State) -> BTreeSet<PartnerId> {
    let shown = named
        .external_ids
        .iter()
        .filter_map(|external_id| state.by_external_id.get(*external_id).copied())
        .chain(named.changed.iter().copied());
    let above_signups = named
        .codes
        .iter()
        .filter_map(|code| owner(state, code))
        .flat_map(|owner| std::iter::once(owner.partner_id).chain(owner.lineage.iter().copied()));
    let buyers = to_confirm(named, state).map(|payment| payment.partner_id);
    let counted = named
        .counted
        .iter()
        .filter_map(|id| state.partners.get(id))
        .flat_map(|partner| std::iter::once(partner.partner_id).chain(partner.lineage.iter().copied()));
    shown.chain(above_signups).chain(buyers).chain(counted).collect()
}

/// The accounts of every sale that may happen.
fn accounts_needed(named: &Named<'_>, state: &State, plan: &Plan) -> Vec<AccountKey> {
    let mut accounts = BTreeSet::new();
    for payment in to_confirm(named, state) {
        let asset = payment.amount.asset();
        let earners = state.partners.get(&payment.partner_id).map(|buyer| buyer.lineage.as_slice()).unwrap_or_default();
        let earning = earners.iter().zip(plan.rates_bps()).filter(|(_, rate)| **rate > 0);
        let purposes = earning
            .map(|(earner, _)| Purpose::PartnerAvailable(*earner))
            .chain([Purpose::PlatformClearing, Purpose::PlatformRevenue]);
        accounts.extend(purposes.map(|purpose| AccountKey { purpose, asset }));
    }
    accounts.into_iter().collect()
}

//! Loads what a batch's decisions need, in a few set-based queries, locking rows in the fixed order.

mod claims;

use std::collections::BTreeSet;

use referral_domain::{
    command::Command,
    commission::CommissionKey,
    id::{AdjustmentId, BroadcastId, PartnerId, PaymentId, PayoutId},
    money::Asset,
    partner::Partner,
    payment::{LateReference, Payment},
    plan::Plan,
    posting::{AccountKey, Purpose},
    reference::ExternalRef,
    state::State,
};
use uuid::Uuid;

use claims::Owners;

use crate::store::{
    Result, broadcasts, commissions, conflict, ledger, locks::Stripes, partners, payments, pro_notices, standings,
    transaction::Transaction,
};

/// What a batch's commands name.
#[derive(Default)]
struct Named<'a> {
    payments: BTreeSet<PaymentId>,
    /// Of them, those to be confirmed.
    confirmed: BTreeSet<PaymentId>,
    /// Of those, the ones whose references may have been handed in before.
    confirmed_as_handed_in: BTreeSet<PaymentId>,
    /// Of them, those to be refunded.
    refunded: BTreeSet<PaymentId>,
    /// Commissions to be released.
    released: BTreeSet<CommissionKey>,
    partners: BTreeSet<PartnerId>,
    /// Of them, those whose rows change.
    changed: BTreeSet<PartnerId>,
    /// Of them, those whose PRO is to be counted.
    counted: BTreeSet<PartnerId>,
    /// Of them, those who may be told of their PRO's end.
    noticed: BTreeSet<PartnerId>,
    /// Of them, those who ask for a payout.
    paid_out: BTreeSet<PartnerId>,
    payouts: BTreeSet<PayoutId>,
    /// References that payouts are completed with.
    payout_references: BTreeSet<&'a str>,
    adjustments: BTreeSet<AdjustmentId>,
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
            Command::ConfirmPayment { payment_id, external_ref, override_reason } => {
                self.payments.insert(*payment_id);
                self.confirmed.insert(*payment_id);
                // An operator's may use up what came with a reference, too.
                if external_ref.is_none() || override_reason.is_some() {
                    self.confirmed_as_handed_in.insert(*payment_id);
                }
                self.references.extend(external_ref.as_ref().map(|reference| reference.as_str()));
            }
            Command::RejectPayment { payment_id, .. } => {
                self.payments.insert(*payment_id);
            }
            Command::RefundPayment { payment_id, .. } => {
                self.payments.insert(*payment_id);
                self.refunded.insert(*payment_id);
            }
            Command::SettleVerification { payment_id, external_ref, finding } => {
                self.payments.insert(*payment_id);
                self.confirmed.insert(*payment_id);
                self.references.insert(external_ref.as_str());
                self.references.extend(finding.incoming().map(|incoming| incoming.as_str()));
            }
            Command::ReleaseCommissions { commissions } => {
                self.released.extend(commissions);
            }
            Command::RequestPayout { partner_id, .. } => {
                self.partners.insert(*partner_id);
                self.paid_out.insert(*partner_id);
            }
            Command::CompletePayout { payout_id, external_ref } => {
                self.payouts.insert(*payout_id);
                self.payout_references.insert(external_ref.as_str());
            }
            Command::ApprovePayout { payout_id }
            | Command::FailPayout { payout_id, .. }
            | Command::CancelPayout { payout_id, .. } => {
                self.payouts.insert(*payout_id);
            }
            Command::ProposeAdjustment { partner_id, .. } => {
                self.partners.insert(*partner_id);
            }
            Command::ApproveAdjustment { adjustment_id } | Command::RejectAdjustment { adjustment_id, .. } => {
                self.adjustments.insert(*adjustment_id);
            }
            Command::SendProNotices { partner_ids } => {
                self.partners.extend(partner_ids);
                self.noticed.extend(partner_ids);
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
    for reference in named.payout_references {
        stripes.add("payout_ref", reference.as_bytes());
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
    let earners = earners_touched(transaction, &named, &state).await?;
    let owners = Owners::of(transaction, &named).await?;
    let told: BTreeSet<PartnerId> = earners.union(&owners.of_payouts).copied().collect();
    load_partners(transaction, &named, &told, &mut state).await?;
    if commands.clone().any(|command| matches!(command, Command::AttachReferrer { .. })) {
        let owners: Vec<PartnerId> =
            named.codes.iter().filter_map(|code| owner(&state, code)).map(|owner| owner.partner_id).collect();
        for owner in owners {
            state.above.insert(owner, partners::above(transaction, owner).await?);
        }
    }
    state.standings = standings::lock(transaction, &uuids(&standings_needed(&named, &state))).await?;
    if !named.noticed.is_empty() {
        state.notices_requested = pro_notices::load(transaction, &uuids(&named.noticed)).await?;
    }
    check_periods(transaction, &state).await?;
    let mut accounts = accounts_needed(&named, &earners, &state, plan);
    accounts.extend(owners.purposes(&named, &state).into_iter().flat_map(of_every_asset));
    if !accounts.is_empty() {
        let accounts: Vec<AccountKey> = accounts.into_iter().collect();
        state.accounts = ledger::open_accounts(transaction, &accounts).await?;
    }
    // Whoever changes a commission holds its earner's account: from here on these stay as they are read.
    load_commissions(transaction, &named, &mut state).await?;
    claims::load(transaction, &named, &mut state).await?;
    Ok(state)
}

/// Whose commissions change: the earners of what is refunded or released. Who earned a commission never changes.
async fn earners_touched(
    transaction: &mut Transaction,
    named: &Named<'_>,
    state: &State,
) -> Result<BTreeSet<PartnerId>> {
    let mut earners = BTreeSet::new();
    let refunded: Vec<PaymentId> = to_refund(named, state).map(|payment| payment.payment_id).collect();
    if !refunded.is_empty() {
        earners.extend(commissions::load(transaction, &refunded).await?.iter().map(|commission| commission.earner_id));
    }
    if !named.released.is_empty() {
        let released: Vec<CommissionKey> = named.released.iter().copied().collect();
        earners.extend(
            commissions::load_each(transaction, &released).await?.iter().map(|commission| commission.earner_id),
        );
    }
    Ok(earners)
}

/// All of the payments that succeeded and are confirmed again or refunded, and single ones that are released.
async fn load_commissions(transaction: &mut Transaction, named: &Named<'_>, state: &mut State) -> Result<()> {
    let whole: Vec<PaymentId> = state
        .payments
        .values()
        .filter(|payment| payment.success().is_some())
        .map(|payment| payment.payment_id)
        .filter(|id| named.confirmed.contains(id) || named.refunded.contains(id))
        .collect();
    let mut commissions = Vec::new();
    if !whole.is_empty() {
        commissions.extend(commissions::load(transaction, &whole).await?);
    }
    if !named.released.is_empty() {
        let released: Vec<CommissionKey> = named.released.iter().copied().collect();
        commissions.extend(commissions::load_each(transaction, &released).await?);
    }
    state.commissions.extend(commissions.into_iter().map(|commission| (commission.key(), commission)));
    Ok(())
}

/// The buyers' standings are locked by now, so that no period comes or moves any more. One that came since the payments were
/// locked means to begin again: a lock taken now would be out of order.
async fn check_periods(transaction: &mut Transaction, state: &State) -> Result<()> {
    if state.periods.is_empty() {
        return Ok(());
    }
    let buyers: Vec<Uuid> = state.periods.keys().map(|id| (*id).into()).collect();
    if payments::periods(transaction, &buyers).await? == state.periods { Ok(()) } else { Err(conflict()) }
}

async fn load_payments(transaction: &mut Transaction, named: &Named<'_>, state: &mut State) -> Result<()> {
    if named.payments.is_empty() {
        return Ok(());
    }
    let mut to_lock = named.payments.clone();
    if !named.refunded.is_empty() {
        let buyers = payments::buyers(transaction, &uuids(&named.refunded)).await?;
        state.periods = payments::periods(transaction, &buyers).await?;
        to_lock.extend(state.periods.values().flatten());
    }
    let payments = payments::lock(transaction, &uuids(&to_lock)).await?;
    let mut references = named.references.clone();
    for payment in &payments {
        references.extend(payment.submitted().map(|reference| reference.as_str()));
        references.extend(payment.late_references.iter().flat_map(LateReference::references).map(ExternalRef::as_str));
    }
    state.used_refs = payments::used_refs(transaction, &references.into_iter().collect::<Vec<_>>()).await?;
    state.payments = payments.into_iter().map(|payment| (payment.payment_id, payment)).collect();
    Ok(())
}

/// `told` are those besides whom commands and payments name.
async fn load_partners(
    transaction: &mut Transaction,
    named: &Named<'_>,
    told: &BTreeSet<PartnerId>,
    state: &mut State,
) -> Result<()> {
    if !named.changed.is_empty() {
        partners::lock(transaction, &uuids(&named.changed)).await?;
    }
    let ids: BTreeSet<PartnerId> = named
        .partners
        .iter()
        .chain(told)
        .copied()
        .chain(state.payments.values().map(|payment| payment.partner_id))
        .collect();
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

fn to_refund<'s>(named: &Named<'_>, state: &'s State) -> impl Iterator<Item = &'s Payment> {
    let refunded = named.refunded.clone();
    state.payments.values().filter(move |payment| refunded.contains(&payment.payment_id) && payment.success().is_some())
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
    let buyers = to_confirm(named, state).chain(to_refund(named, state)).map(|payment| payment.partner_id);
    let noticed = named.noticed.iter().copied();
    let counted = named
        .counted
        .iter()
        .filter_map(|id| state.partners.get(id))
        .flat_map(|partner| std::iter::once(partner.partner_id).chain(partner.lineage.iter().copied()));
    shown.chain(above_signups).chain(buyers).chain(noticed).chain(counted).collect()
}

/// The accounts of everything that may be booked. Whoever changes a commission locks its earner's available account.
fn accounts_needed(
    named: &Named<'_>,
    earners: &BTreeSet<PartnerId>,
    state: &State,
    plan: &Plan,
) -> BTreeSet<AccountKey> {
    let mut accounts = BTreeSet::new();
    for payment in to_confirm(named, state) {
        let asset = payment.amount.asset();
        let earners = state.partners.get(&payment.partner_id).map(|buyer| buyer.lineage.as_slice()).unwrap_or_default();
        let earning = earners.iter().zip(plan.rates_bps()).filter(|(_, rate)| **rate > 0);
        let earned = if plan.holding_period().is_some() { Purpose::PartnerPending } else { Purpose::PartnerAvailable };
        let purposes =
            earning.map(|(earner, _)| earned(*earner)).chain([Purpose::PlatformClearing, Purpose::PlatformRevenue]);
        accounts.extend(purposes.map(|purpose| AccountKey { purpose, asset }));
    }
    for earner in earners {
        let purposes = [Purpose::PartnerAvailable(*earner), Purpose::PartnerPending(*earner)];
        accounts.extend(purposes.into_iter().flat_map(of_every_asset));
    }
    if to_refund(named, state).next().is_some() {
        let purposes = [Purpose::PlatformClearing, Purpose::PlatformRevenue];
        accounts.extend(purposes.into_iter().flat_map(of_every_asset));
    }
    accounts
}

fn of_every_asset(purpose: Purpose) -> impl Iterator<Item = AccountKey> {
    Asset::ALL.into_iter().map(move |asset| AccountKey { purpose, asset })
}

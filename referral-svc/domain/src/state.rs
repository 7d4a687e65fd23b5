//! What decisions look at and what they change: loaded by the shell, advanced command by command.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::{
    LEVELS,
    broadcast::Broadcast,
    command::{Outcome, PartnerView, Refusal},
    commission::Commission,
    id::{BroadcastId, PartnerId, PaymentId},
    money::Amount,
    partner::{Contact, Partner, Profile, ReferralCode, Standing, XpAward},
    payment::{LateReference, Payment},
    posting::{Account, AccountKey, Transaction},
    reference::ExternalRef,
};

/// Everything that a batch's decisions may look at: locked or committed rows, and what the batch decided so far.
///
/// What a command names and the state lacks does not exist.
#[derive(Default)]
pub struct State {
    /// By ID.
    pub partners: HashMap<PartnerId, Partner>,
    /// Of those whose standing a decision needs.
    pub standings: HashMap<PartnerId, Standing>,
    /// Of the external identities named.
    pub by_external_id: HashMap<String, PartnerId>,
    /// Of the codes named.
    pub by_code: HashMap<ReferralCode, PartnerId>,
    /// Everyone above a future referrer, up to the root.
    pub above: HashMap<PartnerId, HashSet<PartnerId>>,
    /// By ID.
    pub payments: HashMap<PaymentId, Payment>,
    /// Of payments that succeeded before.
    pub commissions: HashMap<PaymentId, Vec<Commission>>,
    /// References that a payment used up.
    pub used_refs: HashMap<ExternalRef, PaymentId>,
    /// The ledger accounts.
    pub accounts: HashMap<AccountKey, Account>,
    /// By ID.
    pub broadcasts: HashMap<BroadcastId, Broadcast>,
}

/// What one command changes. Nothing in it contradicts the state that it was decided on.
#[derive(Default, Debug)]
pub struct Changes {
    /// A registration.
    pub new_partner: Option<Partner>,
    /// New personal data.
    pub profile: Option<(PartnerId, Profile)>,
    /// A new place in the tree.
    pub attached: Option<Attached>,
    /// Grown (or, for PRO, shrunk) networks.
    pub growth: Vec<Growth>,
    /// Whose PRO the ancestors' counts now follow.
    pub counted: Vec<(PartnerId, bool)>,
    /// XP given.
    pub awards: Vec<XpAward>,
    /// A PRO period sold.
    pub pro: Option<(PartnerId, DateTime<Utc>)>,
    /// A payment, new or advanced.
    pub payment: Option<Payment>,
    /// Money that came too late.
    pub late_reference: Option<LateReference>,
    /// What was booked.
    pub transaction: Option<Transaction>,
    /// What was earned.
    pub commissions: Vec<Commission>,
    /// A broadcast, new or stopped.
    pub broadcast: Option<Broadcast>,
    /// Who should hear of it.
    pub notices: Vec<Notice>,
}

/// A partner's new place; everyone below moves along.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// As it now stands in the tree.
    pub partner: Partner,
    /// By how much everyone below gets deeper.
    pub deeper: i32,
}

/// What is added to an ancestor's network counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Growth {
    /// Whose network.
    pub ancestor_id: PartnerId,
    /// By level.
    pub members: [i64; LEVELS],
    /// By level.
    pub pro_members: [i64; LEVELS],
}

/// One person to be told one thing, with locale and contacts as of now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Whom.
    pub recipient_id: PartnerId,
    /// In which language.
    pub locale: String,
    /// Where.
    pub contacts: Vec<Contact>,
    /// What.
    pub about: About,
}

/// What a notice tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum About {
    /// Someone signed up below.
    Signup {
        /// How far below.
        level: u8,
        /// Who, for people to read.
        name: String,
        /// What it gave.
        xp: i64,
    },
    /// A level was reached.
    LevelUp {
        /// Which.
        level: i32,
        /// With how much.
        xp: i64,
    },
    /// A commission was earned.
    Commission {
        /// How much.
        amount: Amount,
        /// At which level.
        level: u8,
        /// In hundredths of a percent.
        rate_bps: u16,
        /// Who bought, for people to read.
        name: String,
    },
    /// PRO began or goes on.
    ProWelcome {
        /// Until when.
        expires: DateTime<Utc>,
    },
    /// A payment was declined.
    PaymentRejected {
        /// How much it was for.
        amount: Amount,
        /// Why.
        reason: String,
    },
}

/// What was decided of one command.
#[derive(Debug)]
pub struct Decision {
    /// What the caller is told.
    pub outcome: Result<Outcome, Refusal>,
    /// What is written; a refusal may leave a trace too.
    pub changes: Changes,
    /// For the audit record: the partner, payment or broadcast that it was about.
    pub subject_id: String,
    /// For the audit record: what else should be seen.
    pub detail: String,
}

/// Rows that exist and were changed: to be written with their final values.
#[derive(Default, Debug)]
pub struct Dirty {
    /// Standings.
    pub standings: BTreeSet<PartnerId>,
    /// Payments that were stored before.
    pub payments: BTreeSet<PaymentId>,
    /// Profiles.
    pub profiles: BTreeSet<PartnerId>,
    /// Broadcasts that were stored before.
    pub broadcasts: BTreeSet<BroadcastId>,
}

impl State {
    /// A partner as callers see one.
    pub fn view(&self, partner_id: PartnerId) -> Option<PartnerView> {
        Some(PartnerView {
            partner: self.partners.get(&partner_id)?.clone(),
            standing: self.standings.get(&partner_id).cloned().unwrap_or_default(),
        })
    }

    /// A notice to a partner, addressed as of now.
    pub fn notice(&self, recipient_id: PartnerId, about: About) -> Option<Notice> {
        let profile = &self.partners.get(&recipient_id)?.profile;
        Some(Notice { recipient_id, locale: profile.locale.clone(), contacts: profile.contacts.clone(), about })
    }

    /// Takes one command's changes in, so that the next command sees them.
    pub fn apply(&mut self, changes: &Changes, dirty: &mut Dirty) {
        if let Some(partner) = &changes.new_partner {
            self.by_external_id.insert(partner.external_id.clone(), partner.partner_id);
            self.by_code.insert(partner.referral_code.clone(), partner.partner_id);
            self.standings.insert(partner.partner_id, Standing::default());
            self.partners.insert(partner.partner_id, partner.clone());
        }
        if let Some((partner_id, profile)) = &changes.profile
            && let Some(partner) = self.partners.get_mut(partner_id)
        {
            partner.profile = profile.clone();
            dirty.profiles.insert(*partner_id);
        }
        if let Some(attached) = &changes.attached {
            self.partners.insert(attached.partner.partner_id, attached.partner.clone());
        }
        self.apply_standings(changes, dirty);
        if let Some(payment) = &changes.payment {
            if let Some(success) = payment.success() {
                self.used_refs.insert(success.external_ref.clone(), payment.payment_id);
            }
            if self.payments.insert(payment.payment_id, payment.clone()).is_some() {
                dirty.payments.insert(payment.payment_id);
            }
        }
        if let Some(late) = &changes.late_reference
            && let Some(payment) = self.payments.get_mut(&late.payment_id)
        {
            payment.late_references.insert(0, late.clone());
        }
        for entry in changes.transaction.iter().flat_map(|transaction| &transaction.entries) {
            let account =
                Account { account_id: entry.account_id, balance: entry.balance_after, version: entry.version };
            self.accounts.insert(entry.account, account);
        }
        if let Some(broadcast) = &changes.broadcast
            && self.broadcasts.insert(broadcast.broadcast_id, broadcast.clone()).is_some()
        {
            dirty.broadcasts.insert(broadcast.broadcast_id);
        }
        for commission in &changes.commissions {
            self.commissions.entry(commission.payment_id).or_default().push(commission.clone());
        }
    }

    fn apply_standings(&mut self, changes: &Changes, dirty: &mut Dirty) {
        for growth in &changes.growth {
            let standing = self.standings.entry(growth.ancestor_id).or_default();
            add(&mut standing.members, &growth.members);
            add(&mut standing.pro_members, &growth.pro_members);
            dirty.standings.insert(growth.ancestor_id);
        }
        for award in &changes.awards {
            let standing = self.standings.entry(award.partner_id).or_default();
            standing.xp = standing.xp.saturating_add(award.xp);
            dirty.standings.insert(award.partner_id);
        }
        for (partner_id, counted) in &changes.counted {
            self.standings.entry(*partner_id).or_default().counted_as_pro = *counted;
            dirty.standings.insert(*partner_id);
        }
        if let Some((partner_id, expires_at)) = changes.pro {
            self.standings.entry(partner_id).or_default().pro_expires_at = Some(expires_at);
            dirty.standings.insert(partner_id);
        }
    }
}

fn add(counts: &mut [i64; LEVELS], more: &[i64; LEVELS]) {
    for (count, more) in counts.iter_mut().zip(more) {
        *count = count.saturating_add(*more);
    }
}

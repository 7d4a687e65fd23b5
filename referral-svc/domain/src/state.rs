//! What decisions look at and what they change: loaded by the shell, advanced command by command.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::{
    LEVELS,
    adjustment::Adjustment,
    broadcast::Broadcast,
    command::{Outcome, PartnerView, Refusal},
    commission::{Commission, CommissionKey},
    id::{AdjustmentId, BroadcastId, PartnerId, PaymentId, PayoutId},
    money::Amount,
    partner::{Contact, Partner, Profile, ReferralCode, Standing, XpAward},
    payment::{LateReference, Payment},
    payout::{Claim, Payout, PayoutState},
    posting::{Account, AccountKey, Transaction},
    reference::ExternalRef,
    refund::Refund,
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
    /// All those of payments that succeeded and are confirmed again or refunded; single ones that are released or claimed.
    pub commissions: BTreeMap<CommissionKey, Commission>,
    /// References that a payment used up.
    pub used_refs: HashMap<ExternalRef, PaymentId>,
    /// The ledger accounts.
    pub accounts: HashMap<AccountKey, Account>,
    /// By ID, with their items.
    pub payouts: HashMap<PayoutId, Payout>,
    /// References that a payout was completed with.
    pub used_payout_refs: HashMap<ExternalRef, PayoutId>,
    /// By ID.
    pub adjustments: HashMap<AdjustmentId, Adjustment>,
    /// Of partners who may be paid out: what is open, the oldest at least that one payout can name.
    pub claims: HashMap<PartnerId, HashSet<Claim>>,
    /// Of partners whose PRO may be cut short: their payments that bought a period, the earliest end first.
    pub periods: HashMap<PartnerId, Vec<PaymentId>>,
    /// Of partners who may be told of an end of PRO: how many notices of each of their ends were requested so far.
    pub notices_requested: HashMap<(PartnerId, DateTime<Utc>), u8>,
    /// By ID.
    pub broadcasts: HashMap<BroadcastId, Broadcast>,
}

/// What one command changes. Nothing in it contradicts the state that it was decided on.
#[derive(PartialEq, Eq, Default, Debug)]
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
    /// A new end of PRO: a period was sold, or cut short.
    pub pro: Option<(PartnerId, DateTime<Utc>)>,
    /// Who was told of the present end of PRO.
    pub noticed: Vec<Noticed>,
    /// Payments, new or advanced, or whose periods moved.
    pub payments: Vec<Payment>,
    /// Money that came too late.
    pub late_reference: Option<LateReference>,
    /// What was booked.
    pub transactions: Vec<Transaction>,
    /// What was earned.
    pub commissions: Vec<Commission>,
    /// What became of commissions earned before.
    pub changed_commissions: Vec<Commission>,
    /// Money given back.
    pub refund: Option<Refund>,
    /// A payout, new or advanced.
    pub payout: Option<Payout>,
    /// Adjustments, new, decided, or claimed.
    pub adjustments: Vec<Adjustment>,
    /// A broadcast, new or stopped.
    pub broadcast: Option<Broadcast>,
    /// Who should hear of it.
    pub notices: Vec<Notice>,
}

impl Changes {
    /// Whether it changes nothing, and nobody hears of anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Of a partner's present end of PRO notices were requested.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Noticed {
    /// Whose.
    pub partner_id: PartnerId,
    /// Which end.
    pub pro_end: DateTime<Utc>,
    /// How many of its notices by now.
    pub sent: u8,
    /// How many of those just now, the last ones.
    pub new: u8,
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
    /// PRO ends soon, or has ended.
    ProEnding {
        /// Which notice: three days before, one day before, at the end.
        notice: ProNotice,
        /// When PRO ends or ended.
        expires: DateTime<Utc>,
    },
    /// A refund took a commission back, or a part of it.
    CommissionReversed {
        /// How much.
        amount: Amount,
    },
    /// A payout was requested, or moved on.
    Payout {
        /// How much.
        amount: Amount,
        /// Where it stands now.
        state: PayoutState,
    },
}

/// The three notices of an end of PRO, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ProNotice {
    /// Three days before.
    ThreeDays,
    /// One day before.
    OneDay,
    /// At the end.
    Ended,
}

/// What was decided of one command.
#[derive(Debug)]
pub struct Decision {
    /// What the caller is told.
    pub outcome: Result<Outcome, Refusal>,
    /// What is written; a refusal may leave a trace too.
    pub changes: Changes,
    /// For the audit record: the partner, payment, payout, adjustment or broadcast that it was about.
    pub subject_id: String,
    /// For the audit record: what else should be seen.
    pub detail: String,
}

/// Rows that exist and were changed: to be written with their final values.
#[derive(Default, Debug)]
pub struct Dirty {
    /// Standings, but for their notices.
    pub standings: BTreeSet<PartnerId>,
    /// Standings whose count of notices changed.
    pub noticed: BTreeSet<PartnerId>,
    /// Payments that were stored before.
    pub payments: BTreeSet<PaymentId>,
    /// Profiles.
    pub profiles: BTreeSet<PartnerId>,
    /// Commissions that were stored before.
    pub commissions: BTreeSet<CommissionKey>,
    /// Payouts that were stored before.
    pub payouts: BTreeSet<PayoutId>,
    /// Adjustments that were stored before.
    pub adjustments: BTreeSet<AdjustmentId>,
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
        for payment in &changes.payments {
            for used in payment.used_refs() {
                self.used_refs.insert(used.clone(), payment.payment_id);
            }
            if payment.success().is_some()
                && let Some(periods) = self.periods.get_mut(&payment.partner_id)
                && !periods.contains(&payment.payment_id)
            {
                periods.push(payment.payment_id);
            }
            if self.payments.insert(payment.payment_id, payment.clone()).is_some() {
                dirty.payments.insert(payment.payment_id);
            }
        }
        if let Some(late) = &changes.late_reference
            && let Some(payment) = self.payments.get_mut(&late.payment_id)
        {
            match payment.late_references.iter_mut().find(|known| known.external_ref == late.external_ref) {
                Some(known) => known.incoming_ref.clone_from(&late.incoming_ref),
                None => payment.late_references.insert(0, late.clone()),
            }
        }
        for entry in changes.transactions.iter().flat_map(|transaction| &transaction.entries) {
            let account =
                Account { account_id: entry.account_id, balance: entry.balance_after, version: entry.version };
            self.accounts.insert(entry.account, account);
        }
        if let Some(broadcast) = &changes.broadcast
            && self.broadcasts.insert(broadcast.broadcast_id, broadcast.clone()).is_some()
        {
            dirty.broadcasts.insert(broadcast.broadcast_id);
        }
        self.apply_claims(changes, dirty);
    }

    fn apply_claims(&mut self, changes: &Changes, dirty: &mut Dirty) {
        for commission in &changes.commissions {
            self.commissions.insert(commission.key(), commission.clone());
            if !commission.is_held() {
                self.note_claim(commission.earner_id, Claim::Commission(commission.key()));
            }
        }
        for commission in &changes.changed_commissions {
            self.commissions.insert(commission.key(), commission.clone());
            dirty.commissions.insert(commission.key());
            if commission.open() != 0 {
                self.note_claim(commission.earner_id, Claim::Commission(commission.key()));
            }
        }
        for adjustment in &changes.adjustments {
            if self.adjustments.insert(adjustment.adjustment_id, adjustment.clone()).is_some() {
                dirty.adjustments.insert(adjustment.adjustment_id);
            }
            if adjustment.open() != 0 {
                self.note_claim(adjustment.partner_id, Claim::Adjustment(adjustment.adjustment_id));
            }
        }
        if let Some(payout) = &changes.payout {
            if let Some(external_ref) = payout.external_ref() {
                self.used_payout_refs.insert(external_ref.clone(), payout.payout_id);
            }
            if self.payouts.insert(payout.payout_id, payout.clone()).is_some() {
                dirty.payouts.insert(payout.payout_id);
            }
        }
    }

    /// The commissions of a payment, by level.
    pub fn commissions_of(&self, payment_id: PaymentId) -> impl Iterator<Item = &Commission> {
        self.commissions.range((payment_id, 0)..=(payment_id, u8::MAX)).map(|(_, commission)| commission)
    }

    /// One more claim of a partner whose claims are known.
    fn note_claim(&mut self, partner_id: PartnerId, claim: Claim) {
        if let Some(claims) = self.claims.get_mut(&partner_id) {
            claims.insert(claim);
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
            let standing = self.standings.entry(partner_id).or_default();
            // A new end of PRO has had no notice, or those that are on record.
            if standing.pro_expires_at != Some(expires_at) {
                standing.notices_sent = 0;
            }
            standing.pro_expires_at = Some(expires_at);
            dirty.standings.insert(partner_id);
        }
        for noticed in &changes.noticed {
            self.standings.entry(noticed.partner_id).or_default().notices_sent = noticed.sent;
            self.notices_requested.insert((noticed.partner_id, noticed.pro_end), noticed.sent);
            dirty.noticed.insert(noticed.partner_id);
        }
    }
}

fn add(counts: &mut [i64; LEVELS], more: &[i64; LEVELS]) {
    for (count, more) in counts.iter_mut().zip(more) {
        *count = count.saturating_add(*more);
    }
}

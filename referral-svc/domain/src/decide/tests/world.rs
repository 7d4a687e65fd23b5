//! Everything that a history is about, in one state.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Step, money};
use crate::{
    adjustment::Adjustment,
    broadcast::{Broadcast, BroadcastState, Filter, Message, NewBroadcast, Step as BroadcastStep},
    command::{Attribution, Command, Outcome, RegisterPartner},
    decide::{Context, decide},
    id::{AdjustmentId, BroadcastId, IdSource, PartnerId, PaymentId, PayoutId},
    money::Asset,
    partner::{Profile, ReferralCode},
    payment::Method,
    payout::Payout,
    plan::Plan,
    posting::{Account, AccountKey, Purpose},
    reference::ExternalRef,
    state::{Decision, Dirty, State},
};

/// Who asks where it doesn't matter.
pub(super) const CALLER: &str = "tester";

/// The whole world in one state, where the service would load what it needs.
pub(super) struct World {
    plan: Plan,
    pub(super) now: DateTime<Utc>,
    pub(super) state: State,
    codes: u64,
    taken: u64,
    pub(super) partners: Vec<PartnerId>,
    pub(super) payments: Vec<PaymentId>,
    pub(super) payouts: Vec<PayoutId>,
    pub(super) adjustments: Vec<AdjustmentId>,
    broadcasts: Vec<BroadcastId>,
    pub(super) awarded: HashMap<PartnerId, i64>,
}

/// What a command may advance, as it was before.
pub(super) struct Memory {
    pub(super) broadcasts: HashMap<BroadcastId, Broadcast>,
    pub(super) payouts: HashMap<PayoutId, Payout>,
    pub(super) adjustments: HashMap<AdjustmentId, Adjustment>,
    pub(super) accounts: HashMap<AccountKey, Account>,
    pub(super) used_payout_refs: HashSet<ExternalRef>,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let now = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let mut state = State::default();
        for purpose in [Purpose::PlatformClearing, Purpose::PlatformRevenue, Purpose::PlatformAdjustments] {
            open_account(&mut state, purpose);
        }
        Self {
            plan,
            now,
            state,
            codes: 0,
            taken: 0,
            partners: vec![],
            payments: vec![],
            payouts: vec![],
            adjustments: vec![],
            broadcasts: vec![],
            awarded: HashMap::new(),
        }
    }

    pub(super) fn memory(&self) -> Memory {
        Memory {
            broadcasts: self.state.broadcasts.clone(),
            payouts: self.state.payouts.clone(),
            adjustments: self.state.adjustments.clone(),
            accounts: self.state.accounts.clone(),
            used_payout_refs: self.state.used_payout_refs.keys().cloned().collect(),
        }
    }

    /// What a step asks for, and who asks.
    pub(super) fn command(&mut self, step: &Step) -> Option<(Command, &'static str)> {
        match step {
            Step::Money(step) => money::command(self, step),
            _ => self.other_command(step).map(|command| (command, CALLER)),
        }
    }

    fn other_command(&mut self, step: &Step) -> Option<Command> {
        let of = |list: &[PartnerId], index: u8| list.get(usize::from(index) % list.len().max(1)).copied();
        let payment = |index: u8| self.payments.get(usize::from(index) % self.payments.len().max(1)).copied();
        let broadcast = |index: u8| self.broadcasts.get(usize::from(index) % self.broadcasts.len().max(1)).copied();
        let reference = |number: u8| ExternalRef::normalise(&format!("reference {number}")).expect("a reference");
        let code = |id: PartnerId| self.state.partners[&id].referral_code.clone();
        Some(match step {
            Step::Register { person, inviter } => {
                self.codes += 2;
                Command::RegisterPartner(RegisterPartner {
                    external_id: format!("telegram:{person}"),
                    profile: Profile::default(),
                    code: inviter.and_then(|inviter| of(&self.partners, inviter)).map(code),
                    candidates: [self.codes, self.codes + 1].map(|bits| ReferralCode::from_random(bits, 8)),
                })
            }
            Step::Attach { partner, below } => {
                let referrer = of(&self.partners, *below)?;
                self.state.above.insert(referrer, self.above(referrer));
                let code = self.state.partners[&referrer].referral_code.clone();
                Command::AttachReferrer { partner_id: of(&self.partners, *partner)?, code }
            }
            Step::Open { partner, manual } => Command::CreatePayment {
                partner_id: of(&self.partners, *partner)?,
                method: if *manual { Method::Manual } else { Method::Trusted },
            },
            Step::Submit { payment: index, reference: number } => {
                Command::SubmitPayment { payment_id: payment(*index)?, external_ref: reference(*number) }
            }
            Step::Confirm { payment: index, reference: number, with_reason } => Command::ConfirmPayment {
                payment_id: payment(*index)?,
                external_ref: number.map(reference),
                override_reason: with_reason.then(|| "it came by post".to_owned()),
            },
            Step::Reject { payment: index } => {
                Command::RejectPayment { payment_id: payment(*index)?, reason: "no".to_owned() }
            }
            Step::Broadcast { below, days } => Command::CreateBroadcast(NewBroadcast {
                filter: Filter { ancestor_id: below.and_then(|below| of(&self.partners, below)), ..Filter::default() },
                message: Message { text: "Hello".to_owned(), subject: String::new(), button: None },
                expire_time: days.map(|days| self.now + TimeDelta::days(i64::from(days))),
                recipients_per_second: 1,
                matched: 0,
                caller: "operator".to_owned(),
                traceparent: String::new(),
            }),
            Step::GoOn { broadcast: index, exhausted } => {
                // No command: what a job does meanwhile.
                let id = broadcast(*index)?;
                let step = BroadcastStep { recipients: 1, looked_at: None, exhausted: *exhausted };
                let broadcast = self.state.broadcasts[&id].clone().after(step, self.now);
                self.state.broadcasts.insert(id, broadcast);
                return None;
            }
            Step::Cancel { broadcast: index } => {
                Command::CancelBroadcast { broadcast_id: broadcast(*index)?, reason: "wrong text".to_owned() }
            }
            Step::CountPro => Command::CountProMembers { partner_ids: self.partners.clone() },
            Step::Money(_) => return None,
            Step::Wait { hours } => {
                self.now += TimeDelta::hours(i64::from(*hours));
                return None;
            }
        })
    }

    pub(super) fn above(&self, partner: PartnerId) -> HashSet<PartnerId> {
        std::iter::successors(self.state.partners[&partner].referrer_id, |id| self.state.partners[id].referrer_id)
            .collect()
    }

    pub(super) fn take(&mut self, command: &Command, caller: &str) -> Decision {
        self.taken += 1;
        // So that IDs are made in the order of time.
        self.now += TimeDelta::milliseconds(1);
        let mut random = self.taken;
        let mut ids = IdSource::new(self.now, move || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random
        });
        let context =
            Context { now: self.now, plan: &self.plan, methods: &Method::ALL, caller, traceparent: "", ton: None };
        let decision = decide(&self.state, command, &context, &mut ids).expect("a decision");
        self.state.apply(&decision.changes, &mut Dirty::default());
        for award in &decision.changes.awards {
            *self.awarded.entry(award.partner_id).or_default() += award.xp;
        }
        match &decision.outcome {
            Ok(Outcome::Registered { view, attribution }) if *attribution != Attribution::AlreadyRegistered => {
                let id = view.partner.partner_id;
                for purpose in [Purpose::PartnerAvailable, Purpose::PartnerPending, Purpose::PartnerReserved] {
                    open_account(&mut self.state, purpose(id));
                }
                self.state.claims.insert(id, HashSet::new());
                self.state.periods.insert(id, vec![]);
                self.partners.push(id);
            }
            Ok(Outcome::BroadcastBegun(broadcast)) => {
                assert!(broadcast.expire_time > self.now && broadcast.state() == BroadcastState::Running);
                self.broadcasts.push(broadcast.broadcast_id);
            }
            Ok(Outcome::PayoutRequested(payout)) => self.payouts.push(payout.payout_id),
            Ok(Outcome::AdjustmentProposed(adjustment)) => self.adjustments.push(adjustment.adjustment_id),
            Ok(Outcome::Opened(payment)) => self.payments.push(payment.payment_id),
            // The shell moves those below in the database; here they are moved by hand.
            Ok(Outcome::Attached(_)) => self.move_descendants(),
            _ => {}
        }
        decision
    }

    fn move_descendants(&mut self) {
        // Registration order is not tree order after an attach: settle level by level.
        for _ in 0..self.partners.len() {
            for id in self.partners.clone() {
                if let Some(referrer) = self.state.partners[&id].referrer_id {
                    let (depth, lineage) =
                        (self.state.partners[&referrer].depth + 1, self.state.partners[&referrer].lineage_below());
                    let partner = self.state.partners.get_mut(&id).expect("a partner");
                    (partner.depth, partner.lineage) = (depth, lineage);
                }
            }
        }
    }
}

fn open_account(state: &mut State, purpose: Purpose) {
    let account_id = i64::try_from(state.accounts.len()).expect("few accounts");
    state.accounts.insert(AccountKey { purpose, asset: Asset::Usdt }, Account { account_id, balance: 0, version: 0 });
}

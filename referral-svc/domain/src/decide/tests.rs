//! Random histories, decided one after the other: what must hold after every step.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::{Context, decide};
use crate::{
    LEVELS,
    broadcast::{Broadcast, BroadcastState, Filter, Message, NewBroadcast, Step as BroadcastStep},
    command::{Attribution, Command, Outcome, Refusal, RegisterPartner},
    id::{BroadcastId, IdSource, PartnerId, PaymentId},
    money::Asset,
    partner::{Profile, ReferralCode},
    payment::Method,
    plan::Plan,
    posting::{Account, AccountKey, Purpose},
    reference::ExternalRef,
    state::{Decision, Dirty, State},
};

#[derive(Clone, Debug)]
enum Step {
    Register { person: u8, inviter: Option<u8> },
    Attach { partner: u8, below: u8 },
    Open { partner: u8, manual: bool },
    Submit { payment: u8, reference: u8 },
    Confirm { payment: u8, reference: Option<u8>, with_reason: bool },
    Reject { payment: u8 },
    Broadcast { below: Option<u8>, days: Option<i8> },
    GoOn { broadcast: u8, exhausted: bool },
    Cancel { broadcast: u8 },
    CountPro,
    Wait { hours: u16 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), any::<Option<u8>>()).prop_map(|(person, inviter)| Step::Register { person, inviter }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(partner, below)| Step::Attach { partner, below }),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(partner, manual)| Step::Open { partner, manual }),
        2 => (any::<u8>(), 0..20_u8).prop_map(|(payment, reference)| Step::Submit { payment, reference }),
        6 => (any::<u8>(), proptest::option::weighted(0.8, 0..20_u8), proptest::bool::weighted(0.2))
            .prop_map(|(payment, reference, with_reason)| Step::Confirm { payment, reference, with_reason }),
        1 => any::<u8>().prop_map(|payment| Step::Reject { payment }),
        1 => (any::<Option<u8>>(), any::<Option<i8>>()).prop_map(|(below, days)| Step::Broadcast { below, days }),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(broadcast, exhausted)| Step::GoOn { broadcast, exhausted }),
        1 => any::<u8>().prop_map(|broadcast| Step::Cancel { broadcast }),
        2 => Just(Step::CountPro),
        2 => (0..500_u16).prop_map(|hours| Step::Wait { hours }),
    ]
}

/// The whole world in one state, where the service would load what it needs.
struct World {
    plan: Plan,
    now: DateTime<Utc>,
    state: State,
    codes: u64,
    partners: Vec<PartnerId>,
    payments: Vec<PaymentId>,
    broadcasts: Vec<BroadcastId>,
    awarded: HashMap<PartnerId, i64>,
}

impl World {
    fn new() -> Self {
        let plan = Plan::built_in();
        let now = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let mut state = State::default();
        for purpose in [Purpose::PlatformClearing, Purpose::PlatformRevenue] {
            open_account(&mut state, purpose);
        }
        Self {
            plan,
            now,
            state,
            codes: 0,
            partners: vec![],
            payments: vec![],
            broadcasts: vec![],
            awarded: HashMap::new(),
        }
    }

    fn command(&mut self, step: &Step) -> Option<Command> {
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
            Step::Wait { hours } => {
                self.now += TimeDelta::hours(i64::from(*hours));
                return None;
            }
        })
    }

    fn above(&self, partner: PartnerId) -> HashSet<PartnerId> {
        std::iter::successors(self.state.partners[&partner].referrer_id, |id| self.state.partners[id].referrer_id)
            .collect()
    }

    fn take(&mut self, command: &Command) -> Decision {
        let mut ids = IdSource::new(self.now, {
            let mut random = self.codes + (self.payments.len() + self.broadcasts.len()) as u64;
            move || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                random
            }
        });
        let context = Context {
            now: self.now,
            plan: &self.plan,
            methods: &Method::ALL,
            caller: "tester",
            traceparent: "",
            ton: None,
        };
        let decision = decide(&self.state, command, &context, &mut ids).expect("a decision");
        self.state.apply(&decision.changes, &mut Dirty::default());
        for award in &decision.changes.awards {
            *self.awarded.entry(award.partner_id).or_default() += award.xp;
        }
        match &decision.outcome {
            Ok(Outcome::Registered { view, attribution }) if *attribution != Attribution::AlreadyRegistered => {
                open_account(&mut self.state, Purpose::PartnerAvailable(view.partner.partner_id));
                self.partners.push(view.partner.partner_id);
            }
            Ok(Outcome::BroadcastBegun(broadcast)) => {
                assert!(broadcast.expire_time > self.now && broadcast.state() == BroadcastState::Running);
                self.broadcasts.push(broadcast.broadcast_id);
            }
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

    fn check(&self) {
        assert_eq!(self.state.accounts.values().map(|account| i128::from(account.balance)).sum::<i128>(), 0);
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
        let earned: i64 = self.state.commissions.values().map(|earned| earned.amount.minor_units()).sum();
        let owed: i64 = self
            .state
            .accounts
            .iter()
            .filter(|(key, _)| matches!(key.purpose, Purpose::PartnerAvailable(_)))
            .map(|(_, account)| account.balance)
            .sum();
        assert_eq!(earned, owed);
    }
}

fn open_account(state: &mut State, purpose: Purpose) {
    let account_id = i64::try_from(state.accounts.len()).expect("few accounts");
    state.accounts.insert(AccountKey { purpose, asset: Asset::Usdt }, Account { account_id, balance: 0, version: 0 });
}

/// A refusal changes nothing, but that money which came too late is put on record.
fn check_refusal(decision: &Decision) {
    let changes = &decision.changes;
    if let Err(refusal) = &decision.outcome {
        assert!(
            changes.broadcast.is_none()
                && changes.payments.is_empty()
                && changes.transactions.is_empty()
                && changes.notices.is_empty()
        );
        assert!(changes.late_reference.is_none() || matches!(refusal, Refusal::PaymentExpired(_)));
    }
}

/// Only a running broadcast can be stopped, and only a broadcast's own commands touch it.
fn check_broadcasts(command: &Command, decision: &Decision, before: &HashMap<BroadcastId, Broadcast>, state: &State) {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_books_tree_and_counts_right(steps in proptest::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            let Some(command) = world.command(step) else { continue };
            let before = world.state.broadcasts.clone();
            let decision = world.take(&command);
            check_broadcasts(&command, &decision, &before, &world.state);
            check_refusal(&decision);
            for transaction in &decision.changes.transactions {
                prop_assert_eq!(transaction.entries.iter().map(|entry| entry.amount).sum::<i64>(), 0);
            }
        }
        world.check();
    }
}

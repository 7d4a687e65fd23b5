//! Tallies of decisions as the rules make them.

use chrono::{DateTime, TimeDelta, Utc};
use referral_domain::{
    command::RegisterPartner,
    decide::{Context, decide},
    id::{IdSource, PartnerId, PaymentId},
    money::Asset,
    partner::{Profile, ReferralCode},
    payment::Method,
    plan::Plan,
    posting::{Account, AccountKey, Purpose},
    reference::ExternalRef,
    state::Dirty,
};

use super::*;

struct World {
    state: State,
    now: DateTime<Utc>,
    made: u64,
    tallies: Vec<Tally>,
}

impl World {
    fn new() -> Self {
        let now = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let mut world = Self { state: State::default(), now, made: 0, tallies: Vec::new() };
        world.open_account(Purpose::PlatformClearing);
        world.open_account(Purpose::PlatformRevenue);
        world
    }

    fn open_account(&mut self, purpose: Purpose) {
        let account = Account { account_id: 0, balance: 0, version: 0 };
        self.state.accounts.insert(AccountKey { purpose, asset: Asset::Usdt }, account);
    }

    fn take(&mut self, command: &Command) -> Result<Outcome, referral_domain::command::Refusal> {
        self.made += 1;
        let random = self.made.wrapping_mul(6_364_136_223_846_793_005);
        let plan = Plan::built_in();
        let context = Context {
            now: self.now,
            plan: &plan,
            methods: &[Method::Trusted],
            caller: "gateway",
            traceparent: "",
            ton: None,
        };
        let decision =
            decide(&self.state, command, &context, &mut IdSource::new(self.now, move || random)).expect("a decision");
        self.tallies.push(Tally::of(&self.state, command, &decision));
        self.state.apply(&decision.changes, &mut Dirty::default());
        decision.outcome
    }

    fn register(&mut self, person: u64, code: Option<ReferralCode>) -> (PartnerId, ReferralCode) {
        let candidates = [person * 2, person * 2 + 1].map(|bits| ReferralCode::from_random(bits, 8));
        let external_id = format!("person {person}");
        let registration = RegisterPartner { external_id, profile: Profile::default(), code, candidates };
        match self.take(&Command::RegisterPartner(registration)) {
            Ok(Outcome::Registered { view, .. }) => {
                self.open_account(Purpose::PartnerAvailable(view.partner.partner_id));
                (view.partner.partner_id, view.partner.referral_code)
            }
            other => panic!("no registration: {other:?}"),
        }
    }

    fn open(&mut self, partner_id: PartnerId) -> PaymentId {
        match self.take(&Command::CreatePayment { partner_id, method: Method::Trusted }) {
            Ok(Outcome::Opened(payment)) => payment.payment_id,
            other => panic!("no payment: {other:?}"),
        }
    }

    fn confirm(&mut self, payment_id: PaymentId, reference: Option<&str>) {
        let external_ref = reference.map(|reference| ExternalRef::normalise(reference).expect("a reference"));
        let _ = self.take(&Command::ConfirmPayment { payment_id, external_ref, override_reason: None });
    }

    fn buy(&mut self, partner_id: PartnerId, reference: &str) {
        let payment_id = self.open(partner_id);
        self.confirm(payment_id, Some(reference));
    }

    fn total(&self) -> Tally {
        Tally::sum(self.tallies.iter())
    }
}

#[test]
fn signups_are_counted_by_attribution_and_once_a_person() {
    let mut world = World::new();
    let (_, code) = world.register(0, None);
    world.register(1, Some(code.clone()));
    world.register(2, Some(code));
    world.register(3, Some(ReferralCode::from_random(999, 8)));
    world.register(1, None);
    let expected = [("attributed", 2), ("no_code", 1), ("unknown_code", 1)];
    assert_eq!(world.total(), Tally { signups: expected.into(), xp: 70, ..Tally::default() });
}

#[test]
fn an_attached_partner_gives_xp_and_is_no_signup() {
    let mut world = World::new();
    let (referrer, code) = world.register(0, None);
    let (partner_id, _) = world.register(1, None);
    world.state.above.insert(referrer, [].into());
    world.take(&Command::AttachReferrer { partner_id, code }).expect("an attachment");
    assert_eq!(world.total(), Tally { signups: [("no_code", 2)].into(), xp: 35, ..Tally::default() });
}

#[test]
fn a_sale_is_counted_with_all_that_it_pays() {
    let mut world = World::new();
    let (root, mut code) = world.register(0, None);
    let mut buyer = root;
    for person in 1..10 {
        (buyer, code) = world.register(person, Some(code));
    }
    world.tallies.clear();
    world.buy(buyer, "first");
    let of_one = Tally {
        confirmations: [("succeeded", 1)].into(),
        upgrades: [(("new", true), 1)].into(),
        commissions: (1..=9).map(|level| (level, 1)).collect(),
        amounts: [("USDT", 17_160_000)].into(),
        ..Tally::default()
    };
    assert_eq!(world.total(), of_one);

    world.buy(root, "second");
    world.buy(root, "third");
    // What has run out was PRO all the same.
    world.now += TimeDelta::days(100);
    world.buy(buyer, "fourth");
    let total = world.total();
    assert_eq!(total.confirmations, [("succeeded", 4)].into());
    let upgrades = [(("new", true), 1), (("new", false), 1), (("renewal", false), 1), (("renewal", true), 1)];
    assert_eq!(total.upgrades, upgrades.into());
    assert_eq!(total.commissions, (1..=9).map(|level| (level, 2)).collect());
    assert_eq!(total.amounts, [("USDT", 34_320_000)].into());
}

#[test]
fn confirmations_are_refused_by_the_rules_and_nothing_else_counts() {
    let mut world = World::new();
    let (buyer, _) = world.register(0, None);
    let payment = world.open(buyer);
    world.tallies.clear();
    // Bad input.
    world.confirm(payment, None);
    assert_eq!(world.total(), Tally::default());
    world.confirm(payment, Some("mine"));
    // Again: the same upgrade.
    world.confirm(payment, Some("mine"));
    world.confirm(payment, Some("another"));
    let second = world.open(buyer);
    world.confirm(second, Some("mine"));
    let total = world.total();
    assert_eq!(total.confirmations, [("succeeded", 1), ("refused", 2)].into());
    assert_eq!(total.upgrades, [(("new", false), 1)].into());
    // A refusal of another command.
    world.tallies.clear();
    let refused = world.take(&Command::CreatePayment { partner_id: buyer, method: Method::Manual });
    assert!(refused.is_err());
    assert_eq!(world.total(), Tally::default());
}

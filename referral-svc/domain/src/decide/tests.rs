//! Random histories, decided one after the other: what must hold after every step.

mod checks;
mod money;
mod world;

use proptest::prelude::*;

use crate::plan::Plan;
use money::MoneyStep;
use world::World;

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
    Money(MoneyStep),
    Wait { hours: u16 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), any::<Option<u8>>()).prop_map(|(person, inviter)| Step::Register { person, inviter }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(partner, below)| Step::Attach { partner, below }),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(partner, manual)| Step::Open { partner, manual }),
        2 => (any::<u8>(), 0..60_u8).prop_map(|(payment, reference)| Step::Submit { payment, reference }),
        6 => (any::<u8>(), proptest::option::weighted(0.8, 0..60_u8), proptest::bool::weighted(0.2))
            .prop_map(|(payment, reference, with_reason)| Step::Confirm { payment, reference, with_reason }),
        1 => any::<u8>().prop_map(|payment| Step::Reject { payment }),
        1 => (any::<Option<u8>>(), any::<Option<i8>>()).prop_map(|(below, days)| Step::Broadcast { below, days }),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(broadcast, exhausted)| Step::GoOn { broadcast, exhausted }),
        1 => any::<u8>().prop_map(|broadcast| Step::Cancel { broadcast }),
        2 => Just(Step::CountPro),
        10 => money::step().prop_map(Step::Money),
        2 => (0..500_u16).prop_map(|hours| Step::Wait { hours }),
    ]
}

/// The built-in plan, but for how long commissions are held, and the least payout.
fn plan(holding_days: u16) -> Plan {
    let mut json: serde_json::Value = serde_json::from_str(include_str!("../plan.json")).expect("JSON");
    json["commission_holding_days"] = holding_days.into();
    json["payout_minimum_minor_units"] = 1_000_000.into();
    Plan::from_json(&json.to_string()).expect("a sound plan")
}

/// One step after the other, each checked.
fn run(world: &mut World, steps: &[Step]) {
    for step in steps {
        let Some((command, caller)) = world.command(step) else { continue };
        let before = world.memory();
        let decision = world.take(&command, caller);
        checks::broadcasts(&command, &decision, &before.broadcasts, &world.state);
        checks::refusal(&decision);
        checks::transition(&command, caller, &decision, &before);
        for transaction in &decision.changes.transactions {
            assert_eq!(transaction.entries.iter().map(|entry| entry.amount).sum::<i64>(), 0);
        }
        checks::money(&world.state);
    }
    world.check();
}

fn holding_days() -> impl Strategy<Value = u16> {
    prop_oneof![2 => Just(0), 1 => Just(5)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_books_tree_and_counts_right(
        steps in proptest::collection::vec(step(), 1..200), holding_days in holding_days(),
    ) {
        run(&mut World::new(plan(holding_days)), &steps);
    }

    #[test]
    fn what_three_partners_earn_is_paid_once(
        steps in proptest::collection::vec(
            prop_oneof![20 => money::step().prop_map(Step::Money), 1 => (0..100_u16).prop_map(|hours| Step::Wait { hours })],
            50..250,
        ),
        holding_days in holding_days(),
    ) {
        let mut world = World::new(plan(holding_days));
        let signups = (0..3_u8).map(|person| Step::Register { person, inviter: person.checked_sub(1) });
        let sales = (0..40_u8).map(|sale| Step::Open { partner: 1 + sale % 2, manual: false });
        run(&mut world, &signups.chain(sales).collect::<Vec<_>>());
        run(&mut world, &steps);
    }
}

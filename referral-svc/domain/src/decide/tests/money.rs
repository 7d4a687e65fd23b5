//! Steps that move money which was earned: refunds, releases, payouts, adjustments.

use proptest::prelude::*;

use super::world::{CALLER, World};
use crate::{
    command::Command,
    money::{Amount, Asset},
    reference::ExternalRef,
};

/// Indexes are taken modulo how many there are.
#[derive(Clone, Debug)]
pub(super) enum MoneyStep {
    Refund { payment: u8, units: Option<i64> },
    Release,
    Request { partner: u8, units: Option<i64> },
    Approve { payout: u8, by_requester: bool },
    Complete { payout: u8, reference: u8 },
    Fail { payout: u8 },
    CancelPayout { payout: u8 },
    Propose { partner: u8, units: i64 },
    Decide { adjustment: u8, by_proposer: bool, is_rejection: bool },
}

pub(super) fn step() -> impl Strategy<Value = MoneyStep> {
    let rarely = || proptest::bool::weighted(0.2);
    prop_oneof![
        3 => (any::<u8>(), proptest::option::of(1..39_000_000_i64))
            .prop_map(|(payment, units)| MoneyStep::Refund { payment, units }),
        3 => Just(MoneyStep::Release),
        5 => (any::<u8>(), proptest::option::of(1..20_000_000_i64))
            .prop_map(|(partner, units)| MoneyStep::Request { partner, units }),
        4 => (any::<u8>(), rarely()).prop_map(|(payout, by_requester)| MoneyStep::Approve { payout, by_requester }),
        3 => (any::<u8>(), 0..20_u8).prop_map(|(payout, reference)| MoneyStep::Complete { payout, reference }),
        2 => any::<u8>().prop_map(|payout| MoneyStep::Fail { payout }),
        1 => any::<u8>().prop_map(|payout| MoneyStep::CancelPayout { payout }),
        2 => (any::<u8>(), -10_000_000..20_000_000_i64)
            .prop_map(|(partner, units)| MoneyStep::Propose { partner, units: if units == 0 { 1 } else { units } }),
        2 => (any::<u8>(), rarely(), rarely()).prop_map(|(adjustment, by_proposer, is_rejection)| MoneyStep::Decide {
            adjustment, by_proposer, is_rejection,
        }),
    ]
}

fn at<T: Copy>(list: &[T], index: u8) -> Option<T> {
    list.get(usize::from(index) % list.len().max(1)).copied()
}

fn amount(units: Option<i64>) -> Option<Amount> {
    units.and_then(|units| Amount::new(Asset::Usdt, units))
}

/// What the step asks for, and who asks.
pub(super) fn command(world: &World, step: &MoneyStep) -> Option<(Command, &'static str)> {
    let reason = || "a reason".to_owned();
    let second = |is_first: bool| if is_first { CALLER } else { "another" };
    Some(match step {
        MoneyStep::Refund { payment, units } => {
            let payment_id = at(&world.payments, *payment)?;
            (Command::RefundPayment { payment_id, amount: amount(*units), reason: reason() }, CALLER)
        }
        MoneyStep::Release => {
            let held = world.state.commissions.values().filter(|commission| commission.is_held());
            let commissions = held.map(|commission| commission.key()).collect();
            (Command::ReleaseCommissions { commissions }, CALLER)
        }
        MoneyStep::Request { partner, units } => {
            let partner_id = at(&world.partners, *partner)?;
            (Command::RequestPayout { partner_id, amount: amount(*units), destination: String::new() }, CALLER)
        }
        MoneyStep::Approve { payout, by_requester } => {
            (Command::ApprovePayout { payout_id: at(&world.payouts, *payout)? }, second(*by_requester))
        }
        MoneyStep::Complete { payout, reference } => {
            let external_ref = ExternalRef::normalise(&format!("transfer {reference}")).expect("a reference");
            (Command::CompletePayout { payout_id: at(&world.payouts, *payout)?, external_ref }, CALLER)
        }
        MoneyStep::Fail { payout } => {
            (Command::FailPayout { payout_id: at(&world.payouts, *payout)?, reason: reason() }, CALLER)
        }
        MoneyStep::CancelPayout { payout } => {
            (Command::CancelPayout { payout_id: at(&world.payouts, *payout)?, reason: reason() }, CALLER)
        }
        MoneyStep::Propose { partner, units } => {
            let partner_id = at(&world.partners, *partner)?;
            (Command::ProposeAdjustment { partner_id, asset: Asset::Usdt, amount: *units, reason: reason() }, CALLER)
        }
        MoneyStep::Decide { adjustment, by_proposer, is_rejection } => {
            let adjustment_id = at(&world.adjustments, *adjustment)?;
            let command = if *is_rejection {
                Command::RejectAdjustment { adjustment_id, reason: reason() }
            } else {
                Command::ApproveAdjustment { adjustment_id }
            };
            (command, second(*by_proposer))
        }
    })
}

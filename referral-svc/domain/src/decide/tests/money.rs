//! Steps that move money which was earned: refunds, releases, payouts, adjustments.

use proptest::prelude::*;

use super::world::{CALLER, World};
use crate::{
    command::Command,
    id::{PaymentId, PayoutId},
    money::{Amount, Asset},
    reference::ExternalRef,
};

/// Indexes are taken modulo how many there are; of payouts, how many are open, unless `or_ended`.
#[derive(Clone, Debug)]
pub(super) enum MoneyStep {
    Sell,
    Refund { payment: u8, units: Option<i64> },
    Release,
    Request { partner: u8, units: Option<i64> },
    Approve { payout: u8, or_ended: bool, by_requester: bool },
    Complete { payout: u8, or_ended: bool, reference: u8 },
    Fail { payout: u8, or_ended: bool },
    CancelPayout { payout: u8, or_ended: bool },
    Propose { partner: u8, units: i64 },
    Decide { adjustment: u8, by_proposer: bool, is_rejection: bool },
}

pub(super) fn step() -> impl Strategy<Value = MoneyStep> {
    let rarely = || proptest::bool::weighted(0.2);
    let payout = || (any::<u8>(), rarely());
    prop_oneof![
        6 => Just(MoneyStep::Sell),
        4 => (any::<u8>(), proptest::option::of(1..39_000_000_i64))
            .prop_map(|(payment, units)| MoneyStep::Refund { payment, units }),
        2 => Just(MoneyStep::Release),
        6 => (any::<u8>(), proptest::option::of(1..20_000_000_i64))
            .prop_map(|(partner, units)| MoneyStep::Request { partner, units }),
        6 => (payout(), rarely()).prop_map(|((payout, or_ended), by_requester)| MoneyStep::Approve {
            payout, or_ended, by_requester,
        }),
        4 => (payout(), any::<u8>()).prop_map(|((payout, or_ended), reference)| MoneyStep::Complete {
            payout, or_ended, reference: reference % 50,
        }),
        3 => payout().prop_map(|(payout, or_ended)| MoneyStep::Fail { payout, or_ended }),
        1 => payout().prop_map(|(payout, or_ended)| MoneyStep::CancelPayout { payout, or_ended }),
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

fn payout_at(world: &World, index: u8, or_ended: bool) -> Option<PayoutId> {
    let open = |id: &PayoutId| or_ended || world.state.payouts[id].end().is_none();
    let payouts: Vec<PayoutId> = world.payouts.iter().copied().filter(open).collect();
    at(&payouts, index)
}

fn amount(units: Option<i64>) -> Option<Amount> {
    units.and_then(|units| Amount::new(Asset::Usdt, units))
}

/// What the step asks for, and who asks.
pub(super) fn command(world: &World, step: &MoneyStep) -> Option<(Command, &'static str)> {
    let reason = || "a reason".to_owned();
    let second = |is_first: bool| if is_first { CALLER } else { "another" };
    Some(match step {
        MoneyStep::Sell => {
            let unpaid = |id: &&PaymentId| world.state.payments[id].success().is_none();
            let payment_id = *world.payments.iter().find(unpaid)?;
            let external_ref = ExternalRef::normalise(&format!("sale {payment_id}")).ok();
            (Command::ConfirmPayment { payment_id, external_ref, override_reason: Some(reason()) }, CALLER)
        }
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
        MoneyStep::Approve { payout, or_ended, by_requester } => {
            (Command::ApprovePayout { payout_id: payout_at(world, *payout, *or_ended)? }, second(*by_requester))
        }
        MoneyStep::Complete { payout, or_ended, reference } => {
            let external_ref = ExternalRef::normalise(&format!("transfer {reference}")).expect("a reference");
            let payout_id = payout_at(world, *payout, *or_ended)?;
            (Command::CompletePayout { payout_id, external_ref }, CALLER)
        }
        MoneyStep::Fail { payout, or_ended } => {
            (Command::FailPayout { payout_id: payout_at(world, *payout, *or_ended)?, reason: reason() }, CALLER)
        }
        MoneyStep::CancelPayout { payout, or_ended } => {
            (Command::CancelPayout { payout_id: payout_at(world, *payout, *or_ended)?, reason: reason() }, CALLER)
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

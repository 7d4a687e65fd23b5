//! Random commands, made up on what the world knew before.

use p2phub_proto::referral::v1::{self as pb, Product};
use p2phub_tests::builders::{confirmation, refund, registration, request_id, usdt};
use rand::{RngExt, rngs::StdRng};

use super::{
    commands::{Ask, Sent},
    rules::World,
};
use crate::concurrency::DRESSES;

/// Of more people than so many, most commands are about money: long histories go deep rather than wide.
const MANY: usize = 500;

/// Makes commands up, on what the world knew before the round.
pub(super) struct Source {
    pub(super) random: StdRng,
    made: usize,
    /// How many are late ones.
    late: usize,
}

impl Source {
    /// For so many commands at once.
    pub(super) fn new(random: StdRng, round: usize) -> Self {
        Self { random, made: 0, late: (round / 3).max(25) }
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// One of the first `number`, the late ones preferred.
    fn pick(&mut self, number: usize) -> usize {
        let from = if self.chance(70) { number.saturating_sub(self.late) } else { 0 };
        self.random.random_range(from..number)
    }

    pub(super) fn sent(&mut self, world: &World) -> Sent {
        let caller = if self.chance(60) { "gateway" } else { "operator" };
        Sent { caller: caller.to_owned(), ask: self.ask(world) }
    }

    fn ask(&mut self, world: &World) -> Ask {
        self.made += 1;
        let newcomers = world.people.len() < MANY || self.chance(10);
        let what = self.random.random_range(if newcomers { 0..100 } else { 30..100 });
        match what {
            _ if world.people.is_empty() => self.signup(world),
            ..22 => self.signup(world),
            22..30 => Ask::Attach(pb::AttachReferrerRequest {
                request_id: request_id(),
                partner_id: self.partner_id(world, true),
                referral_code: self.code(world),
            }),
            30..32 => Ask::Rename(pb::UpdatePartnerRequest {
                request_id: request_id(),
                partner_id: self.partner_id(world, false),
                first_name: Some(format!("Name {}", self.made)),
                ..Default::default()
            }),
            32..76 => self.about_a_payment(world, what - 32),
            76..92 => self.about_a_payout(world, what - 76),
            _ => self.about_an_adjustment(world, what - 92),
        }
    }

    fn signup(&mut self, world: &World) -> Ask {
        // Some register twice, and now and then at once.
        let number = if self.chance(85) { self.made } else { self.pick(self.made + 1) };
        let code = if self.chance(20) { String::new() } else { self.code(world) };
        Ask::Register(registration(&format!("person-{number}"), &code))
    }

    /// `what` is one of 44.
    fn about_a_payment(&mut self, world: &World, what: u32) -> Ask {
        let (request_id, payment_id) = (request_id(), self.payment_id(world));
        let reason = format!("reason {}", self.made);
        match what {
            ..12 => {
                let method = ["trusted", "trusted", "manual", "manual", "trusted", "trusted", "ton"]
                    [self.random.random_range(0..7)]
                .to_owned();
                let partner_id = self.partner_id(world, false);
                Ask::Open(pb::CreatePaymentRequest {
                    request_id,
                    partner_id,
                    product: Product::ProMonthly.into(),
                    method,
                })
            }
            12..17 => {
                let external_ref = self.reference();
                Ask::Submit(pb::SubmitPaymentRequest { request_id, payment_id, external_ref })
            }
            17..33 => {
                let mut ask = confirmation(&payment_id, &self.reference());
                match self.random.random_range(0..100) {
                    ..20 => ask.external_ref.clear(),
                    20..35 => ask.override_reason = reason,
                    _ => {}
                }
                Ask::Confirm(ask)
            }
            33..35 => Ask::Reject(pb::RejectPaymentRequest { request_id, payment_id, reason }),
            _ => {
                let amount = match self.random.random_range(0..100) {
                    ..40 => None,
                    40..50 => Some(self.random.random_range(1..5)),
                    50..55 => Some(40_000_000),
                    _ => Some(self.random.random_range(1..39_000_000)),
                };
                Ask::Refund(refund(&payment_id, amount))
            }
        }
    }

    /// `what` is one of 16.
    fn about_a_payout(&mut self, world: &World, what: u32) -> Ask {
        let (request_id, reason) = (request_id(), format!("reason {}", self.made));
        if what < 6 || world.payouts.is_empty() {
            let amount = match self.random.random_range(0..100) {
                ..50 => None,
                50..60 => Some(self.random.random_range(1..20_000_000)),
                _ => Some(self.random.random_range(10_000_000..40_000_000)),
            };
            return Ask::Payout(pb::RequestPayoutRequest {
                request_id,
                partner_id: self.earner_id(world),
                amount: amount.map(usdt),
                destination: format!("wallet {}", self.made),
            });
        }
        let payout_id = if self.chance(3) {
            request_id.clone()
        } else {
            world.payouts[self.pick(world.payouts.len())].payout_id.clone()
        };
        match what {
            6..10 => Ask::Approve(pb::ApprovePayoutRequest { request_id, payout_id }),
            10..13 => {
                let external_ref = self.reference();
                Ask::Complete(pb::CompletePayoutRequest { request_id, payout_id, external_ref })
            }
            13..15 => Ask::Fail(pb::FailPayoutRequest { request_id, payout_id, reason }),
            _ => Ask::Cancel(pb::CancelPayoutRequest { request_id, payout_id, reason }),
        }
    }

    /// `what` is one of 8.
    fn about_an_adjustment(&mut self, world: &World, what: u32) -> Ask {
        let (request_id, reason) = (request_id(), format!("reason {}", self.made));
        if what < 4 || world.adjustments.is_empty() {
            let amount = self.random.random_range(-15_000_000..20_000_000);
            let amount = Some(usdt(if amount == 0 { 1 } else { amount }));
            let partner_id = self.earner_id(world);
            return Ask::Propose(pb::ProposeAdjustmentRequest { request_id, partner_id, amount, reason });
        }
        let adjustment_id = if self.chance(3) {
            request_id.clone()
        } else {
            world.adjustments[self.pick(world.adjustments.len())].shown.adjustment_id.clone()
        };
        match what {
            4..7 => Ask::Book(pb::ApproveAdjustmentRequest { request_id, adjustment_id }),
            _ => Ask::Decline(pb::RejectAdjustmentRequest { request_id, adjustment_id, reason }),
        }
    }

    /// Mostly one of the few who earn much.
    fn earner_id(&mut self, world: &World) -> String {
        if self.chance(30) {
            return self.partner_id(world, false);
        }
        let tries: Vec<usize> = (0..8).map(|_| self.random.random_range(0..world.people.len())).collect();
        let richest = tries.into_iter().max_by_key(|person| world.people[*person].available.abs());
        world.people[richest.expect("somebody")].id.clone()
    }

    fn partner_id(&mut self, world: &World, root: bool) -> String {
        if self.chance(3) {
            return request_id();
        }
        if root && !world.roots.is_empty() && self.chance(80) {
            return world.people[world.roots[self.pick(world.roots.len())]].id.clone();
        }
        world.people[self.pick(world.people.len())].id.clone()
    }

    fn payment_id(&mut self, world: &World) -> String {
        if world.bills.is_empty() || self.chance(3) {
            return request_id();
        }
        world.bills[self.pick(world.bills.len())].id().to_owned()
    }

    fn code(&mut self, world: &World) -> String {
        if world.people.is_empty() || self.chance(8) {
            return "P2P-NOBODY00".to_owned();
        }
        let code = &world.people[self.pick(world.people.len())].code;
        if self.chance(30) { code.to_lowercase() } else { code.clone() }
    }

    fn reference(&mut self) -> String {
        let number = if self.chance(70) { self.made } else { self.pick(self.made + 1) };
        match self.random.random_range(0..100) {
            ..8 => DRESSES[self.random.random_range(0..DRESSES.len())].to_owned(),
            8..20 => format!("{number:064x}"),
            20..25 => format!("0x{number:064X}"),
            25..30 => format!("  Tx-{number} "),
            _ => format!("Tx-{number}"),
        }
    }
}

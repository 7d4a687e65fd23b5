//! The rules of the referral network, as plain functions over plain types: no clock, no database, no wire format.
//!
//! A command is decided against a [`State`](state::State) that holds everything the decision may look at, and yields
//! [`Changes`](state::Changes) that the shell writes down. `now` and identifiers are arguments, never side effects.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]
#![deny(clippy::float_arithmetic)]

pub mod adjustment;
pub mod broadcast;
pub mod command;
pub mod commission;
pub mod decide;
pub mod id;
pub mod money;
pub mod partner;
pub mod payment;
pub mod payout;
pub mod plan;
pub mod posting;
pub mod reconcile;
pub mod reference;
pub mod refund;
pub mod seal;
pub mod state;
pub mod ton;
pub mod xp;

/// How many levels up and down rewards and network counts look.
pub const LEVELS: usize = 9;

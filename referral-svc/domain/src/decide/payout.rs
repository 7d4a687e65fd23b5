//! Decisions about payouts.

use super::{Context, Result, Undecided, Verdict};
use crate::{
    id::{IdSource, PartnerId, PayoutId},
    money::Amount,
    reference::ExternalRef,
    state::State,
};

pub(super) fn request(
    _state: &State,
    _partner_id: PartnerId,
    _amount: Option<Amount>,
    _destination: &str,
    _context: &Context<'_>,
    _ids: &mut IdSource,
) -> Result<Verdict> {
    Err(Undecided::Incomplete("payouts"))
}

pub(super) fn approve(_state: &State, _payout_id: PayoutId, _context: &Context<'_>) -> Result<Verdict> {
    Err(Undecided::Incomplete("payouts"))
}

pub(super) fn complete(
    _state: &State,
    _payout_id: PayoutId,
    _external_ref: &ExternalRef,
    _context: &Context<'_>,
    _ids: &mut IdSource,
) -> Result<Verdict> {
    Err(Undecided::Incomplete("payouts"))
}

pub(super) fn fail(
    _state: &State,
    _payout_id: PayoutId,
    _reason: &str,
    _context: &Context<'_>,
    _ids: &mut IdSource,
) -> Result<Verdict> {
    Err(Undecided::Incomplete("payouts"))
}

pub(super) fn cancel(
    _state: &State,
    _payout_id: PayoutId,
    _reason: &str,
    _context: &Context<'_>,
    _ids: &mut IdSource,
) -> Result<Verdict> {
    Err(Undecided::Incomplete("payouts"))
}

//! Decisions about adjustments.

use super::{Context, Result, Undecided, Verdict};
use crate::{
    command::Refusal,
    id::{AdjustmentId, IdSource, PartnerId},
    money::Asset,
    state::State,
};

pub(super) fn propose(
    _state: &State,
    _partner_id: PartnerId,
    _asset: Asset,
    _amount: i64,
    _reason: &str,
    _context: &Context<'_>,
    _ids: &mut IdSource,
) -> Verdict {
    Verdict::refused(Refusal::AdjustmentNotFound)
}

pub(super) fn approve(
    _state: &State,
    _adjustment_id: AdjustmentId,
    _context: &Context<'_>,
    _ids: &mut IdSource,
) -> Result<Verdict> {
    Err(Undecided::Incomplete("adjustments"))
}

pub(super) fn reject(_state: &State, _adjustment_id: AdjustmentId, _reason: &str, _context: &Context<'_>) -> Verdict {
    Verdict::refused(Refusal::AdjustmentNotFound)
}

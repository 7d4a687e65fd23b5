//! What a verifier found about a submitted payment: confirmed, back to PENDING, or asked again later.

use super::{Context, Result, Undecided, Verdict};
use crate::{
    id::{IdSource, PaymentId},
    reference::ExternalRef,
    state::State,
    ton::Finding,
};

pub(super) fn settle(
    _state: &State,
    _payment_id: PaymentId,
    _external_ref: &ExternalRef,
    _finding: &Finding,
    _context: &Context<'_>,
    _ids: &mut IdSource,
) -> Result<Verdict> {
    Err(Undecided::Incomplete("verification"))
}

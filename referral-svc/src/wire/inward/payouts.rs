//! Requests about payouts and adjustments to commands.

use p2phub_proto::referral::v1 as pb;
use referral_domain::command::Command;
use service::error::Failure;

use super::{REASON_BYTES_MAX, asset, external_ref, optional_amount};
use crate::wire::fields::{self, Checked};

const DESTINATION_BYTES_MAX: usize = 256;

/// A thousand million USDT: more is a slip, and far from where balances would overflow.
const ADJUSTMENT_MINOR_UNITS_MAX: i64 = 1_000_000_000_000_000;

pub(crate) fn request(request: &pb::RequestPayoutRequest) -> Checked<Command> {
    Ok(Command::RequestPayout {
        partner_id: fields::id("partner_id", &request.partner_id)?,
        amount: optional_amount(request.amount.as_ref())?,
        destination: fields::text("destination", &request.destination, DESTINATION_BYTES_MAX)?,
    })
}

pub(crate) fn approve(request: &pb::ApprovePayoutRequest) -> Checked<Command> {
    Ok(Command::ApprovePayout { payout_id: fields::id("payout_id", &request.payout_id)? })
}

pub(crate) fn complete(request: &pb::CompletePayoutRequest) -> Checked<Command> {
    Ok(Command::CompletePayout {
        payout_id: fields::id("payout_id", &request.payout_id)?,
        external_ref: external_ref(&request.external_ref)?,
    })
}

pub(crate) fn fail(request: &pb::FailPayoutRequest) -> Checked<Command> {
    Ok(Command::FailPayout {
        payout_id: fields::id("payout_id", &request.payout_id)?,
        reason: fields::required_text("reason", &request.reason, REASON_BYTES_MAX)?,
    })
}

pub(crate) fn cancel(request: &pb::CancelPayoutRequest) -> Checked<Command> {
    Ok(Command::CancelPayout {
        payout_id: fields::id("payout_id", &request.payout_id)?,
        reason: fields::required_text("reason", &request.reason, REASON_BYTES_MAX)?,
    })
}

pub(crate) fn propose_adjustment(request: &pb::ProposeAdjustmentRequest) -> Checked<Command> {
    let amount = request.amount.as_ref().ok_or_else(|| Failure::violation("amount", "required"))?;
    let asset = asset("amount.asset", &amount.asset)?;
    let bounds = -ADJUSTMENT_MINOR_UNITS_MAX..=ADJUSTMENT_MINOR_UNITS_MAX;
    if amount.minor_units == 0 || !bounds.contains(&amount.minor_units) {
        let fault = format!("must be -{ADJUSTMENT_MINOR_UNITS_MAX} to {ADJUSTMENT_MINOR_UNITS_MAX}, and not zero");
        return Err(Failure::violation("amount.minor_units", fault));
    }
    Ok(Command::ProposeAdjustment {
        partner_id: fields::id("partner_id", &request.partner_id)?,
        asset,
        amount: amount.minor_units,
        reason: fields::required_text("reason", &request.reason, REASON_BYTES_MAX)?,
    })
}

pub(crate) fn approve_adjustment(request: &pb::ApproveAdjustmentRequest) -> Checked<Command> {
    Ok(Command::ApproveAdjustment { adjustment_id: fields::id("adjustment_id", &request.adjustment_id)? })
}

pub(crate) fn reject_adjustment(request: &pb::RejectAdjustmentRequest) -> Checked<Command> {
    Ok(Command::RejectAdjustment {
        adjustment_id: fields::id("adjustment_id", &request.adjustment_id)?,
        reason: fields::required_text("reason", &request.reason, REASON_BYTES_MAX)?,
    })
}

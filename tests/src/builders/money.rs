//! What happens to money after a sale: payouts, adjustments. Whatever takes two callers is done by two.

use super::{by, request_id, usdt};
use crate::clients::Clients;
use p2phub_proto::referral::v1::{
    Adjustment, ApproveAdjustmentRequest, ApprovePayoutRequest, CancelPayoutRequest, CompletePayoutRequest,
    FailPayoutRequest, GetPayoutRequest, Payout, ProposeAdjustmentRequest, RequestPayoutRequest,
};

/// Who requests payouts and proposes adjustments.
pub const FIRST_CALLER: &str = "operator-1";

/// Who approves them.
pub const SECOND_CALLER: &str = "operator-2";

/// A valid request; without minor units it is for all that is available.
pub fn payout_request(partner_id: &str, minor_units: Option<i64>) -> RequestPayoutRequest {
    RequestPayoutRequest {
        request_id: request_id(),
        partner_id: partner_id.to_owned(),
        amount: minor_units.map(usdt),
        destination: "an address".to_owned(),
    }
}

/// A valid completion.
pub fn payout_completion(payout_id: &str, external_ref: &str) -> CompletePayoutRequest {
    CompletePayoutRequest {
        request_id: request_id(),
        payout_id: payout_id.to_owned(),
        external_ref: external_ref.to_owned(),
    }
}

/// A valid proposal.
pub fn adjustment_proposal(partner_id: &str, minor_units: i64) -> ProposeAdjustmentRequest {
    ProposeAdjustmentRequest {
        request_id: request_id(),
        partner_id: partner_id.to_owned(),
        amount: Some(usdt(minor_units)),
        reason: "a correction".to_owned(),
    }
}

impl Clients {
    /// A payout requested by the first caller, of so much or of all that is available.
    pub async fn request_payout(&mut self, partner_id: &str, minor_units: Option<i64>) -> Payout {
        let request = by(FIRST_CALLER, payout_request(partner_id, minor_units));
        self.payouts.request_payout(request).await.expect("a payout").into_inner().payout.expect("a payout")
    }

    /// Approves as the second caller.
    pub async fn approve_payout(&mut self, payout_id: &str) -> Payout {
        let request = ApprovePayoutRequest { request_id: request_id(), payout_id: payout_id.to_owned() };
        let answer = self.payouts.approve_payout(by(SECOND_CALLER, request)).await.expect("an approval");
        answer.into_inner().payout.expect("a payout")
    }

    /// Completes under a reference of the payout's own.
    pub async fn complete_payout(&mut self, payout_id: &str) -> Payout {
        let request = by(FIRST_CALLER, payout_completion(payout_id, &format!("transfer-{payout_id}")));
        self.payouts.complete_payout(request).await.expect("a completion").into_inner().payout.expect("a payout")
    }

    /// Says that an approved payout failed.
    pub async fn fail_payout(&mut self, payout_id: &str) -> Payout {
        let (payout_id, reason) = (payout_id.to_owned(), "the address is closed".to_owned());
        let request = by(FIRST_CALLER, FailPayoutRequest { request_id: request_id(), payout_id, reason });
        self.payouts.fail_payout(request).await.expect("a failure").into_inner().payout.expect("a payout")
    }

    /// Cancels a payout that isn't approved.
    pub async fn cancel_payout(&mut self, payout_id: &str) -> Payout {
        let (payout_id, reason) = (payout_id.to_owned(), "a wrong address".to_owned());
        let request = by(FIRST_CALLER, CancelPayoutRequest { request_id: request_id(), payout_id, reason });
        self.payouts.cancel_payout(request).await.expect("an end").into_inner().payout.expect("a payout")
    }

    /// Requests, approves and completes a payout of so much, or of all that is available.
    pub async fn pay_out(&mut self, partner_id: &str, minor_units: Option<i64>) -> Payout {
        let payout = self.request_payout(partner_id, minor_units).await;
        self.approve_payout(&payout.payout_id).await;
        self.complete_payout(&payout.payout_id).await
    }

    /// A payout as it is now, with what it pays.
    pub async fn payout(&mut self, payout_id: &str) -> Payout {
        let request = GetPayoutRequest { payout_id: payout_id.to_owned() };
        self.payouts.get_payout(request).await.expect("an answer").into_inner().payout.expect("a payout")
    }

    /// Proposes an adjustment as the first caller.
    pub async fn propose_adjustment(&mut self, partner_id: &str, minor_units: i64) -> Adjustment {
        let request = by(FIRST_CALLER, adjustment_proposal(partner_id, minor_units));
        let answer = self.ledger.propose_adjustment(request).await.expect("a proposal");
        answer.into_inner().adjustment.expect("an adjustment")
    }

    /// An adjustment, proposed by the first caller and booked by the second.
    pub async fn adjust(&mut self, partner_id: &str, minor_units: i64) -> Adjustment {
        let adjustment_id = self.propose_adjustment(partner_id, minor_units).await.adjustment_id;
        let request = ApproveAdjustmentRequest { request_id: request_id(), adjustment_id };
        let answer = self.ledger.approve_adjustment(by(SECOND_CALLER, request)).await.expect("an approval");
        answer.into_inner().adjustment.expect("an adjustment")
    }
}

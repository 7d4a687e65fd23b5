//! A commission explained: its rule and its history with the numbers in it.

use p2phub_proto::referral::v1 as pb;

use crate::{
    store::explanation::Explanation,
    wire::outward::{self, timestamp},
};

pub(super) fn explain(found: &Explanation) -> pb::ExplainCommissionResponse {
    let commission = &found.commission;
    let asset = commission.amount.asset();
    let amount = |minor_units| Some(outward::signed(asset, minor_units));
    pb::ExplainCommissionResponse {
        commission: Some(outward::commission(commission)),
        plan: found.plan.clone(),
        formula: commission.formula(),
        rounded_off: commission.rounded_off(),
        clawbacks: clawbacks(found),
        payouts: found
            .payouts
            .iter()
            .map(|part| pb::CommissionPayout {
                payout_id: part.payout_id.to_string(),
                amount: amount(part.amount),
                state: pb::PayoutState::from_str_name(&format!("PAYOUT_STATE_{}", part.state))
                    .unwrap_or_default()
                    .into(),
            })
            .collect(),
        transactions: found
            .transactions
            .iter()
            .map(|step| pb::CommissionTransaction {
                transaction_id: step.transaction_id.to_string(),
                kind: pb::TransactionKind::from_str_name(&format!("TRANSACTION_KIND_{}", step.kind))
                    .unwrap_or_default()
                    .into(),
                create_time: timestamp(step.create_time),
            })
            .collect(),
    }
}

/// What each refund took, also where rounding left nothing to take.
fn clawbacks(found: &Explanation) -> Vec<pb::CommissionClawback> {
    let commission = &found.commission;
    let (mut refunded, mut before) = (0_i64, 0_i64);
    let mut clawbacks = Vec::with_capacity(found.refunds.len());
    for refund in &found.refunds {
        refunded = refunded.saturating_add(refund.amount.minor_units());
        let own = refund.clawbacks.iter().find(|clawback| clawback.level == commission.level);
        let taken = own.map_or(0, |clawback| clawback.amount.minor_units());
        clawbacks.push(pb::CommissionClawback {
            refund_id: refund.refund_id.to_string(),
            amount: Some(outward::signed(commission.amount.asset(), taken)),
            formula: commission.clawback_formula(refunded, before, taken),
            create_time: timestamp(refund.create_time),
        });
        before = before.saturating_add(taken);
    }
    clawbacks
}

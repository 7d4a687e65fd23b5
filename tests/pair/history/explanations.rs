//! A commission explained.

use p2phub_proto::referral::v1::{
    CommissionState, ExplainCommissionRequest, ExplainCommissionResponse, PayoutState, TransactionKind as Kind,
};
use p2phub_tests::{
    builders::usdt,
    clients::Clients,
    refusal::{fields, refused},
};
use referral_svc::Clock;
use tonic::{Code, Response, Status};

use super::{refund, start};
use crate::books::history::payouts;

async fn explain(clients: &mut Clients, commission_id: &str) -> Result<Response<ExplainCommissionResponse>, Status> {
    let request = ExplainCommissionRequest { commission_id: commission_id.to_owned() };
    clients.payments.explain_commission(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commission_tells_its_rule_and_all_that_became_of_it() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 5).await;
    let (payment, commissions) = clients.buy_pro(&chain[4].partner_id).await;
    let sale = commissions[2].transaction_id.clone();
    let mut refunds = Vec::new();
    for amount in [Some(1), Some(13_000_001), None] {
        refunds.push(refund(&mut clients, &payment, amount).await.refund.expect("a refund"));
    }
    let told = explain(&mut clients, &commissions[2].commission_id).await.expect("an answer").into_inner();
    let commission = told.commission.expect("a commission");
    assert_eq!((commission.level, commission.state()), (3, CommissionState::Reversed));
    assert_eq!(commission.reversed_amount, Some(usdt(1_170_000)));
    let plan: serde_json::Value = serde_json::from_str(&told.plan).expect("JSON");
    assert_eq!((plan["version"].as_i64(), plan["commission_rates_bps"][2].as_i64()), (Some(1), Some(300)));
    assert_eq!((told.formula.as_str(), told.rounded_off), ("floor(39000000 × 300 ÷ 10000) = 1170000", 0));
    let clawbacks: Vec<_> = told
        .clawbacks
        .iter()
        .map(|one| (one.refund_id.as_str(), one.amount.as_ref().expect("an amount").minor_units, one.formula.as_str()))
        .collect();
    let ids: Vec<&str> = refunds.iter().map(|refund| refund.refund_id.as_str()).collect();
    assert_eq!(
        clawbacks,
        [
            (ids[0], 0, "floor(1170000 × 1 ÷ 39000000) − 0 = 0"),
            (ids[1], 390_000, "floor(1170000 × 13000002 ÷ 39000000) − 0 = 390000"),
            (ids[2], 780_000, "floor(1170000 × 39000000 ÷ 39000000) − 390000 = 780000"),
        ]
    );
    assert_eq!(told.payouts, []);
    // The first refund took nothing of it.
    let steps: Vec<_> = told.transactions.iter().map(|one| (one.transaction_id.as_str(), one.kind())).collect();
    let [_, second, third] = [0, 1, 2].map(|index| refunds[index].transaction_id.as_str());
    assert_eq!(steps, [(sale.as_str(), Kind::ProSale), (second, Kind::Refund), (third, Kind::Refund)]);
    assert!(told.transactions.iter().all(|one| one.create_time.is_some()));

    let unknown = format!("{}.9", payment.payment_id);
    refused(explain(&mut clients, &unknown).await, Code::NotFound, "COMMISSION_NOT_FOUND");
    let id = &payment.payment_id;
    for malformed in ["", id, &format!("{id}.0"), &format!("{id}.10"), &format!("{id}.01"), &format!("{id}.1.1"), "x.1"]
    {
        let status = refused(explain(&mut clients, malformed).await, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(fields(&status), ["commission_id"], "{malformed}");
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commission_names_the_payouts_that_took_it() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let mut sold = Vec::new();
    for _ in 0..4 {
        sold.extend(clients.buy_pro(&chain[1].partner_id).await.1);
    }
    payouts(&mut clients, &chain[0].partner_id).await;
    // The oldest is paid first: 10.00 of it for good, the rest by whichever payout came next, and next.
    let told = explain(&mut clients, &sold[0].commission_id).await.expect("an answer").into_inner();
    let units = |amount: &Option<p2phub_proto::referral::v1::Amount>| amount.as_ref().expect("an amount").minor_units;
    let parts: Vec<_> = told.payouts.iter().map(|part| (units(&part.amount), part.state())).collect();
    assert_eq!(
        parts,
        [
            (10_000_000, PayoutState::Completed),
            (1_700_000, PayoutState::Failed),
            (1_700_000, PayoutState::Cancelled),
            (1_700_000, PayoutState::Requested),
        ]
    );
    let kinds: Vec<Kind> = told.transactions.iter().map(|step| step.kind()).collect();
    let ended = |kind| [Kind::PayoutReserved, kind];
    let (paid, returned) = (ended(Kind::PayoutPaid), ended(Kind::PayoutReturned));
    assert_eq!(kinds, [&[Kind::ProSale][..], &paid, &returned, &returned, &[Kind::PayoutReserved]].concat());
    pair.finish().await;
}

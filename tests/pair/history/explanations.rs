//! A commission explained.

use p2phub_proto::referral::v1::{CommissionState, ExplainCommissionRequest, ExplainCommissionResponse};
use p2phub_tests::{
    builders::usdt,
    clients::Clients,
    postgres::Role,
    refusal::{fields, refused},
};
use referral_svc::Clock;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::{refund, start};

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
    // As a payout would have named it.
    let payout = Uuid::now_v7();
    let superuser = pair.referral_sql(Role::Superuser).await;
    let rows = format!(
        "SET session_replication_role = replica;
         INSERT INTO payouts (payout_id, partner_id, asset, amount, destination, requester, create_time, reserve_transaction_id)
         VALUES ('{payout}', '{}', 'USDT', 500, 'there', 'a', now(), '{sale}');
         INSERT INTO payout_items (payout_id, number, payment_id, level, amount) VALUES ('{payout}', 1, '{}', 3, 500)",
        chain[1].partner_id, payment.payment_id,
    );
    superuser.batch_execute(&rows).await.expect("a payout");

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
    let payouts: Vec<_> =
        told.payouts.iter().map(|one| (one.payout_id.clone(), one.amount.clone(), &*one.state)).collect();
    assert_eq!(payouts, [(payout.to_string(), Some(usdt(500)), "REQUESTED")]);
    // The first refund took nothing of it. The payout's transaction is the sale here, so it is told once.
    let steps: Vec<_> = told.transactions.iter().map(|one| (one.transaction_id.as_str(), one.kind.as_str())).collect();
    let [_, second, third] = [0, 1, 2].map(|index| refunds[index].transaction_id.as_str());
    assert_eq!(steps, [(sale.as_str(), "PRO_SALE"), (second, "REFUND"), (third, "REFUND")]);
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

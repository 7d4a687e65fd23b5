//! What a transaction may be instead of a payment, and what follows from it.

use super::*;

/// Back to PENDING with a word; the same payment can be paid after all.
async fn goes_back(stage: &Stage, opened: &Payment, mut answer: Value, word: &str) {
    let (base64, hex) = stage.hash();
    answer["hash"] = json!(hex);
    stage.api.then_with(&hex, [Reply::json(200, &answer)]);
    stage.submit(&opened.payment_id, &base64).await;
    let back = stage.found(&opened.payment_id, word).await;
    assert_eq!((back.state(), back.external_ref.as_str()), (PaymentState::Pending, ""), "{word}");
    assert_eq!(verification(&back).next_attempt_time, None, "{word}");
    assert_eq!(back.late_references[0].external_ref, hex, "there may be money to be found: {word}");
    assert_eq!(terms(&back), terms(opened), "what was agreed stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_not_as_agreed_sends_the_payment_back() {
    let stage = Stage::set().await;
    let buyer = stage.pair.clients.clone().register("buyer", "").await;
    let opened = stage.open(&buyer.partner_id).await;
    let right = transaction(&opened, "");
    let with = |path: &str, value: Value| {
        let mut answer = right.clone();
        *answer.pointer_mut(path).expect("a field") = value;
        answer
    };
    for (answer, word) in [
        (with("/success", json!(false)), "TRANSACTION_FAILED"),
        (with("/in_msg/destination/address", json!(format!("0:{}", "00".repeat(32)))), "DESTINATION_DIFFERS"),
        (with("/in_msg", Value::Null), "DESTINATION_DIFFERS"),
        (with("/in_msg/bounced", json!(true)), "DESTINATION_DIFFERS"),
        (with("/in_msg/decoded_body/text", json!("thanks")), "MEMO_DIFFERS"),
        (with("/in_msg/decoded_op_name", Value::Null), "MEMO_DIFFERS"),
        (with("/utime", json!(1_600_000_000)), "TOO_OLD"),
        (with("/in_msg/value", json!(7_721_999_999_i64)), "AMOUNT_DIFFERS"),
        (with("/in_msg/value", json!(7_878_000_001_i64)), "AMOUNT_DIFFERS"),
    ] {
        goes_back(&stage, &opened, answer, word).await;
    }
    stage.submit(&opened.payment_id, "no hash at all").await;
    assert_eq!(stage.found(&opened.payment_id, "NOT_A_TRANSACTION_HASH").await.state(), PaymentState::Pending);
    assert_eq!(stage.get(&opened.payment_id).await.commissions.len(), 0);

    // A hundredth less is within the tolerance.
    let (base64, hex) = stage.hash();
    let mut enough = with("/in_msg/value", json!(7_722_000_000_i64));
    enough["hash"] = json!(hex.to_uppercase());
    stage.api.then_with(&hex, [Reply::json(200, &enough)]);
    stage.submit(&opened.payment_id, &base64).await;
    assert_eq!(stage.found(&opened.payment_id, "PAID").await.state(), PaymentState::Succeeded);
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_decide_with_a_reason_and_nobody_without() {
    let stage = Stage::set().await;
    let buyer = stage.pair.clients.clone().register("buyer", "").await;
    let opened = stage.open(&buyer.partner_id).await;
    let (base64, hex) = stage.hash();
    stage.submit(&opened.payment_id, &base64).await;
    stage.found(&opened.payment_id, "NOT_FOUND").await;
    let refused = stage.confirm(&opened.payment_id, "").await.expect_err("a refusal");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "PAYMENT_NOT_VERIFIED"));
    let confirmed = stage.confirm(&opened.payment_id, "seen in the wallet").await.expect("confirmed");
    assert_eq!((confirmed.state(), confirmed.external_ref), (PaymentState::Succeeded, hex));
    assert_eq!(
        verification(&stage.payment(&opened.payment_id).await).next_attempt_time,
        None,
        "nothing is left to ask"
    );
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_pays_once() {
    let stage = Stage::set().await;
    let buyer = stage.pair.clients.clone().register("buyer", "").await;
    let (first, second) = (stage.open(&buyer.partner_id).await, stage.open(&buyer.partner_id).await);
    let (base64, hex) = stage.hash();
    // Both wait for one transaction, which pays for each in turn as far as the endpoint is concerned.
    stage.api.then_with(&hex, [unknown(), unknown()]);
    for payment in [&first, &second] {
        stage.submit(&payment.payment_id, &base64).await;
        stage.found(&payment.payment_id, "NOT_FOUND").await;
    }
    stage.confirm(&first.payment_id, "it is there").await.expect("confirmed");
    stage.api.then_with(&hex, [Reply::json(200, &transaction(&second, &hex))]);
    let back = stage.found(&second.payment_id, "REFERENCE_USED").await;
    assert_eq!(back.state(), PaymentState::Pending);
    stage.pair.finish().await;
}

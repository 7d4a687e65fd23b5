//! What a transaction may be instead of a payment, and what follows from it.

use p2phub_proto::referral::v1::ReconcileKind;
use p2phub_tests::{builders::confirmation, postgres::Role};

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
    let ((base64, hex), (_, incoming)) = (stage.hash(), stage.hash());
    stage.submit(&opened.payment_id, &base64).await;
    stage.found(&opened.payment_id, "NOT_FOUND").await;
    let refused = stage.confirm(&opened.payment_id, "").await.expect_err("a refusal");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "PAYMENT_NOT_VERIFIED"));
    let confirmed = stage.confirm(&opened.payment_id, "seen in the wallet").await.expect("confirmed");
    assert_eq!((confirmed.state(), confirmed.external_ref.as_str()), (PaymentState::Succeeded, hex.as_str()));
    // What the operator saw is the sender's; once the chain has it, it tells by which transaction the money came.
    stage.api.then_with(&hex, [Reply::json(200, &senders(&opened, &hex))]);
    stage.api.then_with("/messages/the-message/transaction", [Reply::json(200, &transaction(&opened, &incoming))]);
    let known = stage.found(&opened.payment_id, "PAID").await;
    assert_eq!((known.state(), verification(&known).incoming_ref), (PaymentState::Succeeded, incoming.clone()));
    assert_eq!(verification(&known).next_attempt_time, None, "nothing is left to ask");
    assert_eq!(stage.used(&incoming).await, "EXTERNAL_REF_USED");
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
    // Each of the two is asked about once more.
    stage.api.then_with(&hex, std::iter::repeat_n(Reply::json(200, &transaction(&second, &hex)), 2));
    let back = stage.found(&second.payment_id, "REFERENCE_USED").await;
    assert_eq!(back.state(), PaymentState::Pending);
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_hashes_of_a_transfer_are_used_up_and_either_stands_in_a_statement() {
    let stage = Stage::set().await;
    let mut clients = stage.pair.clients.clone();
    let buyer = clients.register("buyer", "").await;
    let opened = stage.open(&buyer.partner_id).await;
    let ((_, sent), (received_base64, received)) = (stage.hash(), stage.hash());
    stage.api.then_with(&sent, [Reply::json(200, &senders(&opened, &sent))]);
    stage.api.then_with("/messages/the-message/transaction", [Reply::json(200, &transaction(&opened, &received))]);
    stage.submit(&opened.payment_id, &sent).await;
    let paid = stage.found(&opened.payment_id, "PAID").await;
    assert_eq!(paid.external_ref, sent, "what was handed in");
    assert_eq!(verification(&paid).incoming_ref, received, "what the account received it by");

    // Asked again by either, it is the payment that it was.
    for reference in [&sent, &received] {
        let again =
            clients.payments.confirm_payment(confirmation(&opened.payment_id, reference)).await.expect("an answer");
        assert_eq!(
            again.metadata().get("already-confirmed").map(AsRef::as_ref),
            Some(b"true".as_slice()),
            "{reference}"
        );
    }
    // Neither pays for anything else, whoever says so.
    for reference in [&sent, &received, &received_base64] {
        assert_eq!(stage.used(reference).await, "EXTERNAL_REF_USED");
    }
    // The account's statement has one, the buyer's the other; one that has both tells of the money twice.
    for (lines, ok) in [
        (format!("{received_base64},7.8,TON\n"), true),
        (format!("{sent},7.8,TON\n"), true),
        (format!("{received},7.7,TON\n"), false),
        (format!("{sent},7.8,TON\n{received},7.8,TON\n"), false),
    ] {
        let csv = format!("external_ref,amount,asset\n{lines}");
        let (findings, summary) = reconcile_csv(&mut clients, csv.as_bytes()).await;
        assert_eq!((summary.ok, findings.len()), (ok, usize::from(!ok)), "{lines}: {findings:?}");
        assert_eq!(summary.differing, i64::from(!ok), "{lines}: {summary:?}");
    }
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_another_payment_has_pays_for_no_second_one() {
    let stage = Stage::set().await;
    let mut clients = stage.pair.clients.clone();
    let buyer = clients.register("buyer", "").await;
    // An operator took the account's own transaction for a payment by another method.
    let ((_, sent), (received_base64, received)) = (stage.hash(), stage.hash());
    let other = clients.open_payment_by(&buyer.partner_id, "trusted").await;
    let request = confirmation(&other.payment_id, &received_base64);
    clients.payments.confirm_payment(request).await.expect("confirmed");
    let opened = stage.open(&buyer.partner_id).await;
    stage.api.then_with(&sent, [Reply::json(200, &senders(&opened, &sent))]);
    stage.api.then_with("/messages/the-message/transaction", [Reply::json(200, &transaction(&opened, &received))]);
    stage.submit(&opened.payment_id, &sent).await;
    let back = stage.found(&opened.payment_id, "REFERENCE_USED").await;
    assert_eq!((back.state(), verification(&back).incoming_ref.as_str()), (PaymentState::Pending, ""));
    assert_eq!(back.late_references[0].external_ref, sent, "there may be money to be found");
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_a_hash_of_two_payments_by_itself() {
    let stage = Stage::set().await;
    let mut clients = stage.pair.clients.clone();
    let buyer = clients.register("buyer", "").await;
    let paid = stage.open(&buyer.partner_id).await;
    let (_, received) = stage.hash();
    stage.api.then_with(&received, [Reply::json(200, &transaction(&paid, &received))]);
    stage.submit(&paid.payment_id, &received).await;
    stage.found(&paid.payment_id, "PAID").await;
    let second = stage.open(&buyer.partner_id).await;
    let third = clients.open_payment_by(&buyer.partner_id, "trusted").await;
    let (_, elsewhere) = stage.hash();
    let spoil =
        format!("UPDATE ton_payments SET incoming_ref = '{elsewhere}' WHERE payment_id = '{}'", second.payment_id);
    stage.pair.referral_sql(Role::Service).await.batch_execute(&spoil).await.expect("nobody has that one");
    for (sql, state, constraint) in [
        (format!("incoming_ref = '{received}' WHERE payment_id = '{}'", second.payment_id), "23514", "ton_terms_stay"),
        (format!("incoming_ref = NULL WHERE payment_id = '{}'", paid.payment_id), "23514", "ton_terms_stay"),
    ] {
        refuses(&stage, &format!("UPDATE ton_payments SET {sql}"), state, constraint).await;
    }
    let confirm = format!(
        "UPDATE payments SET state = 'SUCCEEDED', confirmed_ref = '{elsewhere}', confirm_time = now(), pro_start = now(),
            pro_end = now() + interval '30 days', transaction_id = '{0}' WHERE payment_id = '{0}'",
        third.payment_id
    );
    refuses(&stage, &confirm, "23505", "references_used_once").await;
    let fourth = stage.open(&buyer.partner_id).await;
    let taken =
        format!("UPDATE ton_payments SET incoming_ref = '{received}' WHERE payment_id = '{}'", fourth.payment_id);
    refuses(&stage, &taken, "23505", "ton_payments_incoming_ref_key").await;
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_and_was_not_as_agreed_is_known_by_both_hashes() {
    let stage = Stage::set().await;
    let mut clients = stage.pair.clients.clone();
    let buyer = clients.register("buyer", "").await;
    let opened = stage.open(&buyer.partner_id).await;
    let ((_, sent), (_, received)) = (stage.hash(), stage.hash());
    let mut too_little = transaction(&opened, &received);
    too_little["in_msg"]["value"] = json!(5);
    stage.api.then_with(&sent, [Reply::json(200, &senders(&opened, &sent))]);
    stage.api.then_with("/messages/the-message/transaction", [Reply::json(200, &too_little)]);
    stage.submit(&opened.payment_id, &sent).await;
    let back = stage.found(&opened.payment_id, "AMOUNT_DIFFERS").await;
    assert_eq!(
        (back.late_references[0].external_ref.clone(), back.late_references[0].incoming_ref.clone()),
        (sent.clone(), received.clone())
    );
    let csv = format!("external_ref,amount,asset\n{received},0.000000005,TON\n");
    let (findings, _) = reconcile_csv(&mut clients, csv.as_bytes()).await;
    assert_eq!((findings[0].kind(), &findings[0].payment_id), (ReconcileKind::NotConfirmed, &opened.payment_id));
    // An operator takes it for enough, by whichever hash: both are used up at once, without asking again.
    let override_reason = "the rest came in cash".to_owned();
    let request = ConfirmPaymentRequest { override_reason, ..confirmation(&opened.payment_id, &received) };
    let confirmed = clients.payments.confirm_payment(request).await.expect("confirmed").into_inner();
    let confirmed = confirmed.payment.expect("a payment");
    assert_eq!((&confirmed.external_ref, &verification(&confirmed).incoming_ref), (&sent, &received));
    assert_eq!(verification(&confirmed).next_attempt_time, None);
    for reference in [&sent, &received] {
        assert_eq!(stage.used(reference).await, "EXTERNAL_REF_USED");
    }
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_transaction_that_pays_for_several_the_memo_tells_whose_is_which() {
    let stage = Stage::set().await;
    let buyer = stage.pair.clients.clone().register("buyer", "").await;
    let (first, second) = (stage.open(&buyer.partner_id).await, stage.open(&buyer.partner_id).await);
    let (_, sent) = stage.hash();
    let message = |payment: &Payment, hash: &str| {
        let mut message = transaction(payment, "")["in_msg"].take();
        message["hash"] = json!(hash);
        message
    };
    let mut both = senders(&first, &sent);
    both["out_msgs"] = json!([message(&second, "for-the-second"), message(&first, "for-the-first")]);
    let (_, received) = stage.hash();
    stage.api.then_with(&sent, [Reply::json(200, &both)]);
    stage.api.then_with("/messages/for-the-first/transaction", [Reply::json(200, &transaction(&first, &received))]);
    stage.submit(&first.payment_id, &sent).await;
    assert_eq!(verification(&stage.found(&first.payment_id, "PAID").await).incoming_ref, received);
    // Of none of them is it said that it is this one's.
    let third = stage.open(&buyer.partner_id).await;
    let (_, elsewhere) = stage.hash();
    both["hash"] = json!(elsewhere);
    stage.api.then_with(&elsewhere, [Reply::json(200, &both)]);
    stage.submit(&third.payment_id, &elsewhere).await;
    let back = stage.found(&third.payment_id, "DESTINATION_DIFFERS").await;
    assert_eq!((back.state(), back.late_references[0].incoming_ref.as_str()), (PaymentState::Pending, ""));
    stage.pair.finish().await;
}

async fn refuses(stage: &Stage, sql: &str, state: &str, constraint: &str) {
    for role in [Role::Service, Role::Owner] {
        let refused = stage.pair.referral_sql(role).await.batch_execute(sql).await.expect_err(sql);
        let refused = refused.as_db_error().expect("an error of the database");
        assert_eq!((refused.code().code(), refused.constraint()), (state, Some(constraint)), "as {role:?}: {sql}");
    }
}

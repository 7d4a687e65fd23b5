//! An endpoint that doesn't answer costs nothing but delay, and without a rate no payment is opened.

use chrono::TimeDelta;
use p2phub_tests::ports;
use tonic_types::StatusExt;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_loses_no_payment_whichever_instance_goes_on() {
    let mut stage = Stage::set().await;
    let buyer = stage.pair.clients.clone().register("buyer", "").await;
    let opened = stage.open(&buyer.partner_id).await;
    let (base64, hex) = stage.hash();
    let outage = [Reply::status(503), Reply::status(429).header("retry-after", "3"), Reply::lost()];
    stage.api.then_with(&hex, outage);
    stage
        .api
        .then_with(&hex, [Reply::json(200, &transaction(&opened, "another")), Reply::text(404, "who?"), unknown()]);
    stage.api.then_with(&hex, [Reply::json(200, &transaction(&opened, &hex))]);
    stage.submit(&opened.payment_id, &base64).await;
    let waiting = stage.found(&opened.payment_id, "VERIFIER_UNAVAILABLE").await;
    assert_eq!(waiting.state(), PaymentState::InReview);
    // The service goes, and comes back twice over.
    stage.pair.stop_referral().await;
    stage.pair.start_referral().await;
    let other = stage.pair.another_referral(ports::free()).await;
    // Each attempt waits longer than the one before: time is moved instead.
    let mut ahead = TimeDelta::zero();
    let paid = wait::until("the payment to succeed", async || {
        ahead += TimeDelta::seconds(20);
        stage.clock.set_ahead(ahead);
        let payment = stage.payment(&opened.payment_id).await;
        assert!(matches!(payment.state(), PaymentState::InReview | PaymentState::Succeeded), "{payment:?}");
        (payment.state() == PaymentState::Succeeded).then_some(payment)
    })
    .await;
    assert_eq!((verification(&paid).attempts, stage.asked(&hex)), (7, 7), "each attempt was made by one instance");
    other.stop().await;
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_never_shows_up_sends_the_payment_back() {
    let stage = Stage::set().await;
    let buyer = stage.pair.clients.clone().register("buyer", "").await;
    let opened = stage.open(&buyer.partner_id).await;
    stage.submit(&opened.payment_id, &stage.hash().0).await;
    assert_eq!(stage.found(&opened.payment_id, "NOT_FOUND").await.state(), PaymentState::InReview);
    wait::until("the payment to go back", async || {
        let payment = stage.payment(&opened.payment_id).await;
        // It is asked about some times more, each after a longer while.
        stage.clock.set_ahead(TimeDelta::minutes(31 + 2 * i64::from(verification(&payment).attempts)));
        (payment.state() == PaymentState::Pending).then_some(())
    })
    .await;
    // Its window is open still, and closes like any other's.
    stage.clock.set_ahead(TimeDelta::minutes(61));
    assert_eq!(stage.payment(&opened.payment_id).await.state(), PaymentState::Expired);
    stage.pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_young_rate_no_payment_is_opened() {
    let stage = Stage::set().await;
    let buyer = stage.pair.clients.clone().register("buyer", "").await;
    stage.open(&buyer.partner_id).await;
    stage.clock.set_ahead(TimeDelta::seconds(630));
    let status = stage.create(&buyer.partner_id).await.expect_err("a refusal");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "RATE_UNAVAILABLE"));
    let details = status.get_error_details();
    let retry = details.retry_info().and_then(|info| info.retry_delay).expect("when to try again");
    assert!(retry > Duration::ZERO);
    stage.clock.set_ahead(TimeDelta::zero());
    stage.open(&buyer.partner_id).await;
    stage.pair.finish().await;
}

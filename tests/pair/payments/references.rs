//! A reference is one, in whatever dress, and is used up by one success.

use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD, Engine};
use chrono::TimeDelta;
use p2phub_proto::referral::v1::PaymentState;
use p2phub_tests::refusal::{is_marked, refused};
use referral_svc::Clock;
use tonic::Code;

use super::{REFUSED, confirm, create, overrule, payment, start, submit};

/// A hash whose base64 has both characters that differ between the alphabets.
const HASH: [u8; 32] = [
    0xfb, 0xff, 0xbf, 0xfe, 0x3e, 0xff, 0x01, 0xab, 0xcd, 0xef, 0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe, 0x00,
    0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_in_another_dress_is_the_same_reference() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let buyer = clients.register("buyer", "").await;
    let hex: String = HASH.iter().map(|byte| format!("{byte:02x}")).collect();
    let standard = BASE64_STANDARD.encode(HASH);
    assert!(standard.contains('+') && standard.contains('/') && standard.ends_with('='));
    let dresses = [
        hex.clone(),
        hex.to_uppercase(),
        format!("0x{hex}"),
        format!("0X{}", hex.to_uppercase()),
        standard,
        BASE64_STANDARD_NO_PAD.encode(HASH),
        BASE64_URL_SAFE.encode(HASH),
        BASE64_URL_SAFE_NO_PAD.encode(HASH),
        format!("\t {hex}\n"),
    ];
    let first = create(&mut clients, &buyer.partner_id, "trusted").await.expect("a payment");
    let second = create(&mut clients, &buyer.partner_id, "trusted").await.expect("a payment");
    let manual = create(&mut clients, &buyer.partner_id, "manual").await.expect("a payment");
    let confirmed = confirm(&mut clients, &first, &dresses[4]).await.expect("a confirmation").into_inner();
    assert_eq!(confirmed.payment.expect("a payment").external_ref, hex);
    for dress in &dresses {
        refused(confirm(&mut clients, &second, dress).await, Code::AlreadyExists, "EXTERNAL_REF_USED");
        let overruled = overrule(&mut clients, &second, dress, "please").await;
        refused(overruled, Code::AlreadyExists, "EXTERNAL_REF_USED");
        refused(submit(&mut clients, &manual, dress).await, Code::AlreadyExists, "EXTERNAL_REF_USED");
        let again = confirm(&mut clients, &first, dress).await.expect("the same confirmation");
        assert!(is_marked(&again, "already-confirmed"), "{dress}");
    }
    assert_eq!(payment(&mut clients, &second).await.state(), PaymentState::Pending);
    // Anything that is no hash is taken as it is: another case is another reference.
    for reference in ["order-A", "order-a"] {
        let other = create(&mut clients, &buyer.partner_id, "trusted").await.expect("a payment");
        confirm(&mut clients, &other, reference).await.expect("a confirmation");
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn confirming_twice_is_one_upgrade() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let opened = create(&mut clients, &chain[1].partner_id, "trusted").await.expect("a payment");
    let first = confirm(&mut clients, &opened, "money").await.expect("a confirmation");
    assert!(!is_marked(&first, "already-confirmed") && !is_marked(&first, "idempotent-replay"));
    let after = clients.partner(&chain[1].partner_id).await;

    let again = confirm(&mut clients, &opened, " money ").await.expect("the same confirmation");
    assert!(is_marked(&again, "already-confirmed") && !is_marked(&again, "idempotent-replay"));
    assert_eq!(again.get_ref(), first.get_ref());
    let empty = confirm(&mut clients, &opened, "").await.expect("the same confirmation");
    assert_eq!(empty.get_ref(), first.get_ref());
    refused(confirm(&mut clients, &opened, "other money").await, REFUSED, "PAYMENT_ALREADY_CONFIRMED");
    let overruled = overrule(&mut clients, &opened, "other money", "please").await;
    refused(overruled, REFUSED, "PAYMENT_ALREADY_CONFIRMED");

    assert_eq!(clients.partner(&chain[1].partner_id).await, after);
    assert_eq!(clients.balance(&chain[0].partner_id).await, 11_700_000);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_success_uses_a_reference_up() {
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let buyer = clients.register("buyer", "").await;
    let expired = create(&mut clients, &buyer.partner_id, "trusted").await.expect("a payment");
    clock.set_ahead(TimeDelta::hours(2));
    refused(confirm(&mut clients, &expired, "money").await, REFUSED, "PAYMENT_EXPIRED");
    let unsubmitted = create(&mut clients, &buyer.partner_id, "manual").await.expect("a payment");
    refused(confirm(&mut clients, &unsubmitted, "money").await, REFUSED, "PAYMENT_NOT_SUBMITTED");
    let reviewed = create(&mut clients, &buyer.partner_id, "manual").await.expect("a payment");
    submit(&mut clients, &reviewed, "money").await.expect("a submission");

    let open = create(&mut clients, &buyer.partner_id, "trusted").await.expect("a payment");
    confirm(&mut clients, &open, "money").await.expect("a reference that is still free");
    // Now it is used, for all the others, with a reason or without.
    for other in [&expired, &unsubmitted, &reviewed] {
        let overruled = overrule(&mut clients, other, "money", "please").await;
        refused(overruled, Code::AlreadyExists, "EXTERNAL_REF_USED");
    }
    refused(confirm(&mut clients, &reviewed, "").await, Code::AlreadyExists, "EXTERNAL_REF_USED");
    pair.finish().await;
}

//! What one command or too many of them do to the others: nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use p2phub_proto::referral::v1::RegisterPartnerRequest;
use p2phub_tests::{
    builders::{confirmation, registration},
    clients::Clients,
    pair::Pair,
    postgres::Role,
    wait,
};
use tonic::{Code, Status};

use super::{assert_books_balance, at_once, failure, number, reason, says_when_to_retry};

const BURST: usize = 50;
const SPOILED: usize = 13;

/// One failed as a defect and gave nothing away, the others succeeded.
fn assert_one_failed_alone<T>(answers: &[Result<T, Status>]) {
    for (turn, answer) in answers.iter().enumerate() {
        let expected = (turn == SPOILED).then(|| (Code::Internal, "INTERNAL".to_owned()));
        assert_eq!(failure(answer), expected, "call {turn}");
        if let Err(status) = answer {
            let message = status.message().to_lowercase();
            assert!(
                !["constraint", "partners", "payments", "spoiled", "sql"].iter().any(|word| message.contains(word))
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signup_that_cannot_be_stored_fails_alone() {
    let pair = Pair::start().await;
    let referrer = pair.clients.clone().register("above", "").await;
    let owner = pair.referral_sql(Role::Owner).await;
    let forbid = format!("ALTER TABLE partners ADD CONSTRAINT spoiled CHECK (external_id <> 'burst-{SPOILED}')");
    owner.batch_execute(&forbid).await.expect("a constraint");

    let requests: Vec<_> =
        (0..BURST).map(|turn| registration(&format!("burst-{turn}"), &referrer.referral_code)).collect();
    let send = async |requests: &[RegisterPartnerRequest]| {
        at_once(requests.iter().cloned().map(|request| {
            let mut clients = pair.clients.clone();
            async move { clients.partners.register_partner(request).await }
        }))
        .await
    };
    assert_one_failed_alone(&send(&requests).await);
    let referrer_now = pair.clients.clone().partner(&referrer.partner_id).await;
    assert_eq!((referrer_now.direct_referrals, referrer_now.xp), (49, 49 * 35));

    // A failure of this kind is not remembered: once the cause is gone, the same request succeeds.
    owner.batch_execute("ALTER TABLE partners DROP CONSTRAINT spoiled").await.expect("a drop");
    for answer in send(&requests).await {
        assert!(answer.expect("an answer").into_inner().created);
    }
    let referrer_now = pair.clients.clone().partner(&referrer.partner_id).await;
    assert_eq!((referrer_now.direct_referrals, referrer_now.xp), (50, 50 * 35));
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_cannot_be_stored_fails_alone_and_whole() {
    let pair = Pair::start().await;
    let mut clients = pair.clients.clone();
    let referrer = clients.register("earns", "").await;
    let mut payments = Vec::new();
    for turn in 0..BURST {
        let buyer = clients.register(&format!("buys-{turn}"), &referrer.referral_code).await;
        payments.push(clients.open_payment(&buyer.partner_id).await.payment_id);
    }
    // It fails late, at the commissions, when payment, upgrade and entries are written already.
    let owner = pair.referral_sql(Role::Owner).await;
    let forbid =
        format!("ALTER TABLE commissions ADD CONSTRAINT spoiled CHECK (payment_id <> '{}')", payments[SPOILED]);
    owner.batch_execute(&forbid).await.expect("a constraint");
    let answers = at_once(payments.iter().cloned().enumerate().map(|(turn, payment_id)| {
        let mut clients = pair.clients.clone();
        async move { clients.payments.confirm_payment(confirmation(&payment_id, &format!("money-{turn}"))).await }
    }))
    .await;
    assert_one_failed_alone(&answers);
    assert_eq!(clients.balance(&referrer.partner_id).await, 49 * 11_700_000);
    assert_eq!(number(&owner, "SELECT count(*) FROM standings WHERE pro_expires_at IS NOT NULL").await, 49);
    assert_eq!(number(&owner, "SELECT count(*) FROM ledger_transactions").await, 49);
    assert_books_balance(&mut clients).await;
    pair.finish().await;
}

/// Sends it again under the same request ID for as long as it is shed.
async fn insist(mut clients: Clients, request: RegisterPartnerRequest, shed: Arc<AtomicUsize>) {
    loop {
        match clients.partners.register_partner(request.clone()).await {
            Ok(_) => return,
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                assert!(says_when_to_retry(&status), "{status:?}");
                assert!(["TOO_MANY_CALLS", "TOO_MANY_COMMANDS"].contains(&reason(&status).as_str()), "{status:?}");
                shed.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_limits_are_shed_and_converge_when_repeated() {
    const CALLS: usize = 2000;
    let pair = Pair::start().await;
    let referrer = pair.clients.clone().register("flooded", "").await;
    // Nothing commits while the tree is locked: calls pile up until they are shed.
    let blocker = pair.referral_sql(Role::Superuser).await;
    blocker.batch_execute("SELECT pg_advisory_lock(1, 0)").await.expect("a lock");
    let shed = Arc::new(AtomicUsize::new(0));
    let calls = (0..CALLS).map(|turn| {
        let request = registration(&format!("flood-{turn}"), &referrer.referral_code);
        insist(pair.clients.clone(), request, shed.clone())
    });
    let flood = tokio::spawn(at_once(calls.collect::<Vec<_>>()));
    wait::until("calls to be shed", async || (shed.load(Ordering::Relaxed) > 500).then_some(())).await;
    blocker.batch_execute("SELECT pg_advisory_unlock(1, 0)").await.expect("an unlock");
    flood.await.expect("every call converges");

    let sql = pair.referral_sql(Role::Owner).await;
    let referrer = pair.clients.clone().partner(&referrer.partner_id).await;
    assert_eq!((referrer.direct_referrals, referrer.xp), (2000, 2000 * 35));
    assert_eq!(number(&sql, "SELECT count(*) FROM audit_events WHERE action = 'RegisterPartner'").await, 2001);
    pair.finish().await;
}

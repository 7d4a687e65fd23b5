//! Kills at random moments while people sign up and buy; then everything has arrived, each event once.

use std::time::Duration;

use futures_util::future::join_all;
use p2phub_proto::{
    notify::v1::NotificationKind,
    referral::v1::{ConfirmPaymentRequest, CreatePaymentRequest, Product, RegisterPartnerRequest},
};
use p2phub_tests::{
    builders::{confirmation, registration, request_id},
    clients::Clients,
    pair::{Options, Pair},
    postgres::Role,
    wait,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::PAIR_PROCESS;

/// How many kills, unless P2PHUB_TEST_STEPS says otherwise.
const KILLS: u64 = 15;
/// How many clients keep calling meanwhile.
const CLIENTS: usize = 3;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_whenever_everything_arrives_once() {
    let seed = number("P2PHUB_TEST_SEED", rand::random());
    let kills = number("P2PHUB_TEST_STEPS", KILLS);
    println!("P2PHUB_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);

    let mut pair = Options::default().processes(PAIR_PROCESS).start().await;
    let root = pair.clients.clone().register("root", "").await;
    let enough = CancellationToken::new();
    let traffic = (0..CLIENTS).map(|number| {
        let traffic = Traffic { clients: pair.clients.clone(), name: format!("client-{number}"), events: 0 };
        traffic.run(root.referral_code.clone(), &enough)
    });
    let traffic = join_all(traffic);
    let killing = async {
        for _ in 0..kills {
            // How long it lives is the point here: no event ends it.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
            kill_and_restart(&mut pair, [(true, false), (false, true), (true, true)][random.random_range(0..3)]).await;
        }
        enough.cancel();
    };
    let (events, ()) = tokio::join!(traffic, killing);
    let events = events.into_iter().sum();
    assert!(events > 0, "nothing went on between the kills");
    converged(&pair, events).await;
    pair.finish().await;
}

async fn kill_and_restart(pair: &mut Pair, (referral, notify): (bool, bool)) {
    if referral {
        pair.kill_referral();
    }
    if notify {
        pair.kill_notify();
        pair.start_notify().await;
    }
    if referral {
        pair.start_referral().await;
    }
}

/// A client that signs people up and has them buy, each call repeated, with its request ID, until it is answered.
struct Traffic {
    clients: Clients,
    name: String,
    /// Commands that had something to tell.
    events: i64,
}

impl Traffic {
    async fn run(mut self, mut code: String, enough: &CancellationToken) -> i64 {
        let mut number = 0;
        while !enough.is_cancelled() {
            number += 1;
            let request = registration(&format!("{}-{number}", self.name), &code);
            let partner = self.signup(request).await;
            self.events += 1;
            if number % 3 == 0 {
                self.sale(&partner.partner_id).await;
                self.events += 1;
                code = partner.referral_code;
            }
        }
        self.events
    }

    async fn signup(&mut self, request: RegisterPartnerRequest) -> p2phub_proto::referral::v1::Partner {
        let mut partners = self.clients.partners.clone();
        let answer = answered(async || partners.register_partner(request.clone()).await).await;
        answer.into_inner().partner.expect("a partner")
    }

    async fn sale(&mut self, partner_id: &str) {
        let mut payments = self.clients.payments.clone();
        let request = CreatePaymentRequest {
            request_id: request_id(),
            partner_id: partner_id.to_owned(),
            product: Product::ProMonthly.into(),
            method: "trusted".to_owned(),
        };
        let answer = answered(async || payments.create_payment(request.clone()).await).await;
        let payment_id = answer.into_inner().payment.expect("a payment").payment_id;
        let request: ConfirmPaymentRequest = confirmation(&payment_id, &format!("ref-{payment_id}"));
        answered(async || payments.confirm_payment(request.clone()).await).await;
    }
}

async fn answered<T>(mut call: impl AsyncFnMut() -> Result<T, Status>) -> T {
    wait::until("an answer", async || match call().await {
        Ok(answer) => Some(answer),
        // The process was away, or went away in the middle of the call.
        Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) => None,
        Err(status) => panic!("{status:?}"),
    })
    .await
}

async fn converged(pair: &Pair, events: i64) {
    let (referral, notify) = (pair.referral_sql(Role::Superuser).await, pair.notify_sql(Role::Superuser).await);
    wait::until("an empty outbox", async || (count(&referral, "outbox").await == 0).then_some(())).await;
    assert_eq!(count(&notify, "inbox").await, events, "events in the inbox");
    assert_eq!(count(&notify, "rejected_records").await, 0);
    // As if the leases of those who were killed had run out.
    let lapse = "UPDATE deliveries SET lease_until = now() WHERE lease_until < now() + interval '20 seconds'";
    wait::until("all to be delivered", async || {
        notify.batch_execute(lapse).await.expect("an update");
        (count(&notify, "notifications WHERE state <> 'DELIVERED'").await == 0).then_some(())
    })
    .await;
    // What the facts ask for, and what was made of them.
    let signups = [NotificationKind::SignupL1, NotificationKind::SignupL2, NotificationKind::SignupDeeper];
    for (facts, kinds) in [
        ("xp_awards", signups.as_slice()),
        ("commissions", &[NotificationKind::CommissionReceived]),
        ("payments WHERE confirm_time IS NOT NULL", &[NotificationKind::ProWelcome]),
    ] {
        let names: Vec<_> = kinds
            .iter()
            .map(|kind| format!("'{}'", kind.as_str_name().trim_start_matches("NOTIFICATION_KIND_")))
            .collect();
        let notifications = count(&notify, &format!("notifications WHERE kind IN ({})", names.join(", "))).await;
        assert_eq!(notifications, count(&referral, facts).await, "{facts}");
    }
}

async fn count(client: &Client, what: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {what}"), &[]).await.expect("a count").get(0)
}

//! Sales at a fixed rate, whether or not those before are through: the time from each commit to each delivery.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, future::join_all, stream};
use p2phub_proto::referral::v1::{Contact, Partner, RegisterPartnerRequest};
use p2phub_tests::{
    builders::{confirmation, registration},
    pair::Pair,
    postgres::Role,
    wait,
};
use tokio::time::{Instant, sleep_until};

use super::{HOSTS, Sizes, discard, notify_sql, open_deliveries, options};
use crate::{latency, receiver::Receiver, table::row};

/// Networks, each a line of nine and the buyers below it: a sale tells ten people.
const NETWORKS: usize = 10;
const LINE: usize = 9;
const BUYERS: usize = 10;
const TOLD: f64 = 10.0;
/// Payments opened at once.
const OPENING: usize = 16;

pub(super) async fn run(sizes: Sizes, per_second: f64) {
    let receiver = Receiver::start(HOSTS).await;
    let pair = options().start().await;
    let buyers = register(&pair, &receiver).await;
    let interval = Duration::from_secs_f64(TOLD / per_second.max(TOLD));
    let count = usize::try_from(sizes.duration().as_nanos() / interval.as_nanos()).unwrap_or_default();
    let payments = open_payments(&pair, &buyers, count).await;
    all_delivered(&pair).await;
    receiver.take();

    let start = Instant::now();
    let sales = payments.into_iter().zip(0..).map(|(payment_id, index)| {
        let mut clients = pair.clients.clone();
        tokio::spawn(async move {
            sleep_until(start + interval * index).await;
            let request = confirmation(&payment_id, &format!("ref-{payment_id}"));
            clients.payments.confirm_payment(request).await.expect("a confirmation");
        })
    });
    let sold = join_all(sales).await;
    let seconds = start.elapsed().as_secs_f64();
    assert!(sold.iter().all(Result::is_ok), "a sale failed");
    all_delivered(&pair).await;

    let took = latency::since_commit(&pair, &receiver.take()).await;
    row("sales", count as f64 / seconds, "sales/s");
    row("notifications", took.len() as f64 / seconds, "notifications/s");
    latency::rows("commit to delivery", &took);
    discard(pair).await;
}

/// The buyers' IDs.
async fn register(pair: &Pair, receiver: &Receiver) -> Vec<String> {
    let mut clients = pair.clients.clone();
    let (mut buyers, mut number) = (Vec::new(), 0);
    for _ in 0..NETWORKS {
        let mut code = String::new();
        for place in 0..LINE + BUYERS {
            number += 1;
            let contact = Contact { channel: "webhook".to_owned(), address: receiver.url(number) };
            let plain = registration(&format!("partner-{number}"), &code);
            let request = RegisterPartnerRequest { contacts: vec![contact], ..plain };
            let answer = clients.partners.register_partner(request).await.expect("a registration").into_inner();
            let Partner { partner_id, referral_code, .. } = answer.partner.expect("a partner");
            if place < LINE {
                code = referral_code;
            } else {
                buyers.push(partner_id);
            }
        }
    }
    buyers
}

async fn open_payments(pair: &Pair, buyers: &[String], count: usize) -> Vec<String> {
    let opening = buyers.iter().cycle().take(count).map(|buyer| {
        let mut clients = pair.clients.clone();
        async move { Ok::<_, std::convert::Infallible>(clients.open_payment(buyer).await.payment_id) }
    });
    let Ok(payments) = stream::iter(opening).buffered(OPENING).try_collect().await;
    payments
}

/// Waits until nothing is left to tell.
async fn all_delivered(pair: &Pair) {
    let (referral, notify) = (pair.referral_sql(Role::Superuser).await, notify_sql(pair).await);
    wait::until("everything to be delivered", async || {
        let untold: i64 = referral.query_one("SELECT count(*) FROM outbox", &[]).await.ok()?.get(0);
        (untold == 0 && open_deliveries(&notify).await == 0).then_some(())
    })
    .await;
}

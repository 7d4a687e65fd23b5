//! A provider that is away for longer than the first retries, and comes back.

use std::time::{Duration, Instant};

use p2phub_proto::notify::v1::{NotificationRequest, RecipientContact};
use p2phub_tests::{
    pair::Options,
    ports,
    sink::{Received, Reply, Sink},
    smtp::{self, SmtpSink, Stage},
    wait,
};
use serde_json::{Value, json};

use super::{Storm, arrivals, crowd, policy};
use crate::stream::broadcast;

const COUNT: usize = 300;
const WORKERS: u16 = 16;
const CAP: usize = 4;
/// How long each answer takes, so that requests closer together than this are open at once.
const ANSWER: Duration = Duration::from_millis(30);
/// The provider answers 503 for so long, and then refuses connections: more than 12 seconds in all.
const BUSY: Duration = Duration::from_secs(8);
const GONE: Duration = Duration::from_secs(5);
/// How long it takes the breaker to trip.
const FAILING: Duration = Duration::from_secs(4);
/// The longest pause between two probes.
const PAUSE: Duration = Duration::from_secs(2);
/// What was tried last just before the breaker tripped has been tried three times at most: its fourth try comes after
/// 16 s and 30 % of them. Everything else waits for a probe alone.
const BOUND: Duration = Duration::from_millis(20_800).saturating_add(PAUSE).saturating_add(Duration::from_secs(5));

fn breaker() -> Value {
    json!({ "failures": 10, "failing_ms": FAILING.as_millis(), "pause_ms": 1000, "pause_max_ms": PAUSE.as_millis() })
}

fn most_at_once(received: &[Received]) -> usize {
    let times: Vec<_> = received.iter().map(|one| one.at).collect();
    let at_once = |begin: &Instant| times.iter().filter(|at| *at >= begin && **at < *begin + ANSWER).count();
    times.iter().map(at_once).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_was_away_gets_everything_without_a_herd() {
    let policy = policy(&[("/breaker", breaker())]);
    let address = ports::free();
    let busy = Sink::start_at(address).await;
    busy.otherwise(Reply::status(503).header("connection", "close").after(ANSWER));
    let storm = Storm::within(&policy, WORKERS).await;
    let begin = Instant::now();
    storm.publish(&crowd("r", &busy, COUNT, COUNT)).await;
    let tripped = "gates WHERE gate LIKE 'domain/webhook/%' AND tripped";
    wait::until("the breaker to trip", async || (storm.count(tripped).await == 1).then_some(())).await;
    let after = Instant::now();
    println!("tripped after {:?}, {} requests", after - begin, busy.received().len());
    // How long it is away is the point here: no event ends it.
    tokio::time::sleep((begin + BUSY).saturating_duration_since(after)).await;
    let received = busy.received();
    let probes = received.iter().filter(|one| one.at > after).count();
    // Those in flight, and one for each of the shortest pauses.
    let most = CAP + 1 + usize::try_from(BUSY.as_secs()).expect("seconds");
    assert!((1..=most).contains(&probes), "{probes} requests while the breaker was tripped");
    assert!(most_at_once(&received) <= CAP, "{} at once before", most_at_once(&received));

    drop(busy);
    tokio::time::sleep(GONE).await;
    let refused = storm.count("attempts WHERE reason = 'CONNECT_FAILED'").await;
    assert!((1..=most).contains(&refused), "{refused} connections refused");
    let back = Sink::start_at(address).await;
    back.otherwise(Reply::status(200).after(ANSWER));
    let begin = Instant::now();
    storm.delivered(COUNT).await;
    let took = begin.elapsed();
    println!("{probes} and {refused} probes; all delivered {took:?} after the return");
    assert!(took < BOUND, "{took:?}");
    let received = back.received();
    assert!(most_at_once(&received) <= CAP, "{} at once after", most_at_once(&received));
    assert_eq!((arrivals(&[&back]).len(), received.len()), (COUNT, COUNT), "each came once");
    storm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_puts_everybody_off_for_long_gets_every_letter_in_the_end() {
    const LETTERS: usize = 100;
    let server = SmtpSink::start(smtp::Setup::default()).await;
    server.otherwise(Stage::Greeting, Some(smtp::Reply::say("421 4.3.2 under maintenance")));
    let url = server.url("127.0.0.1");
    let policy = policy(&[("/breaker", breaker()), ("/limits/email", json!({}))]);
    let storm = Storm::prepare_with(Options::default(), &policy, WORKERS, move |config| {
        config.smtp_url = Some(url.clone());
    });
    let storm = storm.await.begin().await;
    let begin = Instant::now();
    let letters: Vec<_> = (0..LETTERS).map(|number| letter(&format!("r-{number}"))).collect();
    storm.publish(&letters).await;
    let tripped = "gates WHERE gate = 'provider/email' AND tripped AND reason = 'SMTP_421_4_3_2'";
    wait::until("the breaker to trip", async || (storm.count(tripped).await == 1).then_some(())).await;
    let (after, before) = (Instant::now(), server.connections());
    println!("tripped after {:?}, {before} connections", after - begin);
    // How long it is away is the point here: no event ends it.
    tokio::time::sleep(BUSY).await;
    let probes = server.connections() - before;
    let most = CAP + 1 + usize::try_from(BUSY.as_secs()).expect("seconds");
    assert!((1..=most).contains(&probes), "{probes} connections while the breaker was tripped");
    assert_eq!(storm.count("notifications WHERE settle_time IS NOT NULL").await, 0, "nothing is given up");

    server.otherwise(Stage::Greeting, None);
    let begin = Instant::now();
    storm.delivered(LETTERS).await;
    let took = begin.elapsed();
    println!("{probes} probes; all delivered {took:?} after the return");
    assert!(took < BOUND, "{took:?}");
    let mut recipients: Vec<_> = server.received().into_iter().map(|letter| letter.recipient).collect();
    recipients.sort();
    recipients.dedup();
    assert_eq!((recipients.len(), server.received().len()), (LETTERS, LETTERS), "each came once");
    storm.finish().await;
}

/// A notification over e-mail.
fn letter(recipient_id: &str) -> NotificationRequest {
    let contact = RecipientContact { channel: "email".to_owned(), address: format!("{recipient_id}@example.org") };
    NotificationRequest { contacts: vec![contact], ..broadcast(recipient_id) }
}

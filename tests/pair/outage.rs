//! PostgreSQL or notify-svc away: calls fail in a way that can be repeated, repeating converges, nothing is lost.

pub(crate) mod commit;
mod load;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use p2phub_proto::referral::v1::{GetPartnerRequest, get_partner_request::Key};
use p2phub_tests::{
    builders::registration,
    clients::channel,
    pair::{Options, Pair},
    postgres::{Role, Server},
    wait,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use self::load::Load;
use crate::{
    PAIR_PROCESS,
    concurrency::{at_once, failure, says_when_to_retry},
    model::seed,
};

const NAMES: [&str; 2] = ["", "p2phub.referral.v1.PaymentService"];

/// Waits until both services answer so for every name; a refused connection is no answer.
async fn wait_for_health(pair: &Pair, wanted: ServingStatus) {
    for address in [pair.referral_address, pair.notify_address] {
        for name in if address == pair.referral_address { &NAMES[..] } else { &NAMES[..1] } {
            wait::until(&format!("{name:?} on {address} to be {wanted:?}"), async || {
                let request = HealthCheckRequest { service: (*name).to_owned() };
                let answer = HealthClient::new(channel(address)).check(request).await.expect("health always answers");
                (answer.into_inner().status() == wanted).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_restarts_under_load_and_every_retry_converges() {
    let server = Arc::new(Server::own().await);
    let mut pair = Options::default().server(server.clone()).processes(PAIR_PROCESS).start().await;
    let load = Load::start(&pair, 16).await;
    for killed in [true, false] {
        load.advance(60).await;
        if killed {
            server.kill().await.expect("a kill");
        } else {
            server.stop().await.expect("a stop");
        }
        load.meet_failures(20).await;
        wait_for_health(&pair, ServingStatus::NotServing).await;
        server.start().await.expect("a start");
        wait_for_health(&pair, ServingStatus::Serving).await;
    }
    load.advance(60).await;
    let done = load.finish().await;
    for instance in [&mut pair.referral, &mut pair.notify] {
        let instance = instance.as_mut().expect("started");
        assert!(instance.is_running(), "{}", instance.log());
    }
    done.assert_each_took_effect_once(&pair).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_cut_at_random_leave_one_effect_each() {
    let mut random = StdRng::seed_from_u64(seed());
    let pair = Options::default().proxied().start().await;
    let load = Load::start(&pair, 8).await;
    for _ in 0..12 {
        load.advance(random.random_range(3..12)).await;
        // Anywhere within a batch, COMMIT included.
        tokio::time::sleep(Duration::from_micros(random.random_range(0..30_000))).await;
        pair.proxies().database.cut_once();
    }
    load.advance(10).await;
    load.finish().await.assert_each_took_effect_once(&pair).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_at_once_while_postgresql_is_away() {
    let pair = Options::default().proxied().start().await;
    let known = pair.clients.clone().register("known", "").await;
    pair.proxies().database.cut();
    let begin = Instant::now();
    let requests: Vec<_> = (0..60).map(|turn| registration(&format!("away-{turn}"), &known.referral_code)).collect();
    let writes = at_once(requests.iter().cloned().map(|request| {
        let mut clients = pair.clients.clone();
        async move { clients.partners.register_partner(request).await.map(drop) }
    }));
    let reads = at_once((0..60).map(|_| {
        let (mut clients, key) = (pair.clients.clone(), Key::PartnerId(known.partner_id.clone()));
        async move { clients.partners.get_partner(GetPartnerRequest { key: Some(key) }).await.map(drop) }
    }));
    let (writes, reads) = tokio::join!(writes, reads);
    let unavailable = Some((Code::Unavailable, "UNAVAILABLE".to_owned()));
    for answer in writes.iter().chain(&reads) {
        assert_eq!(failure(answer), unavailable);
        assert!(answer.as_ref().is_err_and(says_when_to_retry), "{answer:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(8), "they took {:?}", begin.elapsed());
    wait_for_health(&pair, ServingStatus::NotServing).await;

    pair.proxies().database.resume();
    wait_for_health(&pair, ServingStatus::Serving).await;
    for request in requests {
        let answer = pair.clients.clone().partners.register_partner(request).await.expect("an answer").into_inner();
        assert!(answer.created, "what was UNAVAILABLE had been done all the same");
    }
    assert_eq!(pair.clients.clone().partner(&known.partner_id).await.direct_referrals, 60);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_given_up_while_postgresql_is_silent_converge_when_repeated() {
    const DEADLINE: Duration = Duration::from_secs(2);
    let pair = Options::default().proxied().start().await;
    let known = pair.clients.clone().register("known", "").await;
    pair.proxies().database.pause();
    let requests: Vec<_> = (0..20).map(|turn| registration(&format!("silent-{turn}"), &known.referral_code)).collect();
    let begin = Instant::now();
    let answers = at_once(requests.iter().cloned().map(|request| {
        let mut clients = pair.clients.clone();
        let mut request = Request::new(request);
        request.set_timeout(DEADLINE);
        async move { clients.partners.register_partner(request).await }
    }))
    .await;
    for answer in &answers {
        // The caller's own clock may be first: then nobody told it anything.
        let code = answer.as_ref().err().map(Status::code);
        assert!(matches!(code, Some(Code::Cancelled | Code::DeadlineExceeded)), "{answer:?}");
    }
    assert!(begin.elapsed() < DEADLINE + Duration::from_secs(1), "they took {:?}", begin.elapsed());
    pair.proxies().database.resume();
    for request in requests {
        pair.clients.clone().partners.register_partner(request).await.expect("an answer");
    }
    assert_eq!(pair.clients.clone().partner(&known.partner_id).await.direct_referrals, 20);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notify_svc_away_costs_nothing_but_delay() {
    let mut pair = Pair::start().await;
    pair.stop_notify().await;
    let load = Load::start(&pair, 8).await;
    load.advance(80).await;
    let done = load.finish().await;
    assert_eq!(done.failures, 0, "referral-svc must not mind");
    let sql = pair.referral_sql(Role::Owner).await;
    let waiting = crate::concurrency::number(&sql, "SELECT count(*) FROM outbox").await;
    assert_eq!(usize::try_from(waiting), Ok(done.events()), "an event for each signup and each sale");
    pair.start_notify().await;
    done.assert_each_took_effect_once(&pair).await;
    pair.finish().await;
}

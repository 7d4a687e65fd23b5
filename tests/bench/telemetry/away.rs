//! What callers feel of a collector that isn't well.

use std::{future::Future, time::Duration};

use futures_util::future::join_all;
use p2phub_proto::referral::v1::{GetPartnerRequest, get_partner_request::Key};
use p2phub_tests::clients::Clients;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    Sizes,
    collector::{Collector, State},
    sales,
};
use crate::{
    setting,
    table::{median, percentile, row},
    usage::resident_mib,
};

const READS_PER_SECOND: u32 = 300;
const SALES_PER_SECOND: u32 = 50;
const STATES: [State; 5] = [State::Unconfigured, State::Well, State::Slow, State::Silent, State::Away];

/// The p99s of one run, in milliseconds.
struct P99s {
    read: f64,
    sale: f64,
}

pub(super) async fn run(sizes: Sizes) {
    let mut p99s = STATES.map(|_| Vec::new());
    for round in 1..=sizes.rounds {
        for (state, p99s) in STATES.into_iter().zip(&mut p99s) {
            let (measured, resident) = measure(sizes, state).await;
            row(format!("round {round}, {state:?}: p99 of GetPartner"), measured.read, "ms");
            row(format!("round {round}, {state:?}: p99 of ConfirmPayment"), measured.sale, "ms");
            row(format!("round {round}, {state:?}: resident memory of referral-svc"), resident, "MiB");
            p99s.push(measured);
        }
    }
    let medians = p99s.map(|rounds| P99s {
        read: median(rounds.iter().map(|p99s| p99s.read).collect()),
        sale: median(rounds.iter().map(|p99s| p99s.sale).collect()),
    });
    let [unconfigured, well, ..] = &medians;
    for (state, medians) in STATES.into_iter().zip(&medians).skip(1) {
        let ratio = |rpc: &str, than: &str, ratio| {
            row(format!("{state:?}: ratio of the medians of {rpc}'s p99, to {than}"), ratio, "times");
        };
        ratio("GetPartner", "no collector configured", medians.read / unconfigured.read);
        ratio("ConfirmPayment", "no collector configured", medians.sale / unconfigured.sale);
        if state != State::Well {
            ratio("GetPartner", "one that is well", medians.read / well.read);
            ratio("ConfirmPayment", "one that is well", medians.sale / well.sale);
        }
    }
}

async fn measure(sizes: Sizes, state: State) -> (P99s, f64) {
    let collector = Collector::start(state).await;
    let mut options = setting::options();
    if let Some(endpoint) = collector.endpoint() {
        options = options.variable("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
    }
    let pair = options.start_alone().await;
    let buyers = sales::buyers(&pair.clients).await;
    let count = usize::try_from(sizes.seconds).unwrap_or_default() * SALES_PER_SECOND as usize;
    let payments = sales::payments(&pair.clients, &buyers, count).await;

    let start = Instant::now() + Duration::from_millis(100);
    let sold = payments.into_iter().map(|payment_id| sales::confirm(pair.clients.clone(), payment_id));
    let selling = at_rate(start, SALES_PER_SECOND, sold);
    let reads = sizes.duration().as_secs() * u64::from(READS_PER_SECOND);
    let asked = buyers.iter().cycle().zip(0..reads).map(|(buyer, _)| read(pair.clients.clone(), buyer.clone()));
    let reading = at_rate(start, READS_PER_SECOND, asked);
    let p99s = P99s { read: p99(reading).await, sale: p99(selling).await };
    let resident = resident_mib(pair.referral.as_ref().expect("referral-svc runs"));
    setting::discard(pair).await;
    (p99s, resident)
}

async fn read(mut clients: Clients, partner_id: String) {
    let request = GetPartnerRequest { key: Some(Key::PartnerId(partner_id)) };
    clients.partners.get_partner(request).await.expect("a partner");
}

/// Begins calls at fixed times, whether or not those before have ended. Each takes from its time until its end: waiting counts.
fn at_rate<F>(start: Instant, per_second: u32, calls: impl Iterator<Item = F>) -> Vec<JoinHandle<Duration>>
where
    F: Future<Output = ()> + Send + 'static,
{
    let interval = Duration::from_secs(1) / per_second;
    let timed = calls.zip(0..).map(|(call, index): (F, u32)| {
        let time = start + interval * index;
        tokio::spawn(async move {
            sleep_until(time).await;
            call.await;
            time.elapsed()
        })
    });
    timed.collect()
}

async fn p99(calls: Vec<JoinHandle<Duration>>) -> f64 {
    let ended = join_all(calls).await;
    let mut took: Vec<f64> = ended.into_iter().map(|took| took.expect("an answer").as_secs_f64() * 1000.0).collect();
    took.sort_by(f64::total_cmp);
    percentile(&took, 0.99)
}

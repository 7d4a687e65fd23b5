//! What this service counts and measures. Labels hold only what is known by name, so their values are few.

mod queue;

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use notify_domain::{
    channel::{Channel, Channels},
    delivery::Step,
    kind::Kind,
    state::OutcomeClass,
};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, UpDownCounter},
};
use service::telemetry::metrics::meter;

pub(crate) use queue::{queue, queue_unknown};

use crate::store::due::Due;

/// In place of a value that this version doesn't know.
const OTHER: &str = "_OTHER";

/// The ends of a delivery.
const DELIVERED: &str = "delivered";
const FAILED: &str = "failed";
const SUPPRESSED: &str = "suppressed";
const EXPIRED: &str = "expired";

static EVENTS: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.ingest.events", "Records taken in, by what became of them"));
static STREAMS: LazyLock<UpDownCounter<i64>> = LazyLock::new(|| {
    meter().i64_up_down_counter("p2phub.ingest.streams").with_description("Open Publish streams").build()
});
static ATTEMPTS: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.delivery.attempts", "Attempts to deliver, by how they ended"));
static DELIVERIES: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.deliveries", "Deliveries over one channel, by how they ended"));
static RETRIES: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.delivery.retries", "Attempts that are followed by another one on their channel"));
static DEAD: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.notifications.dead", "Notifications for which every channel gave up"));
static LATENCY: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram("p2phub.delivery.latency")
        .with_unit("s")
        .with_description("From the fact to its delivery")
        .build()
});
fn counter(name: &'static str, description: &'static str) -> Counter<u64> {
    meter().u64_counter(name).with_description(description).build()
}

/// Makes the counters that rules look at: one that first appears at 1 has never risen.
pub(crate) fn init(channels: &Channels) {
    for outcome in ["stored", "duplicate", "rejected"] {
        EVENTS.add(0, &[KeyValue::new("outcome", outcome)]);
    }
    for kind in Kind::ALL.iter().map(|kind| kind.as_str()) {
        DEAD.add(0, &[of_kind(kind)]);
        for channel in Channel::ALL.iter().filter(|channel| channels.is_on(**channel)).map(|channel| channel.as_str()) {
            for outcome in [DELIVERED, FAILED, SUPPRESSED, EXPIRED] {
                DELIVERIES.add(0, &[of_channel(channel), of_kind(kind), KeyValue::new("outcome", outcome)]);
            }
        }
    }
    STREAMS.add(0, &[]);
    queue::init();
}

/// A record whose fate is committed.
pub(crate) fn ingested(outcome: &'static str) {
    EVENTS.add(1, &[KeyValue::new("outcome", outcome)]);
}

/// A stream that is open until this is dropped.
pub(crate) struct OpenStream(());

/// One more stream.
pub(crate) fn open_stream() -> OpenStream {
    STREAMS.add(1, &[]);
    OpenStream(())
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        STREAMS.add(-1, &[]);
    }
}

/// An attempt has ended.
pub(crate) fn attempted(due: &Due, class: OutcomeClass) {
    let outcome = KeyValue::new("outcome", class.as_str().to_lowercase());
    ATTEMPTS.add(1, &[of_channel(&due.channel), of_kind(&due.kind), outcome]);
}

/// It will be tried again over this channel.
pub(crate) fn tried_again(due: &Due) {
    RETRIES.add(1, &[of_channel(&due.channel)]);
}

/// What has become of a delivery, tried or not; one that goes on isn't counted.
pub(crate) fn settled(due: &Due, step: &Step) {
    let outcome = match step {
        Step::Retry(_) => return,
        Step::Delivered => DELIVERED,
        Step::Fallback(..) | Step::Dead(_) => FAILED,
        Step::PassOver(..) | Step::Suppressed(_) => SUPPRESSED,
        Step::Expired => EXPIRED,
    };
    DELIVERIES.add(1, &[of_channel(&due.channel), of_kind(&due.kind), KeyValue::new("outcome", outcome)]);
    if matches!(step, Step::Dead(_)) {
        DEAD.add(1, &[of_kind(&due.kind)]);
    }
}

/// How long it took, by the databases' clocks; a producer that doesn't tell when the fact was made counts from its arrival.
pub(crate) fn delivered(due: &Due, now: DateTime<Utc>) {
    let since = now.signed_duration_since(due.occur_time.unwrap_or(due.create_time));
    LATENCY.record(since.to_std().unwrap_or_default().as_secs_f64(), &[of_channel(&due.channel)]);
}

fn of_channel(name: &str) -> KeyValue {
    KeyValue::new("channel", Channel::parse(name).map_or(OTHER, Channel::as_str))
}

fn of_kind(name: &str) -> KeyValue {
    KeyValue::new("kind", Kind::parse(name).map_or_else(|| OTHER.to_owned(), |kind| kind.as_str().to_lowercase()))
}

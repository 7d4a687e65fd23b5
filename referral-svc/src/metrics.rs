//! What this service measures: every instrument of the crate, and the functions that record.
//!
//! A label's values are few and known here; nothing that a caller sends ever becomes one. What a committed command adds
//! to the business counters is a [`Tally`].

mod commit;
mod outbox;
mod overdue;
mod tally;

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge},
};
use referral_domain::{LEVELS, command::Attribution, money::Asset, payout::PayoutState};
use service::telemetry::metrics::meter;

pub(crate) use commit::{CommitTimer, watch_queue};
pub(crate) use outbox::{OpenStream, backlog, backlog_unknown, connect_failed, settled};
pub(crate) use overdue::overdue;
pub(crate) use tally::Tally;

static SIGNUPS: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.signups", "New partners, by how they were attributed"));
static CONFIRMATIONS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    counter("p2phub.confirmations", "Confirmations of payments: upgrades, refusals, and failures of ours")
});
static UPGRADES: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.upgrades", "PRO periods sold, by whether the buyer had anybody above"));
static COMMISSIONS: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.commissions", "Commissions paid, by level"));
static COMMISSION_AMOUNT: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.commission.amount", "Commissions paid, in minor units of their asset"));
static REFUNDS: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.refunds", "Refunds, whole or in part, each with its clawbacks"));
static PAYOUTS: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.payouts", "Payouts, by the state that they came to"));
static VERIFICATIONS: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.verifications", "Attempts to verify a submitted payment, by what they came to"));
static XP_AWARDED: LazyLock<Counter<u64>> = LazyLock::new(|| counter("p2phub.xp.awarded", "XP given"));

static CHECK_OFFENDERS: LazyLock<Gauge<i64>> = LazyLock::new(|| {
    meter()
        .i64_gauge("p2phub.ledger.check.offenders")
        .with_description("How many things each check of the books last found wrong")
        .build()
});
static CHECK_TIME: LazyLock<Gauge<u64>> = LazyLock::new(|| {
    meter()
        .u64_gauge("p2phub.ledger.check.time")
        .with_unit("s")
        .with_description("When the books were last checked to the end, in Unix time")
        .build()
});
static CHECK_INTERVAL: LazyLock<Gauge<u64>> = LazyLock::new(|| {
    meter()
        .u64_gauge("p2phub.ledger.check.interval")
        .with_unit("s")
        .with_description("How often the books are to be checked; 0: never by themselves")
        .build()
});
static CHECK_RUNS: LazyLock<Counter<u64>> =
    LazyLock::new(|| counter("p2phub.ledger.check.runs", "Checks of the books, by what came of them"));

const OUTCOME: &str = "outcome";
const FAILED: &str = "failed";

fn counter(name: &'static str, description: &'static str) -> Counter<u64> {
    meter().u64_counter(name).with_description(description).build()
}

/// Once at the start: counters begin at 0 under all their labels, so that a rule sees the first step too.
pub(crate) fn init() {
    for attribution in [Attribution::Attributed, Attribution::NoCode, Attribution::UnknownCode] {
        if let Some(name) = tally::attribution_name(attribution) {
            SIGNUPS.add(0, &[KeyValue::new("attribution", name)]);
        }
    }
    for outcome in [tally::SUCCEEDED, tally::REFUSED, FAILED] {
        CONFIRMATIONS.add(0, &[KeyValue::new(OUTCOME, outcome)]);
    }
    for kind in [tally::NEW, tally::RENEWAL] {
        for referred in [true, false] {
            UPGRADES.add(0, &upgrade(kind, referred));
        }
    }
    for level in (1_u8..).take(LEVELS) {
        COMMISSIONS.add(0, &[KeyValue::new("level", i64::from(level))]);
    }
    for asset in Asset::ALL {
        COMMISSION_AMOUNT.add(0, &[KeyValue::new("asset", asset.ticker())]);
    }
    XP_AWARDED.add(0, &[]);
    REFUNDS.add(0, &[]);
    for state in PayoutState::ALL {
        PAYOUTS.add(0, &[KeyValue::new("state", tally::payout_state(state))]);
    }
    for outcome in ["ok", "violated", FAILED] {
        CHECK_RUNS.add(0, &[KeyValue::new(OUTCOME, outcome)]);
    }
    commit::init();
    outbox::init();
    overdue::init();
}

/// Counts what was committed.
pub(crate) fn count(tally: &Tally) {
    for (attribution, count) in &tally.signups {
        SIGNUPS.add(*count, &[KeyValue::new("attribution", *attribution)]);
    }
    for (outcome, count) in &tally.confirmations {
        CONFIRMATIONS.add(*count, &[KeyValue::new(OUTCOME, *outcome)]);
    }
    for ((kind, referred), count) in &tally.upgrades {
        UPGRADES.add(*count, &upgrade(kind, *referred));
    }
    for (level, count) in &tally.commissions {
        COMMISSIONS.add(*count, &[KeyValue::new("level", i64::from(*level))]);
    }
    for (asset, amount) in &tally.amounts {
        COMMISSION_AMOUNT.add(*amount, &[KeyValue::new("asset", *asset)]);
    }
    if tally.refunds > 0 {
        REFUNDS.add(tally.refunds, &[]);
    }
    for (state, count) in &tally.payouts {
        PAYOUTS.add(*count, &[KeyValue::new("state", *state)]);
    }
    if tally.xp > 0 {
        XP_AWARDED.add(tally.xp, &[]);
    }
}

/// A confirmation ended without an answer: the server's fault, or its caller waited for too short.
pub(crate) fn confirmation_failed() {
    CONFIRMATIONS.add(1, &[KeyValue::new(OUTCOME, FAILED)]);
}

/// An attempt to verify a payment came to something.
pub(crate) fn verified(finding: &'static str) {
    VERIFICATIONS.add(1, &[KeyValue::new("finding", finding)]);
}

/// How often the books are to be checked, for whoever misses a check; none: never.
pub(crate) fn ledger_checked_every(interval: Option<Duration>) {
    CHECK_INTERVAL.record(interval.unwrap_or_default().as_secs(), &[]);
}

/// The books were checked whole: each check's name, and how many offended.
pub(crate) fn ledger_checked(offenders: impl IntoIterator<Item = (&'static str, i64)>) {
    let mut outcome = "ok";
    for (check, offenders) in offenders {
        ledger_check_found(check, offenders);
        if offenders > 0 {
            outcome = "violated";
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    CHECK_TIME.record(now.as_secs(), &[]);
    CHECK_RUNS.add(1, &[KeyValue::new(OUTCOME, outcome)]);
}

/// What a check found, until the books are next checked whole.
pub(crate) fn ledger_check_found(check: &'static str, offenders: i64) {
    CHECK_OFFENDERS.record(offenders, &[KeyValue::new("check", check)]);
}

/// A check of the books came to no end.
pub(crate) fn ledger_check_failed() {
    CHECK_RUNS.add(1, &[KeyValue::new(OUTCOME, FAILED)]);
}

fn upgrade(kind: &'static str, referred: bool) -> [KeyValue; 2] {
    [KeyValue::new("type", kind), KeyValue::new("referred", referred)]
}

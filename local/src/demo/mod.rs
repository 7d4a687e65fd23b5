//! `p2phub demo`: ten people in a chain, one PRO sale, and every figure checked, over real gRPC on a throw-away database.

mod client;
mod figures;
mod report;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use p2phub_proto::{
    notify::v1::{Notification, NotificationState},
    referral::v1::{Commission, Partner, Payment},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::{
    client::{Clients, Sale},
    figures::Expectations,
};
use crate::{
    databases::{NOTIFY, REFERRAL},
    pair::{self, Pair},
    postgres::PrivatePostgres,
    settings::LOCAL_PAYMENT_METHODS,
};

const PEOPLE: [&str; 10] = ["Ada", "Boris", "Clara", "Dmitri", "Elena", "Farid", "Grace", "Hugo", "Irina", "Jonas"];
const DELIVERY_LIMIT: Duration = Duration::from_secs(30);

/// Plays the demo; the exit code is 1 if any figure is off.
pub(crate) async fn run(stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    report::heading("Starting both services on a throw-away PostgreSQL");
    let (pair, postgres) = unless(stop, start()).await?;
    report::step(&format!("referral-svc on {}, notify-svc on {}", pair.referral.address, pair.notify.address));
    let played = unless(stop, play(&pair)).await;
    let stopped = pair.stop().await;
    postgres.stop().await?;
    drop(postgres);
    let expectations = played?;
    stopped?;
    Ok(report::verdict(&expectations))
}

async fn unless<T>(stop: &CancellationToken, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    stop.run_until_cancelled(work).await.unwrap_or_else(|| Err(anyhow::anyhow!("interrupted")))
}

async fn start() -> anyhow::Result<(Pair, PrivatePostgres)> {
    let postgres = PrivatePostgres::throw_away().await?;
    pair::prepare(&postgres).await?;
    let (url, migration_url) = pair::urls(&postgres, &REFERRAL);
    let mut referral = referral_svc::Config::new(url);
    referral.migration_url = Some(migration_url);
    referral.payment_methods = LOCAL_PAYMENT_METHODS.to_owned();
    referral.plan_file = None;
    referral.listen = ([127, 0, 0, 1], 0).into();
    let (url, migration_url) = pair::urls(&postgres, &NOTIFY);
    let mut notify = notify_svc::Config::new(url);
    notify.migration_url = Some(migration_url);
    notify.listen = ([127, 0, 0, 1], 0).into();
    Ok((Pair::start(referral, notify, true).await?, postgres))
}

/// What the demo saw, for the tables and the checks.
struct Seen {
    people: Vec<Partner>,
    sale: Sale,
    payment: Payment,
    commissions: Vec<Commission>,
    notifications: Vec<Notification>,
}

async fn play(pair: &Pair) -> anyhow::Result<Expectations> {
    let mut clients = Clients::connect(pair.referral.address, pair.notify.address).await?;
    let mut expect = Expectations::default();

    report::heading("Ten people sign up, each invited by the one before");
    let mut people: Vec<Partner> = Vec::new();
    for (index, name) in PEOPLE.into_iter().enumerate() {
        let code = people.last().map(|inviter| inviter.referral_code.clone());
        let locale = if index % 2 == 0 { "en" } else { "ru" };
        let partner = clients.register(name, locale, code.unwrap_or_default()).await?;
        report::step(&format!("{name:<7} {}  depth {}", partner.referral_code, partner.depth));
        people.push(partner);
    }
    let buyer = people.last().context("nobody signed up")?.clone();

    report::heading(&format!("{} buys PRO", buyer.first_name));
    let payment = clients.open_payment(&buyer.partner_id).await?;
    let price = payment.amount.clone().unwrap_or_default();
    report::step(&format!("payment opened at {} {}", figures::money(price.minor_units), price.asset));
    let sale = Sale::new(&payment.payment_id);
    let (payment, commissions) = clients.confirm(&sale).await?;
    report::step(&format!("payment confirmed, {} commissions booked", commissions.len()));
    for person in &mut people {
        *person = clients.partner(&person.partner_id).await?;
    }

    let notifications = wait_for_delivery(&mut clients, &sale.trace_id, people.len()).await?;
    report::step(&format!("{} people notified", notifications.len()));
    let seen = Seen { people, sale, payment, commissions, notifications };

    report::heading("Levels, rates, amounts");
    let balances = clients.balances(&seen.people).await?;
    report::money_table(&seen, &balances);
    figures::check_people(&mut expect, &seen);
    figures::check_money(&mut expect, &seen, &balances);
    let transaction = clients.transaction(&seen.payment.transaction_id).await?;
    report::platform(&transaction);
    figures::check_transaction(&mut expect, &transaction);

    report::heading("Notifications of the sale");
    report::notifications(&seen);
    figures::check_notifications(&mut expect, &seen);

    report::heading("One trace on both sides");
    let audit = clients.audit(&seen.sale.trace_id).await?;
    report::trace(&seen, &audit);
    figures::check_trace(&mut expect, &seen, &audit);

    report::heading("CheckLedger");
    let check = clients.check_ledger().await?;
    report::ledger(&check);
    expect.that("CheckLedger finds nothing wrong", check.ok && check.checks.iter().all(|one| one.ok));
    expect.that("CheckLedger checks something", check.checks.iter().any(|one| one.rows > 0));
    Ok(expect)
}

/// Waits until every notification of the sale is delivered; what is there by the deadline is judged by the checks.
async fn wait_for_delivery(clients: &mut Clients, trace_id: &str, wanted: usize) -> anyhow::Result<Vec<Notification>> {
    let deadline = Instant::now() + DELIVERY_LIMIT;
    loop {
        let found = clients.notifications(trace_id).await?;
        let delivered = found.iter().filter(|one| one.state() == NotificationState::Delivered).count();
        if delivered >= wanted && delivered == found.len() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            ensure!(!found.is_empty(), "no notification of the sale arrived within {DELIVERY_LIMIT:?}");
            return Ok(found);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

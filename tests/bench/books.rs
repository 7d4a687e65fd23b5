//! The proof of the books on many partners: how long it takes, whole and of what is new, and what the writers feel of it.

use std::{
    io::{Write as _, stdout},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use clap::Args;
use futures_util::future::join_all;
use p2phub_proto::referral::v1::{CheckLedgerRequest, CheckLedgerResponse};
use p2phub_tests::{clients::Clients, pair::Pair, postgres::Role};
use tokio::time::sleep;
use tonic::Request;

use crate::{
    setting::{self, discard},
    table::{median, row, section},
};

/// What the service would have written.
const FILL: &str = include_str!("books/fill.sql");
/// Longer than any deadline that the service grants.
const PATIENCE: Duration = Duration::from_secs(300);
/// How many buy at once.
const BUYERS: usize = 32;

/// How much of everything.
#[derive(Args, Clone, Copy)]
pub(crate) struct Sizes {
    /// Partners; there are about ten entries for each
    #[arg(long, default_value_t = 1_000_000)]
    partners: u32,
    /// Sales before what is new is checked
    #[arg(long, default_value_t = 500)]
    sales: usize,
    /// How long sales are counted, with and without a check beside them
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Rounds with and without, taking turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only what writers feel of it
    #[arg(long)]
    beside: bool,
    /// Just to see it run: 20,000 partners, 3 seconds, 1 round
    #[arg(long)]
    quick: bool,
}

pub(crate) async fn run(sizes: Sizes) {
    let sizes =
        if sizes.quick { Sizes { partners: 20_000, sales: 100, seconds: 3, rounds: 1, ..sizes } } else { sizes };
    let settings = setting::durable(sizes.quick).await;
    println!("The service is a process of its own; PostgreSQL and the load share the machine with it.");
    println!("PostgreSQL: {settings}.");
    section("The books");
    let pair = setting::options().start_alone().await;
    fill(&pair, sizes.partners).await;
    if !sizes.beside {
        section("CheckLedger with nobody else there");
        let whole = timed("everything", &pair, CheckLedgerRequest::default()).await;
        let before = Instant::now();
        sell(&pair, sizes.sales).await;
        row(format!("{} sales", sizes.sales), before.elapsed().as_secs_f64(), "s");
        let since = CheckLedgerRequest { checkpoint: whole.checkpoint, ..Default::default() };
        timed("what is new since: the sales", &pair, since).await;
    }
    section("Sales beside it: nobody checks, or a check of everything is on its way all the time; the middle round");
    beside(&pair, sizes).await;
    discard(pair).await;
}

pub(crate) async fn fill(pair: &Pair, partners: u32) {
    let sql = pair.referral_sql(Role::Superuser).await;
    let begin = Instant::now();
    let script = FILL.replace("$PARTNERS", &partners.to_string());
    for (name, statements) in script.split("\n--- ").skip(1).filter_map(|piece| piece.split_once('\n')) {
        print!("\r  filling: {name:<60}");
        let _ = stdout().flush();
        sql.batch_execute(statements).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    sql.batch_execute("VACUUM ANALYZE").await.expect("statistics");
    print!("\r");
    row("filled in", begin.elapsed().as_secs_f64(), "s");
    for (name, table) in
        [("partners", "partners"), ("transactions", "ledger_transactions"), ("entries", "ledger_entries")]
    {
        let count: i64 = sql.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.expect("a count").get(0);
        row(name, count as f64, "");
    }
}

/// Checks, and says how long it took.
async fn timed(name: &str, pair: &Pair, request: CheckLedgerRequest) -> CheckLedgerResponse {
    let begin = Instant::now();
    let answer = check(&mut pair.clients.clone(), request).await;
    row(name, begin.elapsed().as_secs_f64(), "s");
    row(format!("{name}: things looked at"), answer.checks.iter().map(|check| check.rows).sum::<i64>() as f64, "");
    answer
}

/// Checks to the end, however many calls that takes.
async fn check(clients: &mut Clients, mut request: CheckLedgerRequest) -> CheckLedgerResponse {
    loop {
        let answer = ask(clients, request).await;
        if answer.resume_token.is_empty() {
            assert!(answer.ok, "the books were filled wrongly: {:?}", answer.checks);
            return answer;
        }
        request = CheckLedgerRequest { resume_token: answer.resume_token, ..Default::default() };
    }
}

async fn ask(clients: &mut Clients, request: CheckLedgerRequest) -> CheckLedgerResponse {
    let mut request = Request::new(request);
    request.set_timeout(PATIENCE);
    clients.ledger.check_ledger(request).await.expect("an answer in time").into_inner()
}

/// The IDs of some that are in the books, spread over all of them.
async fn buyers(pair: &Pair) -> Vec<String> {
    let sql = pair.referral_sql(Role::Superuser).await;
    let query = "SELECT partner_id::text FROM partners ORDER BY hashtext(partner_id::text) LIMIT 1000";
    sql.query(query, &[]).await.expect("partners").iter().map(|row| row.get(0)).collect()
}

/// Sells so often.
async fn sell(pair: &Pair, count: usize) {
    let buyers = buyers(pair).await;
    let sold = AtomicUsize::new(0);
    join_all((0..BUYERS).map(|worker| {
        let (mut clients, buyers, sold) = (pair.clients.clone(), &buyers, &sold);
        async move {
            for buyer in buyers.iter().cycle().skip(worker * 31) {
                if sold.fetch_add(1, Ordering::Relaxed) >= count {
                    return;
                }
                clients.buy_pro(buyer).await;
            }
        }
    }))
    .await;
}

async fn beside(pair: &Pair, sizes: Sizes) {
    let buyers = buyers(pair).await;
    let duration = Duration::from_secs(sizes.seconds);
    let (mut alone, mut checked) = (Vec::new(), Vec::new());
    for _ in 0..sizes.rounds {
        alone.push(rate(pair, &buyers, duration).await);
        let mut clients = pair.clients.clone();
        let checking = async {
            loop {
                check(&mut clients, CheckLedgerRequest::default()).await;
            }
        };
        // A check of everything may take much longer: its caller goes.
        tokio::select! {
            rate = rate(pair, &buyers, duration) => checked.push(rate),
            () = checking => {}
        }
    }
    let (alone, checked) = (median(alone), median(checked));
    row("sales, nobody checks", alone, "sales/s");
    row("sales, while everything is checked", checked, "sales/s");
    row("ratio", 100.0 * checked / alone, "%");
}

/// Sales a second: each opens a payment and confirms it.
async fn rate(pair: &Pair, buyers: &[String], duration: Duration) -> f64 {
    let (sold, end) = (AtomicUsize::new(0), AtomicBool::new(false));
    let begin = Instant::now();
    let selling = join_all((0..BUYERS).map(|worker| {
        let (mut clients, sold, end) = (pair.clients.clone(), &sold, &end);
        async move {
            for buyer in buyers.iter().cycle().skip(worker * 31) {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                clients.buy_pro(buyer).await;
                sold.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    let timer = async {
        sleep(duration).await;
        end.store(true, Ordering::Relaxed);
    };
    tokio::join!(selling, timer);
    sold.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64()
}

//! Confirmations and signups: the most there can be, and how long they take at half and at four fifths of that.

use std::sync::atomic::{AtomicUsize, Ordering};

use p2phub_tests::{builders::registration, clients::Clients, pair::Pair};
use tonic::Status;

use super::{
    Sizes, connections,
    load::{calls, closed, open},
    network::{NETWORKS, Payments, confirm},
};
use crate::table::row;

/// How many callers there are at once, for the maximum.
const CALLERS: [usize; 3] = [64, 256, 512];
/// Entries of a sale: nine ancestors, what was received, what is left.
const ENTRIES: f64 = 11.0;
/// More than can be confirmed in a second.
const PER_SECOND_MAX: f64 = 15_000.0;

/// The most confirmations a second.
pub(super) async fn run(pair: &Pair, sizes: Sizes) -> f64 {
    let most = confirmations(pair, sizes).await;
    row("ledger entries", most * ENTRIES, "entries/s");
    let clients = connections(pair);
    for (name, share) in [("50 %", 0.5), ("80 %", 0.8)] {
        let rate = most * share;
        let payments = Payments::open(pair, calls(rate, sizes.duration())).await;
        let call = |number: usize| confirm(of(&clients, number), payments.take());
        let took = open(rate, sizes.duration(), call).await.all();
        took.rows(&format!("confirmations arriving at {name} of that"));
    }
    let nothing = async || ();
    let call = |(): &(), clients, number| sign_up(clients, number);
    let signups = most_of("signups with nine ancestors", "signups/s", sizes, &clients, nothing, call).await;
    for (name, share) in [("50 %", 0.5), ("80 %", 0.8)] {
        let call = |number: usize| sign_up(of(&clients, number), fresh());
        let took = open(signups * share, sizes.duration(), call).await.all();
        took.rows(&format!("signups arriving at {name} of that"));
    }
    most
}

/// The most confirmations a second.
pub(super) async fn confirmations(pair: &Pair, sizes: Sizes) -> f64 {
    let enough = async || Payments::open(pair, calls(PER_SECOND_MAX, sizes.duration())).await;
    let call = |payments: &Payments, clients, _| confirm(clients, payments.take());
    most_of("confirmations with nine ancestors", "sales/s", sizes, &connections(pair), enough, call).await
}

/// The best over numbers of callers and rounds.
async fn most_of<P, F>(
    name: &str,
    unit: &str,
    sizes: Sizes,
    clients: &[Clients],
    prepare: impl AsyncFn() -> P,
    call: impl Fn(&P, Clients, usize) -> F,
) -> f64
where
    F: Future<Output = Result<(), Status>>,
{
    let mut best: f64 = 0.0;
    for callers in CALLERS {
        let mut here: f64 = 0.0;
        for _ in 0..sizes.rounds {
            let prepared = prepare().await;
            let call = |caller| call(&prepared, of(clients, caller), fresh());
            here = here.max(closed(callers, sizes.duration(), call).await.all().per_second());
        }
        row(format!("{name}, {callers} callers"), here, unit);
        best = best.max(here);
    }
    row(format!("{name}: the most"), best, unit);
    best
}

pub(super) fn of(clients: &[Clients], number: usize) -> Clients {
    clients[number % clients.len()].clone()
}

/// A number that nobody else has.
fn fresh() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Signs somebody up below the end of a line.
async fn sign_up(mut clients: Clients, number: usize) -> Result<(), Status> {
    let code = format!("P2P-N{:08}", (1 + number % NETWORKS) * 100 + 8);
    let answer =
        clients.partners.register_partner(registration(&format!("signup:{number}"), &code)).await?.into_inner();
    assert_eq!(answer.partner.expect("a partner").depth, 9);
    Ok(())
}

//! One confirmation at a time, beside the same work as one statement.

use std::time::Instant;

use p2phub_tests::{pair::Pair, postgres::Role};

use super::{
    connections,
    network::{Payments, confirm},
    yardsticks,
};
use crate::table::{median, row};

const TIMES: usize = 300;
/// Before that: connections, plans, caches.
const WARM_UP: usize = 50;

/// The service's median to the statement's.
pub(super) async fn run(pair: &Pair) -> f64 {
    let clients = connections(pair).swap_remove(0);
    let payments = Payments::open(pair, 2 * (WARM_UP + TIMES)).await;
    let sql = pair.referral_sql(Role::Superuser).await;
    confirm(clients.clone(), payments.take()).await.expect("a confirmation");
    yardsticks::prepare(&sql).await;
    let statement = sql.prepare("SELECT bench.confirm($1::text::uuid)").await.expect("a statement");
    let (mut service, mut function) = (Vec::new(), Vec::new());
    for _ in 1..WARM_UP + TIMES {
        let start = Instant::now();
        confirm(clients.clone(), payments.take()).await.expect("a confirmation");
        service.push(start.elapsed().as_secs_f64() * 1000.0);
        let payment_id = payments.take();
        let start = Instant::now();
        sql.execute(&statement, &[&payment_id]).await.expect("a confirmation");
        function.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    let (service, function) = (median(service.split_off(WARM_UP)), median(function.split_off(WARM_UP)));
    row("one confirmation at a time over gRPC, p50", service, "ms");
    row("the same work as one statement, p50", function, "ms");
    service / function
}

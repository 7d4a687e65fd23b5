//! Networks in which every sale pays nine, and payments to confirm in them: written past the service, which would take longer.

use std::sync::atomic::{AtomicUsize, Ordering};

use p2phub_tests::{builders::confirmation, clients::Clients, pair::Pair, postgres::Role};
use tonic::Status;

/// Lines of nine, each with ten below who buy.
pub(super) const NETWORKS: usize = 200;
const GROW: &str = include_str!("network.sql");
const OPEN: &str = include_str!("payments.sql");

/// Lets the networks grow.
pub(super) async fn grow(pair: &Pair) {
    let sql = pair.referral_sql(Role::Superuser).await;
    sql.batch_execute(&GROW.replace("$NETWORKS", &NETWORKS.to_string())).await.expect("networks");
}

/// Payments that wait for their confirmation, each handed out once.
pub(super) struct Payments {
    ids: Vec<String>,
    next: AtomicUsize,
}

impl Payments {
    /// Opens so many.
    pub(super) async fn open(pair: &Pair, count: usize) -> Self {
        let sql = pair.referral_sql(Role::Superuser).await;
        let rows = sql.query(&OPEN.replace("$COUNT", &count.to_string()), &[]).await.expect("payments");
        Self { ids: rows.iter().map(|row| row.get(0)).collect(), next: AtomicUsize::new(0) }
    }

    /// All of them.
    pub(super) fn into_ids(self) -> Vec<String> {
        self.ids
    }

    /// The next one.
    pub(super) fn take(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.ids.get(number).cloned().unwrap_or_else(|| panic!("more than {number} payments are confirmed: open more"))
    }
}

/// Confirms a payment, with every ancestor's commission.
pub(super) async fn confirm(mut clients: Clients, payment_id: String) -> Result<(), Status> {
    let request = confirmation(&payment_id, &format!("ref-{payment_id}"));
    let answer = clients.payments.confirm_payment(request).await?.into_inner();
    assert_eq!(answer.commissions.len(), 9);
    Ok(())
}

//! The locks that have no row: the tree, and the keys that a batch is about to look up or create.
//!
//! They come first, in this order, so that what is read afterwards stays true until the commit. Two writers that name the
//! same new identity, request ID or reference wait for each other here and nowhere later.

use std::collections::BTreeSet;

use diesel::sql_types::{Array, Integer};
use diesel_async::RunQueryDsl;
use sha2::{Digest, Sha256};

use super::{Result, sql::Sql, transaction::Transaction};

/// How many stripes keys are spread over; bounds the server's lock table.
const STRIPES: u16 = 2048;

/// The stripes of a batch's keys, in locking order.
#[derive(Default)]
pub(crate) struct Stripes(BTreeSet<i32>);

impl Stripes {
    /// Adds a key; `space` keeps equal texts of different meaning apart.
    pub(crate) fn add(&mut self, space: &str, key: &[u8]) {
        let hash = Sha256::new().chain_update(space).chain_update([0]).chain_update(key).finalize();
        self.0.insert(i32::from(u16::from_be_bytes([hash[0], hash[1]]) % STRIPES));
    }
}

/// Takes the tree lock (exclusive to change the tree, else shared), then the stripes, ascending.
pub(crate) async fn take(transaction: &mut Transaction, tree_changes: bool, stripes: &Stripes) -> Result<()> {
    let tree =
        if tree_changes { "SELECT pg_advisory_xact_lock(1, 0)" } else { "SELECT pg_advisory_xact_lock_shared(1, 0)" };
    let connection = transaction.connection();
    Sql::new(tree).execute(connection).await?;
    Sql::new("SELECT pg_advisory_xact_lock(2, stripe) FROM unnest({}) AS stripe")
        .bind::<Array<Integer>, _>(stripes.0.iter().copied().collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

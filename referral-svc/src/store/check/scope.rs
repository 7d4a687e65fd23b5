//! What a check looks at: everything in slices of a key's range, or lists of keys that concern one partner or are new.

use std::collections::HashMap;

use diesel::{
    QueryableByName, sql_query,
    sql_types::{Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::id::PartnerId;

use super::{Checkpoint, Result};

/// What to look at.
#[derive(Clone, Copy)]
pub(crate) enum Scope {
    /// All of the books.
    Everything,
    /// What concerns a partner.
    Partner(PartnerId),
    /// What is new, and what it touches.
    Since(Checkpoint),
}

/// What a check goes through; each kind of thing has a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Things {
    Accounts,
    Adjustments,
    Blocks,
    /// Partners whose PRO may have changed.
    Buyers,
    Entries,
    /// Partners whose money may have changed.
    Earners,
    /// Partners whose network or XP may have changed.
    Grown,
    /// Partners who came below another.
    Joined,
    Payments,
    Payouts,
    Refunds,
    Transactions,
    /// Partners whose place in the tree may have changed.
    Tree,
}

impl Things {
    /// Whose keys they are: the table, the key's columns and their types.
    fn key(self) -> (&'static str, &'static [(&'static str, &'static str)]) {
        match self {
            Self::Accounts => ("accounts", &[("account_id", "bigint")]),
            Self::Adjustments => ("adjustments", &[("adjustment_id", "uuid")]),
            Self::Blocks => ("audit_blocks", &[("chain_id", "uuid"), ("position", "bigint")]),
            Self::Entries => ("ledger_entries", &[("account_id", "bigint"), ("version", "bigint")]),
            Self::Payments => ("payments", &[("payment_id", "uuid")]),
            Self::Payouts => ("payouts", &[("payout_id", "uuid")]),
            Self::Refunds => ("refunds", &[("refund_id", "uuid")]),
            Self::Transactions => ("ledger_transactions", &[("transaction_id", "uuid")]),
            Self::Buyers | Self::Earners | Self::Grown | Self::Joined | Self::Tree => {
                ("partners", &[("partner_id", "uuid")])
            }
        }
    }

    /// How many keys one statement takes: it is to end within some tenths of a second.
    pub(super) fn slice(self) -> usize {
        match self {
            Self::Blocks => 200,
            Self::Entries => 20_000,
            Self::Payments | Self::Transactions => 2_500,
            _ => 5_000,
        }
    }

    /// The statement for the things from a key (`$1`) to below another (`$2`; NULL: to the end).
    pub(super) fn in_range(self, query: &str) -> String {
        let from = self.bound("$1");
        let to = self.bound("$2");
        replace(query, |columns| format!("(({columns}) >= {from} AND ($2 IS NULL OR ({columns}) < {to}))"))
    }

    /// The statement for the things with the keys in `$1`.
    pub(super) fn by_key(self, query: &str) -> String {
        let (_, columns) = self.key();
        replace(query, |expression| match columns {
            [(_, of)] => format!("({expression} = ANY ($1::{of}[]))"),
            _ => format!("(({expression}) IN (SELECT {} FROM unnest($1) AS key))", self.parts("key").join(", ")),
        })
    }

    /// A key's text as the row that it means.
    fn bound(self, parameter: &str) -> String {
        format!("({})", self.parts(parameter).join(", "))
    }

    fn parts(self, text: &str) -> Vec<String> {
        let (_, columns) = self.key();
        match columns {
            [(_, of)] => vec![format!("{text}::{of}")],
            _ => (1..).zip(columns).map(|(part, (_, of))| format!("split_part({text}, '/', {part})::{of}")).collect(),
        }
    }

    /// Below every key.
    pub(super) fn first(self) -> String {
        let (_, columns) = self.key();
        let lowest = |of| if of == "uuid" { "00000000-0000-0000-0000-000000000000" } else { "-9223372036854775808" };
        columns.iter().map(|(_, of)| lowest(*of)).collect::<Vec<_>>().join("/")
    }

    /// The key where the slice after the one from `from` begins; none: that one is the last.
    pub(super) async fn next(self, from: &str, connection: &mut AsyncPgConnection) -> Result<Option<String>> {
        let (table, columns) = self.key();
        let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let query = format!(
            "SELECT concat_ws('/', {0}) AS key FROM {table} WHERE ({0}) >= {1} ORDER BY {0} OFFSET {2} LIMIT 1",
            names.join(", "),
            self.bound("$1"),
            self.slice(),
        );
        let found: Vec<Key> = sql_query(query).bind::<Text, _>(from).load(connection).await?;
        Ok(found.into_iter().next().and_then(|key| key.key))
    }
}

/// Each `SLICE(columns)` becomes a condition on these columns.
fn replace(query: &str, condition: impl Fn(&str) -> String) -> String {
    let mut pieces = query.split("SLICE(");
    let mut replaced = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (columns, rest) = piece.split_once(')').unwrap_or((piece, ""));
        replaced.push_str(&condition(columns));
        replaced.push_str(rest);
    }
    replaced
}

#[derive(QueryableByName)]
struct Key {
    #[diesel(sql_type = Nullable<Text>)]
    key: Option<String>,
}

/// The keys of what concerns one partner or is new.
pub(super) type Keys = HashMap<Things, Vec<String>>;

const PARTNER: &str = include_str!("partner.sql");

const OF_PARTNER: [(Things, &str); 12] = [
    (Things::Accounts, "SELECT account_id::text AS key FROM own"),
    (Things::Adjustments, "SELECT adjustment_id::text AS key FROM adjustments WHERE partner_id = $1::uuid"),
    (Things::Buyers, "SELECT $1 AS key"),
    (Things::Entries, "SELECT account_id || '/' || version AS key FROM posted"),
    (Things::Earners, "SELECT $1 AS key"),
    (Things::Grown, "SELECT $1 AS key"),
    (Things::Joined, "SELECT $1 AS key"),
    (Things::Payments, "SELECT payment_id::text AS key FROM earned_on"),
    (Things::Payouts, "SELECT payout_id::text AS key FROM payouts WHERE partner_id = $1::uuid"),
    (Things::Refunds, "SELECT r.refund_id::text AS key FROM earned_on JOIN refunds r USING (payment_id)"),
    (Things::Transactions, "SELECT transaction_id::text AS key FROM fresh"),
    (Things::Tree, "SELECT $1 AS key UNION SELECT partner_id::text FROM partners WHERE referrer_id = $1::uuid"),
];

const NEW: &str = include_str!("new.sql");

const SINCE: [(Things, &str); 13] = [
    (Things::Accounts, "SELECT DISTINCT account_id::text AS key FROM posted"),
    (Things::Adjustments, "SELECT adjustment_id::text AS key FROM booked WHERE adjustment_id IS NOT NULL"),
    (Things::Blocks, "SELECT chain_id || '/' || position AS key FROM blocks"),
    (Things::Buyers, "SELECT DISTINCT p.partner_id::text AS key FROM booked JOIN payments p USING (payment_id)"),
    (Things::Entries, "SELECT account_id || '/' || version AS key FROM posted"),
    (Things::Earners, "SELECT partner_id::text AS key FROM owners"),
    (
        Things::Grown,
        "SELECT partner_id::text AS key FROM joined UNION SELECT above::text FROM joined, unnest(lineage) AS above",
    ),
    (Things::Joined, "SELECT partner_id::text AS key FROM joined"),
    (
        Things::Payments,
        "SELECT payment_id::text AS key FROM booked WHERE payment_id IS NOT NULL
         UNION SELECT i.payment_id::text FROM booked JOIN payout_items i USING (payout_id) WHERE i.payment_id IS NOT NULL",
    ),
    (Things::Payouts, "SELECT DISTINCT payout_id::text AS key FROM booked WHERE payout_id IS NOT NULL"),
    (Things::Refunds, "SELECT r.refund_id::text AS key FROM booked JOIN refunds r USING (transaction_id)"),
    (Things::Transactions, "SELECT transaction_id::text AS key FROM fresh"),
    (
        Things::Tree,
        "SELECT partner_id::text AS key FROM joined
         UNION SELECT c.partner_id::text FROM joined JOIN partners c ON c.referrer_id = joined.partner_id",
    ),
];

/// Finds the keys; none: everything is looked at.
pub(super) async fn keys(scope: Scope, connection: &mut AsyncPgConnection) -> Result<Option<Keys>> {
    let (with, queries, parameter): (_, &[_], _) = match scope {
        Scope::Everything => return Ok(None),
        Scope::Partner(partner_id) => (PARTNER, &OF_PARTNER, partner_id.to_string()),
        Scope::Since(checkpoint) => (NEW, &SINCE, checkpoint.0.to_string()),
    };
    let mut keys = Keys::new();
    for (things, query) in queries {
        let query = format!("{with} {query}");
        let found: Vec<Key> = sql_query(query).bind::<Text, _>(&parameter).load(connection).await?;
        keys.insert(*things, found.into_iter().filter_map(|key| key.key).collect());
    }
    Ok(Some(keys))
}

//! What a check goes through, and how its slices are cut: by a key's range, or by lists of keys.

use diesel::{
    QueryableByName, sql_query,
    sql_types::{Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::Result;

/// What a check goes through; each kind of thing has a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Things {
    Accounts,
    Adjustments,
    Blocks,
    /// Partners whose XP may have changed.
    Awarded,
    /// Partners whose PRO may have changed.
    Buyers,
    Entries,
    /// Partners whose money may have changed.
    Earners,
    /// Partners whose network may have changed.
    Grown,
    /// Partners who came below another.
    Joined,
    Payments,
    Payouts,
    /// How many have how much XP.
    Ranks,
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
            Self::Ranks => ("xp_counts", &[("tier", "bigint"), ("node", "bigint")]),
            Self::Refunds => ("refunds", &[("refund_id", "uuid")]),
            Self::Transactions => ("ledger_transactions", &[("transaction_id", "uuid")]),
            Self::Awarded | Self::Buyers | Self::Earners | Self::Grown | Self::Joined | Self::Tree => {
                ("partners", &[("partner_id", "uuid")])
            }
        }
    }

    /// How many keys one statement takes at most: it is to end within some tenths of a second.
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

    /// Whether a text is a key, as [`Things::next`] makes them.
    pub(super) fn is_key(self, text: &str) -> bool {
        let (_, columns) = self.key();
        is_key(text, columns.iter().map(|(_, of)| *of))
    }

    /// The key where the slice of this size from `from` on ends; none: that one is the last.
    pub(super) async fn next(
        self,
        from: &str,
        size: usize,
        connection: &mut AsyncPgConnection,
    ) -> Result<Option<String>> {
        let (table, columns) = self.key();
        let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let query = format!(
            "SELECT concat_ws('/', {0}) AS key FROM {table} WHERE ({0}) >= {1} ORDER BY {0} OFFSET {2} LIMIT 1",
            names.join(", "),
            self.bound("$1"),
            size,
        );
        let found: Vec<Key> = sql_query(query).bind::<Text, _>(from).load(connection).await?;
        Ok(found.into_iter().next().and_then(|key| key.key))
    }
}

/// Whether a text has as many parts as there are types, each of its type.
pub(super) fn is_key(text: &str, types: impl ExactSizeIterator<Item = &'static str>) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    parts.len() == types.len()
        && parts.iter().zip(types).all(|(part, of)| match of {
            "uuid" => part.parse::<Uuid>().is_ok(),
            _ => part.parse::<i64>().is_ok(),
        })
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

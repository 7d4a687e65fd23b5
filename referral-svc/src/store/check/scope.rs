//! What a check looks at: everything, or lists of keys that concern one partner or are new.

use std::collections::HashMap;

use diesel::{
    QueryableByName, sql_query,
    sql_types::{BigInt, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::id::PartnerId;

use super::{
    Checkpoint, Result,
    things::{Things, is_key},
};

/// How many things of a kind may concern a partner whose check is asked for: their keys are held in memory.
pub(crate) const KEYS_MAX: usize = 200_000;

/// What to look at.
#[derive(Clone)]
pub(crate) enum Scope {
    /// All of the books.
    Everything,
    /// What concerns a partner.
    Partner(PartnerId),
    /// What is new, and what it touches.
    Since(Checkpoint),
}

/// The keys of what concerns one partner or is new.
pub(super) type Keys = HashMap<Things, Vec<String>>;

const PARTNER: &str = include_str!("partner.sql");

const OF_PARTNER: [(Things, &str); 13] = [
    (Things::Accounts, "SELECT account_id::text AS key FROM own"),
    (Things::Adjustments, "SELECT adjustment_id::text AS key FROM adjustments WHERE partner_id = $1::uuid"),
    (Things::Awarded, "SELECT $1 AS key"),
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

const SINCE: [(Things, &str); 15] = [
    (Things::Accounts, "SELECT account_id::text AS key FROM moved"),
    (Things::Adjustments, "SELECT adjustment_id::text AS key FROM booked WHERE adjustment_id IS NOT NULL"),
    (Things::Blocks, "SELECT chain_id || '/' || position AS key FROM blocks"),
    (
        Things::Buyers,
        "SELECT DISTINCT p.partner_id::text AS key
         FROM booked, LATERAL (SELECT * FROM payments p WHERE p.payment_id = booked.payment_id OFFSET 0) p",
    ),
    (Things::Entries, "SELECT account_id || '/' || version AS key FROM posted"),
    (Things::Earners, "SELECT partner_id::text AS key FROM owners"),
    (
        Things::Awarded,
        "SELECT partner_id::text AS key FROM grown
         WHERE coalesce((SELECT sum(level) FROM unnest(members) AS level), 0) <= 1000",
    ),
    (Things::Grown, "SELECT partner_id::text AS key FROM grown WHERE coalesce(members[1], 0) <= 1000"),
    (Things::Joined, "SELECT partner_id::text AS key FROM joined"),
    (
        Things::Payments,
        "SELECT payment_id::text AS key FROM booked WHERE payment_id IS NOT NULL
         UNION SELECT i.payment_id::text
         FROM booked, LATERAL (SELECT * FROM payout_items i WHERE i.payout_id = booked.payout_id OFFSET 0) i
         WHERE i.payment_id IS NOT NULL
         UNION SELECT subject_id FROM events WHERE action = 'RejectPayment'",
    ),
    (
        Things::Payouts,
        "SELECT payout_id::text AS key FROM booked WHERE payout_id IS NOT NULL
         UNION SELECT subject_id FROM events WHERE action = 'ApprovePayout'",
    ),
    (
        Things::Refunds,
        "SELECT r.refund_id::text AS key
         FROM booked, LATERAL (SELECT * FROM refunds r WHERE r.transaction_id = booked.transaction_id OFFSET 0) r
         WHERE booked.kind = 'REFUND'",
    ),
    (Things::Transactions, "SELECT transaction_id::text AS key FROM fresh"),
    (
        Things::Tree,
        "SELECT partner_id::text AS key FROM joined
         UNION SELECT c.partner_id::text
         FROM joined, LATERAL (SELECT * FROM partners c WHERE c.referrer_id = joined.partner_id OFFSET 0) c",
    ),
    // Where the page ends; it is no list.
    (
        Things::Blocks,
        "SELECT xid || '/' || chain_id || '/' || position AS key FROM blocks ORDER BY xid DESC, chain_id DESC, position DESC LIMIT 1",
    ),
];

#[derive(QueryableByName)]
struct Key {
    #[diesel(sql_type = BigInt)]
    list: i64,
    #[diesel(sql_type = Nullable<Text>)]
    key: Option<String>,
}

/// All lists with one statement, each with its number, and no longer than a limit (`ALL`: none).
fn statement(with: &str, lists: &[(Things, &str)], limit: &str) -> String {
    let list = |(number, (_, query)): (usize, &(Things, &str))| {
        format!("SELECT {number}::bigint AS list, key FROM (SELECT * FROM ({query}) AS keys LIMIT {limit}) AS list")
    };
    let lists: Vec<String> = lists.iter().enumerate().map(list).collect();
    format!("{with} {}", lists.join(" UNION ALL "))
}

fn sorted(found: Vec<Key>, lists: &[(Things, &str)]) -> Keys {
    let mut keys = Keys::new();
    for Key { list, key } in found {
        let things = usize::try_from(list).ok().and_then(|list| lists.get(list)).map(|(things, _)| *things);
        if let Some((things, key)) = things.zip(key) {
            keys.entry(things).or_default().push(key);
        }
    }
    keys
}

/// The keys of what concerns a partner; none: they are too many.
pub(super) async fn of_partner(partner_id: PartnerId, connection: &mut AsyncPgConnection) -> Result<Option<Keys>> {
    let limit = KEYS_MAX.saturating_add(1).to_string();
    let query = sql_query(statement(PARTNER, &OF_PARTNER, &limit)).bind::<Text, _>(partner_id.to_string());
    let keys = sorted(query.load(connection).await?, &OF_PARTNER);
    Ok(keys.values().all(|keys| keys.len() <= KEYS_MAX).then_some(keys))
}

/// So many new blocks, in the order of their transactions, that their keys fit into memory.
#[derive(Debug)]
pub(super) struct Page {
    /// The first transaction that may be new.
    pub(super) from: u64,
    /// The first that isn't looked at any more: whoever writes while the check goes on doesn't keep it from its end.
    pub(super) until: u64,
    /// The last block before the page; none: it is the first.
    pub(super) begin: Option<String>,
    /// Its last block.
    end: Option<String>,
    pub(super) keys: Keys,
}

impl Page {
    /// The place where the first page begins.
    pub(super) fn before(from: u64, until: u64) -> Self {
        Self::at(from, until, None)
    }

    /// The place after a block.
    pub(super) fn at(from: u64, until: u64, block: Option<String>) -> Self {
        Self { from, until, begin: None, end: block, keys: Keys::new() }
    }

    /// Whether a text is a block's place in the order of the pages.
    pub(super) fn is_key(text: &str) -> bool {
        is_key(text, ["bigint", "uuid", "bigint"].into_iter())
    }

    /// Whether nothing is on it: all that is new is on those before.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The page after this one.
    pub(super) async fn next(&self, connection: &mut AsyncPgConnection) -> Result<Self> {
        let query = sql_query(statement(NEW, &SINCE, "ALL"))
            .bind::<Text, _>(self.from.to_string())
            .bind::<Text, _>(self.until.to_string())
            .bind::<Nullable<Text>, _>(&self.end);
        let mut found: Vec<Key> = query.load(connection).await?;
        let lists = i64::try_from(SINCE.len()).unwrap_or(i64::MAX);
        let last = found.iter().position(|key| key.list.saturating_add(1) == lists).map(|last| found.swap_remove(last));
        Ok(Self {
            from: self.from,
            until: self.until,
            begin: self.end.clone(),
            end: last.and_then(|last| last.key),
            keys: sorted(found, &SINCE),
        })
    }
}

//! The proof of the books: everything recomputed from its source and compared.
//!
//! Each check is one statement over a slice of its things, so that it sees one snapshot, holds nobody up, and ends soon. What
//! sums up over everything is proved from each thing to the next: an entry continues the one before, a lineage its
//! referrer's, a network its children's.

mod passes;
mod scope;

use std::collections::HashMap;

use diesel::{
    QueryableByName, sql_query,
    sql_types::{Array, BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use self::{
    passes::{PASSES, Pass},
    scope::Keys,
};
use super::{Result, impossible, sql::Sql};

pub(crate) use self::scope::Scope;

/// How many offenders are named.
const EXAMPLES_MAX: usize = 5;

/// One check's result.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// How many things were looked at.
    pub(crate) rows: i64,
    /// How many offend.
    pub(crate) offenders: i64,
    /// The first few of them.
    pub(crate) examples: Vec<String>,
}

/// The number of a database transaction: all before it have ended, and what they left was looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) struct Checkpoint(pub(crate) u64);

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    rows: i64,
    #[diesel(sql_type = BigInt)]
    offenders: i64,
    #[diesel(sql_type = Array<Text>)]
    examples: Vec<String>,
}

#[derive(QueryableByName)]
struct Elected {
    #[diesel(sql_type = Bool)]
    elected: bool,
}

/// Whether this session is, while it lives, the one that checks by itself.
pub(crate) async fn elect(connection: &mut AsyncPgConnection) -> Result<bool> {
    let row: Elected = Sql::new("SELECT pg_try_advisory_lock(4, 0) AS elected").get_result(connection).await?;
    Ok(row.elected)
}

#[derive(QueryableByName)]
struct Oldest {
    #[diesel(sql_type = Text)]
    oldest: String,
}

/// What a check that begins now will have seen.
pub(crate) async fn checkpoint(connection: &mut AsyncPgConnection) -> Result<Checkpoint> {
    let query = Sql::new("SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS oldest");
    let row: Oldest = query.get_result(connection).await?;
    row.oldest.parse().map(Checkpoint).map_err(|_| impossible("a transaction's number"))
}

/// A check on its way: pass after pass, slice after slice.
pub(crate) struct Examination {
    /// None: everything.
    keys: Option<Keys>,
    pass: usize,
    at: Place,
    found: HashMap<String, Found>,
}

/// Where a pass goes on.
enum Place {
    Begin,
    /// From this key.
    Key(String),
    /// After so many of the keys.
    After(usize),
}

impl Examination {
    pub(crate) async fn begin(scope: Scope, connection: &mut AsyncPgConnection) -> Result<Self> {
        let keys = connection
            .build_transaction()
            .read_only()
            .read_committed()
            .run(async |connection| {
                limit(connection).await?;
                scope::keys(scope, connection).await
            })
            .await?;
        Ok(Self { keys, pass: 0, at: Place::Begin, found: HashMap::new() })
    }

    /// Looks at the next slice; whether there is more to look at.
    pub(crate) async fn step(&mut self, connection: &mut AsyncPgConnection) -> Result<bool> {
        let Some(pass) = PASSES.get(self.pass) else { return Ok(false) };
        let slice = self.slice(pass);
        let (found, next) = connection
            .build_transaction()
            .read_only()
            .read_committed()
            .run(async |connection| {
                limit(connection).await?;
                slice.look(pass, connection).await
            })
            .await?;
        self.add(found);
        match next {
            Some(place) => self.at = place,
            None => (self.pass, self.at) = (self.pass.saturating_add(1), Place::Begin),
        }
        Ok(self.pass < PASSES.len())
    }

    fn slice(&self, pass: &Pass) -> Slice<'_> {
        match (&self.keys, &self.at) {
            (None, Place::Key(key)) => Slice::From(key.clone()),
            (None, _) => Slice::From(pass.things.first()),
            (Some(keys), at) => {
                let after = if let Place::After(after) = at { *after } else { 0 };
                let keys = keys.get(&pass.things).map(Vec::as_slice).unwrap_or_default();
                let end = after.saturating_add(pass.things.slice()).min(keys.len());
                let next = (end < keys.len()).then_some(end);
                Slice::Keys { keys: keys.get(after..end).unwrap_or_default(), next }
            }
        }
    }

    fn add(&mut self, found: Vec<Found>) {
        for Found { name, rows, offenders, examples } in found {
            let sum =
                self.found.entry(name.clone()).or_insert(Found { name, rows: 0, offenders: 0, examples: Vec::new() });
            sum.rows = sum.rows.saturating_add(rows);
            sum.offenders = sum.offenders.saturating_add(offenders);
            sum.examples.extend(examples);
            sum.examples.truncate(EXAMPLES_MAX);
        }
    }

    /// What was found, each check once.
    pub(crate) fn end(mut self) -> Vec<Check> {
        let mut checks: Vec<Check> = Vec::new();
        for name in PASSES.iter().flat_map(|pass| pass.checks).copied() {
            if checks.iter().any(|check| check.name == name) {
                continue;
            }
            checks.push(match self.found.remove(name) {
                Some(Found { rows, offenders, examples, .. }) => Check { name, rows, offenders, examples },
                None => Check { name, rows: 0, offenders: 0, examples: Vec::new() },
            });
        }
        checks
    }
}

/// What one statement looks at.
enum Slice<'a> {
    /// As many as a slice has, from this key.
    From(String),
    /// These, and where the list goes on.
    Keys { keys: &'a [String], next: Option<usize> },
}

impl Slice<'_> {
    /// What is found, and where the next slice begins.
    async fn look(&self, pass: &Pass, connection: &mut AsyncPgConnection) -> Result<(Vec<Found>, Option<Place>)> {
        match self {
            Self::From(from) => {
                let to = pass.things.next(from, connection).await?;
                let query = sql_query(counted(&pass.things.in_range(pass.query)));
                let found = query.bind::<Text, _>(from).bind::<Nullable<Text>, _>(&to).load(connection).await?;
                Ok((found, to.map(Place::Key)))
            }
            Self::Keys { keys: [], .. } => Ok((Vec::new(), None)),
            Self::Keys { keys, next } => {
                let query = sql_query(counted(&pass.things.by_key(pass.query)));
                let found = query.bind::<Array<Text>, _>(keys).load(connection).await?;
                Ok((found, next.map(Place::After)))
            }
        }
    }
}

/// A query yields one row a thing: the check's name, the thing's, whether the check looks at it, and whether it is as it should
/// be.
fn counted(query: &str) -> String {
    format!(
        "SELECT name, count(*) FILTER (WHERE looked) AS rows, count(*) FILTER (WHERE looked AND fine IS NOT TRUE) AS offenders,
             coalesce((array_agg(who) FILTER (WHERE looked AND fine IS NOT TRUE))[1:{EXAMPLES_MAX}], '{{}}') AS examples
         FROM ({query}) AS found (name, who, looked, fine) GROUP BY name"
    )
}

/// Of a transaction that only reads: its statements may take longer than any other should, but not once nobody waits any more;
/// they leave the other processors to those who write, and find by index what is theirs, however many rows the planner expects.
async fn limit(connection: &mut AsyncPgConnection) -> Result<()> {
    let limits = "SELECT set_config('statement_timeout', '2min', true),
        set_config('client_connection_check_interval', '1s', true),
        set_config('max_parallel_workers_per_gather', '0', true),
        set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true),
        set_config('work_mem', '32MB', true)";
    Sql::new(limits).execute(connection).await?;
    Ok(())
}

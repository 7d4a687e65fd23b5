//! The proof of the books: everything recomputed from its source and compared.
//!
//! Each check is one statement over a slice of its things, so that it sees one snapshot, holds nobody up, and ends soon. What
//! sums up over everything is proved from each thing to the next: an entry continues the one before, a lineage its
//! referrer's, a network its children's. The planner doesn't know how many rows a slice has. So its rows are joined with each
//! other by hash, and what they name in other tables is looked up by index: `LATERAL (… OFFSET 0)`.

mod found;
mod passes;
mod progress;
mod scope;
mod size;
mod things;

use std::time::Instant;

use diesel::{
    QueryableByName, sql_query,
    sql_types::{Array, Bool, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, pg::TransactionBuilder};

use self::{
    found::{Findings, Found},
    passes::{PASSES, Pass},
    scope::{Keys, Page},
};
use super::{Result, impossible, sql::Sql};

pub(crate) use self::{
    found::Check,
    progress::Progress,
    scope::{KEYS_MAX, Scope},
};

/// Up to where the books were looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Checkpoint {
    /// The number of a database transaction: all before it had ended.
    pub(crate) number: u64,
    /// The server's, in which the number means something; a restore or a failover ends it.
    pub(crate) history: String,
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
struct Now {
    #[diesel(sql_type = Text)]
    oldest: String,
    #[diesel(sql_type = Text)]
    next: String,
    #[diesel(sql_type = Text)]
    history: String,
}

/// What a check that begins now will have seen, and the number of the next transaction.
async fn now(connection: &mut AsyncPgConnection) -> Result<(Checkpoint, u64)> {
    let query = Sql::new(
        "SELECT pg_snapshot_xmin(s)::text AS oldest, pg_snapshot_xmax(s)::text AS next,
             system_identifier || '/' || timeline_id AS history
         FROM pg_current_snapshot() AS s, pg_control_system(), pg_control_checkpoint()",
    );
    let row: Now = query.get_result(connection).await?;
    Ok((Checkpoint { number: number(&row.oldest)?, history: row.history }, number(&row.next)?))
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| impossible("a transaction's number"))
}

/// What a check can't begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unfit {
    /// A checkpoint or progress of another database, or of before a restore or a failover.
    OtherHistory,
    /// More concerns a partner than one check holds.
    TooMuch,
}

/// A check on its way, or why it can't begin.
pub(crate) type Began = std::result::Result<Examination, Unfit>;

/// What became of a slice.
pub(crate) struct Step {
    /// Whether there is more to look at.
    pub(crate) more: bool,
    /// Whether anybody has written to the database server since the slice before.
    pub(crate) busy: bool,
}

/// A check on its way: pass after pass, slice after slice.
pub(crate) struct Examination {
    began: Checkpoint,
    /// What came before, its caller says.
    resumed: bool,
    course: Course,
    pass: usize,
    at: Place,
    /// How many things the next slice has.
    size: usize,
    findings: Findings,
    /// The number of the next transaction, as the slice before saw it.
    next_transaction: u64,
}

/// What is gone through.
enum Course {
    Everything,
    Partner(Keys),
    /// Page after page, so that memory holds no more than one.
    Since {
        page: Page,
        /// What was found before the page.
        before: Findings,
    },
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
    pub(crate) async fn begin(scope: &Scope, connection: &mut AsyncPgConnection) -> Result<Began> {
        let (began, next_transaction) = now(connection).await?;
        let course = match scope {
            Scope::Everything => Course::Everything,
            Scope::Partner(partner_id) => {
                let keys: Option<Keys> = reading(connection)
                    .run(async |connection| {
                        limit(connection).await?;
                        scope::of_partner(*partner_id, connection).await
                    })
                    .await?;
                match keys {
                    Some(keys) => Course::Partner(keys),
                    None => return Ok(Err(Unfit::TooMuch)),
                }
            }
            Scope::Since(checkpoint) => {
                if checkpoint.history != began.history || checkpoint.number > began.number {
                    return Ok(Err(Unfit::OtherHistory));
                }
                let first = Page::before(checkpoint.number, next_transaction);
                Course::Since { page: Self::page_after(&first, connection).await?, before: Findings::default() }
            }
        };
        let mut examination = Self {
            began,
            resumed: false,
            course,
            pass: 0,
            at: Place::Begin,
            size: 0,
            findings: Findings::default(),
            next_transaction,
        };
        examination.go_to(0, Place::Begin);
        Ok(Ok(examination))
    }

    /// Looks at the next slice.
    pub(crate) async fn step(&mut self, connection: &mut AsyncPgConnection) -> Result<Step> {
        let Some(pass) = PASSES.get(self.pass) else { return Ok(Step { more: false, busy: false }) };
        let slice = self.slice(pass);
        let begun = Instant::now();
        let (next_transaction, found, next): (u64, Vec<Found>, Option<Place>) = reading(connection)
            .run(async |connection| {
                let next_transaction = limit(connection).await?;
                let (found, next) = slice.look(pass, connection).await?;
                Result::Ok((next_transaction, found, next))
            })
            .await?;
        self.size = size::next(self.size, begun.elapsed(), pass.things.slice());
        self.findings.add(found);
        match next {
            Some(place) => self.at = place,
            None => self.go_to(self.pass.saturating_add(1), Place::Begin),
        }
        if self.pass == PASSES.len() {
            self.turn_page(connection).await?;
        }
        let busy = next_transaction != self.next_transaction;
        self.next_transaction = next_transaction;
        Ok(Step { more: self.pass < PASSES.len(), busy })
    }

    fn go_to(&mut self, pass: usize, at: Place) {
        self.pass = pass;
        self.at = at;
        self.size = PASSES.get(pass).map_or(0, |pass| size::least(pass.things.slice()));
    }

    async fn turn_page(&mut self, connection: &mut AsyncPgConnection) -> Result<()> {
        if let Course::Since { page, before } = &mut self.course {
            *page = Self::page_after(page, connection).await?;
            *before = self.findings.clone();
            if !page.is_empty() {
                self.go_to(0, Place::Begin);
            }
        }
        Ok(())
    }

    async fn page_after(page: &Page, connection: &mut AsyncPgConnection) -> Result<Page> {
        reading(connection)
            .run(async |connection| {
                limit(connection).await?;
                page.next(connection).await
            })
            .await
    }

    fn slice(&self, pass: &Pass) -> Slice<'_> {
        let keys = match &self.course {
            Course::Everything => {
                let from = if let Place::Key(key) = &self.at { key.clone() } else { pass.things.first() };
                return Slice::From { key: from, size: self.size };
            }
            Course::Partner(keys) => keys,
            Course::Since { page, .. } => &page.keys,
        };
        let keys = keys.get(&pass.things).map(Vec::as_slice).unwrap_or_default();
        let after = if let Place::After(after) = self.at { after } else { 0 };
        let end = after.saturating_add(self.size).min(keys.len());
        let next = (end < keys.len()).then_some(end);
        Slice::Keys { keys: keys.get(after..end).unwrap_or_default(), next }
    }

    /// What was there before has been looked at, once the check has come to its end.
    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.began
    }

    /// Whether it looks at everything itself: what a resumed one has before, a caller may have made up.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.course, Course::Everything) && !self.resumed
    }

    /// Whether it looks at one partner.
    pub(crate) fn is_partners(&self) -> bool {
        matches!(self.course, Course::Partner(_))
    }

    /// What was found so far, each check once.
    pub(crate) fn findings(&self) -> Vec<Check> {
        self.findings.checks()
    }
}

/// What one statement looks at.
enum Slice<'a> {
    /// So many, from this key.
    From { key: String, size: usize },
    /// These, and where the list goes on.
    Keys { keys: &'a [String], next: Option<usize> },
}

impl Slice<'_> {
    /// What is found, and where the next slice begins.
    async fn look(&self, pass: &Pass, connection: &mut AsyncPgConnection) -> Result<(Vec<Found>, Option<Place>)> {
        match self {
            Self::From { key, size } => {
                // The planner takes a range for a row or two and would compare each of its rows with each: what can be joined
                // otherwise is, and a look-up by `LATERAL` can't be.
                sql_query("SET LOCAL enable_nestloop = off").execute(connection).await?;
                let to = pass.things.next(key, *size, connection).await?;
                let query = sql_query(found::counted(&pass.things.in_range(pass.query)));
                let found = query.bind::<Text, _>(key).bind::<Nullable<Text>, _>(&to).load(connection).await?;
                Ok((found, to.map(Place::Key)))
            }
            Self::Keys { keys: [], .. } => Ok((Vec::new(), None)),
            Self::Keys { keys, next } => {
                let query = sql_query(found::counted(&pass.things.by_key(pass.query)));
                let found = query.bind::<Array<Text>, _>(keys).load(connection).await?;
                Ok((found, next.map(Place::After)))
            }
        }
    }
}

fn reading(connection: &mut AsyncPgConnection) -> TransactionBuilder<'_, AsyncPgConnection> {
    connection.build_transaction().read_only().read_committed()
}

#[derive(QueryableByName)]
struct Next {
    #[diesel(sql_type = Text)]
    next: String,
}

/// Of a transaction that only reads: its statements may take longer than any other should, but not once nobody waits any more;
/// they leave the other processors to those who write, and find by index what is theirs, however many rows the planner expects.
/// The number of the next transaction that writes, to tell whether others do.
async fn limit(connection: &mut AsyncPgConnection) -> Result<u64> {
    let limits =
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS next, set_config('statement_timeout', '2min', true),
        set_config('client_connection_check_interval', '1s', true),
        set_config('max_parallel_workers_per_gather', '0', true),
        set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true),
        set_config('work_mem', '32MB', true)";
    let row: Next = Sql::new(limits).get_result(connection).await?;
    number(&row.next)
}

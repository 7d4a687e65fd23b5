//! What a statement does, in a word and a name: a single pass over its text, without understanding it all.

use super::tokens::{Token, Tokens};

/// Operation and main table of a statement, for span names and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary<'a> {
    /// One of a fixed set.
    pub(super) operation: &'static str,
    /// The table that is written, else the first one that is read.
    pub(super) table: Option<&'a str>,
    /// In place of a table: the function that is called, or a command that is no operation.
    pub(super) other: Option<&'a str>,
}

const OTHER: &str = "_OTHER";
const OPERATIONS: [&str; 7] = ["SELECT", "INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT", "ROLLBACK"];
/// Words that a parenthesis may follow and that are no functions.
const NO_FUNCTIONS: [&str; 10] = ["IN", "ANY", "ALL", "EXISTS", "AND", "OR", "NOT", "AS", "MATERIALIZED", "SELECT"];

impl<'a> Summary<'a> {
    pub(super) fn of(sql: &'a str) -> Self {
        let mut scan = Scan::default();
        for token in Tokens::of(sql) {
            scan.take(token);
        }
        scan.take(Token::Other);
        scan.summary()
    }
}

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.operation, self.table.or(self.other)) {
            (OTHER, Some(command)) => f.write_str(command),
            (operation, Some(target)) => write!(f, "{operation} {target}"),
            (operation, None) => f.write_str(operation),
        }
    }
}

/// What the next word names.
#[derive(Clone, Copy)]
enum Expected {
    Written(&'static str),
    Read,
}

/// What is known so far.
#[derive(Default)]
struct Scan<'a> {
    first: &'a str,
    previous: &'a str,
    depth: usize,
    expected: Option<Expected>,
    /// Read, unless it turns out to be a function.
    table: Option<&'a str>,
    written: Option<(&'static str, &'a str)>,
    /// Whether what is written is the main statement's, rather than some part's before it.
    is_main: bool,
    read: Option<&'a str>,
    function: Option<&'a str>,
    /// The names that WITH gives to its parts; few.
    parts: Vec<&'a str>,
    part: &'a str,
    /// The words before the parentheses that are open, and before the one that was closed last.
    before: Vec<&'a str>,
    closed: &'a str,
}

impl<'a> Scan<'a> {
    fn take(&mut self, token: Token<'a>) {
        if let Some(table) = self.table.take()
            && !matches!(token, Token::Open)
            && self.read.is_none()
            && !self.parts.contains(&table)
        {
            self.read = Some(table);
        }
        match token {
            Token::Word(word) => self.word(word),
            Token::Open => self.open(),
            Token::Close => {
                self.depth = self.depth.saturating_sub(1);
                self.closed = self.before.pop().unwrap_or_default();
                self.previous = "";
            }
            Token::Other => self.previous = "",
        }
    }

    fn word(&mut self, word: &'a str) {
        if self.first.is_empty() {
            self.first = word;
        }
        match self.expected.take() {
            Some(expected) if is(word, "ONLY") || is(word, "LATERAL") => self.expected = Some(expected),
            Some(Expected::Read) => self.table = Some(word),
            Some(Expected::Written(operation)) if self.written.is_none() || (self.depth == 0 && !self.is_main) => {
                self.written = Some((operation, word));
                self.is_main = self.depth == 0;
            }
            Some(Expected::Written(_)) => {}
            None => self.keyword(word),
        }
        self.previous = word;
    }

    fn keyword(&mut self, word: &'a str) {
        let follows = |words: &[&str]| words.iter().any(|before| is(self.previous, before));
        self.expected = if is(word, "FROM") {
            match () {
                () if follows(&["DELETE"]) => Some(Expected::Written("DELETE")),
                () if follows(&["DISTINCT"]) || self.is_within_a_function() => None,
                () => Some(Expected::Read),
            }
        } else if is(word, "JOIN") {
            Some(Expected::Read)
        } else if is(word, "INTO") && follows(&["INSERT"]) {
            Some(Expected::Written("INSERT"))
        } else if is(word, "UPDATE") && !follows(&["FOR", "KEY", "DO", "ON"]) {
            Some(Expected::Written("UPDATE"))
        } else {
            None
        };
        if is(word, "AS") {
            self.part = if self.previous.is_empty() { self.closed } else { self.previous };
        }
    }

    fn open(&mut self) {
        self.expected = None;
        let word = self.previous;
        if is(word, "AS") || is(word, "MATERIALIZED") {
            self.parts.push(self.part);
        } else if self.depth == 0 && self.function.is_none() && !word.is_empty() && !one_of(word, &NO_FUNCTIONS) {
            self.function = Some(word);
        }
        self.before.push(word);
        self.depth += 1;
        self.previous = "";
    }

    /// `extract(epoch FROM x)` and its like.
    fn is_within_a_function(&self) -> bool {
        self.before.last().is_some_and(|word| one_of(word, &["EXTRACT", "SUBSTRING", "TRIM", "OVERLAY"]))
    }

    fn summary(&self) -> Summary<'a> {
        if let Some((operation, table)) = self.written {
            return Summary { operation, table: Some(table), other: None };
        }
        let first = if is(self.first, "WITH") { "SELECT" } else { self.first };
        match OPERATIONS.into_iter().find(|known| is(first, known)) {
            Some("SELECT") => Summary { operation: "SELECT", table: self.read, other: self.function },
            Some(operation) => Summary { operation, table: None, other: None },
            None => Summary { operation: OTHER, table: None, other: Some(first).filter(|word| !word.is_empty()) },
        }
    }
}

fn is(word: &str, keyword: &str) -> bool {
    word.eq_ignore_ascii_case(keyword)
}

fn one_of(word: &str, keywords: &[&str]) -> bool {
    keywords.iter().any(|keyword| is(word, keyword))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_named_by_what_they_do() {
        for (sql, summary) in [
            ("BEGIN ISOLATION LEVEL READ COMMITTED", "BEGIN"),
            ("COMMIT", "COMMIT"),
            ("ROLLBACK", "ROLLBACK"),
            ("SELECT 1", "SELECT"),
            ("SELECT now() AS now", "SELECT now"),
            ("SELECT pg_advisory_xact_lock(1, 0)", "SELECT pg_advisory_xact_lock"),
            ("SELECT NOT pg_try_advisory_xact_lock($1, $2) AS is_watched", "SELECT pg_try_advisory_xact_lock"),
            ("SELECT pg_notify($1, payload) FROM unnest($2) AS payload", "SELECT pg_notify"),
            ("LISTEN deliveries; LISTEN queued", "LISTEN"),
            ("SAVEPOINT diesel_savepoint_1", "SAVEPOINT"),
            ("", "_OTHER"),
            ("INSERT INTO outbox (event_id, event) SELECT * FROM unnest($1, $2)", "INSERT outbox"),
            ("INSERT INTO a (x) VALUES ($1) ON CONFLICT (x) DO UPDATE SET y = 1", "INSERT a"),
            ("DELETE FROM ONLY gates WHERE gate IS NOT DISTINCT FROM $1", "DELETE gates"),
            ("UPDATE attempts a SET end_time = now() FROM unnest($1) AS e (id) WHERE a.id = e.id", "UPDATE attempts"),
            (
                r#"SELECT "partners"."partner_id" FROM "public"."partners" WHERE ("partners"."xp" > $1) FOR UPDATE"#,
                "SELECT partners",
            ),
            ("SELECT FROM notifications WHERE notification_id = ANY ($1) FOR NO KEY UPDATE", "SELECT notifications"),
            ("SELECT extract(epoch FROM t), ' FROM a' FROM -- FROM b\n payments p JOIN c ON true", "SELECT payments"),
            ("SELECT k.id FROM unnest($1) AS k (id) JOIN requests r USING (id)", "SELECT requests"),
            (
                "SELECT count(*) FROM (SELECT DISTINCT a.id FROM partners p, unnest(p.lineage) AS a (id)) n",
                "SELECT partners",
            ),
        ] {
            assert_eq!(Summary::of(sql).to_string(), summary, "{sql}");
        }
    }

    #[test]
    fn what_stands_in_with_is_looked_into() {
        for (sql, summary) in [
            (
                "WITH RECURSIVE above AS (SELECT p.* FROM partners p UNION ALL SELECT q.* FROM above JOIN partners q ON true)
                 SELECT * FROM above",
                "SELECT partners",
            ),
            (
                "WITH taken AS MATERIALIZED (SELECT c.* FROM unnest($1) AS share (most) CROSS JOIN LATERAL
                     (SELECT d.* FROM deliveries d FOR UPDATE SKIP LOCKED) AS c LIMIT 5)
                 SELECT t.* FROM taken t CROSS JOIN LATERAL (SELECT * FROM notifications) AS n",
                "SELECT deliveries",
            ),
            (
                "WITH leased AS (UPDATE deliveries d SET state = 'SENDING' FROM unnest($1) AS c (id) RETURNING d.id)
                 INSERT INTO attempts (id) SELECT id FROM leased",
                "INSERT attempts",
            ),
            ("WITH gone (id, n) AS (DELETE FROM marks RETURNING 1, 2) SELECT count(*) FROM gone", "DELETE marks"),
        ] {
            assert_eq!(Summary::of(sql).to_string(), summary, "{sql}");
        }
    }

    #[test]
    fn operations_are_of_a_fixed_set_and_nothing_is_malformed() {
        for sql in ["VACUUM", "'", "\"", "(", "))", "SELECT * FROM", "Ö ö", "SELECT 'ö' FROM ö", "WITH", "-", "--", "$"]
        {
            let operation = Summary::of(sql).operation;
            assert!(OPERATIONS.contains(&operation) || operation == OTHER, "{sql}: {operation}");
        }
    }
}

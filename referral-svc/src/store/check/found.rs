//! What a check has found, added up over its slices.

use std::collections::BTreeMap;

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Text},
};
use serde::{Deserialize, Serialize};

use super::passes::PASSES;

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

/// What one statement found by one check.
#[derive(QueryableByName)]
pub(super) struct Found {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    rows: i64,
    #[diesel(sql_type = BigInt)]
    offenders: i64,
    #[diesel(sql_type = Array<Text>)]
    examples: Vec<String>,
}

#[derive(Clone, Default, Serialize, Deserialize, PartialEq, Eq, Debug)]
struct Sum {
    rows: i64,
    offenders: i64,
    examples: Vec<String>,
}

/// The sums by the check's name.
#[derive(Clone, Default, Serialize, Deserialize, PartialEq, Eq, Debug)]
#[serde(transparent)]
pub(super) struct Findings(BTreeMap<String, Sum>);

impl Findings {
    pub(super) fn add(&mut self, found: Vec<Found>) {
        for Found { name, rows, offenders, examples } in found {
            let sum = self.0.entry(name).or_default();
            sum.rows = sum.rows.saturating_add(rows);
            sum.offenders = sum.offenders.saturating_add(offenders);
            sum.examples.extend(examples);
            sum.examples.truncate(EXAMPLES_MAX);
        }
    }

    /// Each check once, whether or not it has looked at anything.
    pub(super) fn checks(&self) -> Vec<Check> {
        let mut checks: Vec<Check> = Vec::new();
        for name in PASSES.iter().flat_map(|pass| pass.checks).copied() {
            if checks.iter().any(|check| check.name == name) {
                continue;
            }
            let Sum { rows, offenders, examples } = self.0.get(name).cloned().unwrap_or_default();
            checks.push(Check { name, rows, offenders, examples });
        }
        checks
    }
}

/// A query yields one row a thing: the check's name, the thing's, whether the check looks at it, and whether it is as it should
/// be.
pub(super) fn counted(query: &str) -> String {
    format!(
        "SELECT name, count(*) FILTER (WHERE looked) AS rows, count(*) FILTER (WHERE looked AND fine IS NOT TRUE) AS offenders,
             coalesce((array_agg(who) FILTER (WHERE looked AND fine IS NOT TRUE))[1:{EXAMPLES_MAX}], '{{}}') AS examples
         FROM ({query}) AS found (name, who, looked, fine) GROUP BY name"
    )
}

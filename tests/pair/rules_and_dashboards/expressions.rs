//! What PromQL expressions name: metrics, labels, the values that labels must have.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

/// What one expression names.
#[derive(Clone, Default, PartialEq, Debug)]
pub(super) struct Named {
    /// The expression itself, for messages.
    pub(super) text: String,
    pub(super) metrics: BTreeSet<String>,
    /// What other rules record: names with colons.
    pub(super) recorded: BTreeSet<String>,
    /// In matchers and groupings.
    pub(super) labels: BTreeSet<String>,
    /// Metric, label, and a value that the label must be equal to, or that is one of those that it may have.
    pub(super) equal: BTreeSet<(String, String, String)>,
}

/// The expressions of a file of rules: what stands under `expr:`, on its line or indented below.
pub(super) fn of_rules(path: &Path) -> Vec<Named> {
    let text = read(path);
    let mut expressions: Vec<String> = Vec::new();
    let mut below = None;
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        if let Some(start) = line.trim_start().strip_prefix("expr:") {
            expressions.push(start.trim().trim_start_matches('|').to_owned());
            below = Some(indent);
        } else if below.is_some_and(|above| indent > above) {
            expressions.last_mut().expect("its start").extend([" ", line.trim()]);
        } else {
            below = None;
        }
    }
    assert!(!expressions.is_empty(), "{}: no expressions", path.display());
    expressions.iter().map(|expression| named(expression)).collect()
}

/// The names that a file of rules records.
pub(super) fn recorded_by(path: &Path) -> BTreeSet<String> {
    let text = read(path);
    text.lines().filter_map(|line| line.trim().strip_prefix("- record:")).map(|name| name.trim().to_owned()).collect()
}

/// The expressions of a dashboard's panels.
pub(super) fn of_dashboard(path: &Path) -> Vec<Named> {
    let board: Value = serde_json::from_str(&read(path)).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions: Vec<_> = targets.map(|target| named(target["expr"].as_str().expect("an expression"))).collect();
    assert!(!expressions.is_empty(), "{}: no expressions", path.display());
    expressions
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads as much of PromQL as it takes to tell metrics from labels.
pub(super) fn named(expression: &str) -> Named {
    let mut named = Named { text: expression.to_owned(), ..Named::default() };
    let mut rest = expression;
    let mut metric = String::new();
    while let Some(first) = rest.chars().next() {
        if first == '{' {
            let (matchers, after) = rest[1..].split_once('}').expect("a closing brace");
            read_matchers(&mut named, &metric, matchers);
            rest = after;
        } else if first.is_ascii_alphabetic() || first == '_' {
            let (word, after) = word(rest);
            rest = after.trim_start();
            if matches!(word, "by" | "without" | "on" | "ignoring") && rest.starts_with('(') {
                let (labels, after) = rest[1..].split_once(')').expect("a closing parenthesis");
                named.labels.extend(labels.split(',').map(|label| label.trim().to_owned()));
                rest = after;
            } else {
                // Matchers belong to the word just before them.
                word.clone_into(&mut metric);
                if word.contains(':') {
                    named.recorded.insert(word.to_owned());
                } else if is_metric(word) {
                    named.metrics.insert(word.to_owned());
                }
            }
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    named.labels.remove("");
    named
}

/// Ours, or the libraries' by OpenTelemetry's conventions; everything else is a function, or another program's.
fn is_metric(word: &str) -> bool {
    ["p2phub_", "rpc_", "db_client_"].iter().any(|prefix| word.starts_with(prefix))
}

fn read_matchers(named: &mut Named, metric: &str, matchers: &str) {
    let mut rest = matchers.trim();
    while !rest.is_empty() {
        let (label, after) = word(rest);
        let (operator, quoted) = after.split_once('"').expect("a value");
        let (value, after) = quoted.split_once('"').expect("a closing quote");
        named.labels.insert(label.to_owned());
        let values: Vec<_> = match operator.trim() {
            "=" => vec![value],
            "=~" if is_plain(value) => value.split('|').collect(),
            _ => Vec::new(),
        };
        named.equal.extend(values.into_iter().map(|value| [metric, label, value].map(str::to_owned).into()));
        rest = after.trim_start_matches([',', ' ']);
    }
}

/// Alternatives only, nothing else of a regular expression.
fn is_plain(value: &str) -> bool {
    value.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-|".contains(letter))
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric() && !"_:".contains(letter));
    text.split_at(end.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn metrics_are_told_from_labels() {
        let read = named(
            r#"sum by (job, rpc_method) (rate(rpc_calls_total{rpc_method!~".*/(A|B)", code="OK"}[5m])) / on () job:x:y > 0.5"#,
        );
        assert_eq!(read.metrics, set(&["rpc_calls_total"]));
        assert_eq!(read.recorded, set(&["job:x:y"]));
        assert_eq!(read.labels, set(&["job", "rpc_method", "code"]));
        let equal = ["rpc_calls_total", "code", "OK"].map(str::to_owned);
        assert_eq!(read.equal, BTreeSet::from([equal.into()]));
    }

    #[test]
    fn each_plain_alternative_is_a_value() {
        let read = named(r#"p2phub_x_total{state=~"a|b_c", kind!~"d|e", error=~".+"} unless up{job=~"f|g"}"#);
        let of = |metric: &str| {
            let values = read.equal.iter().filter(|(of, ..)| of == metric);
            values.map(|(_, label, value)| format!("{label}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(of("p2phub_x_total"), ["state=a", "state=b_c"]);
        assert_eq!(of("up"), ["job=f", "job=g"]);
        assert_eq!(read.metrics, set(&["p2phub_x_total"]));
    }
}

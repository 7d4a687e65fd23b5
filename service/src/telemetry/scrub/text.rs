//! Texts, by how they look.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::SCRUBBED;

/// A text for people: whatever looks personal or secret goes, and so does everything in quotes that is not the name of
/// something in the database.
pub(in crate::telemetry) fn text(text: &str) -> String {
    let text = VALUES.replace_all(text, "${head}[scrubbed]");
    let text = FIELDS.replace_all(&text, "${name}=[scrubbed]");
    let text = tokens(&text);
    without_quotes(&text)
}

/// A statement: its identifiers are quoted too, so quotes tell nothing.
pub(super) fn statement(text: &str) -> String {
    let text = VALUES.replace_all(text, "${head}[scrubbed]");
    let text = LITERALS.replace_all(&text, "[scrubbed]");
    tokens(&text).into_owned()
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Where statements and PostgreSQL's details list values. They end with them.
static VALUES: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?s)(?P<head>-- binds: |Key \(.*?\)=\(|Failing row contains \().*"));

/// `name: value` and `name=value`, up to the end of the line: nobody can tell where the value ends.
static FIELDS: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?ix)\b(?P<name>(?:first|last|full|display|user)?_?name|e-?mail|phone|contacts?|address|chat(?:_id)?|external_(?:id|ref)
        |referral_code|arguments?|payload|(?:[a-z]+_)?token|(?:[a-z]+_)?secret|password|authorization|cookie|api_key|dsn)
        \b['\x22]?\s*[:=][^\n]+",
    )
});

/// What is known by its looks. The first alternatives that match are kept: IDs and dates, which are long numbers as well.
static TOKENS: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?x)
        (?P<traceparent> \b00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\b )
        | (?P<uuid> \b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b )
        | (?P<hex> \b(?:[0-9a-f]{32}|[0-9a-f]{16})\b )
        | (?P<date> \b\d{4}-\d\d-\d\d(?:[T\ ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)? )
        | (?P<scheme> (?i:[a-z][a-z0-9+.-]*)://) [^\s\x22'<>]+
        | (?i:\b(?:bearer|basic)\s+[^\s\x22']+)
        | \beyJ[\w-]+(?:\.[\w-]+)*
        | \b(?:whsec_|xox[a-z]-|sk_|pk_)[\w-]+
        | (?:\bbot)?\d{5,}:[\w-]{16,}
        | /services/[\w/]+ | \bhooks\.slack\.com[^\s\x22']*
        | (?i:\bP2P-[a-z0-9]+)
        | (?i:\b(?:telegram|tg|slack|discord|vk|whatsapp|mailto|tel|user|partner)):[\w.@+-]+
        | [^\s@<>()\[\]\x22',;:=]+@[^\s@<>()\[\]\x22',;:=]+
        | @\w{3,}
        | (?P<opaque> [A-Za-z0-9_-]{24,} )
        | (?P<number> \+?\(?\d[\d\ ()/-]{5,}\d | \+\d[\d\ ().-]{5,}\d )",
    )
});

static LITERALS: LazyLock<Regex> = LazyLock::new(|| regex(r"'(?:[^']|'')*(?:'|\z)"));

/// A word that PostgreSQL puts before the name of something, and the name.
static IDENTIFIERS: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"\b(?:relation|column|table|constraint|index|function|type|role|schema|database|trigger|operator|sequence)\s+"[A-Za-z_][\w.$]*""#,
    )
});

fn tokens(text: &str) -> Cow<'_, str> {
    TOKENS.replace_all(text, |found: &Captures<'_>| {
        let whole = &found[0];
        let digits = whole.bytes().filter(u8::is_ascii_digit).count();
        let is = |kind| found.name(kind).is_some();
        let is_kept = if is("hex") {
            // One of decimal digits alone is rarer than a number of that length.
            digits < whole.len()
        } else if is("opaque") {
            // Names are long as well, but not of such a mixture.
            let has = |is: fn(&u8) -> bool| whole.as_bytes().iter().any(is);
            digits < 7 && (digits == 0 || !has(u8::is_ascii_uppercase) || !has(u8::is_ascii_lowercase))
        } else if is("number") {
            digits < 7
        } else {
            is("traceparent") || is("uuid") || is("date")
        };
        match found.name("scheme") {
            _ if is_kept => whole.to_owned(),
            Some(scheme) => format!("{}{SCRUBBED}", scheme.as_str()),
            None => SCRUBBED.to_owned(),
        }
    })
}

fn without_quotes(text: &str) -> String {
    let identifiers: Vec<_> = IDENTIFIERS.find_iter(text).map(|found| found.range()).collect();
    let mut ranges = [quotation(text, '"', &identifiers), quotation(text, '\'', &identifiers)];
    if let [Some(one), Some(other)] = &ranges
        && one.start < other.end
        && other.start < one.end
    {
        // One begins within the other: nobody can tell which of them was meant.
        ranges = [Some(one.start.min(other.start)..one.end.max(other.end)), None];
    }
    // The later one first: the places of the other stay right.
    ranges.sort_by_key(|range| std::cmp::Reverse(range.as_ref().map(|range| range.start)));
    let mut scrubbed = text.to_owned();
    ranges.into_iter().flatten().for_each(|range| scrubbed.replace_range(range, SCRUBBED));
    scrubbed
}

/// From the first quote to the last one, since what is quoted may hold quotes; a quote that stands alone goes to the end.
fn quotation(text: &str, quote: char, kept: &[Range<usize>]) -> Option<Range<usize>> {
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let quotes =
        || text.match_indices(quote).map(|(at, _)| at).filter(|at| !kept.iter().any(|range| range.contains(at)));
    // An apostrophe within a word is none; one after a word ends a quotation at most.
    let opens = |at: &usize| quote == '"' || !is_letter(text[..*at].chars().next_back());
    let closes = |at: &usize| quote == '"' || !is_letter(text[at + 1..].chars().next());
    let first = quotes().find(opens)?;
    let end = quotes().filter(|at| *at > first).rfind(closes).map_or(text.len(), |last| last + 1);
    Some(first..end)
}

//! What a service tells Prometheus, read as Prometheus reads it: its text format, families and series.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use crate::probe;

/// The labels of one series.
pub type Labels = BTreeMap<String, String>;

/// One reading of `/metrics`. Anything that isn't the text format panics.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// Each family's type, by its name.
    kinds: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Debug)]
struct Sample {
    name: String,
    labels: Labels,
    value: f64,
}

impl Scrape {
    /// Reads `/metrics` at a service's HTTP address.
    pub async fn of(address: SocketAddr) -> Self {
        let answer = probe::get(address, "/metrics").await;
        assert_eq!(answer.status, 200, "/metrics: {answer:?}");
        Self::parse(&answer.body)
    }

    /// Reads the text format.
    pub fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').expect("a name and a type");
                let before = scrape.kinds.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} is there twice");
            } else if !line.starts_with('#') {
                scrape.samples.push(sample(line).unwrap_or_else(|| panic!("not a sample: {line}")));
            }
        }
        scrape
    }

    /// The sum over the series of this name that have at least these labels; none: there is no such series. Of a histogram,
    /// `_count` and `_sum` are names of their own.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
        };
        self.samples.iter().filter(wanted).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }

    /// The names of all families: of a histogram without `_bucket`, `_sum` and `_count`.
    pub fn families(&self) -> BTreeSet<String> {
        self.samples.iter().map(|sample| self.family_of(&sample.name).to_owned()).collect()
    }

    /// The label names of a family, `le` of histograms aside: all that any of its series has.
    pub fn labels(&self, family: &str) -> BTreeSet<String> {
        self.series(family).into_iter().flat_map(Labels::into_keys).collect()
    }

    /// A family's series, each once; of a histogram without `le`.
    pub fn series(&self, family: &str) -> BTreeSet<Labels> {
        let own = self.samples.iter().filter(|sample| self.family_of(&sample.name) == family);
        own.map(|sample| {
            let mut labels = sample.labels.clone();
            if self.is_histogram(family) {
                labels.remove("le");
            }
            labels
        })
        .collect()
    }

    fn family_of<'a>(&self, name: &'a str) -> &'a str {
        let stems = ["_bucket", "_sum", "_count"].iter().filter_map(|suffix| name.strip_suffix(suffix));
        stems.into_iter().find(|stem| self.is_histogram(stem)).unwrap_or(name)
    }

    fn is_histogram(&self, family: &str) -> bool {
        self.kinds.get(family).is_some_and(|kind| kind == "histogram")
    }
}

/// `name{label="value",…} 1.5`
fn sample(line: &str) -> Option<Sample> {
    let (name, labels, value) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = labels(rest)?;
            (name, labels, rest)
        }
        None => {
            let (name, value) = line.split_once(' ')?;
            (name, Labels::new(), value)
        }
    };
    Some(Sample { name: name.to_owned(), labels, value: value.trim().parse().ok()? })
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquoted(quoted)?;
        labels.insert(name.to_owned(), value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// A value up to its closing quote, with its escapes undone, and what follows it.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{code="OK",method="a,b=\"{}\" \\n"} 2
calls_total{code="NO",method="c"} 3
# TYPE wait_seconds histogram
wait_seconds_bucket{code="OK",le="0.5"} 1
wait_seconds_bucket{code="OK",le="+Inf"} 2
wait_seconds_sum{code="OK"} 1.25e-3
wait_seconds_count{code="OK"} 2
# TYPE depth gauge
depth -4
"#;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn samples_are_found_by_their_labels() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.value("calls_total", &[("method", "a,b=\"{}\" \\n")]), Some(2.0));
        assert_eq!(scrape.value("calls_total", &[]), Some(5.0));
        assert_eq!(scrape.value("calls_total", &[("code", "NO"), ("method", "x")]), None);
        assert_eq!(scrape.value("wait_seconds_sum", &[]), Some(0.00125));
        assert_eq!(scrape.value("wait_seconds_bucket", &[("le", "+Inf")]), Some(2.0));
        assert_eq!(scrape.value("depth", &[]), Some(-4.0));
    }

    #[test]
    fn families_have_label_names() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.families(), names(&["calls_total", "depth", "wait_seconds"]));
        assert_eq!(scrape.labels("calls_total"), names(&["code", "method"]));
        assert_eq!(scrape.labels("wait_seconds"), names(&["code"]));
        assert_eq!(scrape.labels("depth"), names(&[]));
        assert_eq!((scrape.series("calls_total").len(), scrape.series("wait_seconds").len()), (2, 1));
    }

    #[test]
    #[should_panic(expected = "not a sample")]
    fn what_is_no_sample_is_refused() {
        Scrape::parse("<html>\n");
    }
}

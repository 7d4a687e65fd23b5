//! What a benchmark prints.

use std::fmt::Display;

/// A heading.
pub(crate) fn section(title: &str) {
    println!("\n{title}");
}

/// One figure.
pub(crate) fn row(name: impl Display, value: f64, unit: &str) {
    let digits = if value.abs() < 10.0 { 2 } else { usize::from(value.abs() < 100.0) };
    println!("  {name:<86} {value:>8.digits$} {unit}", name = name.to_string());
}

/// The value below which `share` of them lie; they must be sorted.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (0..sorted.len()).find(|rank| (*rank as f64 + 1.0) >= share * sorted.len() as f64);
    rank.and_then(|rank| sorted.get(rank)).copied().unwrap_or(f64::NAN)
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}

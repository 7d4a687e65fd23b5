//! A partner's entries as CSV (RFC 4180) that a spreadsheet opens.

use chrono::SecondsFormat;
use csv::{Terminator, Writer, WriterBuilder};

use super::outward;
use crate::store::ledger::EntryView;

/// How a spreadsheet knows that it is UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

const COLUMNS: [&str; 8] =
    ["time", "version", "kind", "amount", "balance_after", "asset", "transaction_id", "subject_id"];

fn writer(bytes: Vec<u8>) -> Writer<Vec<u8>> {
    WriterBuilder::new().terminator(Terminator::CRLF).from_writer(bytes)
}

/// What a file begins with.
pub(crate) fn head() -> Result<Vec<u8>, csv::Error> {
    let mut writer = writer(BYTE_ORDER_MARK.to_vec());
    writer.write_record(COLUMNS)?;
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// The lines of some entries.
///
/// A spreadsheet takes a cell that begins with one of `= + - @` for a formula. None does but negative amounts, which are to be
/// numbers: the rest are times, numbers, UUIDs, tickers and names of ours.
pub(crate) fn lines(entries: &[EntryView]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = writer(Vec::new());
    for entry in entries {
        let (kind, payment_id, payout_id, adjustment_id) = outward::subject(entry.subject);
        let kind = kind.as_str_name().trim_start_matches("TRANSACTION_KIND_");
        writer.write_record([
            entry.create_time.to_rfc3339_opts(SecondsFormat::Micros, true).as_str(),
            &entry.version.to_string(),
            kind,
            &entry.asset.to_decimal(entry.amount),
            &entry.asset.to_decimal(entry.balance_after),
            entry.asset.ticker(),
            &entry.transaction_id.to_string(),
            // One of them, or none.
            &[payment_id, payout_id, adjustment_id].concat(),
        ])?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

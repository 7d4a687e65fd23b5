//! Lines of a processor's or chain's statement: from messages, and from CSV that comes in pieces.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use csv_core::{ReadRecordResult, Reader};
use p2phub_proto::referral::v1 as pb;
use referral_domain::{
    money::Asset,
    reconcile::{Currency, Line},
    reference::ExternalRef,
};
use service::error::Failure;

use super::fields::{self, Checked};

/// What a record of a CSV file may measure.
const RECORD_BYTES_MAX: usize = 8 * 1024;
const COLUMNS_MAX: usize = 64;
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const FIELD: &str = "csv";

/// A line, or why it can't be read.
pub(crate) type Read = Result<Line, Cow<'static, str>>;

pub(crate) fn of_message(line: &pb::StatementLine) -> Read {
    let amount = line.amount.as_ref().ok_or("amount: required")?;
    let time = fields::time("time", line.time.as_ref()).map_err(|fault| fault.message)?;
    Ok(Line {
        reference: reference(&line.external_ref)?,
        currency: currency(&amount.asset)?,
        amount: amount.minor_units,
        time,
    })
}

fn reference(text: &str) -> Result<ExternalRef, Cow<'static, str>> {
    ExternalRef::normalise(text).map_err(|fault| format!("external_ref: {fault}").into())
}

fn currency(ticker: &str) -> Result<Currency, Cow<'static, str>> {
    Currency::from_ticker(ticker).ok_or("asset: unknown: must be USDT or TON".into())
}

/// Where a file has what.
struct Columns {
    reference: usize,
    amount: Amounts,
    asset: Option<usize>,
    time: Option<usize>,
}

/// How amounts are written, and in which column.
enum Amounts {
    Decimal(usize),
    MinorUnits(usize),
}

impl Columns {
    fn of_header(names: &[String]) -> Checked<Self> {
        let find = |wanted: &str| names.iter().position(|name| name.trim().eq_ignore_ascii_case(wanted));
        let missing = |what: &str| Failure::violation(FIELD, format!("the header must name a column {what}"));
        let amount = find("minor_units").map(Amounts::MinorUnits).or_else(|| find("amount").map(Amounts::Decimal));
        Ok(Self {
            reference: find("external_ref").ok_or_else(|| missing("external_ref"))?,
            amount: amount.ok_or_else(|| missing("amount or minor_units"))?,
            asset: find("asset"),
            time: find("time"),
        })
    }

    fn line(&self, values: &[String]) -> Read {
        let value = |column: usize| values.get(column).map_or("", |value| value.trim());
        let currency = match self.asset.map(value).unwrap_or_default() {
            "" => Currency::Asset(Asset::Usdt),
            ticker => currency(ticker)?,
        };
        let amount = match self.amount {
            Amounts::Decimal(column) => {
                currency.from_decimal(value(column)).ok_or("amount: must be a decimal such as 39.00")
            }
            Amounts::MinorUnits(column) => value(column).parse().map_err(|_| "minor_units: must be a whole number"),
        };
        let time = match self.time.map(value).unwrap_or_default() {
            "" => None,
            text => Some(DateTime::parse_from_rfc3339(text).map_err(|_| "time: must be RFC 3339")?.with_timezone(&Utc)),
        };
        Ok(Line { reference: reference(value(self.reference))?, currency, amount: amount?, time })
    }
}

/// A CSV file on its way in. Pieces may be cut anywhere; one record is held at most.
pub(crate) struct CsvLines {
    reader: Reader,
    /// Bytes of the byte order mark that were seen, or all if there is none.
    mark: usize,
    record: Vec<u8>,
    written: usize,
    ends: [usize; COLUMNS_MAX],
    ended: usize,
    too_long: bool,
    columns: Option<Columns>,
}

impl CsvLines {
    pub(crate) fn new() -> Self {
        Self {
            reader: Reader::new(),
            mark: 0,
            record: vec![0; RECORD_BYTES_MAX],
            written: 0,
            ends: [0; COLUMNS_MAX],
            ended: 0,
            too_long: false,
            columns: None,
        }
    }

    /// The lines that end within the next piece. An error: the file has no header that will do.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Checked<Vec<Read>> {
        let piece = self.without_mark(piece);
        // Nothing would mean the end.
        if piece.is_empty() { Ok(Vec::new()) } else { self.read(piece) }
    }

    /// The last line, if no line break ends it.
    pub(crate) fn finish(&mut self) -> Checked<Vec<Read>> {
        self.read(&[])
    }

    fn without_mark<'a>(&mut self, mut piece: &'a [u8]) -> &'a [u8] {
        while let Some((first, rest)) = piece.split_first() {
            if BYTE_ORDER_MARK.get(self.mark) != Some(first) {
                self.mark = BYTE_ORDER_MARK.len();
                break;
            }
            self.mark += 1;
            piece = rest;
        }
        piece
    }

    fn read(&mut self, mut input: &[u8]) -> Checked<Vec<Read>> {
        let is_last = input.is_empty();
        let mut lines = Vec::new();
        while is_last || !input.is_empty() {
            let (record, ends) = (&mut self.record[self.written..], &mut self.ends[self.ended..]);
            let (result, read, written, ended) = self.reader.read_record(input, record, ends);
            input = &input[read..];
            self.written += written;
            self.ended += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    // Read on to where it ends, for nothing.
                    (self.too_long, self.written, self.ended) = (true, 0, 0);
                }
                ReadRecordResult::Record => {
                    lines.extend(self.take()?);
                    (self.too_long, self.written, self.ended) = (false, 0, 0);
                }
                ReadRecordResult::End => break,
            }
        }
        Ok(lines)
    }

    /// The record that was read: a line, or the header.
    fn take(&mut self) -> Checked<Option<Read>> {
        let values = self.values();
        let Some(columns) = &self.columns else {
            let names = values.map_err(|fault| Failure::violation(FIELD, format!("the header is {fault}")))?;
            self.columns = Some(Columns::of_header(&names)?);
            return Ok(None);
        };
        Ok(Some(values.map_err(Cow::from).and_then(|values| columns.line(&values))))
    }

    fn values(&self) -> Result<Vec<String>, &'static str> {
        if self.too_long {
            return Err("too long: over 8 KiB, or over 64 columns");
        }
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        let bounds = starts.zip(self.ends).take(self.ended);
        let text = |(start, end)| str::from_utf8(&self.record[start..end]).map(str::to_owned);
        bounds.map(text).collect::<Result<_, _>>().map_err(|_| "not UTF-8")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<Read> {
        let mut csv = CsvLines::new();
        let mut lines: Vec<Read> = pieces.iter().flat_map(|piece| csv.feed(piece).expect("a header")).collect();
        lines.extend(csv.finish().expect("a header"));
        lines
    }

    fn line(reference: &str, amount: i64) -> Read {
        let reference = ExternalRef::normalise(reference).expect("a reference");
        Ok(Line { reference, currency: Currency::Asset(Asset::Usdt), amount, time: None })
    }

    #[test]
    fn a_file_is_the_same_wherever_it_is_cut() {
        let file = "\u{feff}note, Amount ,\"EXTERNAL_REF\",asset\r\n\"a \"\"note\"\",\nö\",39.00,r1,USDT\r\n\r\n,-0.39,\"r,2\"\r\n,x,r3,\n,1,r4";
        let whole = read(&[file.as_bytes()]);
        assert_eq!(whole[..2], [line("r1", 39_000_000), line("r,2", -390_000)]);
        assert!(whole[2].as_ref().is_err_and(|fault| fault.starts_with("amount")));
        assert_eq!(whole[3..], [line("r4", 1_000_000)]);
        for cut in 0..=file.len() {
            let (first, second) = file.as_bytes().split_at(cut);
            assert_eq!(read(&[first, second]), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = file.as_bytes().chunks(1).collect();
        assert_eq!(read(&single), whole);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let long = format!("external_ref,minor_units,time\nr1,1,{}\nr2,2\n", "x".repeat(RECORD_BYTES_MAX * 3));
        let lines = read(&[long.as_bytes()]);
        assert!(lines[0].as_ref().is_err_and(|fault| fault.starts_with("too long")), "{lines:?}");
        assert_eq!(lines[1..], [line("r2", 2)]);
        let wide = format!("external_ref,minor_units\nr1,1{}\nr2,2\n", ",".repeat(COLUMNS_MAX * 3));
        assert!(read(&[wide.as_bytes()])[0].is_err());
        for (record, field) in [
            (&b"r1,1.5,USDT,"[..], "minor_units"),
            (b" ,1,USDT,", "external_ref"),
            (b"r1,1,EUR,", "asset"),
            (b"r1,1,,yesterday", "time"),
            (b"r1", "minor_units"),
            (b"\xff,1,,", "not UTF-8"),
        ] {
            let file = [b"external_ref,minor_units,asset,time\n", record].concat();
            let lines = read(&[&file]);
            assert!(lines[0].as_ref().is_err_and(|fault| fault.starts_with(field)), "{lines:?}");
        }
    }

    #[test]
    fn a_header_names_the_columns_that_are_needed() {
        for header in ["external_ref,value\n", "amount\n", "r1,39.00\n", &"x".repeat(RECORD_BYTES_MAX * 2)] {
            let mut csv = CsvLines::new();
            let outcome = csv.feed(header.as_bytes()).and_then(|_| csv.finish());
            assert_eq!(outcome.expect_err("a fault").violations[0].0, FIELD, "{header}");
        }
        assert_eq!(read(&[]), []);
    }
}

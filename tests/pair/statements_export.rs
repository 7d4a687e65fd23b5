//! ExportStatement: a file that a spreadsheet opens, exact to the last unit, whatever happens meanwhile.

use chrono::{DateTime, SecondsFormat};
use p2phub_proto::referral::v1::{
    AccountPurpose, Entry, ExportStatementRequest, ListEntriesRequest, Payment, TransactionKind,
};
use p2phub_tests::{
    builders::ASSET,
    clients::Clients,
    postgres::Role,
    refusal::{fields, reason, refused},
};
use referral_svc::Clock;
use tonic::{Code, Status};

use crate::{
    concurrency::at_once,
    history::{micros, refund, start, timestamp},
};

const HEADER: &str = "time,version,kind,amount,balance_after,asset,transaction_id,subject_id\r\n";

fn request(partner_id: &str) -> ExportStatementRequest {
    ExportStatementRequest { partner_id: partner_id.to_owned(), asset: ASSET.to_owned(), ..Default::default() }
}

/// The pieces of the file.
async fn export(clients: &mut Clients, request: ExportStatementRequest) -> Result<Vec<Vec<u8>>, Status> {
    let mut stream = clients.ledger.export_statement(request).await?.into_inner();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.message().await? {
        pieces.push(piece.csv);
    }
    Ok(pieces)
}

/// The file's lines below its header, which it must have.
fn lines(pieces: &[Vec<u8>]) -> Vec<csv::StringRecord> {
    let file = String::from_utf8(pieces.concat()).expect("UTF-8");
    let file = file.strip_prefix('\u{feff}').expect("a byte order mark");
    assert!(file.starts_with(HEADER), "{file}");
    assert_eq!(file.matches('\n').count(), file.matches("\r\n").count());
    csv::Reader::from_reader(file.as_bytes()).records().map(|line| line.expect("a line")).collect()
}

/// The line that an entry must have.
fn line(entry: &Entry) -> csv::StringRecord {
    let units =
        |amount: &Option<p2phub_proto::referral::v1::Amount>| decimal(amount.as_ref().expect("an amount").minor_units);
    let time = DateTime::from_timestamp_micros(micros(&entry.create_time)).expect("a time");
    let kind = if entry.kind() == TransactionKind::ProSale { "PRO_SALE" } else { "REFUND" };
    csv::StringRecord::from(vec![
        time.to_rfc3339_opts(SecondsFormat::Micros, true),
        entry.version.to_string(),
        kind.to_owned(),
        units(&entry.amount),
        units(&entry.balance_after),
        "USDT".to_owned(),
        entry.transaction_id.clone(),
        entry.payment_id.clone(),
    ])
}

/// By another way than the service's.
fn decimal(minor_units: i64) -> String {
    let sign = if minor_units < 0 { "-" } else { "" };
    let (whole, part) = (minor_units.abs() / 1_000_000, minor_units.abs() % 1_000_000);
    let part = format!("{part:06}");
    let shown = part.trim_end_matches('0').len().max(2);
    format!("{sign}{whole}.{}", &part[..shown])
}

async fn entries(clients: &mut Clients, partner_id: &str) -> Vec<Entry> {
    let request = ListEntriesRequest {
        partner_id: partner_id.to_owned(),
        asset: ASSET.to_owned(),
        page_size: 500,
        ..Default::default()
    };
    let mut entries = clients.ledger.list_entries(request).await.expect("a page").into_inner().entries;
    entries.reverse();
    entries
}

/// So many sales by one partner.
async fn sales(clients: &Clients, buyer: &str, count: usize) -> Vec<Payment> {
    at_once((0..count).map(|_| {
        let (mut clients, buyer) = (clients.clone(), buyer.to_owned());
        async move { clients.buy_pro(&buyer).await.0 }
    }))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_has_every_entry_oldest_first_and_exact() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let earner = chain[0].partner_id.as_str();
    let payments = sales(&clients, &chain[1].partner_id, 420).await;
    refund(&mut clients, &payments[0], Some(1_300_000)).await;
    refund(&mut clients, &payments[1], Some(17)).await;
    refund(&mut clients, &payments[0], None).await;

    let booked = entries(&mut clients, earner).await;
    assert_eq!(booked.len(), 423);
    let pieces = export(&mut clients, request(earner)).await.expect("a statement");
    assert_eq!(pieces.len(), 4, "a header and three pages");
    assert!(pieces.iter().all(|piece| piece.len() < 48 * 1024));
    let file = lines(&pieces);
    assert_eq!(file, booked.iter().map(line).collect::<Vec<_>>());
    assert!(file.iter().any(|line| &line[3] == "-0.39") && file.iter().any(|line| &line[3] == "-0.000005"));
    // Nothing that a spreadsheet takes for a formula, but numbers.
    for cell in file.iter().flat_map(csv::StringRecord::iter) {
        assert!(!cell.starts_with(['=', '+', '@', '\t']), "{cell}");
        assert!(!cell.starts_with('-') || cell.parse::<f64>().is_ok(), "{cell}");
    }

    let [start_time, end_time] = [100, 300].map(|index: usize| micros(&booked[index].create_time));
    let window = ExportStatementRequest {
        start_time: Some(timestamp(start_time)),
        end_time: Some(timestamp(end_time)),
        purpose: AccountPurpose::PartnerAvailable.into(),
        ..request(earner)
    };
    let within = booked.iter().filter(|entry| (start_time..end_time).contains(&micros(&entry.create_time)));
    let file = lines(&export(&mut clients, window).await.expect("a statement"));
    assert_eq!(file, within.map(line).collect::<Vec<_>>());
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_ends_where_it_began_and_fails_aloud() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    let (earner, buyer) = (chain[0].partner_id.as_str(), chain[1].partner_id.as_str());
    assert_eq!(
        lines(&export(&mut clients, request(earner)).await.expect("a statement")),
        Vec::<csv::StringRecord>::new()
    );
    sales(&clients, buyer, 3).await;

    let pending = ExportStatementRequest { purpose: AccountPurpose::PartnerPending.into(), ..request(earner) };
    assert!(lines(&export(&mut clients, pending).await.expect("a statement")).is_empty());
    let unknown = request(&p2phub_tests::builders::request_id());
    refused(clients.ledger.export_statement(unknown).await, Code::NotFound, "PARTNER_NOT_FOUND");
    let platform = AccountPurpose::PlatformRevenue.into();
    for (wrong, field) in [
        (ExportStatementRequest { purpose: platform, ..request(earner) }, "purpose"),
        (ExportStatementRequest { asset: "TON".to_owned(), ..request(earner) }, "asset"),
        (
            ExportStatementRequest { start_time: Some(timestamp(2)), end_time: Some(timestamp(1)), ..request(earner) },
            "end_time",
        ),
    ] {
        let status = refused(clients.ledger.export_statement(wrong).await, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(fields(&status), [field]);
    }

    // What goes wrong after the first piece ends the stream with a status that tells nothing of the inside.
    let superuser = pair.referral_sql(Role::Superuser).await;
    let denied = "ALTER TABLE ledger_entries RENAME TO ledger_entries_away";
    superuser.batch_execute(denied).await.expect("a change");
    let mut stream = clients.ledger.export_statement(request(earner)).await.expect("a stream").into_inner();
    let head = stream.message().await.expect("a piece").expect("a piece").csv;
    assert!(head.ends_with(HEADER.as_bytes()));
    let status = stream.message().await.expect_err("a failure");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Internal, "INTERNAL"));
    assert!(!status.message().contains("ledger"), "{status}");
    assert!(status.metadata().contains_key("trace-id"));
    let back = "ALTER TABLE ledger_entries_away RENAME TO ledger_entries";
    superuser.batch_execute(back).await.expect("a change");

    // What is booked after the beginning is another statement's.
    let mut stream = clients.ledger.export_statement(request(earner)).await.expect("a stream").into_inner();
    let mut pieces = vec![stream.message().await.expect("a piece").expect("a piece").csv];
    sales(&clients, buyer, 1).await;
    while let Some(piece) = stream.message().await.expect("a piece") {
        pieces.push(piece.csv);
    }
    assert_eq!(lines(&pieces).len(), 3);
    assert_eq!(lines(&export(&mut clients, request(earner)).await.expect("a statement")).len(), 4);
    pair.finish().await;
}

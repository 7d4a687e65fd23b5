//! Entries by time, kind and account.

use chrono::TimeDelta;
use p2phub_proto::referral::v1::{AccountPurpose, Entry, ListEntriesRequest, TransactionKind};
use p2phub_tests::{
    builders::ASSET,
    clients::Clients,
    refusal::{fields, refused},
};
use referral_svc::Clock;
use tonic::Code;

use super::{micros, refund, start, timestamp};

/// All pages, each of two entries at most.
async fn all(clients: &mut Clients, request: &ListEntriesRequest) -> Vec<Entry> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListEntriesRequest { page_size: 2, page_token, ..request.clone() };
        let page = clients.ledger.list_entries(request).await.expect("a page").into_inner();
        assert!(page.entries.len() <= 2 && found.len() < 100);
        found.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_found_by_time_kind_and_account() {
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 2).await;
    for day in 1..=5 {
        clock.set_ahead(TimeDelta::days(day));
        let (payment, _) = clients.buy_pro(&chain[1].partner_id).await;
        refund(&mut clients, &payment, Some(13_000_000)).await;
    }
    let any =
        ListEntriesRequest { partner_id: chain[0].partner_id.clone(), asset: ASSET.to_owned(), ..Default::default() };
    let whole = all(&mut clients, &any).await;
    assert_eq!(whole.len(), 10);
    assert!(whole.windows(2).all(|pair| pair[0].version == pair[1].version + 1), "newest first");

    // Every window whose ends are entries, or a moment beside them; every kind.
    let kinds =
        [TransactionKind::Unspecified, TransactionKind::ProSale, TransactionKind::Refund, TransactionKind::Release];
    for (from, until) in [(0, 9), (3, 7), (4, 4), (9, 9)] {
        let [start, end] = [9 - from, 9 - until].map(|index: usize| micros(&whole[index].create_time));
        for (start, end) in [(start, end), (start + 1, end + 1), (start, end + 1)] {
            for kind in kinds {
                let request = ListEntriesRequest {
                    start_time: Some(timestamp(start)),
                    end_time: Some(timestamp(end.max(start))),
                    kind: kind.into(),
                    purpose: AccountPurpose::PartnerAvailable.into(),
                    ..any.clone()
                };
                let expected: Vec<Entry> = whole
                    .iter()
                    .filter(|entry| (start..end).contains(&micros(&entry.create_time)))
                    .filter(|entry| kind == TransactionKind::Unspecified || entry.kind() == kind)
                    .cloned()
                    .collect();
                assert_eq!(all(&mut clients, &request).await, expected, "{from}..{until} {kind:?}");
            }
        }
    }
    let pending = ListEntriesRequest { purpose: AccountPurpose::PartnerPending.into(), ..any.clone() };
    assert_eq!(all(&mut clients, &pending).await, []);
    // A nanosecond later than an entry is later than it.
    let mut moment = timestamp(micros(&whole[0].create_time));
    moment.nanos += 1;
    let request = ListEntriesRequest { start_time: Some(moment), ..any.clone() };
    assert_eq!(all(&mut clients, &request).await, []);
    let request = ListEntriesRequest { end_time: Some(moment), ..any.clone() };
    assert_eq!(all(&mut clients, &request).await, whole);

    let first = ListEntriesRequest { page_size: 2, ..any.clone() };
    let page_token = clients.ledger.list_entries(first).await.expect("a page").into_inner().next_page_token;
    let platform = i32::from(AccountPurpose::PlatformRevenue);
    let time = Some(timestamp(1));
    for (request, field) in [
        (ListEntriesRequest { kind: 99, ..any.clone() }, "kind"),
        (ListEntriesRequest { purpose: 99, ..any.clone() }, "purpose"),
        (ListEntriesRequest { purpose: platform, ..any.clone() }, "purpose"),
        (ListEntriesRequest { start_time: Some(timestamp(2)), end_time: time, ..any.clone() }, "end_time"),
        (ListEntriesRequest { start_time: time, page_token: page_token.clone(), ..any.clone() }, "page_token"),
        (ListEntriesRequest { end_time: time, page_token: page_token.clone(), ..any.clone() }, "page_token"),
        (ListEntriesRequest { kind: 1, page_token: page_token.clone(), ..any.clone() }, "page_token"),
        (ListEntriesRequest { purpose: 4, page_token, ..any.clone() }, "page_token"),
    ] {
        let status = refused(clients.ledger.list_entries(request).await, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(fields(&status), [field]);
    }
    pair.finish().await;
}

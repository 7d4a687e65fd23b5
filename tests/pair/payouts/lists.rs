//! Lists of payouts and adjustments: newest first, page by page, each filter.

use p2phub_proto::referral::v1::{AdjustmentState, ListAdjustmentsRequest, ListPayoutsRequest, PayoutState};
use p2phub_tests::{
    builders::request_id,
    clients::Clients,
    pair::Options,
    refusal::{fields, refused},
};
use tonic::Code;

use super::earner;

/// Reads to the end, two at a time.
async fn payouts(clients: &mut Clients, partner_id: &str, state: PayoutState) -> Vec<String> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request =
            ListPayoutsRequest { partner_id: partner_id.to_owned(), state: state.into(), page_size: 2, page_token };
        let page = clients.payouts.list_payouts(request).await.expect("a page").into_inner();
        assert!(page.payouts.len() <= 2 && page.payouts.iter().all(|payout| payout.items.is_empty()));
        found.extend(page.payouts.into_iter().map(|payout| payout.payout_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

async fn adjustments(clients: &mut Clients, partner_id: &str, state: AdjustmentState) -> Vec<String> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let partner_id = partner_id.to_owned();
        let request = ListAdjustmentsRequest { partner_id, state: state.into(), page_size: 2, page_token };
        let page = clients.ledger.list_adjustments(request).await.expect("a page").into_inner();
        assert!(page.adjustments.len() <= 2);
        found.extend(page.adjustments.into_iter().map(|adjustment| adjustment.adjustment_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payouts_and_adjustments_are_listed_newest_first_by_partner_and_state() {
    let pair = Options::default().start_alone().await;
    let mut clients = pair.clients.clone();
    let (ann, _) = earner(&mut clients, "ann", 0).await;
    let (bob, _) = earner(&mut clients, "bob", 0).await;
    let mut credits = Vec::new();
    for partner_id in [&ann, &bob, &ann] {
        credits.insert(0, clients.adjust(partner_id, 100_000_000).await.adjustment_id);
    }
    let proposed = clients.propose_adjustment(&bob, -1).await.adjustment_id;
    let mut asked = Vec::new();
    for partner_id in [&ann, &ann, &bob, &ann, &bob] {
        asked.insert(0, clients.request_payout(partner_id, Some(10_000_000)).await.payout_id);
    }
    let newest = |places: &[usize]| places.iter().map(|place| asked[*place].clone()).collect::<Vec<_>>();
    clients.cancel_payout(&asked[1]).await;
    clients.approve_payout(&asked[2]).await;
    clients.approve_payout(&asked[3]).await;
    clients.complete_payout(&asked[3]).await;

    use PayoutState::{Approved, Cancelled, Completed, Failed, Requested, Unspecified};
    for (partner_id, state, places) in [
        ("", Unspecified, &[0, 1, 2, 3, 4][..]),
        (ann.as_str(), Unspecified, &[1, 3, 4]),
        (bob.as_str(), Unspecified, &[0, 2]),
        ("", Requested, &[0, 4]),
        (ann.as_str(), Requested, &[4]),
        ("", Approved, &[2]),
        ("", Completed, &[3]),
        ("", Cancelled, &[1]),
        ("", Failed, &[]),
    ] {
        assert_eq!(payouts(&mut clients, partner_id, state).await, newest(places), "{partner_id} {state:?}");
    }
    let all = [vec![proposed.clone()], credits.clone()].concat();
    assert_eq!(adjustments(&mut clients, "", AdjustmentState::Unspecified).await, all);
    assert_eq!(adjustments(&mut clients, "", AdjustmentState::Approved).await, credits);
    assert_eq!(adjustments(&mut clients, &bob, AdjustmentState::Proposed).await, [proposed]);
    assert!(adjustments(&mut clients, &ann, AdjustmentState::Rejected).await.is_empty());

    let nobody = ListPayoutsRequest { partner_id: request_id(), ..Default::default() };
    refused(clients.payouts.list_payouts(nobody).await, Code::NotFound, "PARTNER_NOT_FOUND");
    let nobody = ListAdjustmentsRequest { partner_id: request_id(), ..Default::default() };
    refused(clients.ledger.list_adjustments(nobody).await, Code::NotFound, "PARTNER_NOT_FOUND");
    let unknown = ListPayoutsRequest { state: 99, ..Default::default() };
    let answer = clients.payouts.list_payouts(unknown).await;
    assert_eq!(fields(&refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT")), ["state"]);
    pair.finish().await;
}

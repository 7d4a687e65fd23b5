//! What can be read at the end, against the model: every partner, network, lineage, balance, rank, payment with its
//! commissions and refunds, payout with what it pays, and adjustment.

use std::{cmp::Reverse, time::Instant};

use futures_util::{StreamExt, stream};
use p2phub_proto::referral::v1::{self as pb, get_partner_request::Key};
use p2phub_tests::{
    builders::{ASSET, usdt},
    clients::Clients,
};

use super::{
    commands::payment,
    rules::{Micros, World},
};

const AT_ONCE: usize = 16;

/// Of more people than so many, only every fourth one is read in full.
const IN_FULL: usize = 2_000;

/// When reading began, by both clocks: what expires while it goes on may be seen either way.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    /// Taken no later than `since`.
    pub(super) begun: Instant,
    pub(super) since: Micros,
}

impl Reading {
    /// The database's time by now, at the latest.
    fn until(self) -> Micros {
        self.since + Micros::try_from(self.begun.elapsed().as_micros()).expect("not that long")
    }
}

pub(super) async fn agree(world: &World, clients: &Clients, reading: Reading) {
    let members = world.below(|_| true);
    let mut by_xp: Vec<i64> = world.people.iter().map(|person| person.xp).collect();
    by_xp.sort_unstable();
    let people: Vec<_> = (0..world.people.len())
        .map(|person| {
            let better = by_xp.len() - by_xp.partition_point(|xp| *xp <= world.people[person].xp);
            person_agrees(world, person, members[person], better, clients.clone(), reading)
        })
        .collect();
    let counted: Vec<(usize, [i64; 9])> = stream::iter(people).buffer_unordered(AT_ONCE).collect().await;
    pro_counts_agree(world, &counted, reading);
    let bills: Vec<_> = (0..world.bills.len()).map(|bill| bill_agrees(world, bill, clients.clone(), reading)).collect();
    stream::iter(bills).buffer_unordered(AT_ONCE).collect::<()>().await;
    let payouts: Vec<_> = world.payouts.iter().map(|payout| payout_agrees(payout, clients.clone())).collect();
    stream::iter(payouts).buffer_unordered(AT_ONCE).collect::<()>().await;
    adjustments_agree(world, clients.clone()).await;
    leaders_agree(world, clients.clone()).await;
}

async fn payout_agrees(payout: &pb::Payout, mut clients: Clients) {
    let request = pb::GetPayoutRequest { payout_id: payout.payout_id.clone() };
    let answer = clients.payouts.get_payout(request).await.expect("an answer").into_inner();
    assert_eq!(answer.payout.as_ref(), Some(payout));
}

/// Each partner's, newest first.
async fn adjustments_agree(world: &World, mut clients: Clients) {
    for person in world.people.iter().filter(|person| !person.adjustments.is_empty()) {
        let request =
            pb::ListAdjustmentsRequest { partner_id: person.id.clone(), page_size: 500, ..Default::default() };
        let answer = clients.ledger.list_adjustments(request).await.expect("an answer").into_inner();
        let mut expected: Vec<_> =
            person.adjustments.iter().map(|adjusted| world.adjustments[*adjusted].shown.clone()).collect();
        expected.sort_by(|one, other| other.adjustment_id.cmp(&one.adjustment_id));
        assert_eq!(answer.adjustments, expected, "{}", person.id);
    }
}

/// Exactly those with PRO, unless that of some ended while they were read.
fn pro_counts_agree(world: &World, counted: &[(usize, [i64; 9])], reading: Reading) {
    let [early, late] = [reading.since, reading.until()].map(|now| world.below(|one| one.is_pro(now)));
    for (index, counts) in counted {
        for ((count, early), late) in counts.iter().zip(early[*index]).zip(late[*index]) {
            let id = &world.people[*index].id;
            assert!((late..=early).contains(count), "{id}: {counts:?}, not {early} or down to {late}");
        }
    }
}

/// Equal as of one of the two ends of reading.
fn assert_shown<T: PartialEq + std::fmt::Debug>(actual: &T, show: impl Fn(Micros) -> T, reading: Reading) {
    if *actual != show(reading.until()) {
        assert_eq!(*actual, show(reading.since));
    }
}

/// `members` are who stands below. Returns how many of them are counted as PRO.
async fn person_agrees(
    world: &World,
    index: usize,
    members: [i64; 9],
    better: usize,
    mut clients: Clients,
    reading: Reading,
) -> (usize, [i64; 9]) {
    let person = &world.people[index];
    let partner_id = person.id.clone();
    let key = match index % 3 {
        0 => Key::PartnerId(person.id.clone()),
        1 => Key::ExternalId(person.external_id.clone()),
        _ => Key::ReferralCode(person.code.to_lowercase()),
    };
    let answer = clients.partners.get_partner(pb::GetPartnerRequest { key: Some(key) }).await.expect("an answer");
    let partner = answer.into_inner().partner.expect("a partner");
    assert_shown(&partner, |now| world.show(index, now), reading);

    let request = pb::GetNetworkRequest { partner_id: partner_id.clone(), ..Default::default() };
    let levels = clients.partners.get_network(request).await.expect("an answer").into_inner().levels;
    assert_eq!(person.below, members, "the model's own counts of {partner_id}");
    assert_eq!(levels.iter().map(|level| level.members).collect::<Vec<_>>(), members, "{partner_id}");
    let counted: Vec<i64> = levels.iter().map(|level| level.pro_members).collect();
    let counted = (index, counted.try_into().expect("nine levels"));

    let request =
        pb::GetBalanceRequest { partner_id: partner_id.clone(), asset: ASSET.to_owned(), ..Default::default() };
    let balance = clients.ledger.get_balance(request).await.expect("an answer").into_inner();
    let expected = pb::GetBalanceResponse {
        available: Some(usdt(person.available)),
        pending: Some(usdt(person.pending)),
        version: person.entries,
        reserved: Some(usdt(person.reserved)),
        paid: Some(usdt(person.paid)),
    };
    assert_eq!(balance, expected, "{partner_id}");
    let shares = || person.shares.iter().map(|(bill, share)| &world.bills[*bill].shares[*share]);
    let adjusted = person.adjustments.iter().map(|adjusted| world.adjustments[*adjusted].open());
    let open: i64 = shares().map(|share| share.open()).chain(adjusted).sum();
    let held: i64 = shares().filter(|share| share.held).map(|share| share.left()).sum();
    assert_eq!((open, held), (person.available, person.pending), "what {partner_id} can claim is the balance");

    if world.people.len() > IN_FULL && !index.is_multiple_of(4) {
        return counted;
    }
    let request = pb::GetLineageRequest { partner_id: partner_id.clone() };
    let ancestors = clients.partners.get_lineage(request).await.expect("an answer").into_inner().ancestors;
    let above = world.above(index).into_iter().zip(1..=9);
    let above: Vec<_> =
        above.map(|(above, level)| pb::Ancestor { level, partner_id: world.people[above].id.clone() }).collect();
    assert_eq!(ancestors, above, "{partner_id}");

    let request = pb::ListXpAwardsRequest { partner_id: partner_id.clone(), page_size: 500, ..Default::default() };
    let awards = clients.partners.list_xp_awards(request).await.expect("an answer").into_inner().xp_awards;
    if person.awards <= 500 {
        assert_eq!(awards.len(), person.awards, "{partner_id}");
        assert_eq!(awards.iter().map(|award| award.xp).sum::<i64>(), person.xp, "{partner_id}");
    }

    let rank = clients.leaderboard.get_partner_rank(pb::GetPartnerRankRequest { partner_id }).await;
    let rank = rank.expect("an answer").into_inner();
    assert_eq!((usize::try_from(rank.rank), rank.xp), (Ok(better + 1), person.xp));
    counted
}

async fn bill_agrees(world: &World, index: usize, mut clients: Clients, reading: Reading) {
    let bill = &world.bills[index];
    let request = pb::GetPaymentRequest { payment_id: bill.id().to_owned() };
    let answer = clients.payments.get_payment(request).await.expect("an answer").into_inner();
    assert_shown(&payment(answer.payment), |now| bill.show(now), reading);
    assert_eq!(answer.commissions, bill.commissions(), "{}", bill.id());
    assert_eq!(answer.refunds, bill.refunds, "{}", bill.id());
}

/// By XP, and of equals the earlier registration first, page after page.
async fn leaders_agree(world: &World, mut clients: Clients) {
    let mut expected: Vec<_> = world.people.iter().collect();
    expected.sort_by_key(|person| Reverse(person.xp));
    let expected: Vec<_> = expected.into_iter().map(|person| person.id.clone()).collect();
    let mut leaders = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListTopPartnersRequest { page_size: 70, page_token };
        let page = clients.leaderboard.list_top_partners(request).await.expect("an answer").into_inner();
        leaders.extend(page.partners.into_iter().map(|partner| partner.partner_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(leaders, expected);
}

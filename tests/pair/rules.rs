//! The rules of partners, the tree and XP, number by number.

mod attach;
mod partners;

use chrono::TimeDelta;
use p2phub_proto::referral::v1::{
    GetLineageRequest, GetNetworkRequest, GetPartnerRankRequest, ListTopPartnersRequest, ListXpAwardsRequest, Partner,
};
use p2phub_tests::{
    clients::Clients,
    pair::{Options, Pair},
    postgres::Role,
    wait,
};
use referral_svc::Clock;

/// referral-svc under a clock that a test can set ahead.
async fn start(clock: &Clock) -> Pair {
    let clock = clock.clone();
    Options::default().referral(move |config| config.clock = clock.clone()).start_alone().await
}

/// Members by level below, then those of them who count as PRO.
async fn network(clients: &mut Clients, partner_id: &str) -> (Vec<i64>, Vec<i64>) {
    let request = GetNetworkRequest { partner_id: partner_id.to_owned(), ..Default::default() };
    let levels = clients.partners.get_network(request).await.expect("an answer").into_inner().levels;
    assert_eq!(levels.iter().map(|row| row.level).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
    levels.iter().map(|row| (row.members, row.pro_members)).unzip()
}

/// Who stands above, nearest first.
async fn lineage(clients: &mut Clients, partner_id: &str) -> Vec<String> {
    let request = GetLineageRequest { partner_id: partner_id.to_owned() };
    let ancestors = clients.partners.get_lineage(request).await.expect("an answer").into_inner().ancestors;
    assert!(ancestors.iter().zip(1..).all(|(ancestor, level)| ancestor.level == level));
    ancestors.into_iter().map(|ancestor| ancestor.partner_id).collect()
}

/// Level, multiplier and XP of a partner's awards, newest first.
async fn awards(clients: &mut Clients, partner_id: &str) -> Vec<(i32, i32, i64)> {
    let request = ListXpAwardsRequest { partner_id: partner_id.to_owned(), ..Default::default() };
    let awards = clients.partners.list_xp_awards(request).await.expect("an answer").into_inner().xp_awards;
    awards.iter().map(|award| (award.level, award.multiplier, award.xp)).collect()
}

fn ids<'a>(partners: impl IntoIterator<Item = &'a Partner>) -> Vec<String> {
    partners.into_iter().map(|partner| partner.partner_id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn signup_xp_and_counts_reach_nine_levels_and_not_the_tenth() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 11).await;

    // The last signup gave 35, 10 and seven times 1; the tenth ancestor, the chain's first, got nothing from it.
    let before_and_own = [(0, 9), (1, 9), (2, 8), (3, 7), (4, 6), (5, 5), (6, 4), (7, 3), (8, 2), (9, 1), (10, 0)];
    for (index, reach) in before_and_own {
        let partner = clients.partner(&chain[index].partner_id).await;
        let by_level = [35, 10, 1, 1, 1, 1, 1, 1, 1];
        assert_eq!(partner.xp, by_level[..reach].iter().sum::<i64>(), "XP of {}", partner.external_id);
        assert_eq!(partner.depth, i32::try_from(index).expect("small"));
        assert_eq!(partner.network_size, i64::try_from(reach).expect("small"));
        assert_eq!(partner.direct_referrals, i64::from(reach > 0));
        let (members, _) = network(&mut clients, &partner.partner_id).await;
        assert_eq!(members.iter().sum::<i64>(), partner.network_size);
        assert!(members[..reach].iter().all(|count| *count == 1), "{members:?}");
        let above = ids(chain[..index].iter().rev().take(9));
        assert_eq!(lineage(&mut clients, &partner.partner_id).await, above, "{}", partner.external_id);
        let expected: Vec<_> = (1..).zip(by_level).map(|(level, xp)| (level, 1, xp)).take(reach).collect();
        let found: Vec<_> = awards(&mut clients, &partner.partner_id).await.into_iter().rev().collect();
        assert_eq!(found, expected);
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_times_the_xp_while_pro_lasts_and_once_again_after() {
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 10).await;
    let (first, last) = (&chain[0], &chain[9]);
    for partner in [first, last] {
        clients.buy_pro(&partner.partner_id).await;
    }
    clients.register("below-1", &last.referral_code).await;
    assert_eq!(awards(&mut clients, &last.partner_id).await, [(1, 5, 175)]);
    assert_eq!(awards(&mut clients, &chain[8].partner_id).await[0], (2, 1, 10), "PRO is each ancestor's own");
    assert_eq!(awards(&mut clients, &first.partner_id).await.len(), 9, "PRO reaches no tenth level either");
    clients.register("beside", &first.referral_code).await;
    assert_eq!(awards(&mut clients, &first.partner_id).await[0], (1, 5, 175));

    clock.set_ahead(TimeDelta::days(30) - TimeDelta::minutes(5));
    assert!(clients.partner(&last.partner_id).await.pro_active);
    clients.register("below-2", &last.referral_code).await;
    assert_eq!(awards(&mut clients, &last.partner_id).await[0], (1, 5, 175));

    clock.set_ahead(TimeDelta::days(30) + TimeDelta::seconds(1));
    let expired = clients.partner(&last.partner_id).await;
    assert!(!expired.pro_active && expired.pro_expires_at.is_some());
    clients.register("below-3", &last.referral_code).await;
    assert_eq!(awards(&mut clients, &last.partner_id).await[0], (1, 1, 35));
    assert_eq!(clients.partner(&last.partner_id).await.xp, 175 + 175 + 35);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_rise_at_one_three_and_six_hundred_xp() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let root = clients.register("root", "").await;
    assert_eq!(root.level, 1);
    let mut seen = Vec::new();
    for index in 0..18 {
        let child = clients.register(&format!("child-{index}"), &root.referral_code).await;
        clients.register(&format!("grandchild-{index}"), &child.referral_code).await;
        let partner = clients.partner(&root.partner_id).await;
        assert_eq!(partner.xp, 45 * (index + 1));
        seen.push(partner.level);
    }
    // 45 a step: 90 | 135 … 270 | 315 … 585 | 630 … 810.
    assert_eq!(seen, [vec![1; 2], vec![2; 4], vec![3; 7], vec![4; 5]].concat());
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaderboard_ranks_by_xp_and_pages_through_everyone() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let mut everyone = clients.chain("chain", 5).await;
    everyone.extend(clients.chain("equal", 5).await);
    everyone.push(clients.register("late", "").await);

    let mut expected = Vec::new();
    for partner in &everyone {
        expected.push(clients.partner(&partner.partner_id).await);
    }
    // Of equals the earlier registration: the sort keeps their order.
    expected.sort_by_key(|partner| -partner.xp);

    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListTopPartnersRequest { page_size: 2, page_token };
        let page = clients.leaderboard.list_top_partners(request).await.expect("a page").into_inner();
        assert!(page.partners.len() <= 2 && found.len() <= expected.len());
        found.extend(page.partners);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, expected);

    let everyone: Vec<_> = expected.into_iter().map(|partner| (partner.partner_id, partner.xp)).collect();
    assert_ranks(&mut clients, &everyone).await;
    pair.finish().await;
}

/// Everyone with their XP: each one's rank is one more than how many have more.
async fn assert_ranks(clients: &mut Clients, everyone: &[(String, i64)]) {
    for (partner_id, xp) in everyone {
        let request = GetPartnerRankRequest { partner_id: partner_id.clone() };
        let place = clients.leaderboard.get_partner_rank(request).await.expect("a rank").into_inner();
        let better = everyone.iter().filter(|(_, other)| other > xp).count();
        assert_eq!((usize::try_from(place.rank), place.xp), (Ok(better + 1), *xp));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_are_right_wherever_xp_crosses_into_another_count() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let sql = pair.referral_sql(Role::Owner).await;
    let mut everyone = Vec::new();
    // Nodes are 64 wide, and 64 times as wide in each further tier.
    for xp in [0, 0, 1, 63, 64, 65, 4095, 4096, 262_143, 262_144, 16_777_215, 16_777_216, 33_554_432, 1 << 40] {
        let partner_id = clients.register(&format!("has:{}", everyone.len()), "").await.partner_id;
        everyone.push((partner_id, xp));
    }
    // As they are, and once all have moved to the next one's XP.
    for _ in 0..2 {
        for (partner_id, xp) in &everyone {
            let update = "UPDATE standings SET xp = $2 WHERE partner_id = $1::text::uuid";
            assert_eq!(sql.execute(update, &[partner_id, xp]).await.expect("XP"), 1);
        }
        assert_ranks(&mut clients, &everyone).await;
        let moved: Vec<i64> = everyone.iter().cycle().skip(1).map(|(_, xp)| *xp).take(everyone.len()).collect();
        everyone.iter_mut().zip(moved).for_each(|((_, xp), next)| *xp = next);
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pro_members_follow_a_purchase_and_an_expiry() {
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("chain", 3).await;
    clients.buy_pro(&chain[2].partner_id).await;
    for (ahead, count) in [(TimeDelta::zero(), 1), (TimeDelta::days(31), 0)] {
        clock.set_ahead(ahead);
        for (index, level) in [(0, 1), (1, 0)] {
            let mut expected = vec![0; 9];
            expected[level] = count;
            wait::until(&format!("{count} PRO member at level {}", level + 1), async || {
                let (_, pro_members) = network(&mut clients, &chain[index].partner_id).await;
                (pro_members == expected).then_some(())
            })
            .await;
        }
    }
    pair.finish().await;
}

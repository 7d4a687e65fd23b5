//! Attaching a referrer later: the whole branch moves, and nothing is retroactive.

use chrono::TimeDelta;
use p2phub_proto::referral::v1::{AttachReferrerRequest, Partner};
use p2phub_tests::{builders::request_id, clients::Clients, refusal::refused};
use referral_svc::Clock;
use tonic::{Code, Response, Status};

use super::{awards, ids, lineage, network, start};

async fn attach(clients: &mut Clients, partner_id: &str, code: &str) -> Result<Response<Partner>, Status> {
    let request = AttachReferrerRequest {
        request_id: request_id(),
        partner_id: partner_id.to_owned(),
        referral_code: code.to_owned(),
    };
    let answer = clients.partners.attach_referrer(request).await?;
    Ok(answer.map(|answer| answer.partner.expect("a partner")))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_partner_brings_the_whole_branch_along() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let up = clients.chain("up", 3).await;
    // Eleven deep, so that lineages and counts are cut at nine levels.
    let down = clients.chain("down", 8).await;
    let (_, before) = clients.buy_pro(&down[1].partner_id).await;
    assert_eq!(ids_of(&before), [down[0].partner_id.clone()]);

    let moved = attach(&mut clients, &down[0].partner_id, &up[2].referral_code.to_lowercase()).await;
    let moved = moved.expect("an attachment").into_inner();
    assert_eq!((moved.referrer_id.as_str(), moved.depth), (up[2].partner_id.as_str(), 3));

    let line: Vec<Partner> = up.iter().chain(&down).cloned().collect();
    for (index, partner) in line.iter().enumerate() {
        let now = clients.partner(&partner.partner_id).await;
        assert_eq!(now.depth, i32::try_from(index).expect("small"), "{}", now.external_id);
        let above = ids(line[..index].iter().rev().take(9));
        assert_eq!(lineage(&mut clients, &partner.partner_id).await, above, "{}", now.external_id);
        let below = (line.len() - 1 - index).min(9);
        let expected: Vec<_> = (0..9).map(|level| i64::from(level < below)).collect();
        assert_eq!(network(&mut clients, &partner.partner_id).await.0, expected, "{}", now.external_id);
    }

    // XP for the attached partner alone, on top of what their own signups gave.
    assert_eq!(awards(&mut clients, &up[2].partner_id).await, [(1, 1, 35)]);
    assert_eq!(awards(&mut clients, &up[1].partner_id).await, [(2, 1, 10), (1, 1, 35)]);
    assert_eq!(awards(&mut clients, &up[0].partner_id).await, [(3, 1, 1), (2, 1, 10), (1, 1, 35)]);
    // Of the sale before they have nothing; of the next one, their shares.
    assert_eq!(clients.balance(&up[2].partner_id).await, 0);
    let (_, after) = clients.buy_pro(&down[1].partner_id).await;
    assert_eq!(ids_of(&after), ids([&down[0], &up[2], &up[1], &up[0]]));
    for (partner, balance) in [(&down[0], 23_400_000), (&up[2], 1_950_000), (&up[1], 1_170_000), (&up[0], 390_000)] {
        assert_eq!(clients.balance(&partner.partner_id).await, balance, "{}", partner.external_id);
    }
    pair.finish().await;
}

fn ids_of(commissions: &[p2phub_proto::referral::v1::Commission]) -> Vec<String> {
    commissions.iter().map(|commission| commission.earner_id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_that_breaks_a_rule_is_refused_and_changes_nothing() {
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    // Deeper than a lineage reaches.
    let chain = clients.chain("chain", 12).await;
    let other = clients.register("other", "").await;
    let (root, child) = (&chain[0], &chain[1]);
    let unknown = request_id();
    for (partner_id, code, status, reason) in [
        (&child.partner_id, &other.referral_code, Code::FailedPrecondition, "REFERRER_ALREADY_SET"),
        (&child.partner_id, &root.referral_code, Code::FailedPrecondition, "REFERRER_ALREADY_SET"),
        (&root.partner_id, &root.referral_code, Code::FailedPrecondition, "REFERRAL_CYCLE"),
        (&root.partner_id, &child.referral_code, Code::FailedPrecondition, "REFERRAL_CYCLE"),
        (&root.partner_id, &chain[11].referral_code, Code::FailedPrecondition, "REFERRAL_CYCLE"),
        (&root.partner_id, &"P2P-ZZZZZZZZ".to_owned(), Code::NotFound, "REFERRAL_CODE_NOT_FOUND"),
        (&unknown, &root.referral_code, Code::NotFound, "PARTNER_NOT_FOUND"),
    ] {
        refused(attach(&mut clients, partner_id, code).await, status, reason);
    }
    assert_eq!(clients.partner(&root.partner_id).await.referrer_id, "");
    assert_eq!(lineage(&mut clients, &chain[11].partner_id).await.len(), 9);
    assert_eq!(clients.partner(&other.partner_id).await, other);

    clock.set_ahead(TimeDelta::hours(24));
    let late = attach(&mut clients, &root.partner_id, &other.referral_code).await;
    refused(late, Code::FailedPrecondition, "ATTRIBUTION_WINDOW_CLOSED");
    clock.set_ahead(TimeDelta::hours(24) - TimeDelta::minutes(5));
    attach(&mut clients, &root.partner_id, &other.referral_code).await.expect("still open");
    let again = attach(&mut clients, &root.partner_id, &other.referral_code).await;
    refused(again, Code::FailedPrecondition, "REFERRER_ALREADY_SET");
    pair.finish().await;
}

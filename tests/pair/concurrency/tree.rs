//! A tree that grows and changes at many places at once.

use p2phub_proto::referral::v1::{AttachReferrerRequest, GetNetworkRequest, Partner};
use p2phub_tests::{
    builders::{confirmation, registration, request_id},
    clients::Clients,
    postgres::Role,
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tonic::{Code, Status};

use super::{Twice, assert_books_balance, assert_tree_is_right, at_once, failure};
use crate::model::seed;

const SIGNUPS: usize = 200;
const RINGS: usize = 25;
const RING: usize = 8;

/// One call, of any kind; what it answered doesn't matter here.
#[derive(Clone)]
enum Call {
    SignUp { external_id: String, code: String },
    Attach { partner_id: String, code: String },
    Sell { payment_id: String },
}

impl Call {
    async fn run(self, mut clients: Clients) -> Result<(), Status> {
        match self {
            Self::SignUp { external_id, code } => {
                clients.partners.register_partner(registration(&external_id, &code)).await.map(drop)
            }
            Self::Attach { partner_id, code } => {
                let request = AttachReferrerRequest { request_id: request_id(), partner_id, referral_code: code };
                clients.partners.attach_referrer(request).await.map(drop)
            }
            Self::Sell { payment_id } => {
                let reference = format!("ref-{payment_id}");
                clients.payments.confirm_payment(confirmation(&payment_id, &reference)).await.map(drop)
            }
        }
    }
}

fn attach(partner: &Partner, referrer: &Partner) -> Call {
    Call::Attach { partner_id: partner.partner_id.clone(), code: referrer.referral_code.clone() }
}

/// Shuffles the calls and runs them at once, on both instances by turns.
async fn run(twice: &Twice, mut calls: Vec<Call>, random: &mut StdRng) -> Vec<(Call, Result<(), Status>)> {
    calls.shuffle(random);
    let running = calls.clone().into_iter().enumerate().map(|(turn, call)| call.run(twice.by_turns(turn)));
    let answers = at_once(running.collect::<Vec<_>>()).await;
    calls.into_iter().zip(answers).collect()
}

async fn register_roots(twice: &Twice, prefix: &'static str, number: usize) -> Vec<Partner> {
    at_once((0..number).map(|turn| {
        let mut clients = twice.by_turns(turn);
        async move { clients.register(&format!("{prefix}-{turn}"), "").await }
    }))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_signups_and_two_hundred_would_be_cycles_leave_exact_counts() {
    let mut random = StdRng::seed_from_u64(seed());
    let twice = Twice::start().await;
    let mut clients = twice.by_turns(0);
    // The referrer has ten above: nine of them are rewarded for each signup, the farthest is not.
    let line = clients.chain("line", 11).await;
    let referrer = line[10].clone();
    let before: Vec<i64> = {
        let mut xp = Vec::new();
        for partner in &line {
            xp.push(clients.partner(&partner.partner_id).await.xp);
        }
        xp
    };
    let roots = register_roots(&twice, "ring", RINGS * RING).await;
    let signups = (0..SIGNUPS)
        .map(|turn| Call::SignUp { external_id: format!("new-{turn}"), code: referrer.referral_code.clone() });
    let attaches = roots
        .chunks(RING)
        .flat_map(|ring| ring.iter().zip(ring.iter().cycle().skip(1)))
        .map(|(partner, next)| attach(partner, next));
    let answers = run(&twice, signups.chain(attaches).collect(), &mut random).await;

    // Whichever call comes last in a ring would close it.
    let refused: Vec<_> = answers.iter().filter_map(|(_, answer)| failure(answer)).collect();
    assert_eq!(refused, vec![(Code::FailedPrecondition, "REFERRAL_CYCLE".to_owned()); RINGS]);

    let awards = [35, 10, 1, 1, 1, 1, 1, 1, 1, 0, 0];
    for ((partner, before), award) in line.iter().rev().zip(before.iter().rev()).zip(awards) {
        let now = clients.partner(&partner.partner_id).await;
        assert_eq!(now.xp - before, 200 * award, "{}", partner.external_id);
    }
    let referrer = clients.partner(&referrer.partner_id).await;
    assert_eq!((referrer.direct_referrals, referrer.network_size), (200, 200));
    assert_eq!(referrer.level, 12, "7000 XP lie between 50·11·12 and 50·12·13");
    let network = clients
        .partners
        .get_network(GetNetworkRequest { partner_id: line[3].partner_id.clone(), ..Default::default() })
        .await;
    let members: Vec<_> = network.expect("an answer").into_inner().levels.iter().map(|level| level.members).collect();
    assert_eq!(members, [1, 1, 1, 1, 1, 1, 1, 200, 0]);

    assert_tree_is_right(&twice.pair.referral_sql(Role::Owner).await).await;
    assert_books_balance(&mut clients).await;
    twice.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signups_sales_and_attaches_mixed_on_two_instances_leave_a_tree_that_is_right() {
    let mut random = StdRng::seed_from_u64(seed());
    let twice = Twice::start().await;
    let roots = register_roots(&twice, "mixed", 60).await;
    let payments = at_once(roots.iter().enumerate().map(|(turn, root)| {
        let (mut clients, partner_id) = (twice.by_turns(turn), root.partner_id.clone());
        async move { clients.open_payment(&partner_id).await.payment_id }
    }))
    .await;

    let mut calls: Vec<_> = payments.into_iter().map(|payment_id| Call::Sell { payment_id }).collect();
    for turn in 0..160 {
        let [one, other] = [0; 2].map(|_| &roots[random.random_range(0..roots.len())]);
        calls.push(attach(one, other));
        calls.push(Call::SignUp { external_id: format!("joins-{turn}"), code: other.referral_code.clone() });
    }
    for (call, answer) in run(&twice, calls, &mut random).await {
        let allowed = match (&call, failure(&answer)) {
            (_, None) => true,
            (Call::Attach { .. }, Some((Code::FailedPrecondition, reason))) => {
                reason == "REFERRAL_CYCLE" || reason == "REFERRER_ALREADY_SET"
            }
            _ => false,
        };
        assert!(allowed, "{answer:?}");
    }

    let sql = twice.pair.referral_sql(Role::Owner).await;
    assert_tree_is_right(&sql).await;
    assert_eq!(super::number(&sql, "SELECT count(*) FROM partners").await, 60 + 160);
    assert_eq!(super::number(&sql, "SELECT count(*) FROM payments WHERE state = 'SUCCEEDED'").await, 60);
    assert_books_balance(&mut twice.by_turns(1)).await;
    twice.finish().await;
}

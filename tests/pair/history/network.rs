//! The network at a time: a random history, against what its own record says of each moment.

use std::collections::HashMap;

use chrono::TimeDelta;
use p2phub_proto::referral::v1::{AttachReferrerRequest, GetNetworkRequest, Partner, Payment};
use p2phub_tests::{
    builders::request_id,
    clients::Clients,
    postgres::Role,
    refusal::{fields, refused},
};
use prost_types::Timestamp;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use referral_svc::Clock;
use tonic::Code;

use super::{micros, now, refund, start, timestamp};
use crate::model::seed;

const STEPS: usize = 150;

/// Who stood where, and had PRO until when, as the answers said.
#[derive(Default)]
struct World {
    partners: Vec<Partner>,
    above: HashMap<String, String>,
    pro_until: HashMap<String, i64>,
    payments: Vec<Payment>,
}

impl World {
    /// Members and PRO members of each level below a partner, now.
    fn network(&self, partner_id: &str, now: i64) -> Vec<(i64, i64)> {
        let mut level = vec![partner_id];
        let below = |_| {
            level = self
                .partners
                .iter()
                .map(|partner| partner.partner_id.as_str())
                .filter(|id| self.above.get(*id).is_some_and(|above| level.contains(&above.as_str())))
                .collect();
            let pro = level.iter().filter(|id| self.pro_until.get(**id).is_some_and(|until| *until > now)).count();
            let [members, pro] = [level.len(), pro].map(|count| i64::try_from(count).expect("a count"));
            (members, pro)
        };
        (1..=9).map(below).collect()
    }

    async fn step(&mut self, clients: &mut Clients, random: &mut StdRng) {
        match random.random_range(0..10) {
            0..5 => {
                // Mostly below one of the last, so that it grows deep.
                let recent = self.partners.len().saturating_sub(8);
                let above = self.partners[recent..].choose(random).filter(|_| random.random_bool(0.8)).cloned();
                let code = above.as_ref().map_or("", |above| &above.referral_code);
                let partner = clients.register(&format!("partner-{}", self.partners.len()), code).await;
                if let Some(above) = above {
                    self.above.insert(partner.partner_id.clone(), above.partner_id);
                }
                self.partners.push(partner);
            }
            5 => {
                let (Some(root), Some(above)) = (self.partners.choose(random), self.partners.choose(random)) else {
                    return;
                };
                let request = AttachReferrerRequest {
                    request_id: request_id(),
                    partner_id: root.partner_id.clone(),
                    referral_code: above.referral_code.clone(),
                };
                // Whoever has a referrer, or would stand above itself, is refused.
                if clients.partners.attach_referrer(request).await.is_ok() {
                    self.above.insert(root.partner_id.clone(), above.partner_id.clone());
                }
            }
            6..9 => {
                let Some(buyer) = self.partners.choose(random) else { return };
                let (payment, _) = clients.buy_pro(&buyer.partner_id).await;
                self.pro_until.insert(buyer.partner_id.clone(), micros(&payment.pro_end_time));
                self.payments.push(payment);
            }
            _ => {
                if self.payments.is_empty() {
                    return;
                }
                let payment = self.payments.swap_remove(random.random_range(0..self.payments.len()));
                refund(clients, &payment, None).await;
                let buyer = clients.partner(&payment.partner_id).await;
                self.pro_until.insert(buyer.partner_id.clone(), micros(&buyer.pro_expires_at));
            }
        }
    }
}

async fn network_at(clients: &mut Clients, partner_id: &str, time: Timestamp) -> Vec<(i64, i64)> {
    let request = GetNetworkRequest { partner_id: partner_id.to_owned(), at_time: Some(time) };
    let levels = clients.partners.get_network(request).await.expect("a network").into_inner().levels;
    assert!((1..=9).eq(levels.iter().map(|level| level.level)));
    levels.iter().map(|level| (level.members, level.pro_members)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_what_it_was_at_every_moment_of_a_random_history() {
    let mut random = StdRng::seed_from_u64(seed());
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let sql = pair.referral_sql(Role::Owner).await;
    let (mut world, mut ahead, mut moments) = (World::default(), TimeDelta::zero(), Vec::new());
    for _ in 0..STEPS {
        world.step(&mut clients, &mut random).await;
        let time = now(&sql, ahead.num_microseconds().expect("not that long")).await;
        for partner in world.partners.iter().take(8) {
            moments.push((time, partner.partner_id.clone(), world.network(&partner.partner_id, time)));
        }
        // Attribution's window closes after a day, and PRO ends after thirty.
        ahead += TimeDelta::minutes(random.random_range(1..16 * 60));
        clock.set_ahead(ahead);
    }
    let levels = || moments.iter().flat_map(|(_, _, network)| network);
    assert!(levels().any(|level| level.1 > 0) && levels().any(|level| level.1 < level.0), "nothing to be seen");
    for (time, partner_id, expected) in moments {
        let found = network_at(&mut clients, &partner_id, timestamp(time)).await;
        assert_eq!(found, expected, "{partner_id} at {time}");
    }
    let somebody = world.partners[0].partner_id.clone();
    assert_eq!(network_at(&mut clients, &somebody, timestamp(0)).await, [(0, 0); 9]);
    let future = now(&sql, ahead.num_microseconds().expect("not that long")).await + 60_000_000;
    let request = GetNetworkRequest { partner_id: somebody, at_time: Some(timestamp(future)) };
    let status = refused(clients.partners.get_network(request).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_eq!(fields(&status), ["at_time"]);
    pair.finish().await;
}

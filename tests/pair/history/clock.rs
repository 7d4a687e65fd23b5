//! A clock that steps back: what is written stays in the order of time, and one that was far ahead stops nobody.

use chrono::TimeDelta;
use p2phub_proto::referral::v1::Partner;
use p2phub_tests::{clients::Clients, postgres::Role};
use referral_svc::Clock;

use super::{balance_at, micros, now, start, timestamp};

const SHARE: i64 = 11_700_000;

/// A sale, and when it was.
async fn sale(clients: &mut Clients, buyer: &Partner) -> i64 {
    micros(&clients.buy_pro(&buyer.partner_id).await.0.confirm_time)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_back_lets_time_stand_still() {
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("steps", 2).await;
    clock.set_ahead(TimeDelta::seconds(50));
    let first = sale(&mut clients, &chain[1]).await;
    clock.set_ahead(TimeDelta::zero());
    let second = sale(&mut clients, &chain[1]).await;
    let third = sale(&mut clients, &chain[1]).await;
    assert!(first < second && second < third, "{first} {second} {third}");
    // By whatever time it is asked for, as many sales as there were by then.
    clock.set_ahead(TimeDelta::seconds(60));
    for (time, sales) in [(first - 1, 0), (first, 1), (second, 2), (third - 1, 2), (third, 3)] {
        let answer = balance_at(&mut clients, &chain[0].partner_id, Some(timestamp(time))).await.expect("a balance");
        assert_eq!(answer.available.expect("an amount").minor_units, sales * SHARE, "{sales} by {time}");
    }
    let fourth = sale(&mut clients, &chain[1]).await;
    assert!(fourth > third);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_far_ahead_stops_nobody() {
    let clock = Clock::default();
    let pair = start(&clock).await;
    let mut clients = pair.clients.clone();
    let chain = clients.chain("leaps", 2).await;
    clock.set_ahead(TimeDelta::days(1));
    let wrong = sale(&mut clients, &chain[1]).await;
    clock.set_ahead(TimeDelta::zero());
    let sql = pair.referral_sql(Role::Owner).await;
    let before = now(&sql, 0).await;
    let right = sale(&mut clients, &chain[1]).await;
    let after = now(&sql, 0).await;
    assert!((before..=after).contains(&right) && right < wrong, "{before} {right} {after} {wrong}");
    // And time that steps back a little doesn't go back to it.
    clock.set_ahead(TimeDelta::seconds(-30));
    assert!((right..wrong).contains(&sale(&mut clients, &chain[1]).await));
    pair.finish().await;
}

//! A model in memory of partners, XP, networks, PRO, payments, held commissions, refunds, payouts, adjustments, balances and
//! notices, against which random concurrent commands over real gRPC, to two instances, are checked: every answer, everyone
//! who is told, after each round everybody's money, XP and network, and at the end everything that can be read.
//!
//! Which of two concurrent commands came first is nobody's to say but the service's: the audit record tells, and the
//! model follows in that order, the service's own jobs included. Between rounds the clock jumps, so that payments, windows
//! and PRO expire and commissions are released, whatever the jobs are just doing.
//!
//! In the middle of a round something happens now and then. In one test every connection to the database is cut; in the other
//! one the instances are processes on a PostgreSQL of their own, and either, both, PostgreSQL with all of its processes, or
//! everything is killed with SIGKILL and started again. Commands are asked again, with their request IDs and of either
//! instance by turns, until there is an answer: whatever was acknowledged is there once, what the service refused to do is
//! not, and where an answer was lost, the request ID finds out.
//!
//! The seed is printed. Longer, or the same again:
//!
//! ```sh
//! P2PHUB_TEST_STEPS=50000 P2PHUB_TEST_SEED=7 cargo test -p p2phub-tests --test pair -- --nocapture model::random
//! P2PHUB_TEST_STEPS=30000 P2PHUB_TEST_SEED=7 cargo test -p p2phub-tests --test pair -- --nocapture model::killed
//! ```

mod adjustments;
mod bills;
mod commands;
mod notices;
mod payouts;
mod reads;
mod record;
mod refunds;
mod rules;
mod run;
mod source;
mod stage;

use std::{collections::HashMap, env, fmt::Display, str::FromStr, time::Instant};

use rand::{SeedableRng, rngs::StdRng};

use self::{
    run::Run,
    stage::{Kind, Stage},
};

const HOLDING_DAYS: i64 = 5;

/// The seed of a random test: `P2PHUB_TEST_SEED`, or a new one; printed, so that a failure can be had again.
pub(crate) fn seed() -> u64 {
    let seed = variable("P2PHUB_TEST_SEED").unwrap_or_else(rand::random);
    println!("P2PHUB_TEST_SEED={seed}");
    seed
}

/// How many steps a random test takes: `P2PHUB_TEST_STEPS`, or as many as suit every run.
fn steps(default: usize) -> usize {
    variable("P2PHUB_TEST_STEPS").unwrap_or(default)
}

fn variable<T: FromStr<Err: Display>>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn random_concurrent_commands_agree_with_the_model() {
    let steps = steps(1200);
    // A long run goes faster with more commands at once.
    play(Kind::Cut, steps, (steps / 40).clamp(30, 500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_services_and_databases_agree_with_the_model() {
    let steps = steps(600);
    play(Kind::Killed, steps, (steps / 40).clamp(40, 150)).await;
}

async fn play(kind: Kind, steps: usize, round: usize) {
    let random = StdRng::seed_from_u64(seed());
    let mut run = Run::new(Stage::set(kind).await, round, random).await;
    let mut outcomes: HashMap<String, usize> = HashMap::new();
    let started = Instant::now();
    for _ in 0..steps.div_ceil(round) {
        for answer in run.round().await {
            let outcome = answer.map_or_else(|(_, reason)| reason, |_| "OK".to_owned());
            *outcomes.entry(outcome).or_default() += 1;
        }
        run.let_time_pass().await;
    }
    println!("{steps} steps in {:.1?}: {outcomes:?}", started.elapsed());
    println!("{:?}; {} asked again, {} of them were done", run.stage.faults, run.asked_again, run.were_done);
    assert!(kind == Kind::Cut || run.asked_again > 0, "no kill was in anyone's way");
    run.end().await;
    println!("all read after {:.1?}", started.elapsed());
}

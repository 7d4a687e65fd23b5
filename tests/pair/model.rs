//! A model in memory of partners, XP, networks, PRO, payments, held commissions, refunds, payouts, adjustments, balances and
//! notices, against which random concurrent commands over real gRPC, to two instances, are checked: every answer, everyone
//! who is told, and at the end everything that can be read.
//!
//! Which of two concurrent commands came first is nobody's to say but the service's: the audit record tells, and the
//! model follows in that order, the service's own jobs included. Between rounds the clock jumps, so that payments, windows
//! and PRO expire and commissions are released, whatever the jobs are just doing. Now and then every connection to the
//! database is cut; then commands are asked again, with their request IDs, until there is an answer.
//!
//! The seed is printed. Longer, or the same again:
//!
//! ```sh
//! P2PHUB_TEST_STEPS=20000 P2PHUB_TEST_SEED=7 cargo test -p p2phub-tests --test pair -- --nocapture model::
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
mod source;

use std::{
    collections::{HashMap, VecDeque},
    env,
    fmt::Display,
    str::FromStr,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use p2phub_tests::{
    clients::Clients,
    instance::Instance,
    pair::{Options, Pair},
    ports,
    postgres::Role,
    wait,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use referral_svc::Clock;
use serde_json::json;
use tonic::Code;

use self::{
    commands::{Answer, Ask, Got, Sent},
    notices::Told,
    record::{Decided, Record, UNREMEMBERED},
    rules::World,
    source::Source,
};
use crate::{
    concurrency::{assert_books_balance, assert_tree_is_right, at_once},
    payments::plan::plan_file,
};

const HOLDING_DAYS: i64 = 5;

/// The seed of a random test: `P2PHUB_TEST_SEED`, or a new one; printed, so that a failure can be had again.
pub(crate) fn seed() -> u64 {
    let seed = variable("P2PHUB_TEST_SEED").unwrap_or_else(rand::random);
    println!("P2PHUB_TEST_SEED={seed}");
    seed
}

/// How many steps a random test takes: `P2PHUB_TEST_STEPS`, or as many as suit every run.
fn steps() -> usize {
    variable("P2PHUB_TEST_STEPS").unwrap_or(1200)
}

/// How many commands are sent at once: a long run goes faster with more.
fn round() -> usize {
    (steps() / 40).clamp(30, 200)
}

fn variable<T: FromStr<Err: Display>>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// The service under test, and what the model knows of it.
struct Run {
    pair: Pair,
    other: Instance,
    instances: [Clients; 2],
    clock: Clock,
    ahead: TimeDelta,
    world: World,
    source: Source,
    record: Record,
    /// Commands that were answered for good.
    settled: Vec<(Sent, Answer)>,
    audited: usize,
}

/// A command of a round that is none of the first kind.
enum Again {
    /// Of `settled`: the same once more.
    Same(usize),
    /// Of `settled`: its request ID with other content.
    Other,
}

#[tokio::test(flavor = "multi_thread")]
async fn random_concurrent_commands_agree_with_the_model() {
    let random = StdRng::seed_from_u64(seed());
    let mut run = Run::start(random).await;
    let mut outcomes: HashMap<String, usize> = HashMap::new();
    let started = Instant::now();
    for _ in 0..steps().div_ceil(round()) {
        for answer in run.round().await {
            let outcome = answer.map_or_else(|(_, reason)| reason, |_| "OK".to_owned());
            *outcomes.entry(outcome).or_default() += 1;
        }
        run.let_time_pass();
    }
    println!("{} steps in {:.1?}: {outcomes:?}", steps(), started.elapsed());
    run.end().await;
    println!("all read after {:.1?}", started.elapsed());
}

impl Run {
    async fn start(random: StdRng) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let changes = json!({ "version": bills::PLAN_VERSION, "commission_holding_days": HOLDING_DAYS });
        let plan = plan_file(&directory, &changes);
        let clock = Clock::default();
        let shared = clock.clone();
        let options = Options::default().proxied().referral(move |config| {
            config.clock = shared.clone();
            config.plan_file = Some(plan.clone());
        });
        let pair = options.start_alone().await;
        let address = ports::free();
        let other = pair.another_referral(address).await;
        Self {
            instances: [pair.clients.clone(), Clients::new(address, pair.notify_address)],
            record: Record::of(&pair).await,
            pair,
            other,
            clock,
            ahead: TimeDelta::zero(),
            world: World::default(),
            source: Source::new(random),
            settled: Vec::new(),
            audited: 0,
        }
    }

    /// The jobs do all that is due, and then everything is read.
    async fn end(mut self) {
        let ahead = self.ahead.num_microseconds().expect("not that long");
        wait::until("the jobs", async || (self.record.due(ahead).await == 0).then_some(())).await;
        for decided in self.record.news().await {
            self.follow_job(&decided).await;
        }
        let epoch = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let begun = Instant::now();
        let now = self.record.number(epoch).await + ahead;
        self.world.assert_noticed(now - 1_000_000);
        self.world.assert_released(now - 1_000_000);
        reads::agree(&self.world, &self.pair.clients, reads::Reading { begun, since: now }).await;
        let audited = format!(
            "SELECT count(*) FROM audit_events WHERE request_id IS NOT NULL AND outcome NOT IN ({UNREMEMBERED})"
        );
        let audited = self.record.number(&audited).await;
        assert_eq!(usize::try_from(audited), Ok(self.audited), "a record for each command, and for each once");
        assert_tree_is_right(&self.pair.referral_sql(Role::Owner).await).await;
        assert_books_balance(&mut self.pair.clients.clone()).await;
        self.other.stop().await;
        self.pair.finish().await;
    }

    fn let_time_pass(&mut self) {
        let random = &mut self.source.random;
        self.ahead += match random.random_range(0..100) {
            ..65 => TimeDelta::seconds(random.random_range(0..300)),
            65..80 => TimeDelta::minutes(random.random_range(10..90)),
            80..93 => TimeDelta::hours(random.random_range(5..30)),
            _ => TimeDelta::days(random.random_range(5..25)),
        };
        self.clock.set_ahead(self.ahead);
    }

    /// Sends commands at once, and has the model follow. Returns the answers.
    async fn round(&mut self) -> Vec<Answer> {
        let (fresh, again) = self.make_up();
        let all = fresh.iter().chain(again.iter().map(|(sent, _)| sent)).cloned();
        let instances = self.instances.clone();
        let sending: Vec<_> = all.enumerate().map(|(turn, sent)| sent.send(instances[turn % 2].clone())).collect();
        let (got, ()) = tokio::join!(at_once(sending), self.disturb());
        let mut got: VecDeque<Got> = got.into();

        let mut waiting: HashMap<_, Vec<(Sent, Got)>> = HashMap::new();
        let mut answers = Vec::new();
        for (sent, got) in fresh.into_iter().zip(got.drain(..got.len() - again.len())) {
            answers.push(got.answer.clone());
            waiting.entry(sent.key()).or_default().push((sent, got));
        }
        for decided in self.record.news().await {
            if decided.request_id.is_empty() {
                self.follow_job(&decided).await;
                continue;
            }
            let key = (decided.actor.clone(), decided.request_id.clone());
            let group = waiting.remove(&key).unwrap_or_else(|| panic!("audited, but not asked or twice: {decided:?}"));
            self.follow(&decided, group);
        }
        for (sent, got) in waiting.into_values().flatten() {
            self.check_unaudited(&sent, &got);
        }
        for ((sent, kind), got) in again.into_iter().zip(got) {
            match kind {
                Again::Same(index) => {
                    assert_eq!(got.answer, self.settled[index].1, "not the first answer again: {sent:?}");
                    assert!(got.replay, "not marked as a replay: {sent:?}");
                }
                Again::Other => {
                    let reused = Err((Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
                    assert_eq!(got.answer, reused, "{sent:?}");
                }
            }
        }
        answers
    }

    /// The commands of a round: new ones, and old ones again.
    fn make_up(&mut self) -> (Vec<Sent>, Vec<(Sent, Again)>) {
        let mut fresh = Vec::new();
        let mut again = Vec::new();
        for _ in 0..round() {
            let pick = self.source.random.random_range(0..100);
            if pick < 10 && !self.settled.is_empty() {
                let index = self.source.random.random_range(0..self.settled.len());
                let first = self.settled[index].0.clone();
                again.push(if pick < 7 { (first, Again::Same(index)) } else { (first.altered(), Again::Other) });
            } else {
                let sent = self.source.sent(&self.world);
                // Now and then a caller asks twice at once.
                for _ in 0..if pick < 14 { 2 } else { 1 } {
                    fresh.push(sent.clone());
                }
            }
        }
        (fresh, again)
    }

    /// Now and then, every connection to the database is cut in the middle of a round.
    async fn disturb(&mut self) {
        if self.source.chance(5) {
            // When is the point here: no event ends it.
            tokio::time::sleep(Duration::from_millis(self.source.random.random_range(0..40))).await;
            self.pair.proxies().database.cut_once();
        }
    }

    /// The model decides the command that is on record, and must come to what was answered, and to who was told.
    fn follow(&mut self, decided: &Decided, mut group: Vec<(Sent, Got)>) {
        self.audited += 1;
        // Of two who ask at once, the first one's input may have been bad as things stood then.
        if group.iter().any(|(_, got)| !is_bad_input(got)) {
            group.retain(|(_, got)| !is_bad_input(got));
        }
        let (sent, got) = &group[0];
        let expected = self.world.decide(sent, decided.at, &got.answer);
        for (_, got) in &group {
            assert_eq!(got.answer, expected, "command {} at {}: {sent:?}", self.audited, decided.at);
        }
        let firsts = group.iter().filter(|(_, got)| !got.replay).count();
        let lost = group.iter().any(|(_, got)| got.tries > 1);
        assert!(firsts == 1 || (lost && firsts == 0), "of those who ask at once, one is the first: {group:?}");
        let outcome = expected.as_ref().map_or_else(|(_, reason)| reason.as_str(), |_| "OK");
        assert_eq!(decided.outcome, outcome, "{sent:?}");
        let mut expected_told = std::mem::take(&mut self.world.told);
        let mut told: Vec<Told> = decided.told.iter().map(Told::of).collect();
        expected_told.sort();
        told.sort();
        assert_eq!(told, expected_told, "who is told of {sent:?}");
        self.settled.push((sent.clone(), expected));
    }

    /// What the service did by itself: the model takes it in, if it was due.
    async fn follow_job(&mut self, decided: &Decided) {
        assert_eq!(decided.outcome, "OK", "{}", decided.action);
        match decided.action.as_str() {
            "ReleaseCommissions" => {
                let released = self.record.released(&decided.audit_event_id).await;
                self.world.release(&released, decided.at);
            }
            "SendProNotices" => self.world.notice(&decided.told, decided.at),
            "CountProMembers" => {}
            other => panic!("no job of ours: {other}"),
        }
    }

    /// Of what isn't remembered: no reference where none was handed in.
    fn check_unaudited(&self, sent: &Sent, got: &Got) {
        let Ask::Confirm(ask) = &sent.ask else { panic!("not audited: {sent:?}, answered {got:?}") };
        assert!(is_bad_input(got), "not audited: {sent:?}, answered {got:?}");
        assert!(ask.external_ref.is_empty(), "{sent:?}");
    }
}

fn is_bad_input(got: &Got) -> bool {
    matches!(got.answer, Err((Code::InvalidArgument, _)))
}

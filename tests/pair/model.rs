//! A model in memory of partners, XP, networks, PRO, payments and balances, against which random concurrent commands
//! over real gRPC are checked: every answer, and at the end everything that can be read.
//!
//! Which of two concurrent commands came first is nobody's to say but the service's: the audit record tells, and the
//! model follows in that order. Between rounds the clock jumps, so that payments, windows and PRO expire.
//!
//! The seed is printed. Longer, or the same again:
//!
//! ```sh
//! P2PHUB_TEST_STEPS=20000 P2PHUB_TEST_SEED=7 cargo test -p p2phub-tests --test pair -- --nocapture model::
//! ```

mod bills;
mod commands;
mod reads;
mod rules;

use std::{
    collections::{HashMap, VecDeque},
    env,
    fmt::Display,
    str::FromStr,
};

use chrono::TimeDelta;
use p2phub_proto::referral::v1::{AuditEvent, ListAuditEventsRequest};
use p2phub_tests::{
    clients::Clients,
    pair::{Options, Pair},
    postgres::Role,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use referral_svc::Clock;
use tonic::Code;

use self::{
    commands::{Answer, Ask, Got, Sent, Source},
    rules::{World, micros},
};
use crate::concurrency::{assert_books_balance, assert_tree_is_right, at_once, number};

const ROUND: usize = 50;

/// The seed of a random test: `P2PHUB_TEST_SEED`, or a new one; printed, so that a failure can be had again.
pub(crate) fn seed() -> u64 {
    let seed = variable("P2PHUB_TEST_SEED").unwrap_or_else(rand::random);
    println!("P2PHUB_TEST_SEED={seed}");
    seed
}

/// How many steps a random test takes: `P2PHUB_TEST_STEPS`, or as many as suit every run.
fn steps() -> usize {
    variable("P2PHUB_TEST_STEPS").unwrap_or(1000)
}

fn variable<T: FromStr<Err: Display>>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// Refusals that leave a record, but no answer for the request ID.
const UNREMEMBERED: [&str; 2] = ["INVALID_ARGUMENT", "REQUEST_ID_REUSED"];

/// The service under test, and what the model knows of it.
struct Run {
    pair: Pair,
    clock: Clock,
    ahead: TimeDelta,
    world: World,
    source: Source,
    /// Commands that were answered for good.
    settled: Vec<(Sent, Answer)>,
    last_audit_event: String,
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
    let clock = Clock::default();
    let shared = clock.clone();
    let pair = Options::default().referral(move |config| config.clock = shared.clone()).start().await;
    let mut run = Run {
        pair,
        clock,
        ahead: TimeDelta::zero(),
        world: World::default(),
        source: Source::new(random),
        settled: Vec::new(),
        last_audit_event: String::new(),
        audited: 0,
    };
    let mut outcomes: HashMap<String, usize> = HashMap::new();
    for _ in 0..steps().div_ceil(ROUND) {
        for answer in run.round().await {
            let outcome = answer.map_or_else(|(_, reason)| reason, |_| "OK".to_owned());
            *outcomes.entry(outcome).or_default() += 1;
        }
        run.let_time_pass();
    }
    println!("{outcomes:?}");
    let sql = run.pair.referral_sql(Role::Owner).await;
    let now = number(&sql, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").await
        + run.ahead.num_microseconds().expect("not that long");
    reads::agree(&run.world, &run.pair.clients, now).await;
    assert_tree_is_right(&sql).await;
    let audited = "SELECT count(*) FROM audit_events
        WHERE request_id IS NOT NULL AND outcome NOT IN ('INVALID_ARGUMENT', 'REQUEST_ID_REUSED')";
    let audited = number(&sql, audited).await;
    assert_eq!(usize::try_from(audited), Ok(run.audited), "a record for each command, and for each once");
    assert_books_balance(&mut run.pair.clients.clone()).await;
    run.pair.finish().await;
}

impl Run {
    fn let_time_pass(&mut self) {
        let random = &mut self.source.random;
        self.ahead += match random.random_range(0..100) {
            ..75 => TimeDelta::seconds(random.random_range(0..300)),
            75..90 => TimeDelta::minutes(random.random_range(10..90)),
            90..97 => TimeDelta::hours(random.random_range(5..30)),
            _ => TimeDelta::days(random.random_range(5..25)),
        };
        self.clock.set_ahead(self.ahead);
    }

    /// Sends commands at once, and has the model follow. Returns the answers.
    async fn round(&mut self) -> Vec<Answer> {
        let mut fresh = Vec::new();
        let mut again = Vec::new();
        for _ in 0..ROUND {
            let pick = self.source.random.random_range(0..100);
            if pick < 10 && !self.settled.is_empty() {
                let index = self.source.random.random_range(0..self.settled.len());
                let first = self.settled[index].0.clone();
                again.push(if pick < 7 { (first, Again::Same(index)) } else { (altered(first), Again::Other) });
            } else {
                let sent = self.source.sent(&self.world);
                // Now and then a caller asks twice at once.
                for _ in 0..if pick < 14 { 2 } else { 1 } {
                    fresh.push(sent.clone());
                }
            }
        }
        let all = fresh.iter().chain(again.iter().map(|(sent, _)| sent)).cloned();
        let clients = self.pair.clients.clone();
        let sending: Vec<_> = all.map(|sent| sent.send(clients.clone())).collect();
        let mut got: VecDeque<Got> = at_once(sending).await.into();

        let mut waiting: HashMap<_, Vec<(Sent, Got)>> = HashMap::new();
        let mut answers = Vec::new();
        for (sent, got) in fresh.into_iter().zip(got.drain(..got.len() - again.len())) {
            answers.push(got.answer.clone());
            waiting.entry(sent.key()).or_default().push((sent, got));
        }
        for event in self.new_audit_events(&self.pair.clients.clone()).await {
            let key = (event.actor.clone(), event.request_id.clone());
            let group = waiting.remove(&key).unwrap_or_else(|| panic!("audited, but not asked or twice: {event:?}"));
            self.follow(&event, group);
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

    /// The model decides the command that the event records, and must come to what was answered.
    fn follow(&mut self, event: &AuditEvent, group: Vec<(Sent, Got)>) {
        self.audited += 1;
        let (sent, got) = &group[0];
        let now = micros(event.create_time.as_ref().expect("a time"));
        let expected = self.world.decide(&sent.ask, now, &got.answer);
        for (_, got) in &group {
            assert_eq!(got.answer, expected, "command {} at {now}: {sent:?}", self.audited);
        }
        let firsts = group.iter().filter(|(_, got)| !got.replay).count();
        assert_eq!(firsts, 1, "asked {} times at once, one is the first: {group:?}", group.len());
        let outcome = expected.as_ref().map_or_else(|(_, reason)| reason.as_str(), |_| "OK");
        assert_eq!(event.outcome, outcome, "{event:?}");
        self.settled.push((sent.clone(), expected));
    }

    /// Of what isn't remembered: no reference where none was handed in.
    fn check_unaudited(&self, sent: &Sent, got: &Got) {
        let Ask::Confirm(ask) = &sent.ask else { panic!("not audited: {sent:?}, answered {got:?}") };
        let invalid = Err((Code::InvalidArgument, "INVALID_ARGUMENT".to_owned()));
        assert_eq!(got.answer, invalid, "not audited: {sent:?}");
        assert!(ask.external_ref.is_empty(), "{sent:?}");
    }

    /// The records since the last time, oldest first: in the order of decision.
    async fn new_audit_events(&mut self, clients: &Clients) -> Vec<AuditEvent> {
        let request = ListAuditEventsRequest { page_size: 500, ..Default::default() };
        let answer = clients.clone().audit.list_audit_events(request).await.expect("an answer").into_inner();
        let known = &self.last_audit_event;
        let news = answer.audit_events.into_iter().take_while(|event| event.audit_event_id != *known);
        let mut news: Vec<_> = news.collect();
        if let Some(newest) = news.first() {
            self.last_audit_event.clone_from(&newest.audit_event_id);
        }
        news.reverse();
        // The service's own jobs have no request ID; and what isn't remembered can be asked again.
        let is_remembered = |event: &AuditEvent| !UNREMEMBERED.contains(&event.outcome.as_str());
        news.retain(|event| !event.request_id.is_empty() && is_remembered(event));
        news
    }
}

/// The same request ID and caller, with other content.
fn altered(mut sent: Sent) -> Sent {
    match &mut sent.ask {
        Ask::Register(ask) => ask.last_name.push('x'),
        Ask::Attach(ask) => ask.referral_code = "P2P-ALTERED0".to_owned(),
        Ask::Rename(ask) => ask.last_name = Some("altered".to_owned()),
        Ask::Open(ask) => ask.method = if ask.method == "manual" { "trusted" } else { "manual" }.to_owned(),
        Ask::Submit(ask) => ask.external_ref.push('x'),
        Ask::Confirm(ask) => ask.override_reason.push('x'),
        Ask::Reject(ask) => ask.reason.push('x'),
    }
    sent
}

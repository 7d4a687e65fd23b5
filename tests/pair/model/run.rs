//! One random history: round after round of concurrent commands, which the model follows.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use p2phub_tests::{postgres::Role, wait};
use rand::{RngExt, rngs::StdRng};
use tonic::Code;

use super::{
    commands::{Answer, Ask, Got, Sent},
    notices::Told,
    reads,
    record::{Decided, Record, UNREMEMBERED},
    rules::World,
    source::Source,
    stage::Stage,
};
use crate::{
    audit::verify,
    concurrency::{assert_books_balance, assert_tree_is_right, at_once},
};

/// About how long a command takes when many are sent at once.
const COMMAND_TAKES: Duration = Duration::from_millis(5);

/// What the model knows of the service under test.
pub(super) struct Run {
    pub(super) stage: Stage,
    /// How many commands are sent at once.
    round: usize,
    ahead: TimeDelta,
    world: World,
    source: Source,
    record: Record,
    /// Commands that were answered for good.
    settled: Vec<(Sent, Answer)>,
    audited: usize,
    /// How many commands had to be asked again, and how many of those turned out to have been done already.
    pub(super) asked_again: usize,
    pub(super) were_done: usize,
}

/// A command of a round that is none of the first kind.
enum Again {
    /// Of `settled`: the same once more.
    Same(usize),
    /// Of `settled`: its request ID with other content.
    Other,
}

impl Run {
    pub(super) async fn new(stage: Stage, round: usize, random: StdRng) -> Self {
        Self {
            record: Record::of(&stage.pair).await,
            stage,
            round,
            ahead: TimeDelta::zero(),
            world: World::default(),
            source: Source::new(random, round),
            settled: Vec::new(),
            audited: 0,
            asked_again: 0,
            were_done: 0,
        }
    }

    /// The jobs do all that is due, and then everything is read.
    pub(super) async fn end(mut self) {
        let ahead = self.ahead.num_microseconds().expect("not that long");
        wait::until("the jobs", async || (self.record.due(ahead).await == 0).then_some(())).await;
        let news = self.record.news().await;
        for decided in &news.decided {
            self.follow_job(decided).await;
        }
        self.world.assert_held(&news.held);
        let epoch = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let begun = Instant::now();
        let now = self.record.number(epoch).await + ahead;
        self.world.assert_noticed(now - 1_000_000);
        self.world.assert_released(now - 1_000_000);
        let mut clients = self.stage.pair.clients.clone();
        reads::agree(&self.world, &clients, reads::Reading { begun, since: now }).await;
        let audited = format!(
            "SELECT count(*) FROM audit_events WHERE request_id IS NOT NULL AND outcome NOT IN ({UNREMEMBERED})"
        );
        let audited = self.record.number(&audited).await;
        assert_eq!(usize::try_from(audited), Ok(self.audited), "a record for each command, and for each once");
        assert_tree_is_right(&self.stage.pair.referral_sql(Role::Owner).await).await;
        assert_books_balance(&mut clients).await;
        let proof = verify(&clients, &[], "").await;
        assert!(proof.ok, "{:?}", proof.faults);
        self.stage.finish().await;
    }

    pub(super) async fn let_time_pass(&mut self) {
        let random = &mut self.source.random;
        self.ahead += match random.random_range(0..100) {
            ..65 => TimeDelta::seconds(random.random_range(0..300)),
            65..80 => TimeDelta::minutes(random.random_range(10..90)),
            80..93 => TimeDelta::hours(random.random_range(5..30)),
            _ => TimeDelta::days(random.random_range(5..25)),
        };
        self.stage.set_ahead(self.ahead).await;
    }

    /// Sends commands at once, and has the model follow. Returns the answers.
    pub(super) async fn round(&mut self) -> Vec<Answer> {
        let (fresh, again) = self.make_up();
        let all = fresh.iter().chain(again.iter().map(|(sent, _)| sent)).cloned();
        let instances = self.stage.instances.clone();
        let sending: Vec<_> = all.enumerate().map(|(turn, sent)| sent.send(instances.clone(), turn)).collect();
        let takes = COMMAND_TAKES.saturating_mul(u32::try_from(self.round).expect("not that many"));
        let disturbed = self.stage.disturb(&mut self.source.random, takes);
        let (got, ()) = tokio::join!(at_once(sending), disturbed);
        let defect = got.iter().find(|got| matches!(got.answer, Err((Code::Internal, _))));
        assert!(defect.is_none(), "{defect:?}: {}", self.stage.errors());
        self.asked_again += got.iter().filter(|got| got.tries > 1).count();
        let mut got: VecDeque<Got> = got.into();

        let mut waiting: HashMap<_, Vec<(Sent, Got)>> = HashMap::new();
        let mut answers = Vec::new();
        for (sent, got) in fresh.into_iter().zip(got.drain(..got.len() - again.len())) {
            answers.push(got.answer.clone());
            waiting.entry(sent.key()).or_default().push((sent, got));
        }
        self.record.connect(&self.stage.pair).await;
        let news = self.record.news().await;
        for decided in &news.decided {
            if decided.request_id.is_empty() {
                self.follow_job(decided).await;
                continue;
            }
            let key = (decided.actor.clone(), decided.request_id.clone());
            let group = waiting.remove(&key).unwrap_or_else(|| panic!("audited, but not asked or twice: {decided:?}"));
            self.follow(decided, group);
        }
        self.world.assert_held(&news.held);
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
        for _ in 0..self.round {
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
        let lost = group.iter().any(|(_, got)| got.lost);
        assert!(firsts == 1 || (lost && firsts == 0), "of those who ask at once, one is the first: {group:?}");
        self.were_done += usize::from(firsts == 0);
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

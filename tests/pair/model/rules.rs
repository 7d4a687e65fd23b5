//! The rules, said once more and as simply as possible: one command after the other on plain vectors.

use std::collections::{BTreeMap, HashMap, HashSet};

use p2phub_proto::{
    notify::v1::NotificationKind,
    referral::v1::{self as pb, Attribution},
};
use prost_types::Timestamp;
use tonic::Code;

use super::{
    adjustments::Adjusted,
    bills::Bill,
    commands::{Answer, Ask, Reply, Sent},
    notices::Told,
    record::Held,
};

const SIGNUP_XP: [i64; 9] = [35, 10, 1, 1, 1, 1, 1, 1, 1];
const SECOND: i64 = 1_000_000;
pub(super) const HOUR: i64 = 3600 * SECOND;
pub(super) const DAY: i64 = 24 * HOUR;

/// Time in microseconds.
pub(super) type Micros = i64;

pub(super) fn micros(time: &Timestamp) -> Micros {
    time.seconds * SECOND + i64::from(time.nanos / 1000)
}

pub(super) fn timestamp(micros: Micros) -> Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(SECOND) * 1000).expect("less than a second");
    Timestamp { seconds: micros.div_euclid(SECOND), nanos }
}

#[derive(Default)]
pub(super) struct Person {
    pub(super) id: String,
    pub(super) external_id: String,
    pub(super) code: String,
    pub(super) referrer: Option<usize>,
    pub(super) born: Micros,
    /// The present name last.
    names: Vec<String>,
    pub(super) xp: i64,
    pub(super) awards: usize,
    /// How many stand below, by level.
    pub(super) below: [i64; 9],
    pub(super) pro_until: Option<Micros>,
    /// How many of the notices of that end were requested.
    pub(super) noticed: usize,
    /// The same of each end that was told of.
    pub(super) noticed_of: BTreeMap<Micros, usize>,
    pub(super) available: i64,
    /// Of the available balance.
    pub(super) entries: i64,
    pub(super) pending: i64,
    pub(super) reserved: i64,
    pub(super) paid: i64,
    /// Commissions: which bill, which of its shares.
    pub(super) shares: Vec<(usize, usize)>,
    pub(super) adjustments: Vec<usize>,
    /// Bills that bought PRO.
    pub(super) bought: Vec<usize>,
}

#[derive(Default)]
pub(super) struct World {
    /// In the order of registration.
    pub(super) people: Vec<Person>,
    by_id: HashMap<String, usize>,
    by_external_id: HashMap<String, usize>,
    by_code: HashMap<String, usize>,
    /// Who had no referrer at first; some have one by now.
    pub(super) roots: Vec<usize>,
    pub(super) bills: Vec<Bill>,
    pub(super) bills_by_id: HashMap<String, usize>,
    pub(super) used: HashMap<String, String>,
    pub(super) payouts: Vec<pb::Payout>,
    pub(super) payouts_by_id: HashMap<String, usize>,
    pub(super) used_for_payouts: HashSet<String>,
    pub(super) adjustments: Vec<Adjusted>,
    pub(super) adjustments_by_id: HashMap<String, usize>,
    /// By the commission's ID.
    pub(super) shares_by_id: HashMap<String, (usize, usize)>,
    /// What the command that is being decided asks to tell.
    pub(super) told: Vec<Told>,
}

pub(super) fn refused(code: Code, reason: &str) -> Answer {
    Err((code, reason.to_owned()))
}

pub(super) fn wrong(reason: &str) -> Answer {
    refused(Code::FailedPrecondition, reason)
}

pub(super) fn missing(reason: &str) -> Answer {
    refused(Code::NotFound, reason)
}

/// The level that so much XP reaches.
fn level(xp: i64) -> i32 {
    (1..).find(|level| xp < 50 * i64::from(*level) * i64::from(level + 1)).expect("a level")
}

impl Person {
    pub(super) fn is_pro(&self, now: Micros) -> bool {
        self.pro_until.is_some_and(|until| now < until)
    }

    /// Credits, or below zero debits, what is available.
    pub(super) fn book(&mut self, amount: i64) {
        if amount != 0 {
            self.available += amount;
            self.entries += 1;
        }
    }
}

impl World {
    pub(super) fn person(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    fn owner(&self, code: &str) -> Option<usize> {
        self.by_code.get(&code.to_uppercase()).copied()
    }

    fn climb(&self, person: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.people[person].referrer, |above| self.people[*above].referrer)
    }

    /// Everyone above, the referrer first.
    pub(super) fn above(&self, person: usize) -> Vec<usize> {
        self.climb(person).collect()
    }

    /// How many of those who count stand below each, by level.
    pub(super) fn below(&self, counts: impl Fn(&Person) -> bool) -> Vec<[i64; 9]> {
        let mut levels = vec![[0; 9]; self.people.len()];
        for other in (0..self.people.len()).filter(|other| counts(&self.people[*other])) {
            for (level, above) in self.climb(other).take(9).enumerate() {
                levels[above][level] += 1;
            }
        }
        levels
    }

    pub(super) fn show(&self, person: usize, now: Micros) -> pb::Partner {
        let depth = self.climb(person).count();
        let person = &self.people[person];
        pb::Partner {
            partner_id: person.id.clone(),
            external_id: person.external_id.clone(),
            referral_code: person.code.clone(),
            referrer_id: person.referrer.map(|referrer| self.people[referrer].id.clone()).unwrap_or_default(),
            depth: i32::try_from(depth).expect("not that deep"),
            xp: person.xp,
            level: level(person.xp),
            pro_active: person.is_pro(now),
            pro_expires_at: person.pro_until.map(timestamp),
            direct_referrals: person.below[0],
            network_size: person.below.iter().sum(),
            create_time: Some(timestamp(person.born)),
            first_name: person.names.last().cloned().unwrap_or_default(),
            ..Default::default()
        }
    }

    /// Everybody's money, XP and network are what is in the database, to the last unit.
    pub(super) fn assert_held(&self, held: &[Held]) {
        assert_eq!(held.len(), self.people.len(), "people");
        for held in held {
            let person = &self.people[self.person(&held.partner_id).expect("somebody known")];
            let balances = [person.available, person.pending, person.reserved];
            let expected = (balances, person.xp, person.below.as_slice());
            assert_eq!((held.balances, held.xp, held.members.as_slice()), expected, "{}", person.id);
        }
    }

    /// What the command comes to at this moment. IDs that the service makes up are taken from what it answered.
    pub(super) fn decide(&mut self, sent: &Sent, now: Micros, answered: &Answer) -> Answer {
        let caller = &sent.caller;
        match &sent.ask {
            Ask::Register(ask) => self.register(ask, now, answered),
            Ask::Attach(ask) => self.attach(ask, now),
            Ask::Rename(ask) => {
                let Some(person) = self.person(&ask.partner_id) else { return missing("PARTNER_NOT_FOUND") };
                self.people[person].names.push(ask.first_name.clone().expect("a name"));
                Ok(Reply::Partner(self.show(person, now)))
            }
            Ask::Open(ask) => self.open(ask, now, answered),
            Ask::Submit(ask) => self.submit(ask, now),
            Ask::Confirm(ask) => self.confirm(ask, now, answered),
            Ask::Reject(ask) => self.reject(ask, now),
            Ask::Refund(ask) => self.refund(ask, now, answered),
            Ask::Payout(ask) => self.request_payout(ask, caller, now, answered),
            Ask::Approve(ask) => self.approve(ask, caller, now),
            Ask::Complete(ask) => self.complete(ask, now, answered),
            Ask::Fail(ask) => self.fail(ask, now, answered),
            Ask::Cancel(ask) => self.cancel(ask, now, answered),
            Ask::Propose(ask) => self.propose(ask, caller, now, answered),
            Ask::Book(ask) => self.book(ask, caller, now, answered),
            Ask::Decline(ask) => self.decline(ask, caller, now),
        }
    }

    fn register(&mut self, ask: &pb::RegisterPartnerRequest, now: Micros, answered: &Answer) -> Answer {
        if let Some(&known) = self.by_external_id.get(&ask.external_id) {
            let mut shown = self.show(known, now);
            // A name is read without a lock: one that is changed at the same time may be seen before or after.
            if let Ok(Reply::Registered(made, ..)) = answered
                && self.people[known].names.contains(&made.first_name)
            {
                shown.first_name.clone_from(&made.first_name);
            }
            return Ok(Reply::Registered(shown, false, Attribution::AlreadyRegistered));
        }
        let referrer = self.owner(&ask.referral_code);
        let attribution = match referrer {
            Some(_) => Attribution::Attributed,
            None if ask.referral_code.is_empty() => Attribution::NoCode,
            None => Attribution::UnknownCode,
        };
        let (id, code) = match answered {
            Ok(Reply::Registered(made, ..)) => (made.partner_id.clone(), made.referral_code.clone()),
            _ => Default::default(),
        };
        assert!(self.person(&id).is_none() && self.owner(&code).is_none(), "{id} or {code} was given out twice");
        let person = self.people.len();
        self.by_id.insert(id.clone(), person);
        self.by_code.insert(code.clone(), person);
        self.by_external_id.insert(ask.external_id.clone(), person);
        self.people.push(Person {
            id,
            external_id: ask.external_id.clone(),
            code,
            referrer,
            born: now,
            names: vec![ask.first_name.clone()],
            ..Person::default()
        });
        if referrer.is_none() {
            self.roots.push(person);
        }
        self.welcome(person, now);
        Ok(Reply::Registered(self.show(person, now), true, attribution))
    }

    fn welcome(&mut self, person: usize, now: Micros) {
        let below = self.people[person].below;
        for ((above, xp), distance) in self.above(person).into_iter().zip(SIGNUP_XP).zip(1..) {
            let above = &mut self.people[above];
            above.below[distance - 1] += 1;
            for (count, more) in above.below.iter_mut().skip(distance).zip(below) {
                *count += more;
            }
            let before = level(above.xp);
            above.xp += if above.is_pro(now) { 5 * xp } else { xp };
            above.awards += 1;
            let kind = match distance {
                1 => NotificationKind::SignupL1,
                2 => NotificationKind::SignupL2,
                _ => NotificationKind::SignupDeeper,
            };
            self.told.push(Told::new(kind, &above.id));
            if level(above.xp) > before {
                self.told.push(Told::new(NotificationKind::LevelUp, &above.id));
            }
        }
    }

    fn attach(&mut self, ask: &pb::AttachReferrerRequest, now: Micros) -> Answer {
        let Some(person) = self.person(&ask.partner_id) else { return missing("PARTNER_NOT_FOUND") };
        let Some(referrer) = self.owner(&ask.referral_code) else { return missing("REFERRAL_CODE_NOT_FOUND") };
        if self.people[person].referrer.is_some() {
            return wrong("REFERRER_ALREADY_SET");
        }
        if referrer == person || self.above(referrer).contains(&person) {
            return wrong("REFERRAL_CYCLE");
        }
        if now >= self.people[person].born + DAY {
            return wrong("ATTRIBUTION_WINDOW_CLOSED");
        }
        self.people[person].referrer = Some(referrer);
        self.welcome(person, now);
        Ok(Reply::Partner(self.show(person, now)))
    }
}

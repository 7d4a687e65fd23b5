//! The rules, said once more and as simply as possible: one command after the other on plain vectors.

use std::collections::HashMap;

use p2phub_proto::referral::v1::{self as pb, Attribution};
use prost_types::Timestamp;
use tonic::Code;

use super::{
    bills::Bill,
    commands::{Answer, Ask, Reply},
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

pub(super) struct Person {
    pub(super) id: String,
    pub(super) external_id: String,
    pub(super) code: String,
    pub(super) referrer: Option<usize>,
    pub(super) born: Micros,
    pub(super) name: String,
    pub(super) xp: i64,
    pub(super) awards: usize,
    pub(super) pro_until: Option<Micros>,
    pub(super) balance: i64,
    pub(super) entries: i64,
}

#[derive(Default)]
pub(super) struct World {
    /// In the order of registration.
    pub(super) people: Vec<Person>,
    pub(super) bills: Vec<Bill>,
    pub(super) used: HashMap<String, String>,
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

impl Person {
    pub(super) fn is_pro(&self, now: Micros) -> bool {
        self.pro_until.is_some_and(|until| now < until)
    }
}

impl World {
    pub(super) fn person(&self, id: &str) -> Option<usize> {
        self.people.iter().position(|person| person.id == id)
    }

    fn owner(&self, code: &str) -> Option<usize> {
        self.people.iter().position(|person| person.code.eq_ignore_ascii_case(code))
    }

    pub(super) fn bill(&self, id: &str) -> Option<usize> {
        self.bills.iter().position(|bill| bill.id() == id)
    }

    fn climb(&self, person: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.people[person].referrer, |above| self.people[*above].referrer)
    }

    /// Everyone above, the referrer first.
    pub(super) fn above(&self, person: usize) -> Vec<usize> {
        self.climb(person).collect()
    }

    /// Who stands below, counted by level.
    pub(super) fn below(&self, person: usize, counts: impl Fn(&Person) -> bool) -> [i64; 9] {
        let mut levels = [0; 9];
        for other in (0..self.people.len()).filter(|other| counts(&self.people[*other])) {
            if let Some(level) = self.climb(other).take(9).position(|above| above == person) {
                levels[level] += 1;
            }
        }
        levels
    }

    pub(super) fn show(&self, person: usize, now: Micros) -> pb::Partner {
        let below = self.below(person, |_| true);
        let above = self.above(person);
        let person = &self.people[person];
        pb::Partner {
            partner_id: person.id.clone(),
            external_id: person.external_id.clone(),
            referral_code: person.code.clone(),
            referrer_id: person.referrer.map(|referrer| self.people[referrer].id.clone()).unwrap_or_default(),
            depth: i32::try_from(above.len()).expect("not that deep"),
            xp: person.xp,
            level: (1..).find(|level| person.xp < 50 * i64::from(*level) * i64::from(level + 1)).expect("a level"),
            pro_active: person.is_pro(now),
            pro_expires_at: person.pro_until.map(timestamp),
            direct_referrals: below[0],
            network_size: below.iter().sum(),
            create_time: Some(timestamp(person.born)),
            first_name: person.name.clone(),
            ..Default::default()
        }
    }

    /// What the command comes to at this moment. IDs that the service makes up are taken from what it answered.
    pub(super) fn decide(&mut self, ask: &Ask, now: Micros, answered: &Answer) -> Answer {
        match ask {
            Ask::Register(ask) => self.register(ask, now, answered),
            Ask::Attach(ask) => self.attach(ask, now),
            Ask::Rename(ask) => {
                let Some(person) = self.person(&ask.partner_id) else { return missing("PARTNER_NOT_FOUND") };
                self.people[person].name = ask.first_name.clone().expect("a name");
                Ok(Reply::Partner(self.show(person, now)))
            }
            Ask::Open(ask) => self.open(ask, now, answered),
            Ask::Submit(ask) => self.submit(ask, now),
            Ask::Confirm(ask) => self.confirm(ask, now, answered),
            Ask::Reject(ask) => self.reject(ask, now),
        }
    }

    fn register(&mut self, ask: &pb::RegisterPartnerRequest, now: Micros, answered: &Answer) -> Answer {
        if let Some(known) = self.people.iter().position(|person| person.external_id == ask.external_id) {
            return Ok(Reply::Registered(self.show(known, now), false, Attribution::AlreadyRegistered));
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
        self.people.push(Person {
            id,
            external_id: ask.external_id.clone(),
            code,
            referrer,
            born: now,
            name: ask.first_name.clone(),
            xp: 0,
            awards: 0,
            pro_until: None,
            balance: 0,
            entries: 0,
        });
        let person = self.people.len() - 1;
        self.welcome(person, now);
        Ok(Reply::Registered(self.show(person, now), true, attribution))
    }

    fn welcome(&mut self, person: usize, now: Micros) {
        for (above, xp) in self.above(person).into_iter().zip(SIGNUP_XP) {
            let above = &mut self.people[above];
            above.xp += if above.is_pro(now) { 5 * xp } else { xp };
            above.awards += 1;
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

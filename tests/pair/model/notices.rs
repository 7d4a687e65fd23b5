//! What is told to whom: what each command asks for, and PRO's notices, which a job sends.

use p2phub_proto::notify::v1::{NotificationKind, NotificationRequest};

use super::rules::{DAY, Micros, Person, World};

/// One person told one thing, as far as the model foresees it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Told {
    kind: i32,
    to: String,
    /// Minor units, where it is about money.
    amount: Option<i64>,
}

impl Told {
    pub(super) fn new(kind: NotificationKind, to: &str) -> Self {
        Self { kind: kind.into(), to: to.to_owned(), amount: None }
    }

    pub(super) fn amount(kind: NotificationKind, to: &str, minor_units: i64) -> Self {
        Self { amount: Some(minor_units), ..Self::new(kind, to) }
    }

    pub(super) fn of(request: &NotificationRequest) -> Self {
        let amount = request.arguments.get("amount").map(|decimal| {
            let (whole, fraction) = decimal.split_once('.').expect("a decimal");
            format!("{whole}{fraction:0<6}").parse().expect("digits")
        });
        Self { kind: request.kind, to: request.recipient_id.clone(), amount }
    }
}

/// How long before the end each is due.
const NOTICES: [(NotificationKind, Micros); 3] = [
    (NotificationKind::ProExpiring3Days, 3 * DAY),
    (NotificationKind::ProExpiring1Day, DAY),
    (NotificationKind::ProExpired, 0),
];

impl Person {
    /// PRO ends then: what was said of that end before isn't said again.
    pub(super) fn ends(&mut self, until: Micros) {
        self.noticed = self.noticed_of.get(&until).copied().unwrap_or(0);
        self.pro_until = Some(until);
    }
}

impl World {
    /// The notices that are due to a person and were not requested yet.
    fn due(&self, person: usize, now: Micros) -> Vec<NotificationKind> {
        let person = &self.people[person];
        let Some(until) = person.pro_until else { return Vec::new() };
        let rest = NOTICES.iter().skip(person.noticed);
        rest.take_while(|(_, before)| until - before <= now).map(|(kind, _)| *kind).collect()
    }

    /// A job asked for these: whoever is told is told all that is due, once.
    pub(super) fn notice(&mut self, requests: &[NotificationRequest], now: Micros) {
        let mut requests = requests.iter().peekable();
        while let Some(first) = requests.peek() {
            let person = self.person(&first.recipient_id).expect("a recipient");
            let due = self.due(person, now);
            assert!(!due.is_empty(), "nothing is due at {now}: {first:?}");
            for kind in due {
                let request = requests.next().unwrap_or_else(|| panic!("{kind:?} is missing at {now}"));
                assert_eq!((request.kind(), &request.recipient_id), (kind, &self.people[person].id), "at {now}");
                self.people[person].noticed += 1;
            }
            let person = &mut self.people[person];
            person.noticed_of.insert(person.pro_until.expect("an end"), person.noticed);
        }
    }

    /// Nobody waits for a notice any more.
    pub(super) fn assert_noticed(&self, now: Micros) {
        for person in 0..self.people.len() {
            assert_eq!(self.due(person, now), [], "{}", self.people[person].id);
        }
    }
}

//! Random commands: what they ask, how they are sent, and what came back in a form that can be compared.

use p2phub_proto::referral::v1::{self as pb, Attribution, Product};
use p2phub_tests::{
    builders::{confirmation, registration, request_id},
    clients::Clients,
};
use rand::{RngExt, rngs::StdRng};
use tonic::{Code, Request, Response, Status};

use super::rules::World;
use crate::concurrency::{DRESSES, has_flag, reason};

#[derive(Clone, Debug)]
pub(super) enum Ask {
    Register(pb::RegisterPartnerRequest),
    Attach(pb::AttachReferrerRequest),
    Rename(pb::UpdatePartnerRequest),
    Open(pb::CreatePaymentRequest),
    Submit(pb::SubmitPaymentRequest),
    Confirm(pb::ConfirmPaymentRequest),
    Reject(pb::RejectPaymentRequest),
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Reply {
    Registered(pb::Partner, bool, Attribution),
    Partner(pb::Partner),
    Payment(pb::Payment),
    Confirmed(pb::Payment, Vec<pb::Commission>),
}

pub(super) type Answer = Result<Reply, (Code, String)>;

/// A command on its way: who asks what.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) caller: String,
    pub(super) ask: Ask,
}

/// An answer, and how the service marked it.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) answer: Answer,
    pub(super) replay: bool,
}

/// One spelling for all dresses of a reference.
pub(super) fn canonical(text: &str) -> String {
    let text = text.trim();
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if DRESSES.iter().any(|dress| dress.trim() == text) {
        DRESSES[0].to_owned()
    } else if digits.len() == 64 {
        digits.to_ascii_lowercase()
    } else {
        text.to_owned()
    }
}

impl Ask {
    pub(super) fn request_id(&self) -> &str {
        match self {
            Self::Register(ask) => &ask.request_id,
            Self::Attach(ask) => &ask.request_id,
            Self::Rename(ask) => &ask.request_id,
            Self::Open(ask) => &ask.request_id,
            Self::Submit(ask) => &ask.request_id,
            Self::Confirm(ask) => &ask.request_id,
            Self::Reject(ask) => &ask.request_id,
        }
    }
}

impl Sent {
    pub(super) fn key(&self) -> (String, String) {
        (self.caller.clone(), self.ask.request_id().to_owned())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("p2phub-caller", self.caller.parse().expect("a name"));
        request
    }

    pub(super) async fn send(self, mut clients: Clients) -> Got {
        let (partners, payments) = (&mut clients.partners, &mut clients.payments);
        match self.ask.clone() {
            Ask::Register(ask) => got(partners.register_partner(self.request(ask)).await, |answer| {
                let (created, attribution) = (answer.created, answer.attribution());
                Reply::Registered(answer.partner.expect("a partner"), created, attribution)
            }),
            Ask::Attach(ask) => got(partners.attach_referrer(self.request(ask)).await, |answer| {
                Reply::Partner(answer.partner.expect("a partner"))
            }),
            Ask::Rename(ask) => got(partners.update_partner(self.request(ask)).await, |answer| {
                Reply::Partner(answer.partner.expect("a partner"))
            }),
            Ask::Open(ask) => {
                got(payments.create_payment(self.request(ask)).await, |answer| payment(answer.payment).into())
            }
            Ask::Submit(ask) => {
                got(payments.submit_payment(self.request(ask)).await, |answer| payment(answer.payment).into())
            }
            Ask::Confirm(ask) => got(payments.confirm_payment(self.request(ask)).await, |answer| {
                Reply::Confirmed(payment(answer.payment), commissions(answer.commissions))
            }),
            Ask::Reject(ask) => {
                got(payments.reject_payment(self.request(ask)).await, |answer| payment(answer.payment).into())
            }
        }
    }
}

impl From<pb::Payment> for Reply {
    fn from(payment: pb::Payment) -> Self {
        Self::Payment(payment)
    }
}

fn got<T>(answer: Result<Response<T>, Status>, reply: impl FnOnce(T) -> Reply) -> Got {
    match answer {
        Ok(answer) => Got { replay: has_flag(&answer, "idempotent-replay"), answer: Ok(reply(answer.into_inner())) },
        Err(status) => Got {
            replay: status.metadata().get("idempotent-replay").is_some_and(|value| value == "true"),
            answer: Err((status.code(), reason(&status))),
        },
    }
}

/// References that came late in one moment have no order: here they get one.
pub(super) fn payment(payment: Option<pb::Payment>) -> pb::Payment {
    let mut payment = payment.expect("a payment");
    payment.late_references.sort_by(|one, other| one.external_ref.cmp(&other.external_ref));
    payment
}

/// Commissions but for their IDs, which nobody can foresee.
pub(super) fn commissions(mut commissions: Vec<pb::Commission>) -> Vec<pb::Commission> {
    commissions.iter_mut().for_each(|commission| commission.commission_id.clear());
    commissions
}

/// Makes commands up, on what the world knew before the round.
pub(super) struct Source {
    pub(super) random: StdRng,
    made: usize,
}

impl Source {
    pub(super) fn new(random: StdRng) -> Self {
        Self { random, made: 0 }
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// One of the first `number`, the late ones preferred.
    fn pick(&mut self, number: usize) -> usize {
        let from = if self.chance(70) { number.saturating_sub(25) } else { 0 };
        self.random.random_range(from..number)
    }

    pub(super) fn sent(&mut self, world: &World) -> Sent {
        let caller = if self.chance(80) { "gateway" } else { "operator" };
        Sent { caller: caller.to_owned(), ask: self.ask(world) }
    }

    fn ask(&mut self, world: &World) -> Ask {
        self.made += 1;
        let request_id = request_id();
        let what = self.random.random_range(0..100);
        if what < 35 || world.people.is_empty() {
            // Some register twice, and now and then at once.
            let number = if self.chance(85) { self.made } else { self.pick(self.made + 1) };
            let code = if self.chance(20) { String::new() } else { self.code(world) };
            return Ask::Register(registration(&format!("person-{number}"), &code));
        }
        let (partner_id, payment_id) = (self.partner_id(world, what < 50), self.payment_id(world));
        match what {
            ..50 => {
                let referral_code = self.code(world);
                Ask::Attach(pb::AttachReferrerRequest { request_id, partner_id, referral_code })
            }
            50..53 => Ask::Rename(pb::UpdatePartnerRequest {
                request_id,
                partner_id,
                first_name: Some(format!("Name {}", self.made)),
                ..Default::default()
            }),
            53..68 => {
                let method = ["trusted", "trusted", "manual", "manual", "trusted", "manual", "ton"]
                    [self.random.random_range(0..7)]
                .to_owned();
                Ask::Open(pb::CreatePaymentRequest {
                    request_id,
                    partner_id,
                    product: Product::ProMonthly.into(),
                    method,
                })
            }
            68..76 => {
                let external_ref = self.reference();
                Ask::Submit(pb::SubmitPaymentRequest { request_id, payment_id, external_ref })
            }
            76..95 => {
                let mut ask = confirmation(&payment_id, &self.reference());
                match self.random.random_range(0..100) {
                    ..20 => ask.external_ref.clear(),
                    20..35 => ask.override_reason = format!("reason {}", self.made),
                    _ => {}
                }
                Ask::Confirm(ask)
            }
            _ => {
                let reason = format!("reason {}", self.made);
                Ask::Reject(pb::RejectPaymentRequest { request_id, payment_id, reason })
            }
        }
    }

    fn partner_id(&mut self, world: &World, root: bool) -> String {
        if self.chance(3) {
            return request_id();
        }
        let roots: Vec<_> = world.people.iter().filter(|person| person.referrer.is_none()).collect();
        if root && !roots.is_empty() && self.chance(80) {
            return roots[self.pick(roots.len())].id.clone();
        }
        world.people[self.pick(world.people.len())].id.clone()
    }

    fn payment_id(&mut self, world: &World) -> String {
        if world.bills.is_empty() || self.chance(3) {
            return request_id();
        }
        world.bills[self.pick(world.bills.len())].id().to_owned()
    }

    fn code(&mut self, world: &World) -> String {
        if world.people.is_empty() || self.chance(8) {
            return "P2P-NOBODY00".to_owned();
        }
        let code = &world.people[self.pick(world.people.len())].code;
        if self.chance(30) { code.to_lowercase() } else { code.clone() }
    }

    fn reference(&mut self) -> String {
        let number = if self.chance(70) { self.made } else { self.pick(self.made + 1) };
        match self.random.random_range(0..100) {
            ..8 => DRESSES[self.random.random_range(0..DRESSES.len())].to_owned(),
            8..20 => format!("{number:064x}"),
            20..25 => format!("0x{number:064X}"),
            25..30 => format!("  Tx-{number} "),
            _ => format!("Tx-{number}"),
        }
    }
}

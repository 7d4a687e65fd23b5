//! Commands: what they ask, how they are sent, and what came back in a form that can be compared.

use std::time::{Duration, Instant};

use p2phub_proto::referral::v1::{self as pb, Attribution};
use p2phub_tests::{builders::request_id, clients::Clients, wait};
use tonic::{Code, Request, Response, Status};

use crate::concurrency::{DRESSES, has_flag, reason};

/// When a caller asks again after an answer that was none.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub(super) enum Ask {
    Register(pb::RegisterPartnerRequest),
    Attach(pb::AttachReferrerRequest),
    Rename(pb::UpdatePartnerRequest),
    Open(pb::CreatePaymentRequest),
    Submit(pb::SubmitPaymentRequest),
    Confirm(pb::ConfirmPaymentRequest),
    Reject(pb::RejectPaymentRequest),
    Refund(pb::RefundPaymentRequest),
    Payout(pb::RequestPayoutRequest),
    Approve(pb::ApprovePayoutRequest),
    Complete(pb::CompletePayoutRequest),
    Fail(pb::FailPayoutRequest),
    Cancel(pb::CancelPayoutRequest),
    Propose(pb::ProposeAdjustmentRequest),
    Book(pb::ApproveAdjustmentRequest),
    Decline(pb::RejectAdjustmentRequest),
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Reply {
    Registered(pb::Partner, bool, Attribution),
    Partner(pb::Partner),
    Payment(pb::Payment),
    Confirmed(pb::Payment, Vec<pb::Commission>),
    Refunded(pb::Payment, pb::Refund, Vec<pb::Clawback>),
    Payout(pb::Payout),
    Adjustment(pb::Adjustment),
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
    /// How often it was asked for.
    pub(super) tries: usize,
    /// Whether one of the tries may have been done without its answer getting here.
    pub(super) lost: bool,
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
            Self::Refund(ask) => &ask.request_id,
            Self::Payout(ask) => &ask.request_id,
            Self::Approve(ask) => &ask.request_id,
            Self::Complete(ask) => &ask.request_id,
            Self::Fail(ask) => &ask.request_id,
            Self::Cancel(ask) => &ask.request_id,
            Self::Propose(ask) => &ask.request_id,
            Self::Book(ask) => &ask.request_id,
            Self::Decline(ask) => &ask.request_id,
        }
    }
}

impl Sent {
    pub(super) fn key(&self) -> (String, String) {
        (self.caller.clone(), self.ask.request_id().to_owned())
    }

    /// The same request ID and caller, with other content.
    pub(super) fn altered(mut self) -> Self {
        let text = match &mut self.ask {
            Ask::Register(ask) => &mut ask.last_name,
            Ask::Attach(ask) => &mut ask.referral_code,
            Ask::Rename(ask) => ask.last_name.get_or_insert_default(),
            Ask::Open(ask) => {
                ask.method = if ask.method == "manual" { "trusted" } else { "manual" }.to_owned();
                return self;
            }
            Ask::Submit(ask) => &mut ask.external_ref,
            Ask::Confirm(ask) => &mut ask.override_reason,
            Ask::Reject(ask) => &mut ask.reason,
            Ask::Refund(ask) => &mut ask.reason,
            Ask::Payout(ask) => &mut ask.destination,
            // Nothing but an ID to alter.
            Ask::Approve(ask) => {
                ask.payout_id = request_id();
                return self;
            }
            Ask::Complete(ask) => &mut ask.external_ref,
            Ask::Fail(ask) => &mut ask.reason,
            Ask::Cancel(ask) => &mut ask.reason,
            Ask::Propose(ask) => &mut ask.reason,
            Ask::Book(ask) => {
                ask.adjustment_id = request_id();
                return self;
            }
            Ask::Decline(ask) => &mut ask.reason,
        };
        text.push('X');
        self
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("p2phub-caller", self.caller.parse().expect("a name"));
        request
    }

    /// Asks until there is an answer for good, either instance by turns: whatever was lost on the way is asked for again,
    /// with the same request ID.
    pub(super) async fn send(self, instances: [Clients; 2], turn: usize) -> Got {
        let started = Instant::now();
        let mut lost = false;
        for tries in 1.. {
            let got = self.send_once(instances[(turn + tries) % 2].clone()).await;
            match &got.answer {
                // By the service's own word, nothing was done.
                Err((Code::Unavailable | Code::ResourceExhausted, reason)) if !reason.is_empty() => {}
                Err((Code::Unavailable | Code::Unknown | Code::Cancelled, _)) => lost = true,
                _ => return Got { tries, lost, ..got },
            }
            assert!(started.elapsed() < wait::LIMIT, "no answer for good: {self:?}, {got:?}");
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        unreachable!("there is always one more try");
    }

    async fn send_once(&self, mut clients: Clients) -> Got {
        let (partners, payments) = (&mut clients.partners, &mut clients.payments);
        let (payouts, ledger) = (&mut clients.payouts, &mut clients.ledger);
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
            Ask::Open(ask) => got(payments.create_payment(self.request(ask)).await, |answer| paid_for(answer.payment)),
            Ask::Submit(ask) => {
                got(payments.submit_payment(self.request(ask)).await, |answer| paid_for(answer.payment))
            }
            Ask::Confirm(ask) => got(payments.confirm_payment(self.request(ask)).await, |answer| {
                Reply::Confirmed(payment(answer.payment), answer.commissions)
            }),
            Ask::Reject(ask) => {
                got(payments.reject_payment(self.request(ask)).await, |answer| paid_for(answer.payment))
            }
            Ask::Refund(ask) => got(payments.refund_payment(self.request(ask)).await, |answer| {
                Reply::Refunded(payment(answer.payment), answer.refund.expect("a refund"), answer.clawbacks)
            }),
            Ask::Payout(ask) => got(payouts.request_payout(self.request(ask)).await, |answer| payout(answer.payout)),
            Ask::Approve(ask) => got(payouts.approve_payout(self.request(ask)).await, |answer| payout(answer.payout)),
            Ask::Complete(ask) => got(payouts.complete_payout(self.request(ask)).await, |answer| payout(answer.payout)),
            Ask::Fail(ask) => got(payouts.fail_payout(self.request(ask)).await, |answer| payout(answer.payout)),
            Ask::Cancel(ask) => got(payouts.cancel_payout(self.request(ask)).await, |answer| payout(answer.payout)),
            Ask::Propose(ask) => {
                got(ledger.propose_adjustment(self.request(ask)).await, |answer| adjustment(answer.adjustment))
            }
            Ask::Book(ask) => {
                got(ledger.approve_adjustment(self.request(ask)).await, |answer| adjustment(answer.adjustment))
            }
            Ask::Decline(ask) => {
                got(ledger.reject_adjustment(self.request(ask)).await, |answer| adjustment(answer.adjustment))
            }
        }
    }
}

fn paid_for(shown: Option<pb::Payment>) -> Reply {
    Reply::Payment(payment(shown))
}

fn payout(payout: Option<pb::Payout>) -> Reply {
    Reply::Payout(payout.expect("a payout"))
}

fn adjustment(adjustment: Option<pb::Adjustment>) -> Reply {
    Reply::Adjustment(adjustment.expect("an adjustment"))
}

fn got<T>(answer: Result<Response<T>, Status>, reply: impl FnOnce(T) -> Reply) -> Got {
    let (replay, answer) = match answer {
        Ok(answer) => (has_flag(&answer, "idempotent-replay"), Ok(reply(answer.into_inner()))),
        Err(status) => (
            status.metadata().get("idempotent-replay").is_some_and(|value| value == "true"),
            Err((status.code(), reason(&status))),
        ),
    };
    Got { answer, replay, tries: 1, lost: false }
}

/// References that came late in one moment have no order: here they get one.
pub(super) fn payment(payment: Option<pb::Payment>) -> pb::Payment {
    let mut payment = payment.expect("a payment");
    payment.late_references.sort_by(|one, other| one.external_ref.cmp(&other.external_ref));
    payment
}

//! What most tests begin with: partners, chains of them, and a sale.

mod money;

use p2phub_proto::referral::v1::{
    Amount, Commission, ConfirmPaymentRequest, CreatePaymentRequest, GetBalanceRequest, GetPartnerRequest,
    GetPaymentRequest, Partner, Payment, Payout, Product, RefundPaymentRequest, RefundPaymentResponse,
    RegisterPartnerRequest, get_partner_request::Key,
};
use tonic::{Request, Status};
use uuid::Uuid;

pub use money::*;

use crate::clients::Clients;

/// The only asset so far.
pub const ASSET: &str = "USDT";

/// A new request ID.
pub fn request_id() -> String {
    Uuid::new_v4().to_string()
}

/// An amount in minor units of the only asset.
pub fn usdt(minor_units: i64) -> Amount {
    Amount { asset: ASSET.to_owned(), minor_units }
}

/// The message, sent by this caller.
pub fn by<T>(caller: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("p2phub-caller", caller.parse().expect("a name"));
    request
}

/// A registration that is valid; `code` may be empty.
pub fn registration(external_id: &str, code: &str) -> RegisterPartnerRequest {
    RegisterPartnerRequest {
        request_id: request_id(),
        external_id: external_id.to_owned(),
        first_name: external_id.to_owned(),
        referral_code: code.to_owned(),
        ..Default::default()
    }
}

impl Clients {
    /// A new partner, below the owner of `code` unless that is empty.
    pub async fn register(&mut self, external_id: &str, code: &str) -> Partner {
        let answer = self.partners.register_partner(registration(external_id, code)).await.expect("a registration");
        answer.into_inner().partner.expect("a partner")
    }

    /// New partners `prefix-0`, `prefix-1`, …, each below the one before.
    pub async fn chain(&mut self, prefix: &str, length: usize) -> Vec<Partner> {
        let mut chain: Vec<Partner> = Vec::with_capacity(length);
        for index in 0..length {
            let code = chain.last().map(|last| last.referral_code.clone()).unwrap_or_default();
            chain.push(self.register(&format!("{prefix}-{index}"), &code).await);
        }
        chain
    }

    /// A partner as it is now.
    pub async fn partner(&mut self, partner_id: &str) -> Partner {
        let request = GetPartnerRequest { key: Some(Key::PartnerId(partner_id.to_owned())) };
        self.partners.get_partner(request).await.expect("an answer").into_inner().partner.expect("a partner")
    }

    /// An open payment for PRO by the method `trusted`.
    pub async fn open_payment(&mut self, partner_id: &str) -> Payment {
        self.open_payment_by(partner_id, "trusted").await
    }

    /// Opens one of this method.
    pub async fn open_payment_by(&mut self, partner_id: &str, method: &str) -> Payment {
        let request = CreatePaymentRequest {
            request_id: request_id(),
            partner_id: partner_id.to_owned(),
            product: Product::ProMonthly.into(),
            method: method.to_owned(),
        };
        self.payments.create_payment(request).await.expect("an open payment").into_inner().payment.expect("a payment")
    }

    /// Opens a payment and confirms it with a reference of its own.
    pub async fn buy_pro(&mut self, partner_id: &str) -> (Payment, Vec<Commission>) {
        let payment = self.open_payment(partner_id).await;
        let request = confirmation(&payment.payment_id, &format!("ref-{}", payment.payment_id));
        let answer = self.payments.confirm_payment(request).await.expect("a confirmation").into_inner();
        (answer.payment.expect("a payment"), answer.commissions)
    }

    /// Gives back so much of a payment; none: all that is left.
    pub async fn refund(&mut self, payment_id: &str, minor_units: Option<i64>) -> RefundPaymentResponse {
        self.payments.refund_payment(refund(payment_id, minor_units)).await.expect("a refund").into_inner()
    }

    /// Asks for a payout of so much, which may be refused; none: all that is available.
    pub async fn try_payout(&mut self, partner_id: &str, minor_units: Option<i64>) -> Result<Payout, Status> {
        let request = payout_request(partner_id, minor_units);
        Ok(self.payouts.request_payout(request).await?.into_inner().payout.expect("a payout"))
    }

    /// What a partner can be paid out, in minor units.
    pub async fn balance(&mut self, partner_id: &str) -> i64 {
        self.balances(partner_id).await[0]
    }

    /// A partner's balances, in minor units: available, pending, reserved, paid.
    pub async fn balances(&mut self, partner_id: &str) -> [i64; 4] {
        let request =
            GetBalanceRequest { partner_id: partner_id.to_owned(), asset: ASSET.to_owned(), ..Default::default() };
        let answer = self.ledger.get_balance(request).await.expect("a balance").into_inner();
        [answer.available, answer.pending, answer.reserved, answer.paid]
            .map(|amount| amount.expect("an amount").minor_units)
    }

    /// The commissions of a payment as they are now, by level.
    pub async fn commissions(&mut self, payment_id: &str) -> Vec<Commission> {
        let request = GetPaymentRequest { payment_id: payment_id.to_owned() };
        self.payments.get_payment(request).await.expect("an answer").into_inner().commissions
    }
}

/// A refund that is valid; no amount: all that is left.
pub fn refund(payment_id: &str, minor_units: Option<i64>) -> RefundPaymentRequest {
    RefundPaymentRequest {
        request_id: request_id(),
        payment_id: payment_id.to_owned(),
        amount: minor_units.map(usdt),
        reason: "not what was wanted".to_owned(),
    }
}

/// A confirmation that is valid.
pub fn confirmation(payment_id: &str, external_ref: &str) -> ConfirmPaymentRequest {
    ConfirmPaymentRequest {
        request_id: request_id(),
        payment_id: payment_id.to_owned(),
        external_ref: external_ref.to_owned(),
        override_reason: String::new(),
    }
}

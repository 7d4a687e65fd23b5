//! The demo's calls, as any client would make them.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use p2phub_proto::{
    notify::v1::{ListNotificationsRequest, Notification, notification_service_client::NotificationServiceClient},
    referral::v1::{
        AuditEvent, CheckLedgerRequest, CheckLedgerResponse, Commission, ConfirmPaymentRequest, CreatePaymentRequest,
        GetBalanceRequest, GetPartnerRequest, GetTransactionRequest, ListAuditEventsRequest, Partner, Payment, Product,
        RegisterPartnerRequest, Transaction, audit_service_client::AuditServiceClient, get_partner_request::Key,
        ledger_service_client::LedgerServiceClient, partner_service_client::PartnerServiceClient,
        payment_service_client::PaymentServiceClient,
    },
};
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

const CALL_LIMIT: Duration = Duration::from_secs(15);

/// A client of every service that the demo calls.
pub(crate) struct Clients {
    partners: PartnerServiceClient<Channel>,
    payments: PaymentServiceClient<Channel>,
    ledger: LedgerServiceClient<Channel>,
    audit: AuditServiceClient<Channel>,
    notifications: NotificationServiceClient<Channel>,
}

/// The sale, with a trace that the demo began itself.
pub(crate) struct Sale {
    pub(crate) payment_id: String,
    pub(crate) trace_id: String,
}

impl Sale {
    pub(crate) fn new(payment_id: &str) -> Self {
        Self { payment_id: payment_id.to_owned(), trace_id: Uuid::new_v4().simple().to_string() }
    }
}

impl Clients {
    pub(crate) async fn connect(referral: SocketAddr, notify: SocketAddr) -> anyhow::Result<Self> {
        let (referral, notify) = (channel(referral).await?, channel(notify).await?);
        Ok(Self {
            partners: PartnerServiceClient::new(referral.clone()),
            payments: PaymentServiceClient::new(referral.clone()),
            ledger: LedgerServiceClient::new(referral.clone()),
            audit: AuditServiceClient::new(referral),
            notifications: NotificationServiceClient::new(notify),
        })
    }

    pub(crate) async fn register(&mut self, name: &str, locale: &str, code: String) -> anyhow::Result<Partner> {
        let request = RegisterPartnerRequest {
            request_id: request_id(),
            external_id: format!("demo:{}", name.to_lowercase()),
            first_name: name.to_owned(),
            locale: locale.to_owned(),
            referral_code: code,
            ..Default::default()
        };
        let answer =
            self.partners.register_partner(call(request)).await.map_err(|status| failed("RegisterPartner", &status))?;
        answer.into_inner().partner.context("RegisterPartner answered without a partner")
    }

    pub(crate) async fn partner(&mut self, partner_id: &str) -> anyhow::Result<Partner> {
        let request = GetPartnerRequest { key: Some(Key::PartnerId(partner_id.to_owned())) };
        let answer = self.partners.get_partner(call(request)).await.map_err(|status| failed("GetPartner", &status))?;
        answer.into_inner().partner.context("GetPartner answered without a partner")
    }

    pub(crate) async fn open_payment(&mut self, buyer_id: &str) -> anyhow::Result<Payment> {
        let request = CreatePaymentRequest {
            request_id: request_id(),
            partner_id: buyer_id.to_owned(),
            product: Product::ProMonthly.into(),
            method: "trusted".to_owned(),
        };
        let answer =
            self.payments.create_payment(call(request)).await.map_err(|status| failed("CreatePayment", &status))?;
        answer.into_inner().payment.context("CreatePayment answered without a payment")
    }

    pub(crate) async fn confirm(&mut self, sale: &Sale) -> anyhow::Result<(Payment, Vec<Commission>)> {
        let mut request = call(ConfirmPaymentRequest {
            request_id: request_id(),
            payment_id: sale.payment_id.clone(),
            external_ref: format!("demo-{}", sale.payment_id),
            override_reason: String::new(),
        });
        let traceparent = AsciiMetadataValue::try_from(format!("00-{}-00000000000000d0-01", sale.trace_id))?;
        request.metadata_mut().insert("traceparent", traceparent);
        let answer =
            self.payments.confirm_payment(request).await.map_err(|status| failed("ConfirmPayment", &status))?;
        let answer = answer.into_inner();
        Ok((answer.payment.context("ConfirmPayment answered without a payment")?, answer.commissions))
    }

    /// What each person can be paid out, in minor units.
    pub(crate) async fn balances(&mut self, people: &[Partner]) -> anyhow::Result<Vec<i64>> {
        let mut balances = Vec::with_capacity(people.len());
        for person in people {
            let request = GetBalanceRequest {
                partner_id: person.partner_id.clone(),
                asset: "USDT".to_owned(),
                ..Default::default()
            };
            let answer =
                self.ledger.get_balance(call(request)).await.map_err(|status| failed("GetBalance", &status))?;
            let available = answer.into_inner().available.context("GetBalance answered without an amount")?;
            balances.push(available.minor_units);
        }
        Ok(balances)
    }

    pub(crate) async fn transaction(&mut self, transaction_id: &str) -> anyhow::Result<Transaction> {
        let request = GetTransactionRequest { transaction_id: transaction_id.to_owned() };
        let answer =
            self.ledger.get_transaction(call(request)).await.map_err(|status| failed("GetTransaction", &status))?;
        answer.into_inner().transaction.context("GetTransaction answered without a transaction")
    }

    pub(crate) async fn check_ledger(&mut self) -> anyhow::Result<CheckLedgerResponse> {
        let answer = self.ledger.check_ledger(call(CheckLedgerRequest::default())).await;
        Ok(answer.map_err(|status| failed("CheckLedger", &status))?.into_inner())
    }

    pub(crate) async fn audit(&mut self, trace_id: &str) -> anyhow::Result<Vec<AuditEvent>> {
        let request = ListAuditEventsRequest { trace_id: trace_id.to_owned(), ..Default::default() };
        let answer =
            self.audit.list_audit_events(call(request)).await.map_err(|status| failed("ListAuditEvents", &status))?;
        Ok(answer.into_inner().audit_events)
    }

    pub(crate) async fn notifications(&mut self, trace_id: &str) -> anyhow::Result<Vec<Notification>> {
        let request = ListNotificationsRequest { trace_id: trace_id.to_owned(), ..Default::default() };
        let answer = self.notifications.list_notifications(call(request)).await;
        Ok(answer.map_err(|status| failed("ListNotifications", &status))?.into_inner().notifications)
    }
}

async fn channel(address: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    endpoint.connect().await.with_context(|| format!("can't reach {address}"))
}

fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_LIMIT);
    request.metadata_mut().insert("p2phub-caller", AsciiMetadataValue::from_static("demo"));
    request
}

fn request_id() -> String {
    Uuid::new_v4().to_string()
}

fn failed(method: &str, status: &Status) -> anyhow::Error {
    anyhow::anyhow!("{method} failed: {:?}: {}", status.code(), status.message())
}

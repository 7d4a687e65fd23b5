//! PaymentService.

use p2phub_proto::referral::v1::{self as pb, payment_service_server::PaymentService};
use referral_domain::{
    id::{PartnerId, PaymentId},
    payment::PaymentState,
};
use service::error::Failure;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::{Api, BoxStream, existing_partner, explanation::explain, status};
use crate::{
    store::{
        commissions, explanation,
        partners::Key,
        payments::{self, Filter, PaymentWhole},
    },
    wire::{
        fields::{self, Checked},
        inward, outward,
        page::Page,
    },
};

#[tonic::async_trait]
impl PaymentService for Api {
    async fn create_payment(
        &self,
        request: Request<pb::CreatePaymentRequest>,
    ) -> Result<Response<pb::CreatePaymentResponse>, Status> {
        self.command(request, "CreatePayment", |message| &mut message.request_id, inward::create_payment).await
    }

    async fn submit_payment(
        &self,
        request: Request<pb::SubmitPaymentRequest>,
    ) -> Result<Response<pb::SubmitPaymentResponse>, Status> {
        self.command(request, "SubmitPayment", |message| &mut message.request_id, inward::submit_payment).await
    }

    async fn confirm_payment(
        &self,
        request: Request<pb::ConfirmPaymentRequest>,
    ) -> Result<Response<pb::ConfirmPaymentResponse>, Status> {
        self.command(request, "ConfirmPayment", |message| &mut message.request_id, inward::confirm_payment).await
    }

    async fn reject_payment(
        &self,
        request: Request<pb::RejectPaymentRequest>,
    ) -> Result<Response<pb::RejectPaymentResponse>, Status> {
        self.command(request, "RejectPayment", |message| &mut message.request_id, inward::reject_payment).await
    }

    async fn refund_payment(
        &self,
        request: Request<pb::RefundPaymentRequest>,
    ) -> Result<Response<pb::RefundPaymentResponse>, Status> {
        self.command(request, "RefundPayment", |message| &mut message.request_id, inward::refund_payment).await
    }

    async fn get_payment(
        &self,
        request: Request<pb::GetPaymentRequest>,
    ) -> Result<Response<pb::GetPaymentResponse>, Status> {
        self.read(async |connection| {
            let now = self.clock.now(connection).await?;
            let payment_id: PaymentId = fields::id("payment_id", &request.into_inner().payment_id)?;
            let PaymentWhole { payment, commissions, refunds } = payments::find_whole(connection, payment_id)
                .await?
                .ok_or_else(|| status::not_found("PAYMENT_NOT_FOUND", "no such payment"))?;
            Ok(pb::GetPaymentResponse {
                payment: Some(outward::payment(&payment, now)),
                commissions: commissions.iter().map(outward::commission).collect(),
                refunds: refunds.iter().map(outward::refund).collect(),
            })
        })
        .await
    }

    async fn list_payments(
        &self,
        request: Request<pb::ListPaymentsRequest>,
    ) -> Result<Response<pb::ListPaymentsResponse>, Status> {
        self.read(async |connection| {
            let now = self.clock.now(connection).await?;
            let message = request.into_inner();
            let partner_id: Option<PartnerId> = fields::optional_id("partner_id", &message.partner_id)?;
            let state = state_filter(message.state)?;
            let list = ["payments", &message.partner_id, &message.state.to_string()];
            let page = Page::new(message.page_size, &message.page_token, &list)?;
            if let Some(partner_id) = partner_id {
                existing_partner(connection, &Key::Id(partner_id)).await?;
            }
            let filter = Filter { partner_id, state: state.map(|state| (state, now)) };
            let mut payments = payments::list(connection, &filter, page.after_or(Uuid::max()), page.limit()).await?;
            let next_page_token = page.cut(&mut payments, |payment| payment.payment_id.into());
            let payments = payments.iter().map(|payment| outward::payment(payment, now)).collect();
            Ok(pb::ListPaymentsResponse { payments, next_page_token })
        })
        .await
    }

    async fn explain_commission(
        &self,
        request: Request<pb::ExplainCommissionRequest>,
    ) -> Result<Response<pb::ExplainCommissionResponse>, Status> {
        self.read(async |connection| {
            let key = inward::commission_key(&request.into_inner().commission_id)?;
            let found = explanation::explain(connection, key).await?;
            let found = found.ok_or_else(|| status::not_found("COMMISSION_NOT_FOUND", "no such commission"))?;
            Ok(explain(&found))
        })
        .await
    }

    type ReconcilePaymentsStream = BoxStream<pb::ReconcilePaymentsResponse>;

    async fn reconcile_payments(
        &self,
        request: Request<Streaming<pb::ReconcilePaymentsRequest>>,
    ) -> Result<Response<Self::ReconcilePaymentsStream>, Status> {
        self.reconcile(request.into_inner()).map(Response::new).map_err(status::finish)
    }

    async fn list_commissions(
        &self,
        request: Request<pb::ListCommissionsRequest>,
    ) -> Result<Response<pb::ListCommissionsResponse>, Status> {
        self.read(async |connection| {
            let message = request.into_inner();
            let earner_id: Option<PartnerId> = fields::optional_id("earner_id", &message.earner_id)?;
            let payment_id: Option<PaymentId> = fields::optional_id("payment_id", &message.payment_id)?;
            if earner_id.is_none() && payment_id.is_none() {
                return Err(Failure::violation("earner_id", "required, unless payment_id is given").into());
            }
            let list = ["commissions", &message.earner_id, &message.payment_id];
            let page = Page::new(message.page_size, &message.page_token, &list)?;
            if let Some(earner_id) = earner_id {
                existing_partner(connection, &Key::Id(earner_id)).await?;
            }
            let missing = match payment_id {
                Some(payment_id) => payments::find(connection, payment_id).await?.is_none(),
                None => false,
            };
            if missing {
                return Err(status::not_found("PAYMENT_NOT_FOUND", "no such payment").into());
            }
            let after = page.after_or((Uuid::max(), i16::MAX));
            let mut commissions = commissions::list(connection, earner_id, payment_id, after, page.limit()).await?;
            let next_page_token = page
                .cut(&mut commissions, |commission| (commission.transaction_id.into(), i16::from(commission.level)));
            let commissions = commissions.iter().map(outward::commission).collect();
            Ok(pb::ListCommissionsResponse { commissions, next_page_token })
        })
        .await
    }
}

/// Which state is asked for; none: any.
fn state_filter(state: i32) -> Checked<Option<PaymentState>> {
    use pb::PaymentState as Asked;
    let asked = Asked::try_from(state).map_err(|_| Failure::violation("state", "must be a PaymentState"))?;
    Ok(match asked {
        Asked::Unspecified => None,
        Asked::Pending => Some(PaymentState::Pending),
        Asked::InReview => Some(PaymentState::InReview),
        Asked::Succeeded => Some(PaymentState::Succeeded),
        Asked::Rejected => Some(PaymentState::Rejected),
        Asked::Expired => Some(PaymentState::Expired),
        Asked::Refunded => Some(PaymentState::Refunded),
        Asked::PartiallyRefunded => Some(PaymentState::PartiallyRefunded),
    })
}

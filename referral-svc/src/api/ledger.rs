//! LedgerService.

use p2phub_proto::referral::v1::{self as pb, ledger_service_server::LedgerService};
use referral_domain::{
    id::{PartnerId, TransactionId},
    money::Asset,
    posting::Purpose,
};
use tonic::{Request, Response, Status};

use super::{Api, BoxStream, existing_partner, span, status};
use crate::{
    store::{
        balances,
        ledger::{self, Entries, EntryView},
        partners::Key,
    },
    wire::{
        fields,
        inward::{self, payouts},
        outward::{self, subject, timestamp},
        page::Page,
    },
};

#[tonic::async_trait]
impl LedgerService for Api {
    async fn get_balance(
        &self,
        request: Request<pb::GetBalanceRequest>,
    ) -> Result<Response<pb::GetBalanceResponse>, Status> {
        self.read(async |connection| {
            let message = request.into_inner();
            let partner_id = fields::id("partner_id", &message.partner_id)?;
            let asset = inward::asset("asset", &message.asset)?;
            let at_time = self.past(connection, "at_time", message.at_time.as_ref()).await?;
            let balance = match at_time {
                Some(time) => balances::at(connection, partner_id, asset, time).await?,
                None => balances::now(connection, partner_id, asset).await?,
            };
            // Whoever has entries is there.
            if balance.version == 0 {
                existing_partner(connection, &Key::Id(partner_id)).await?;
            }
            Ok(pb::GetBalanceResponse {
                available: signed(asset, balance.available),
                pending: signed(asset, balance.pending),
                version: balance.version,
                reserved: signed(asset, balance.reserved),
                paid: signed(asset, balance.paid),
            })
        })
        .await
    }

    async fn list_entries(
        &self,
        request: Request<pb::ListEntriesRequest>,
    ) -> Result<Response<pb::ListEntriesResponse>, Status> {
        self.read(async |connection| {
            let message = request.into_inner();
            let partner_id: PartnerId = fields::id("partner_id", &message.partner_id)?;
            let asset = inward::asset("asset", &message.asset)?;
            let span = span(message.start_time.as_ref(), message.end_time.as_ref())?;
            let kind = inward::transaction_kind(message.kind)?;
            let purpose = inward::partner_purpose(message.purpose, partner_id)?;
            let [start, end] = [span.start, span.end].map(|time| format!("{time:?}"));
            let (kind_asked, purpose_asked) = (kind.unwrap_or_default(), format!("{purpose:?}"));
            let list = ["entries", asset.ticker(), &purpose_asked, kind_asked, &start, &end];
            let page = Page::new(message.page_size, &message.page_token, &list)?;
            existing_partner(connection, &Key::Id(partner_id)).await?;
            let Some(covered) = balances::covered(connection, purpose, asset, span).await? else {
                return Ok(pb::ListEntriesResponse::default());
            };
            let which = Entries {
                account_id: covered.account_id,
                after: covered.after,
                before: page.after_or(i64::MAX).min(covered.last.saturating_add(1)),
                kind,
                newest_first: true,
            };
            let mut entries = ledger::list_entries(connection, &which, page.limit()).await?;
            let next_page_token = page.cut(&mut entries, |entry| entry.version);
            Ok(pb::ListEntriesResponse { entries: entries.iter().map(entry).collect(), next_page_token })
        })
        .await
    }

    async fn get_transaction(
        &self,
        request: Request<pb::GetTransactionRequest>,
    ) -> Result<Response<pb::GetTransactionResponse>, Status> {
        self.read(async |connection| {
            let transaction_id: TransactionId = fields::id("transaction_id", &request.into_inner().transaction_id)?;
            let entries = ledger::entries_of(connection, transaction_id).await?;
            let first =
                entries.first().ok_or_else(|| status::not_found("TRANSACTION_NOT_FOUND", "no such transaction"))?;
            let (kind, payment_id, payout_id, adjustment_id) = subject(first.subject);
            let transaction = pb::Transaction {
                transaction_id: transaction_id.to_string(),
                kind: kind.into(),
                payment_id,
                create_time: timestamp(first.create_time),
                entries: entries.iter().map(entry).collect(),
                payout_id,
                adjustment_id,
            };
            Ok(pb::GetTransactionResponse { transaction: Some(transaction) })
        })
        .await
    }

    type ExportStatementStream = BoxStream<pb::ExportStatementResponse>;

    async fn export_statement(
        &self,
        request: Request<pb::ExportStatementRequest>,
    ) -> Result<Response<Self::ExportStatementStream>, Status> {
        self.statement(request.into_inner()).await.map(Response::new).map_err(status::finish)
    }

    async fn propose_adjustment(
        &self,
        request: Request<pb::ProposeAdjustmentRequest>,
    ) -> Result<Response<pb::ProposeAdjustmentResponse>, Status> {
        self.command(request, "ProposeAdjustment", |message| &mut message.request_id, payouts::propose_adjustment).await
    }

    async fn approve_adjustment(
        &self,
        request: Request<pb::ApproveAdjustmentRequest>,
    ) -> Result<Response<pb::ApproveAdjustmentResponse>, Status> {
        self.command(request, "ApproveAdjustment", |message| &mut message.request_id, payouts::approve_adjustment).await
    }

    async fn reject_adjustment(
        &self,
        request: Request<pb::RejectAdjustmentRequest>,
    ) -> Result<Response<pb::RejectAdjustmentResponse>, Status> {
        self.command(request, "RejectAdjustment", |message| &mut message.request_id, payouts::reject_adjustment).await
    }

    async fn list_adjustments(
        &self,
        request: Request<pb::ListAdjustmentsRequest>,
    ) -> Result<Response<pb::ListAdjustmentsResponse>, Status> {
        self.read_adjustments(request).await
    }

    async fn check_ledger(
        &self,
        request: Request<pb::CheckLedgerRequest>,
    ) -> Result<Response<pb::CheckLedgerResponse>, Status> {
        self.check(request).await
    }
}

fn signed(asset: Asset, minor_units: i64) -> Option<pb::Amount> {
    Some(outward::signed(asset, minor_units))
}

fn entry(entry: &EntryView) -> pb::Entry {
    let (partner_id, purpose) = match entry.purpose {
        Purpose::PartnerAvailable(owner) => (owner.to_string(), pb::AccountPurpose::PartnerAvailable),
        Purpose::PartnerPending(owner) => (owner.to_string(), pb::AccountPurpose::PartnerPending),
        Purpose::PartnerReserved(owner) => (owner.to_string(), pb::AccountPurpose::PartnerReserved),
        Purpose::PlatformAdjustments => (String::new(), pb::AccountPurpose::PlatformAdjustments),
        Purpose::PlatformClearing => (String::new(), pb::AccountPurpose::PlatformClearing),
        Purpose::PlatformRevenue => (String::new(), pb::AccountPurpose::PlatformRevenue),
    };
    let (kind, payment_id, payout_id, adjustment_id) = subject(entry.subject);
    pb::Entry {
        transaction_id: entry.transaction_id.to_string(),
        account_id: entry.account_id.to_string(),
        partner_id,
        purpose: purpose.into(),
        amount: signed(entry.asset, entry.amount),
        balance_after: signed(entry.asset, entry.balance_after),
        version: entry.version,
        create_time: timestamp(entry.create_time),
        kind: kind.into(),
        payment_id,
        payout_id,
        adjustment_id,
    }
}

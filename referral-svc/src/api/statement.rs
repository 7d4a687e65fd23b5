//! ExportStatement: a partner's entries as CSV, a page at a time.

use p2phub_proto::referral::v1 as pb;
use referral_domain::id::PartnerId;
use service::error::Failure;
use tonic::Status;

use super::{
    Api, BoxStream, existing_partner, span,
    stream::{self, Messages, failed, place},
};
use crate::{
    store::{
        balances::{self, Covered},
        ledger::{self, Entries},
        partners::Key,
    },
    wire::{fields, inward, statement},
};

/// Entries of one message: some 32 KiB.
const PAGE: i64 = 200;

impl Api {
    /// The statement asked for, up to what is its last entry now.
    pub(super) async fn statement(
        &self,
        message: pb::ExportStatementRequest,
    ) -> Result<BoxStream<pb::ExportStatementResponse>, Failure> {
        let place = place(&self.exports)?;
        let partner_id: PartnerId = fields::id("partner_id", &message.partner_id)?;
        let asset = inward::asset("asset", &message.asset)?;
        let span = span(message.start_time.as_ref(), message.end_time.as_ref())?;
        let purpose = inward::partner_purpose(message.purpose, partner_id)?;
        let covered = self.query(async |connection| {
            existing_partner(connection, &Key::Id(partner_id)).await?;
            Ok(balances::covered(connection, purpose, asset, span).await?)
        });
        let covered = covered.await?;
        let api = self.clone();
        Ok(stream::answer(async move |messages| {
            let _place = place;
            write(&api, covered, &messages).await
        }))
    }

    async fn lines(&self, which: &Entries) -> Result<(Vec<u8>, Option<i64>), Failure> {
        let entries = self.query(async |connection| Ok(ledger::list_entries(connection, which, PAGE).await?));
        let entries = entries.await?;
        let last = entries.last().map(|entry| entry.version);
        Ok((statement::lines(&entries).map_err(defect)?, last))
    }
}

async fn write(
    api: &Api,
    covered: Option<Covered>,
    messages: &Messages<pb::ExportStatementResponse>,
) -> Result<(), Status> {
    let head = statement::head().map_err(defect).map_err(failed)?;
    messages.send(pb::ExportStatementResponse { csv: head }).await?;
    let Some(covered) = covered else { return Ok(()) };
    let mut which = Entries {
        account_id: covered.account_id,
        after: covered.after,
        before: covered.last.saturating_add(1),
        kind: None,
        newest_first: false,
    };
    while let (csv, Some(last)) = api.lines(&which).await.map_err(failed)? {
        messages.send(pb::ExportStatementResponse { csv }).await?;
        which.after = last;
    }
    Ok(())
}

/// Memory takes whatever is written to it.
fn defect(error: csv::Error) -> Failure {
    tracing::error!(error = %error, "a statement can't be written");
    Failure::internal()
}

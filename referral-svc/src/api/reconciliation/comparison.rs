//! The statement is complete: each of its references against the payments, and the payments against it.

use std::collections::{BTreeMap, HashSet};

use p2phub_proto::referral::v1::{self as pb, reconcile_payments_response::Result as Found};
use referral_domain::{
    reconcile::{Booked, Currency, Stated, Statement},
    reference::ExternalRef,
};
use tonic::Status;
use uuid::Uuid;

use super::{Responses, found};
use crate::{
    api::{Api, stream::failed},
    store::reconciliation::{self, Expected, HandedIn},
    wire::outward,
};

/// References looked up at once.
const REFERENCES: usize = 500;
/// Payments read at once.
const PAYMENTS: i64 = 1000;

/// What is known of a reference here.
#[derive(Default)]
struct Known {
    booked: Option<Booked>,
    handed_in: Option<HandedIn>,
}

pub(super) struct Comparison<'a> {
    pub(super) api: &'a Api,
    pub(super) statement: &'a Statement,
    pub(super) expected: Expected,
    pub(super) responses: &'a Responses,
    pub(super) summary: pb::ReconcileSummary,
}

impl Comparison<'_> {
    /// Tells what does not match, then the summary.
    pub(super) async fn run(mut self) -> Result<(), Status> {
        for batch in self.statement.references().chunks(REFERENCES) {
            let known = self.look_up(batch).await?;
            for ((reference, stated), known) in batch.iter().zip(known) {
                self.compare(reference, stated, &known).await?;
            }
        }
        let booked = self.missing_there().await?;
        let summary = &mut self.summary;
        summary.ok = summary.differing == 0
            && summary.missing_here == 0
            && summary.missing_there == 0
            && summary.unreadable == 0;
        summary.stated = amounts(self.statement.totals());
        summary.booked = amounts(booked);
        self.responses.send(found(Found::Summary(self.summary))).await
    }

    async fn look_up(&self, batch: &[(&ExternalRef, &Stated)]) -> Result<Vec<Known>, Status> {
        let query = self.api.query(async |connection| {
            let references: Vec<&str> = batch.iter().map(|(reference, _)| reference.as_str()).collect();
            let mut booked = reconciliation::by_reference(connection, &references, self.expected.span).await?;
            let rest =
                batch.iter().map(|(reference, _)| *reference).filter(|reference| !booked.contains_key(*reference));
            let rest: Vec<&str> = rest.map(ExternalRef::as_str).collect();
            let handed_in = reconciliation::handed_in(connection, &rest).await?;
            let known = |(reference, _): &(&ExternalRef, &Stated)| Known {
                booked: booked.remove(*reference),
                handed_in: handed_in.get(reference.as_str()).copied(),
            };
            Ok(batch.iter().map(known).collect())
        });
        query.await.map_err(failed)
    }

    /// One reference of the statement.
    async fn compare(&mut self, reference: &ExternalRef, stated: &Stated, known: &Known) -> Result<(), Status> {
        use pb::ReconcileKind::{AmountDiffers, MissingHere, NotConfirmed};
        let (kind, payment_id, detail) = match (&known.booked, &known.handed_in) {
            // One transfer, told of by both its hashes.
            (Some(booked), _) if self.is_told_before(reference, booked) => {
                let detail = format!("the statement has this payment as {} as well", booked.reference.as_str());
                (AmountDiffers, Some(booked.payment_id), detail)
            }
            (Some(booked), _) if booked.agrees_with(stated, self.statement.with_refunds) => {
                self.summary.matched += 1;
                return Ok(());
            }
            (Some(booked), _) => (AmountDiffers, Some(booked.payment_id), difference(stated, booked)),
            (None, None) => (MissingHere, None, "no payment was confirmed with this reference".to_owned()),
            (None, Some(HandedIn { payment_id, succeeded: true })) => {
                let detail = "handed in for this payment, which was confirmed with another reference";
                (MissingHere, Some(*payment_id), detail.to_owned())
            }
            (None, Some(HandedIn { payment_id, succeeded: false })) => {
                (NotConfirmed, Some(*payment_id), "handed in for this payment, which was not confirmed".to_owned())
            }
        };
        match kind {
            AmountDiffers => self.summary.differing += 1,
            _ => self.summary.missing_here += 1,
        }
        let dated = stated.time.map(|time| format!("; the statement dates it {}", time.to_rfc3339()));
        self.tell(pb::ReconcileFinding {
            kind: kind.into(),
            line: stated.line,
            external_ref: reference.as_str().to_owned(),
            payment_id: payment_id.map(|id| id.to_string()).unwrap_or_default(),
            stated: Some(in_currency(stated.currency, stated.net())),
            booked: known.booked.as_ref().map(|booked| outward::signed(booked.asset, booked.net())),
            detail: detail + &dated.unwrap_or_default(),
        })
        .await
    }

    /// Whether the statement has a payment by its other reference too.
    fn is_told_before(&self, reference: &ExternalRef, booked: &Booked) -> bool {
        *reference != booked.reference && self.statement.get(&booked.reference).is_some()
    }

    /// Tells of the expected payments and refunds that the statement lacks; what all that is expected sums to.
    async fn missing_there(&mut self) -> Result<BTreeMap<Currency, i64>, Status> {
        let mut totals = BTreeMap::new();
        let mut next = Some(Uuid::nil());
        while let Some(after) = next {
            let query = self.api.query(async |connection| {
                Ok(reconciliation::expected(connection, &self.expected, after, PAYMENTS).await?)
            });
            let (page, following) = query.await.map_err(failed)?;
            next = following;
            for booked in page {
                let total: &mut i64 = totals.entry(Currency::Asset(booked.asset)).or_default();
                *total = total.saturating_add(booked.net());
                if self.lacks(&booked) {
                    self.tell_missing(&booked).await?;
                }
            }
        }
        let (mut next, mut seen) = (Some(Uuid::nil()), HashSet::new());
        while let Some(after) = next {
            let query = self.api.query(async |connection| {
                Ok(reconciliation::refunded(connection, &self.expected, after, PAYMENTS).await?)
            });
            let (page, following) = query.await.map_err(failed)?;
            next = following;
            for booked in page {
                if !seen.insert(booked.payment_id) {
                    continue;
                }
                let total: &mut i64 = totals.entry(Currency::Asset(booked.asset)).or_default();
                *total = total.saturating_add(booked.net());
                // What goes back on the chain has a reference of its own there.
                if self.statement.with_refunds && booked.ton.is_none() && self.lacks(&booked) {
                    self.tell_missing(&booked).await?;
                }
            }
        }
        Ok(totals)
    }

    fn lacks(&self, booked: &Booked) -> bool {
        booked.references().all(|reference| self.statement.get(reference).is_none())
    }

    async fn tell_missing(&mut self, booked: &Booked) -> Result<(), Status> {
        self.summary.missing_there += 1;
        self.tell(pb::ReconcileFinding {
            kind: pb::ReconcileKind::MissingThere.into(),
            external_ref: booked.reference.as_str().to_owned(),
            payment_id: booked.payment_id.to_string(),
            booked: Some(outward::signed(booked.asset, booked.net())),
            detail: format!(
                "confirmed at {}, {} refunded in the statement's time",
                booked.confirm_time.to_rfc3339(),
                booked.asset.to_decimal(booked.refunded)
            ),
            ..pb::ReconcileFinding::default()
        })
        .await
    }

    async fn tell(&self, finding: pb::ReconcileFinding) -> Result<(), Status> {
        self.responses.send(found(Found::Finding(finding))).await
    }
}

fn difference(stated: &Stated, booked: &Booked) -> String {
    let stated_text = |minor_units| stated.currency.to_decimal(minor_units);
    let booked_text = |minor_units| booked.asset.to_decimal(minor_units);
    let sent = booked.ton.map(|price| format!(" ({} TON)", Currency::Ton.to_decimal(price.nanotons)));
    format!(
        "the statement has {} in and {} out, the payment {}{} and {} refunded in the statement's time",
        stated_text(stated.came),
        stated_text(stated.went),
        booked_text(booked.amount),
        sent.unwrap_or_default(),
        booked_text(booked.refunded),
    )
}

fn in_currency(currency: Currency, minor_units: i64) -> pb::Amount {
    pb::Amount { asset: currency.ticker().to_owned(), minor_units }
}

fn amounts(totals: BTreeMap<Currency, i64>) -> Vec<pb::Amount> {
    totals.into_iter().map(|(currency, minor_units)| in_currency(currency, minor_units)).collect()
}

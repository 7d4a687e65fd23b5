//! Writes what a batch decided, each table in one statement, in the fixed order.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use referral_domain::{
    payout::Payout,
    posting::Transaction as Posted,
    seal::{Block, Hash, Head},
    state::{Changes, Dirty, Noticed, State},
};
use uuid::Uuid;

use crate::store::{
    Result, adjustments,
    audit::{self, AuditEvent},
    blocks, broadcasts, commissions, ledger,
    outbox::{self, OutboxEvent},
    partners, payments, payouts, pro_notices, refunds,
    requests::{self, Answered},
    standings,
    transaction::Transaction,
    xp_awards,
};

/// Where a process's chain of blocks ends.
#[derive(Clone, Copy)]
pub(super) struct ChainEnd {
    head: Head,
    /// How many events the chain has put in the outbox.
    events: i64,
}

/// What a block covers: each thing's ID and hash.
pub(super) struct Hashes {
    audit_events: Vec<(Uuid, Hash)>,
    transactions: Vec<(Uuid, Hash)>,
}

/// All that a batch leaves behind.
#[derive(Default)]
pub(super) struct Written {
    pub(super) changes: Vec<Changes>,
    pub(super) dirty: Dirty,
    /// One a command, as `changes`.
    pub(super) audit: Vec<AuditEvent>,
    pub(super) outbox: Vec<OutboxEvent>,
    pub(super) requests: Vec<Answered>,
}

/// Runs a set-based write, unless there is nothing to write.
macro_rules! write_all {
    ($transaction:ident, $write:path, $rows:expr) => {
        let rows: Vec<_> = $rows.collect();
        if !rows.is_empty() {
            $write($transaction, &rows).await?;
        }
    };
}

impl Written {
    /// Whether the batch leaves nothing behind: whatever does is on record.
    pub(super) fn is_empty(&self) -> bool {
        self.audit.is_empty()
    }

    /// What was booked, each with the record of its command.
    fn transactions(&self) -> impl Iterator<Item = (&Posted, Uuid)> {
        self.changes
            .iter()
            .zip(&self.audit)
            .flat_map(|(changes, record)| changes.transactions.iter().map(|posted| (posted, record.audit_event_id)))
    }

    /// The hashes of the records and of what was booked.
    pub(super) fn hashes(&self) -> Hashes {
        Hashes {
            audit_events: self.audit.iter().map(AuditEvent::seal).collect(),
            transactions: self.transactions().map(|(posted, id)| ledger::seal(posted, id)).collect(),
        }
    }

    /// Puts the events in the outbox, and seals the records and what was booked in one block: the next after `end`, or the
    /// first of a new chain, which follows whatever nobody follows yet. Returns the chain's new end.
    pub(super) async fn seal(
        &self,
        transaction: &mut Transaction,
        end: Option<ChainEnd>,
        hashes: Hashes,
        now: DateTime<Utc>,
    ) -> Result<ChainEnd> {
        let head = end.map(|end| end.head);
        let parents = match head {
            Some(_) => Vec::new(),
            None => blocks::parents(transaction).await?,
        };
        let chain_id = head.map_or_else(Uuid::new_v4, |head| head.chain_id);
        if !self.outbox.is_empty() {
            outbox::insert(transaction, chain_id, &self.outbox).await?;
        }
        let block = Block {
            chain_id,
            position: head.map_or(0, |head| head.position).saturating_add(1),
            create_time: now,
            parents: parents.iter().map(|parent| (parent.chain_id, parent.position)).collect(),
            audit_events: hashes.audit_events,
            transactions: hashes.transactions,
        };
        let follows: Vec<_> = head.iter().chain(&parents).map(|followed| followed.hash).collect();
        let head = block.head(&follows);
        let new = i64::try_from(self.outbox.len()).unwrap_or(i64::MAX);
        let events = end.map_or(0, |end| end.events).saturating_add(new);
        blocks::insert(transaction, &block, head.hash, events).await?;
        Ok(ChainEnd { head, events })
    }

    pub(super) async fn write(&self, transaction: &mut Transaction, state: &State, now: DateTime<Utc>) -> Result<()> {
        let new_partners = || self.changes.iter().filter_map(|changes| changes.new_partner.as_ref());
        let new_ids: BTreeSet<_> = new_partners().map(|partner| partner.partner_id).collect();
        let changed_payments = &self.dirty.payments;
        let new_payment_ids: Vec<_> = self
            .changes
            .iter()
            .flat_map(|changes| &changes.payments)
            .map(|payment| payment.payment_id)
            .filter(|id| !changed_payments.contains(id))
            .collect();
        write_all!(transaction, payments::insert, new_payment_ids.iter().filter_map(|id| state.payments.get(id)));
        write_all!(transaction, payments::update, changed_payments.iter().filter_map(|id| state.payments.get(id)));
        write_all!(
            transaction,
            payments::insert_late,
            self.changes.iter().filter_map(|changes| changes.late_reference.as_ref())
        );
        write_all!(transaction, partners::insert, new_partners());
        write_all!(
            transaction,
            partners::update_profiles,
            self.dirty.profiles.iter().filter_map(|id| state.partners.get(id))
        );
        for attached in self.changes.iter().filter_map(|changes| changes.attached.as_ref()) {
            partners::attach(transaction, attached).await?;
        }
        let standing = |id| state.standings.get(id).map(|standing| (*id, standing));
        write_all!(transaction, standings::insert, new_ids.iter().filter_map(standing));
        // Before they are counted: what is counted and not there counts as an older version's.
        write_all!(transaction, pro_notices::insert, self.noticed());
        write_all!(
            transaction,
            standings::update,
            self.dirty.standings.iter().filter(|id| !new_ids.contains(id)).filter_map(standing)
        );
        // A new end of PRO has reset the count: this comes after.
        write_all!(transaction, standings::note, self.dirty.noticed.iter().filter_map(standing));
        write_all!(transaction, xp_awards::insert, self.changes.iter().flat_map(|changes| &changes.awards));
        self.write_facts(transaction, state).await?;
        write_all!(transaction, ledger::post, self.transactions());
        write_all!(transaction, commissions::insert, self.changes.iter().flat_map(|changes| &changes.commissions));
        write_all!(
            transaction,
            commissions::update,
            self.dirty.commissions.iter().filter_map(|key| state.commissions.get(key))
        );
        write_all!(
            transaction,
            refunds::insert_clawbacks,
            self.changes
                .iter()
                .filter_map(|changes| changes.refund.as_ref())
                .flat_map(|refund| refund.clawbacks.iter().map(move |clawback| (refund, clawback)))
        );
        write_all!(
            transaction,
            payouts::insert_items,
            self.new_payouts().flat_map(|payout| (1..).zip(&payout.items).map(|(number, item)| (
                payout.payout_id,
                number,
                item
            )))
        );
        let changed_broadcasts = &self.dirty.broadcasts;
        let new_broadcasts = self.changes.iter().filter_map(|changes| changes.broadcast.as_ref());
        write_all!(
            transaction,
            broadcasts::insert,
            new_broadcasts.filter(|broadcast| !changed_broadcasts.contains(&broadcast.broadcast_id))
        );
        write_all!(
            transaction,
            broadcasts::update,
            changed_broadcasts.iter().filter_map(|id| state.broadcasts.get(id))
        );
        if !self.audit.is_empty() {
            audit::insert(transaction, &self.audit).await?;
        }
        if !self.requests.is_empty() {
            requests::insert(transaction, &self.requests, now).await?;
        }
        Ok(())
    }

    /// What transactions are booked for: the database looks for it when they are.
    async fn write_facts(&self, transaction: &mut Transaction, state: &State) -> Result<()> {
        write_all!(transaction, refunds::insert, self.changes.iter().filter_map(|changes| changes.refund.as_ref()));
        write_all!(transaction, payouts::insert, self.new_payouts());
        write_all!(transaction, payouts::update, self.dirty.payouts.iter().filter_map(|id| state.payouts.get(id)));
        let changed = &self.dirty.adjustments;
        let made = self.changes.iter().flat_map(|changes| &changes.adjustments);
        write_all!(
            transaction,
            adjustments::insert,
            made.filter(|adjustment| !changed.contains(&adjustment.adjustment_id))
        );
        write_all!(transaction, adjustments::update, changed.iter().filter_map(|id| state.adjustments.get(id)));
        Ok(())
    }

    /// Who was told of an end of PRO, each with the record of its command.
    fn noticed(&self) -> impl Iterator<Item = (&Noticed, Uuid)> {
        let recorded = self.changes.iter().zip(&self.audit);
        let noticed = recorded
            .flat_map(|(changes, record)| changes.noticed.iter().map(|noticed| (noticed, record.audit_event_id)));
        noticed.filter(|(noticed, _)| noticed.new > 0)
    }

    /// Those that were requested. Nobody knows their IDs yet, so that nothing else became of them.
    fn new_payouts(&self) -> impl Iterator<Item = &Payout> {
        let payouts = self.changes.iter().filter_map(|changes| changes.payout.as_ref());
        payouts.filter(|payout| !self.dirty.payouts.contains(&payout.payout_id))
    }
}

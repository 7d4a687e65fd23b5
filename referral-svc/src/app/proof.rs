//! Proves the audit records: recomputes every hash from what is stored, and names what doesn't fit.
//!
//! It looks no further than the chains' ends as they stood when it began, in many short statements: what is committed
//! meanwhile neither disturbs it nor waits for it. A block is visible exactly when the records are that it covers.

mod chains;
mod checkpoint;

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::AsyncPgConnection;
use referral_domain::{id, seal::Head};
use uuid::Uuid;

use crate::store::{
    Result,
    blocks::{self, Place},
};
pub(crate) use checkpoint::Checkpoint;

/// How many faults are told at most; the first one too many ends the proof.
const FAULTS_MAX: usize = 100;

/// How many audit events are looked at in one statement.
const EVENTS_MAX: usize = 1000;

/// How long after the first block an older version may still have been serving beside the new one.
const ROLLOUT: TimeDelta = TimeDelta::days(1);

/// How long a record's ID may be older than its commit.
const COMMIT_TIME_MAX: TimeDelta = TimeDelta::hours(1);

/// What can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FaultKind {
    Edited,
    Deleted,
    Inserted,
    BlockBroken,
    BlockMissing,
    CutOff,
    Rewritten,
    BadSignature,
}

/// One thing that is wrong: with an audit event, a block, or (neither) an anchor.
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) audit_event_id: Option<Uuid>,
    pub(crate) place: Option<Place>,
    pub(crate) detail: String,
}

/// What a proof came to.
#[derive(Default)]
pub(crate) struct Proof {
    pub(crate) faults: Vec<Fault>,
    pub(crate) blocks: i64,
    pub(crate) audit_events: i64,
    /// Events that no block covers, of versions that had none.
    pub(crate) unsealed: i64,
    /// None: it came to no end.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Events that a fault has named already, or the block that covers them.
    named: HashSet<Uuid>,
}

impl Proof {
    fn is_full(&self) -> bool {
        self.faults.len() >= FAULTS_MAX
    }

    fn fault(&mut self, kind: FaultKind, place: Option<Place>, event: Option<Uuid>, detail: impl Into<String>) {
        if !self.is_full() {
            self.named.extend(event);
            self.faults.push(Fault { kind, audit_event_id: event, place, detail: detail.into() });
        }
    }

    fn block_fault(&mut self, kind: FaultKind, place: Place, detail: impl Into<String>) {
        // Several chains may miss the same parent.
        if !self.faults.iter().any(|fault| fault.kind == kind && fault.place == Some(place)) {
            self.fault(kind, Some(place), None, detail);
        }
    }
}

/// Proves all, or what is new since a checkpoint. An anchor is the heads of an export, or None: its signature is bad. None as
/// the answer: the checkpoint is of another server, or of before a restore or a failover.
pub(crate) async fn prove(
    connection: &mut AsyncPgConnection,
    anchors: &[Option<Vec<Head>>],
    since: Option<&Checkpoint>,
    now: DateTime<Utc>,
) -> Result<Option<Proof>> {
    // The snapshot comes first: what it has, the ends that are read after it have.
    let (snapshot, history) = blocks::snapshot(connection).await?;
    if since.is_some_and(|since| since.history != history) {
        return Ok(None);
    }
    let mut proof = Proof::default();
    for (number, anchor) in anchors.iter().enumerate() {
        match anchor {
            None => proof.fault(FaultKind::BadSignature, None, None, format!("anchors[{number}]")),
            Some(heads) => proof.check_anchor(connection, number, heads).await?,
        }
    }
    proof.check_chains(connection, since).await?;
    let from = since.and_then(|since| since.time.checked_sub_signed(COMMIT_TIME_MAX)).map(id::lowest_at);
    proof.check_coverage(connection, from.unwrap_or_default()).await?;
    if !proof.is_full() {
        proof.checkpoint = Some(Checkpoint { snapshot, history, time: now });
    }
    Ok(Some(proof))
}

impl Proof {
    /// Whether what was exported is still there, and still the same.
    async fn check_anchor(&mut self, connection: &mut AsyncPgConnection, number: usize, heads: &[Head]) -> Result<()> {
        let places: Vec<Place> = heads.iter().map(|head| (head.chain_id, head.position)).collect();
        let hashes = blocks::hashes(connection, &places).await?;
        for (head, place) in heads.iter().zip(places) {
            let detail = format!("anchors[{number}]");
            match hashes.get(&place) {
                None => self.block_fault(FaultKind::CutOff, place, detail),
                Some(hash) if *hash != head.hash => self.block_fault(FaultKind::Rewritten, place, detail),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Whether a block covers each event.
    async fn check_coverage(&mut self, connection: &mut AsyncPgConnection, from: Uuid) -> Result<()> {
        let rollout_end = blocks::oldest(connection).await?.and_then(|oldest| oldest.checked_add_signed(ROLLOUT));
        let mut after = from;
        while !self.is_full() {
            let page = blocks::coverage(connection, after, i64::try_from(EVENTS_MAX).unwrap_or(i64::MAX)).await?;
            for event in page.iter().filter(|event| !event.is_covered) {
                if event.is_old && rollout_end.is_none_or(|end| event.create_time < end) {
                    self.unsealed = self.unsealed.saturating_add(1);
                } else if !self.named.contains(&event.audit_event_id) {
                    self.fault(FaultKind::Inserted, None, Some(event.audit_event_id), "no block covers it");
                }
            }
            match page.last() {
                Some(last) if page.len() == EVENTS_MAX => after = last.audit_event_id,
                _ => break,
            }
        }
        Ok(())
    }
}

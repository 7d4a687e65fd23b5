//! Changes of deliveries, told to whoever watches on any instance, as part of the transactions that make them.
//!
//! Telling costs: PostgreSQL lets transactions that notify commit only one after the other. So nobody tells while nobody
//! watches. An instance with watchers holds a set of advisory locks in share mode, and a transaction that has something to
//! tell tries to get one of them for itself alone, until its end: it stays silent only if it could. So an instance that gets
//! its locks knows that every silent transaction has ended, and whatever changes from then on is told.

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{Array, Bool, Integer, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use notify_domain::state::DeliveryState;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The channel of changes.
pub(crate) const DELIVERIES: &str = "deliveries";
/// The channel that wakes the dispatchers of all instances.
pub(crate) const QUEUED: &str = "queued";
/// The advisory locks' first number; request IDs use another kind.
const LOCK_CLASS: i32 = 0x6665_6564;
/// Many, so that transactions that have something to tell seldom meet in one.
const LOCKS: i32 = 64;
/// PostgreSQL takes less than 8000 bytes.
const PAYLOAD_BYTES_MAX: usize = 7900;

/// One change of a delivery's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    #[serde(rename = "n")]
    pub(crate) notification_id: Uuid,
    #[serde(rename = "r")]
    pub(crate) recipient_id: String,
    #[serde(rename = "k")]
    pub(crate) kind: String,
    #[serde(rename = "c")]
    pub(crate) channel: String,
    /// Stored by name.
    #[serde(rename = "s")]
    pub(crate) state: String,
    #[serde(rename = "w")]
    pub(crate) reason: String,
    /// The number of the attempt that began or ended; 0 before the first.
    #[serde(rename = "a")]
    pub(crate) attempt: i32,
    #[serde(rename = "t")]
    pub(crate) trace_id: String,
    #[serde(rename = "at")]
    pub(crate) change_time: DateTime<Utc>,
}

impl Change {
    /// The new state; `None`: one that only newer versions know.
    pub(crate) fn state(&self) -> Option<DeliveryState> {
        DeliveryState::parse(&self.state)
    }
}

/// Tells changes that this transaction makes, if anybody watches.
pub(crate) async fn tell(connection: &mut AsyncPgConnection, changes: &[Change]) -> QueryResult<()> {
    if changes.is_empty() || !is_watched(connection).await? {
        return Ok(());
    }
    sql_query("SELECT pg_notify($1, payload) FROM unnest($2) AS payload")
        .bind::<Text, _>(DELIVERIES)
        .bind::<Array<Text>, _>(payloads(changes))
        .execute(connection)
        .await?;
    Ok(())
}

/// Wakes the dispatchers of all instances once this transaction has committed.
pub(crate) async fn wake(connection: &mut AsyncPgConnection) -> QueryResult<()> {
    connection.batch_execute(&format!("NOTIFY {QUEUED}")).await
}

async fn is_watched(connection: &mut AsyncPgConnection) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Bool)]
        is_watched: bool,
    }
    let row: Row = sql_query("SELECT NOT pg_try_advisory_xact_lock($1, $2) AS is_watched")
        .bind::<Integer, _>(LOCK_CLASS)
        .bind::<Integer, _>(rand::random_range(0..LOCKS))
        .get_result(connection)
        .await?;
    Ok(row.is_watched)
}

/// Listens on this connection.
pub(crate) async fn listen(connection: &mut AsyncPgConnection) -> QueryResult<()> {
    connection.batch_execute(&format!("LISTEN {DELIVERIES}; LISTEN {QUEUED}")).await
}

/// From its return on every change is told, to this session too if it listens.
pub(crate) async fn watch(connection: &mut AsyncPgConnection) -> QueryResult<()> {
    lock(connection, "pg_advisory_lock_shared").await
}

/// This session's watchers have gone.
pub(crate) async fn unwatch(connection: &mut AsyncPgConnection) -> QueryResult<()> {
    lock(connection, "pg_advisory_unlock_shared").await
}

async fn lock(connection: &mut AsyncPgConnection, function: &str) -> QueryResult<()> {
    sql_query(format!("SELECT {function}($1, number) FROM generate_series(0, $2 - 1) AS number"))
        .bind::<Integer, _>(LOCK_CLASS)
        .bind::<Integer, _>(LOCKS)
        .execute(connection)
        .await?;
    Ok(())
}

/// Several changes each, as many as fit.
fn payloads(changes: &[Change]) -> Vec<String> {
    let mut payloads = Vec::new();
    let mut payload = String::new();
    for change in changes {
        // Its fields are bounded, so it always fits; one that didn't must not undo the change.
        let Some(item) = serde_json::to_string(change).ok().filter(|item| item.len() + 2 <= PAYLOAD_BYTES_MAX) else {
            let Change { notification_id, trace_id, .. } = change;
            tracing::error!(%notification_id, trace_id, "a change is too large to be told");
            continue;
        };
        if !payload.is_empty() && payload.len() + item.len() + 2 > PAYLOAD_BYTES_MAX {
            payloads.push(std::mem::take(&mut payload) + "]");
        }
        payload.push(if payload.is_empty() { '[' } else { ',' });
        payload.push_str(&item);
    }
    if !payload.is_empty() {
        payloads.push(payload + "]");
    }
    payloads
}

/// The changes in a payload; `None`: it isn't one of ours.
pub(crate) fn changes(payload: &str) -> Option<Vec<Change>> {
    serde_json::from_str(payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(recipient_id: &str) -> Change {
        Change {
            notification_id: Uuid::now_v7(),
            recipient_id: recipient_id.to_owned(),
            kind: "LEVEL_UP".to_owned(),
            channel: "email".to_owned(),
            state: DeliveryState::Failed.as_str().to_owned(),
            reason: "HTTP_410".to_owned(),
            attempt: 3,
            trace_id: "0".repeat(32),
            change_time: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn changes_arrive_as_they_were_told_in_payloads_that_fit() {
        // The longest recipient that JSON makes longest.
        let told: Vec<Change> = (0..200).map(|_| change(&"\u{1}".repeat(128))).collect();
        let payloads = payloads(&told);
        assert!(payloads.len() > 1 && payloads.iter().all(|payload| payload.len() <= PAYLOAD_BYTES_MAX));
        let heard: Vec<Change> = payloads.iter().flat_map(|payload| changes(payload).expect("changes")).collect();
        assert_eq!(heard, told);
        assert_eq!(super::payloads(&[]), Vec::<String>::new());
        assert_eq!(changes("{}"), None);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let told = [change("a"), change(&"x".repeat(9000)), change("b")];
        let heard = changes(&payloads(&told)[0]).expect("changes");
        assert_eq!(heard.iter().map(|change| change.recipient_id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}

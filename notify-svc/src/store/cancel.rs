//! Stopping a notification that has not been delivered.

use chrono::{DateTime, Utc};
use diesel::{
    OptionalExtension, QueryDsl, QueryResult, QueryableByName, sql_query,
    sql_types::{Integer, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use notify_domain::{
    delivery::Outcome,
    state::{DeliveryState, NotificationState, OutcomeClass},
};
use uuid::Uuid;

use super::{
    due::Held,
    feed::{self, Change},
    notifications::{self, History},
    schema::notifications as table,
    settle,
};

/// Why an attempt ended whose notification was stopped while it was being sent.
const CANCELLED: &str = "CANCELLED";

/// What came of it.
#[derive(Debug)]
pub(crate) enum Cancelled {
    /// As it now is.
    Done(Box<History>),
    /// It had ended already, so.
    Settled(String),
    Unknown,
}

#[derive(QueryableByName)]
struct Open {
    #[diesel(sql_type = Integer)]
    position: i32,
    #[diesel(sql_type = Text)]
    channel: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Integer)]
    attempt_count: i32,
    #[diesel(sql_type = Text)]
    recipient_id: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    trace_id: String,
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

/// Stops a notification, in the open transaction.
pub(crate) async fn cancel(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Cancelled> {
    // Whoever held the lock may have made the next channel's delivery: that one is open then.
    let open = loop {
        if let Some(open) = lock_open(connection, id).await? {
            break open;
        }
        let state: Option<String> = table::table.find(id).select(table::state).first(connection).await.optional()?;
        match state {
            None => return Ok(Cancelled::Unknown),
            Some(state) if state == NotificationState::Queued.as_str() => {}
            Some(state) => return Ok(Cancelled::Settled(state)),
        }
    };
    if open.state == DeliveryState::Sending.as_str() {
        let held = Held { notification_id: id, position: open.position, token: open.attempt_count };
        settle::close_attempts(connection, &[(held, &Outcome::new(OutcomeClass::Ambiguous, CANCELLED))]).await?;
    }
    sql_query(
        "UPDATE deliveries
            SET state = 'CANCELLED', next_attempt_time = NULL, lease_until = NULL, lease_owner = NULL, parked_on = NULL,
                waiting_since = NULL, settle_time = now()
          WHERE (notification_id, position) = ($1, $2)",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Integer, _>(open.position)
    .execute(connection)
    .await?;
    sql_query("UPDATE notifications SET state = 'CANCELLED', settle_time = now() WHERE notification_id = $1")
        .bind::<SqlUuid, _>(id)
        .execute(connection)
        .await?;
    feed::tell(connection, &[open.change(id)]).await?;
    let history = notifications::read(connection, id).await?.ok_or(diesel::result::Error::NotFound)?;
    Ok(Cancelled::Done(Box::new(history)))
}

async fn lock_open(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Open>> {
    sql_query(
        "SELECT d.position, d.channel, d.state, d.attempt_count, n.recipient_id, n.kind, n.trace_id, now() AS now
           FROM deliveries d JOIN notifications n USING (notification_id)
          WHERE d.notification_id = $1 AND d.settle_time IS NULL
            FOR UPDATE OF d",
    )
    .bind::<SqlUuid, _>(id)
    .get_result(connection)
    .await
    .optional()
}

impl Open {
    fn change(self, notification_id: Uuid) -> Change {
        Change {
            notification_id,
            recipient_id: self.recipient_id,
            kind: self.kind,
            channel: self.channel,
            state: DeliveryState::Cancelled.as_str().to_owned(),
            reason: String::new(),
            attempt: self.attempt_count,
            trace_id: self.trace_id,
            change_time: self.now,
        }
    }
}

//! Settling deliveries: the attempt's end, the delivery's next state, the notification's, and the next channel's delivery.

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{Array, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use notify_domain::{
    delivery::{Outcome, Step},
    policy::Policy,
    state::{DeliveryState, NotificationState},
};
use service::database::Connection;
use uuid::Uuid;

use super::{
    addresses,
    due::{Due, Finished, Held},
    feed::{self, Change},
    lessons,
    queue::{self, NewDelivery},
};

/// A decided delivery.
#[derive(Debug)]
pub(super) struct Settlement<'a> {
    due: &'a Due,
    step: &'a Step,
    /// Why it is tried again.
    reason: &'a str,
    tries_returned: i32,
}

impl<'a> Settlement<'a> {
    /// Of a delivery that wasn't tried.
    pub(super) fn untried(due: &'a Due, step: &'a Step) -> Self {
        Self { due, step, reason: "", tries_returned: 0 }
    }

    /// Of a try that has ended.
    fn tried(finished: &'a Finished, step: &'a Step) -> Self {
        let Finished { delivery, outcome, .. } = finished;
        Self { due: delivery, step, reason: &outcome.reason, tries_returned: i32::from(!outcome.counts()) }
    }

    /// What watchers hear of it: this channel's end, or that it is tried again; and the next one's beginning.
    fn changes(&self, now: DateTime<Utc>) -> impl Iterator<Item = Change> {
        let (state, reason, _) = delivery_columns(self.step);
        let reason = if matches!(self.step, Step::Retry(_)) { self.reason } else { reason };
        let next = match self.step {
            Step::Fallback(_, choice) | Step::PassOver(_, choice) => Some(Change {
                channel: choice.channel.as_str().to_owned(),
                attempt: 0,
                ..self.due.change(now, DeliveryState::Queued, "")
            }),
            _ => None,
        };
        std::iter::once(self.due.change(now, state, reason)).chain(next)
    }
}

/// What has become of tries.
pub(crate) struct Settled {
    /// When it was decided.
    pub(crate) now: DateTime<Utc>,
    /// What was decided about each; `None`: its lease was lost.
    pub(crate) steps: Vec<Option<Step>>,
    /// Those that told first that a provider refuses us.
    pub(crate) refused: Vec<Held>,
}

/// Settles tries in one transaction, each only if its worker still holds it, and remembers what they have told of addresses
/// and providers. `decide` says what follows, by the database's clock.
pub(crate) async fn settle(
    connection: &mut Connection,
    finished: &[Finished],
    policy: &Policy,
    decide: impl Fn(DateTime<Utc>, &Finished) -> Step + Send + Sync,
) -> QueryResult<Settled> {
    let decide = &decide;
    connection
        .transaction(async |connection| {
            let owned = lock_owned(connection, finished).await?;
            let steps: Vec<Option<Step>> = finished
                .iter()
                .map(|finished| {
                    let held = finished.delivery.held();
                    let owned = owned.iter().find(|owned| owned.held() == held)?;
                    Some(decide(owned.now, finished))
                })
                .collect();
            let decided = || finished.iter().zip(&steps).filter_map(|(f, step)| Some((f, step.as_ref()?)));
            let ended: Vec<_> = decided().map(|(f, _)| (f.delivery.held(), &f.outcome)).collect();
            close_attempts(connection, &ended).await?;
            let settlements: Vec<_> = decided().map(|(finished, step)| Settlement::tried(finished, step)).collect();
            let now = owned.as_slice().first().map_or(DateTime::UNIX_EPOCH, |owned| owned.now);
            apply(connection, now, &settlements).await?;
            let told: Vec<&Finished> = decided().map(|(finished, _)| finished).collect();
            addresses::mark(connection, told.iter().filter_map(|finished| lessons::of_address(finished)).collect())
                .await?;
            let refused = lessons::of_providers(connection, now, &told, policy).await?;
            Ok(Settled { now, steps, refused })
        })
        .await
}

#[derive(QueryableByName)]
struct Owned {
    #[diesel(sql_type = SqlUuid)]
    notification_id: Uuid,
    #[diesel(sql_type = Integer)]
    position: i32,
    #[diesel(sql_type = Integer)]
    attempt_count: i32,
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

impl Owned {
    fn held(&self) -> Held {
        Held { notification_id: self.notification_id, position: self.position, token: self.attempt_count }
    }
}

async fn lock_owned(connection: &mut AsyncPgConnection, finished: &[Finished]) -> QueryResult<Vec<Owned>> {
    let held: Vec<_> = finished.iter().map(|finished| finished.delivery.held()).collect();
    sql_query(
        "SELECT d.notification_id, d.position, d.attempt_count, now() AS now
           FROM deliveries d JOIN unnest($1, $2, $3) AS h (notification_id, position, token)
             ON (d.notification_id, d.position, d.attempt_count) = (h.notification_id, h.position, h.token)
          WHERE d.state = 'SENDING'
          ORDER BY d.notification_id
            FOR UPDATE OF d",
    )
    .bind::<Array<SqlUuid>, _>(held.iter().map(|held| held.notification_id).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(held.iter().map(|held| held.position).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(held.iter().map(|held| held.token).collect::<Vec<_>>())
    .load(connection)
    .await
}

/// Ends attempts.
pub(super) async fn close_attempts(connection: &mut AsyncPgConnection, ended: &[(Held, &Outcome)]) -> QueryResult<()> {
    if ended.is_empty() {
        return Ok(());
    }
    sql_query(
        "UPDATE attempts a
            SET end_time = greatest(now(), a.start_time), outcome = e.outcome, reason = e.reason
           FROM unnest($1, $2, $3, $4, $5) AS e (notification_id, position, number, outcome, reason)
          WHERE (a.notification_id, a.position, a.number) = (e.notification_id, e.position, e.number)
            AND a.end_time IS NULL",
    )
    .bind::<Array<SqlUuid>, _>(ended.iter().map(|(held, _)| held.notification_id).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(ended.iter().map(|(held, _)| held.position).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(ended.iter().map(|(held, _)| held.token).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(ended.iter().map(|(_, outcome)| outcome.class.as_str()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(ended.iter().map(|(_, outcome)| outcome.reason.as_ref()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes decisions about deliveries that this transaction has locked.
pub(super) async fn apply(
    connection: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    settlements: &[Settlement<'_>],
) -> QueryResult<()> {
    if settlements.is_empty() {
        return Ok(());
    }
    update_deliveries(connection, settlements).await?;
    update_notifications(connection, settlements).await?;
    let next: Vec<NewDelivery> = settlements
        .iter()
        .filter_map(|settlement| match settlement.step {
            Step::Fallback(_, choice) | Step::PassOver(_, choice) => Some(NewDelivery {
                notification_id: settlement.due.notification_id,
                position: choice.place.max(settlement.due.position + 1),
                lane: settlement.due.lane,
                choice: choice.clone(),
            }),
            _ => None,
        })
        .collect();
    if !next.is_empty() {
        queue::enqueue(connection, &next).await?;
    }
    feed::tell(connection, &settlements.iter().flat_map(|settlement| settlement.changes(now)).collect::<Vec<_>>()).await
}

async fn update_deliveries(connection: &mut AsyncPgConnection, settlements: &[Settlement<'_>]) -> QueryResult<()> {
    let columns: Vec<_> = settlements.iter().map(|settlement| delivery_columns(settlement.step)).collect();
    sql_query(
        "UPDATE deliveries d
            SET state = s.state, reason = s.reason, next_attempt_time = s.next_attempt_time,
                settle_time = CASE WHEN s.next_attempt_time IS NULL THEN now() END,
                parked_on = NULL, waiting_since = NULL, lease_until = NULL, lease_owner = NULL, tries_used = tries_used - s.tries_returned
           FROM unnest($1, $2, $3, $4, $5, $6)
                AS s (notification_id, position, tries_returned, state, reason, next_attempt_time)
          WHERE (d.notification_id, d.position) = (s.notification_id, s.position)",
    )
    .bind::<Array<SqlUuid>, _>(settlements.iter().map(|s| s.due.notification_id).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(settlements.iter().map(|s| s.due.position).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(settlements.iter().map(|s| s.tries_returned).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(columns.iter().map(|(state, ..)| state.as_str()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(columns.iter().map(|(_, reason, _)| *reason).collect::<Vec<_>>())
    .bind::<Array<Nullable<Timestamptz>>, _>(columns.iter().map(|(.., at)| *at).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

fn delivery_columns(step: &Step) -> (DeliveryState, &str, Option<DateTime<Utc>>) {
    match step {
        Step::Delivered => (DeliveryState::Delivered, "", None),
        Step::Retry(at) => (DeliveryState::Queued, "", Some(*at)),
        Step::Expired => (DeliveryState::Expired, "", None),
        Step::Fallback(reason, _) | Step::Dead(reason) => (DeliveryState::Failed, reason, None),
        Step::PassOver(reason, _) | Step::Suppressed(reason) => (DeliveryState::Suppressed, reason, None),
    }
}

async fn update_notifications(connection: &mut AsyncPgConnection, settlements: &[Settlement<'_>]) -> QueryResult<()> {
    let (ids, states): (Vec<Uuid>, Vec<&str>) = settlements
        .iter()
        .filter_map(|settlement| {
            let state = match settlement.step {
                Step::Delivered => NotificationState::Delivered,
                Step::Expired => NotificationState::Expired,
                Step::Dead(_) => NotificationState::Dead,
                Step::Suppressed(_) => NotificationState::Suppressed,
                Step::Retry(_) | Step::Fallback(..) | Step::PassOver(..) => return None,
            };
            Some((settlement.due.notification_id, state.as_str()))
        })
        .unzip();
    if ids.is_empty() {
        return Ok(());
    }
    sql_query(
        "UPDATE notifications n SET state = s.state, settle_time = now()
           FROM unnest($1, $2) AS s (notification_id, state)
          WHERE n.notification_id = s.notification_id",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Array<Text>, _>(states)
    .execute(connection)
    .await?;
    Ok(())
}

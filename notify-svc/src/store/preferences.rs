//! Table `preferences`: what recipients want.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryResult, Queryable, Selectable, SelectableHelper,
    dsl::now,
    insert_into, sql_query,
    sql_types::{Jsonb, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use notify_domain::preference::{Mute, Preferences, QuietHours, stored_mutes};

use super::{feed, schema::preferences};

#[derive(Queryable, Selectable)]
#[diesel(table_name = preferences)]
struct PreferencesRow {
    mutes: serde_json::Value,
    quiet_start: Option<i32>,
    quiet_end: Option<i32>,
    time_zone: Option<String>,
}

/// Wishes from the row's columns, which are absent if there is no row.
pub(super) fn of_columns(
    mutes: Option<&serde_json::Value>,
    quiet_start: Option<i32>,
    quiet_end: Option<i32>,
    time_zone: Option<&str>,
) -> Preferences {
    let quiet_hours = || {
        Some(QuietHours {
            start_minute: quiet_start?.try_into().ok()?,
            end_minute: quiet_end?.try_into().ok()?,
            // A zone that this version doesn't know any more is no reason to keep anything back.
            time_zone: time_zone?.parse().ok()?,
        })
    };
    Preferences { mutes: mutes.map(stored_mutes).unwrap_or_default(), quiet_hours: quiet_hours() }
}

/// What a recipient wants.
pub(crate) async fn get(connection: &mut AsyncPgConnection, recipient_id: &str) -> QueryResult<Preferences> {
    let row: Option<PreferencesRow> =
        preferences::table.find(recipient_id).select(PreferencesRow::as_select()).first(connection).await.optional()?;
    let wanted =
        |row: PreferencesRow| of_columns(Some(&row.mutes), row.quiet_start, row.quiet_end, row.time_zone.as_deref());
    Ok(row.map(wanted).unwrap_or_default())
}

/// Replaces what a recipient wants.
pub(crate) async fn set(
    connection: &mut AsyncPgConnection,
    recipient_id: &str,
    wanted: &Preferences,
) -> QueryResult<()> {
    let minute = |minute: u32| i32::try_from(minute).ok();
    let quiet = wanted.quiet_hours.as_ref();
    let columns = (
        preferences::mutes.eq(serde_json::json!(wanted.mutes)),
        preferences::quiet_start.eq(quiet.and_then(|quiet| minute(quiet.start_minute))),
        preferences::quiet_end.eq(quiet.and_then(|quiet| minute(quiet.end_minute))),
        preferences::time_zone.eq(quiet.map(|quiet| quiet.time_zone.name())),
        preferences::update_time.eq(now),
    );
    insert_into(preferences::table)
        .values((preferences::recipient_id.eq(recipient_id), columns.clone()))
        .on_conflict(preferences::recipient_id)
        .do_update()
        .set(columns)
        .execute(connection)
        .await?;
    Ok(())
}

/// Has deliveries that the recipient's wishes may have put off decided about anew, in the transaction that changes the wishes:
/// those that nobody has tried yet and that no gate holds. Returns how many.
pub(crate) async fn decide_anew(connection: &mut AsyncPgConnection, recipient_id: &str) -> QueryResult<usize> {
    // Not only those that are put off now: a claim may be about to put one off by the old wishes.
    sql_query(
        "SELECT FROM deliveries d
          WHERE d.notification_id IN (SELECT n.notification_id FROM notifications n
                                       WHERE n.recipient_id = $1 AND n.settle_time IS NULL)
            AND d.state = 'QUEUED' AND d.attempt_count = 0
          ORDER BY d.notification_id, d.position FOR UPDATE",
    )
    .bind::<Text, _>(recipient_id)
    .execute(connection)
    .await?;
    let due = sql_query(
        "UPDATE deliveries d SET next_attempt_time = now()
           FROM notifications n
          WHERE n.recipient_id = $1 AND n.settle_time IS NULL AND d.notification_id = n.notification_id
            AND d.state = 'QUEUED' AND d.attempt_count = 0 AND d.parked_on IS NULL AND d.next_attempt_time > now()",
    )
    .bind::<Text, _>(recipient_id)
    .execute(connection)
    .await?;
    if due > 0 {
        feed::wake(connection).await?;
    }
    Ok(due)
}

/// Adds a mute to what a recipient wants; returns whether it is new.
pub(crate) async fn add_mute(connection: &mut AsyncPgConnection, recipient_id: &str, mute: Mute) -> QueryResult<bool> {
    let added = sql_query(
        "INSERT INTO preferences (recipient_id, mutes) VALUES ($1, $2)
         ON CONFLICT (recipient_id) DO UPDATE SET mutes = preferences.mutes || excluded.mutes, update_time = now()
          WHERE NOT preferences.mutes @> excluded.mutes",
    )
    .bind::<Text, _>(recipient_id)
    .bind::<Jsonb, _>(serde_json::json!([mute]))
    .execute(connection)
    .await?;
    Ok(added > 0)
}

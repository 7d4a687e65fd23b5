//! The database's time, and IDs that are in its order.

use chrono::{DateTime, Utc};
use diesel::{QueryResult, QueryableByName, sql_query, sql_types::Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::{ContextV7, Timestamp, Uuid};

#[derive(QueryableByName)]
struct NowRow {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

/// The time at which the transaction began.
pub(crate) async fn now(connection: &mut AsyncPgConnection) -> QueryResult<DateTime<Utc>> {
    let row: NowRow = sql_query("SELECT now() AS now").get_result(connection).await?;
    Ok(row.now)
}

/// A new ID of this moment: a UUIDv7 that is in order to the microsecond.
pub(crate) fn id_at(now: DateTime<Utc>) -> Uuid {
    let context = ContextV7::new().with_additional_precision();
    let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
    Uuid::new_v7(Timestamp::from_unix(&context, seconds, now.timestamp_subsec_nanos()))
}

/// The lowest UUIDv7 of a moment's millisecond.
pub(crate) fn first_id_at(time: DateTime<Utc>) -> Uuid {
    // 48 bits of milliseconds lead a UUIDv7 (RFC 9562).
    let millis = u128::try_from(time.timestamp_millis()).unwrap_or_default().min((1 << 48) - 1);
    Uuid::from_u128(millis << 80)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn ids_are_in_the_order_of_their_moments() {
        let early: DateTime<Utc> = "2026-11-25T10:00:00.000001Z".parse().expect("a time");
        let late = early + TimeDelta::microseconds(2);
        assert!(id_at(early) < id_at(late));
        assert!(first_id_at(late) < id_at(early), "they share a millisecond");
        assert!(id_at(late) < first_id_at(early + TimeDelta::milliseconds(1)));
        assert_eq!(first_id_at(DateTime::<Utc>::MIN_UTC), Uuid::nil());
        assert!(first_id_at(DateTime::<Utc>::MAX_UTC) > id_at(late));
    }
}

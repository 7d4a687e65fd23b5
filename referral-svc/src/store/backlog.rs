//! How much waits in table `outbox`, and for how long: what a sampler may ask often, however much it is.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Nullable, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{Result, sql::Sql};

/// The outbox at one moment; counting stops at 100,000.
#[derive(QueryableByName)]
pub(crate) struct Backlog {
    #[diesel(sql_type = BigInt)]
    pub(crate) pending: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) rejected: i64,
    /// When the oldest event was made that is neither settled nor rejected; none: nothing waits.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(crate) oldest: Option<DateTime<Utc>>,
}

/// A short walk along two indexes: events themselves are not read. On a table that has just grown, statistics lag behind
/// and the planner would rather read all of it, so it isn't asked.
pub(crate) async fn look(connection: &mut AsyncPgConnection) -> Result<Backlog> {
    connection
        .build_transaction()
        .read_only()
        .run(async |connection| {
            let by_index =
                "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
                                set_config('enable_sort', 'off', true)";
            Sql::new(by_index).execute(connection).await?;
            Sql::new(
                "SELECT (SELECT count(*) FROM (SELECT FROM outbox WHERE reject_time IS NULL
                                               ORDER BY bulk, event_id LIMIT 100000) counted) AS pending,
                     (SELECT count(*) FROM (SELECT FROM outbox WHERE reject_time IS NOT NULL
                                            ORDER BY reject_time LIMIT 100000) counted) AS rejected,
                     least((SELECT create_time FROM outbox WHERE reject_time IS NULL ORDER BY bulk, event_id LIMIT 1),
                           (SELECT create_time FROM outbox WHERE reject_time IS NULL AND bulk
                            ORDER BY bulk, event_id LIMIT 1)) AS oldest",
            )
            .get_result(connection)
            .await
        })
        .await
}

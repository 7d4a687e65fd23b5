//! How much waits in table `outbox`, and for how long; and how long ago became due what nobody did yet: what a sampler may ask
//! often, however much it is.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Nullable, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use referral_domain::state::ProNotice;

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

const BY_INDEX: &str = "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
    set_config('enable_sort', 'off', true)";

/// A short walk along two indexes: events themselves are not read. On a table that has just grown, statistics lag behind
/// and the planner would rather read all of it, so it isn't asked.
pub(crate) async fn look(connection: &mut AsyncPgConnection) -> Result<Backlog> {
    connection
        .build_transaction()
        .read_only()
        .run(async |connection| {
            Sql::new(BY_INDEX).execute(connection).await?;
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

/// Since when the oldest has been due of each kind of thing that time brings about; none: nothing is.
#[derive(QueryableByName)]
pub(crate) struct Overdue {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(crate) count_pro_members: Option<DateTime<Utc>>,
    /// The end of PRO that nobody was told of, by its notice.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    three_days: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    one_day: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ended: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(crate) release_commissions: Option<DateTime<Utc>>,
}

impl Overdue {
    pub(crate) fn send_pro_notices(&self) -> Option<DateTime<Utc>> {
        let ends = ProNotice::ALL.into_iter().zip([self.three_days, self.one_day, self.ended]);
        ends.filter_map(|(notice, end)| end?.checked_sub_signed(notice.before())).min()
    }
}

/// By the indexes that the sweeper finds its rows by. PRO that began and isn't counted has been due since its sale.
pub(crate) async fn overdue(connection: &mut AsyncPgConnection, now: DateTime<Utc>) -> Result<Overdue> {
    let [three_days, one_day, ended] = ProNotice::ALL.map(ProNotice::before);
    connection
        .build_transaction()
        .read_only()
        .run(async |connection| {
            Sql::new(BY_INDEX).execute(connection).await?;
            Sql::new(
                "SELECT least(
                     (SELECT pro_expires_at FROM standings WHERE counted_as_pro AND pro_expires_at <= {}
                      ORDER BY pro_expires_at LIMIT 1),
                     (SELECT min(p.confirm_time) FROM (
                          SELECT partner_id, pro_expires_at FROM standings
                          WHERE NOT counted_as_pro AND pro_expires_at > {} ORDER BY pro_expires_at LIMIT 1000) s
                      JOIN payments p ON p.partner_id = s.partner_id AND p.pro_end = s.pro_expires_at)) AS count_pro_members,
                 (SELECT pro_expires_at FROM standings WHERE notices_sent = 0 AND pro_expires_at <= {}
                  ORDER BY pro_expires_at LIMIT 1) AS three_days,
                 (SELECT pro_expires_at FROM standings WHERE notices_sent = 1 AND pro_expires_at <= {}
                  ORDER BY pro_expires_at LIMIT 1) AS one_day,
                 (SELECT pro_expires_at FROM standings WHERE notices_sent = 2 AND pro_expires_at <= {}
                  ORDER BY pro_expires_at LIMIT 1) AS ended,
                 (SELECT release_time FROM commissions WHERE state = 'PENDING' AND release_time <= {}
                  ORDER BY release_time LIMIT 1) AS release_commissions",
            )
            .bind::<Timestamptz, _>(now)
            .bind::<Timestamptz, _>(now)
            .bind::<Timestamptz, _>(now + three_days)
            .bind::<Timestamptz, _>(now + one_day)
            .bind::<Timestamptz, _>(now + ended)
            .bind::<Timestamptz, _>(now)
            .get_result(connection)
            .await
        })
        .await
}

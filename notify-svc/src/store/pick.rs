//! Which deliveries are decided about next: what waits for gates that are open, and what is due, in their lanes' shares. They
//! stay locked until the claim has decided.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{Array, BigInt, Bool, SmallInt, Text, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use notify_domain::{
    admission::{Admission, InFlight},
    gate::{Gate, GateKey, Scope},
    lane::{LANES, Lane, share},
    policy::{InFlightMax, Policy},
};

use super::due::Due;

/// As much as any claim takes. For the planner, which can't know the shares: it would expect a tenth of all that is due, and
/// compile the query for so many.
const CLAIM_MAX: u32 = 1000;

/// Who claims, how much, and on what terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) owner: &'a str,
    pub(crate) limit: u32,
    /// How many to look at for that: more than the limit when gates hold up many, so that those are soon out of the way.
    pub(crate) look: u32,
    pub(crate) lease: Duration,
    pub(crate) policy: &'a Policy,
    /// Sends in flight here by gate, and how many there may be.
    pub(crate) in_flight: &'a HashMap<String, InFlight>,
    pub(crate) in_flight_max: InFlightMax,
    /// Decides between lanes where their shares split a place.
    pub(crate) random: u32,
}

impl<'a> Terms<'a> {
    /// Gates that let nothing more through here, whatever they let through elsewhere.
    pub(crate) fn full(&self) -> Vec<&str> {
        self.with_at_least(InFlightMax::before)
    }

    /// Gates that may let nothing more through here until one of their sends has ended, which is soon noticed.
    pub(crate) fn busy(&self) -> Vec<&str> {
        self.with_at_least(InFlightMax::before_failing)
    }

    fn with_at_least(&self, sends: fn(&InFlightMax, Scope) -> u32) -> Vec<&str> {
        let is_there = |name: &str, count: u32| {
            GateKey::parse(name).is_some_and(|key| count >= sends(&self.in_flight_max, key.scope))
        };
        let there = self.in_flight.iter().filter(|(name, in_flight)| is_there(name, in_flight.sends));
        there.map(|(name, _)| name.as_str()).collect()
    }

    /// The gates of a turn.
    pub(super) fn admission(&self, now: DateTime<Utc>, gates: BTreeMap<String, Gate>) -> Admission<'a> {
        Admission::new(now, self.policy, gates, self.in_flight.clone(), self.in_flight_max)
    }
}

/// Locks what is to be decided about: first whose lease has run out, then what waits for gates that are open, then what is due.
pub(super) async fn take(
    connection: &mut AsyncPgConnection,
    terms: Terms<'_>,
    open: &BTreeMap<String, Gate>,
) -> QueryResult<Vec<Due>> {
    let counts = count_due(connection, terms.look).await?;
    let mut taken = if counts.lapsed { take_lapsed(connection, terms.look).await? } else { Vec::new() };
    let left = |taken: &[Due]| terms.look.saturating_sub(u32::try_from(taken.len()).unwrap_or(u32::MAX));
    let someone_is_due = counts.due.iter().any(|count| *count > 0);
    let for_parked = if someone_is_due { left(&taken).div_ceil(2) } else { left(&taken) };
    taken.extend(take_parked(connection, terms, for_parked, counts.now, open).await?);
    if someone_is_due && left(&taken) > 0 {
        let shares = share(left(&taken), counts.due, terms.policy.lane_weights(), terms.random);
        taken.extend(take_due(connection, shares).await?);
    }
    // What is parked and has expired is both.
    let mut seen = HashSet::new();
    taken.retain(|due| seen.insert((due.notification_id, due.position)));
    Ok(taken)
}

/// What there is to take.
struct Counts {
    now: DateTime<Utc>,
    /// By lane.
    due: [u32; LANES],
    /// Whether a lease has run out.
    lapsed: bool,
}

#[derive(QueryableByName)]
struct Waiting {
    #[diesel(sql_type = Text)]
    gate: String,
    #[diesel(sql_type = SmallInt)]
    lane: i16,
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
    #[diesel(sql_type = Bool)]
    lapsed: bool,
    #[diesel(sql_type = BigInt)]
    waiting: i64,
}

fn lanes() -> Vec<i16> {
    Lane::ALL.map(Lane::number).to_vec()
}

fn by_lane<'a>(rows: impl Iterator<Item = &'a Waiting>) -> [u32; LANES] {
    let mut counts = [0; LANES];
    for row in rows {
        if let Some(count) = usize::try_from(row.lane).ok().and_then(|lane| counts.get_mut(lane)) {
            *count = u32::try_from(row.waiting).unwrap_or(u32::MAX);
        }
    }
    counts
}

/// The database's time, and how many are due then in each lane; no more than the limit are counted. In the index's order:
/// where most are due, the planner would read the whole table for a lane that has none.
async fn count_due(connection: &mut AsyncPgConnection, limit: u32) -> QueryResult<Counts> {
    let rows: Vec<Waiting> = sql_query(
        "SELECT '' AS gate, l.lane, now() AS now, lapsed.lapsed, (SELECT count(*) FROM (
                    SELECT FROM deliveries d WHERE d.lane = l.lane AND d.due_time <= now()
                     ORDER BY d.due_time LIMIT $2) AS found) AS waiting
           FROM unnest($1) AS l (lane),
                (SELECT coalesce(min(lease_until) <= now(), false) AS lapsed FROM deliveries
                  WHERE lease_until IS NOT NULL) AS lapsed",
    )
    .bind::<Array<SmallInt>, _>(lanes())
    .bind::<BigInt, _>(i64::from(limit))
    .load(connection)
    .await?;
    let first = rows.as_slice().first();
    Ok(Counts {
        now: first.map_or(DateTime::UNIX_EPOCH, |row| row.now),
        due: by_lane(rows.iter()),
        lapsed: first.is_some_and(|row| row.lapsed),
    })
}

async fn count_parked(connection: &mut AsyncPgConnection, rooms: &[(&str, u32)]) -> QueryResult<Vec<Waiting>> {
    sql_query(
        "SELECT g.gate, l.lane, now() AS now, false AS lapsed, (SELECT count(*) FROM (
                    SELECT FROM deliveries d WHERE d.parked_on = g.gate AND d.lane = l.lane AND d.state = 'QUEUED'
                     ORDER BY d.notification_id LIMIT g.room) AS found) AS waiting
           FROM unnest($1, $2) AS g (gate, room), unnest($3) AS l (lane)",
    )
    .bind::<Array<Text>, _>(rooms.iter().map(|(gate, _)| *gate).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(rooms.iter().map(|(_, room)| i64::from(*room)).collect::<Vec<_>>())
    .bind::<Array<SmallInt>, _>(lanes())
    .load(connection)
    .await
}

/// As many as each open gate has room for, in their lanes' shares.
async fn take_parked(
    connection: &mut AsyncPgConnection,
    terms: Terms<'_>,
    limit: u32,
    now: DateTime<Utc>,
    open: &BTreeMap<String, Gate>,
) -> QueryResult<Vec<Due>> {
    let admission = terms.admission(now, open.clone());
    let mut rooms: Vec<(&str, u32)> = open
        .keys()
        .filter_map(|name| GateKey::parse(name).map(|key| (name.as_str(), admission.room(&key).min(limit))))
        .filter(|(_, room)| *room > 0)
        .collect();
    if rooms.is_empty() {
        return Ok(Vec::new());
    }
    let waiting = count_parked(connection, &rooms).await?;
    // Each gate gets its part of the places, lest one with a long queue takes them all.
    let first = usize::try_from(terms.random).unwrap_or_default().checked_rem(rooms.len()).unwrap_or_default();
    rooms.rotate_left(first);
    let mut left = limit;
    let mut shares = Vec::new();
    for (gates_left, (gate, room)) in (1..=u32::try_from(rooms.len()).unwrap_or(u32::MAX)).rev().zip(rooms) {
        let waiting = by_lane(waiting.iter().filter(|row| row.gate == gate));
        let part = room.min(left.div_ceil(gates_left));
        let given = share(part, waiting, terms.policy.lane_weights(), terms.random);
        left = left.saturating_sub(given.iter().sum());
        shares.extend(
            lanes().into_iter().zip(given).filter(|(_, most)| *most > 0).map(|(lane, most)| (gate, lane, most)),
        );
    }
    if shares.is_empty() {
        return Ok(Vec::new());
    }
    let query = format!(
        "WITH taken AS MATERIALIZED (
             SELECT c.* FROM unnest($1, $2, $3) AS share (gate, lane, most) CROSS JOIN LATERAL (
                 SELECT d.* FROM deliveries d WHERE d.parked_on = share.gate AND d.lane = share.lane AND d.state = 'QUEUED'
                  ORDER BY d.notification_id LIMIT share.most FOR UPDATE SKIP LOCKED) AS c LIMIT {CLAIM_MAX})
         {WITH_ALL_IT_TAKES}"
    );
    sql_query(query)
        .bind::<Array<Text>, _>(shares.iter().map(|(gate, ..)| *gate).collect::<Vec<_>>())
        .bind::<Array<SmallInt>, _>(shares.iter().map(|(_, lane, _)| *lane).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(shares.iter().map(|(.., most)| i64::from(*most)).collect::<Vec<_>>())
        .load(connection)
        .await
}

/// Whose worker has let the lease run out: before everything else, however much is due.
async fn take_lapsed(connection: &mut AsyncPgConnection, limit: u32) -> QueryResult<Vec<Due>> {
    let query = format!(
        "WITH taken AS MATERIALIZED (
             SELECT c.* FROM (SELECT * FROM deliveries WHERE lease_until <= now()
                               ORDER BY lease_until LIMIT $1 FOR UPDATE SKIP LOCKED) AS c LIMIT {CLAIM_MAX})
         {WITH_ALL_IT_TAKES}"
    );
    sql_query(query).bind::<BigInt, _>(i64::from(limit)).load(connection).await
}

async fn take_due(connection: &mut AsyncPgConnection, shares: [u32; LANES]) -> QueryResult<Vec<Due>> {
    let query = format!(
        "WITH taken AS MATERIALIZED (
             SELECT c.* FROM unnest($1, $2) AS share (lane, most) CROSS JOIN LATERAL (
                 SELECT d.* FROM deliveries d WHERE d.lane = share.lane AND d.due_time <= now() AND d.state = 'QUEUED'
                  ORDER BY d.due_time LIMIT share.most FOR UPDATE SKIP LOCKED) AS c LIMIT {CLAIM_MAX})
         {WITH_ALL_IT_TAKES}"
    );
    sql_query(query)
        .bind::<Array<SmallInt>, _>(lanes())
        .bind::<Array<BigInt>, _>(shares.map(i64::from).to_vec())
        .load(connection)
        .await
}

/// What sending takes besides the delivery: the notification, the recipient's wishes, and what is known of the address. Each
/// is looked up by its key (`LIMIT 1` forbids all else): the planner would rather read whole tables for these few.
const WITH_ALL_IT_TAKES: &str = "
    SELECT t.notification_id, t.position, coalesce(t.contact_place, t.position) AS contact_place, t.lane, t.channel,
           coalesce(a.moved_to, t.address) AS address, t.state, t.attempt_count, t.tries_used, t.parked_on,
           EXISTS (SELECT FROM attempts tried WHERE tried.notification_id = t.notification_id) AS attempted,
           CASE WHEN a.moved_to IS NULL THEN a.reason WHEN moved.moved_to IS NULL THEN moved.reason END AS mark_reason,
           CASE WHEN a.moved_to IS NULL THEN a.mark_time WHEN moved.moved_to IS NULL THEN moved.mark_time END AS mark_time,
           n.recipient_id, p.mutes, p.quiet_start, p.quiet_end, p.time_zone,
           n.kind, n.locale, n.arguments, n.contacts, n.trace_id, n.traceparent, n.baggage, n.occur_time, n.create_time,
           n.expire_time, now() AS now
      FROM taken t
     CROSS JOIN LATERAL (SELECT * FROM notifications WHERE notification_id = t.notification_id LIMIT 1) AS n
      LEFT JOIN LATERAL (SELECT * FROM preferences WHERE recipient_id = n.recipient_id LIMIT 1) AS p ON true
      LEFT JOIN LATERAL (SELECT * FROM addresses WHERE (channel, address) = (t.channel, t.address) LIMIT 1) AS a ON true
      LEFT JOIN LATERAL (SELECT * FROM addresses WHERE (channel, address) = (t.channel, a.moved_to) LIMIT 1) AS moved ON true
     ORDER BY t.lane, t.due_time";

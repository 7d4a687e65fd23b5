//! What goes out next: deliveries that are due and those whose gate has opened, in their lanes' shares, each leased under a
//! fencing token, parked on the gate that holds it, or settled without a try.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{
        Array, BigInt, Bool, Integer, Interval, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use notify_domain::{
    admission::Admission,
    channel::Channel,
    delivery::{LEASE_LOST, Outcome, Step},
    gate::{Gate, GateKey, Scope, keys},
    lane::{LANES, Lane, share},
    policy::Policy,
    state::{DeliveryState, OutcomeClass},
};
use service::database::Connection;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    feed::{self, Change},
    gates,
    queue::interval,
    settle::{self, Settlement},
};

/// As much as any claim takes. For the planner, which can't know the shares: it would expect a tenth of all that is due, and
/// compile the query for so many.
const CLAIM_MAX: u32 = 1000;

/// A delivery that is due, with all that deciding about it and sending it takes.
#[derive(Clone, Debug, QueryableByName)]
pub(crate) struct Due {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) notification_id: Uuid,
    #[diesel(sql_type = Integer)]
    pub(crate) position: i32,
    #[diesel(sql_type = Integer)]
    pub(crate) contact_place: i32,
    #[diesel(sql_type = SmallInt)]
    pub(crate) lane: i16,
    #[diesel(sql_type = Text)]
    pub(crate) channel: String,
    /// Where to: the contact's address, or where that has moved.
    #[diesel(sql_type = Text)]
    pub(crate) address: String,
    #[diesel(sql_type = Text)]
    pub(crate) state: String,
    /// Attempts begun; once claimed, the running one's number and the fencing token.
    #[diesel(sql_type = Integer)]
    pub(crate) attempt_count: i32,
    #[diesel(sql_type = Integer)]
    pub(crate) tries_used: i32,
    /// Whether anything was ever sent, on any channel.
    #[diesel(sql_type = Bool)]
    pub(crate) attempted: bool,
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) parked_on: Option<String>,
    /// Why nothing is sent to the address any more, and since when.
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) mark_reason: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(crate) mark_time: Option<DateTime<Utc>>,
    #[diesel(sql_type = Text)]
    pub(crate) recipient_id: String,
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub(crate) mutes: Option<serde_json::Value>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub(crate) quiet_start: Option<i32>,
    #[diesel(sql_type = Nullable<Integer>)]
    pub(crate) quiet_end: Option<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) time_zone: Option<String>,
    #[diesel(sql_type = Text)]
    pub(crate) kind: String,
    #[diesel(sql_type = Text)]
    pub(crate) locale: String,
    #[diesel(sql_type = Jsonb)]
    pub(crate) arguments: serde_json::Value,
    #[diesel(sql_type = Jsonb)]
    pub(crate) contacts: serde_json::Value,
    #[diesel(sql_type = Text)]
    pub(crate) trace_id: String,
    #[diesel(sql_type = Text)]
    pub(crate) traceparent: String,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) create_time: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) expire_time: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) now: DateTime<Utc>,
}

impl Due {
    /// The gates in front of it.
    pub(crate) fn gates(&self) -> Vec<GateKey> {
        let Some(channel) = Channel::parse(&self.channel) else {
            return Vec::new();
        };
        let digest: String = Sha256::digest(&self.address)[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        keys(channel, &self.address, &digest)
    }
}

/// What a claim brought.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    /// To be sent, each with its attempt on record.
    pub(crate) leased: Vec<Due>,
    /// Settled without a try.
    pub(crate) settled: Vec<(Due, Step)>,
    /// Held by a gate from now on.
    parked: Vec<(Due, GateKey)>,
    /// Left as they were, for want of workers.
    left: usize,
}

impl Claim {
    /// Whether more of what was looked at is held by gates than not.
    pub(crate) fn is_held_up(&self) -> bool {
        self.parked.len() > self.leased.len() + self.settled.len() + self.left
    }
}

/// Who claims, how much, and on what terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) owner: &'a str,
    pub(crate) limit: u32,
    /// How many to look at for that: more than the limit when gates hold up many, so that those are soon out of the way.
    pub(crate) look: u32,
    pub(crate) lease: Duration,
    pub(crate) policy: &'a Policy,
    /// Sends in flight here by domain gate, and how many there may be.
    pub(crate) in_flight: &'a HashMap<String, u32>,
    pub(crate) in_flight_max: u32,
    /// Decides between lanes where their shares split a place.
    pub(crate) random: u32,
}

impl Terms<'_> {
    /// Gates that let nothing more through here, whatever they let through elsewhere.
    pub(crate) fn full(&self) -> Vec<&str> {
        let full = self.in_flight.iter().filter(|(_, count)| **count >= self.in_flight_max);
        full.map(|(name, _)| name.as_str()).collect()
    }
}

/// Takes deliveries that are due, lost leases included, and those whose gate has opened, in one transaction. `decide` says
/// which are settled without a try; the rest is leased, and its attempts begin, or parked. `picked` tells, even if the claim
/// fails, what it was about to take.
pub(crate) async fn claim(
    connection: &mut Connection,
    terms: Terms<'_>,
    decide: impl Fn(&Due) -> Option<Step> + Send + Sync,
    picked: &mut Vec<(Uuid, i32)>,
) -> QueryResult<Claim> {
    let decide = &decide;
    connection
        .transaction(async |connection| {
            let open = gates::open(connection, &terms.full()).await?;
            let due = take(connection, terms, &open).await?;
            picked.extend(due.iter().map(|due| (due.notification_id, due.position)));
            close_lost(connection, &due).await?;
            admit(connection, terms, due, &open, decide).await
        })
        .await
}

/// Locks what is to be decided about: first what waits for gates that are open, then what is due.
async fn take(
    connection: &mut AsyncPgConnection,
    terms: Terms<'_>,
    open: &BTreeMap<String, Gate>,
) -> QueryResult<Vec<Due>> {
    let (now, due_count) = count_due(connection, terms.look).await?;
    let someone_is_due = due_count.iter().any(|count| *count > 0);
    let for_parked = if someone_is_due { terms.look.div_ceil(2) } else { terms.look };
    let mut taken = take_parked(connection, terms, for_parked, now, open).await?;
    let left = terms.look.saturating_sub(u32::try_from(taken.len()).unwrap_or(u32::MAX));
    if someone_is_due && left > 0 {
        let shares = share(left, due_count, terms.policy.lane_weights(), terms.random);
        taken.extend(take_due(connection, shares).await?);
    }
    Ok(taken)
}

#[derive(QueryableByName)]
struct Waiting {
    #[diesel(sql_type = Text)]
    gate: String,
    #[diesel(sql_type = SmallInt)]
    lane: i16,
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
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
async fn count_due(connection: &mut AsyncPgConnection, limit: u32) -> QueryResult<(DateTime<Utc>, [u32; LANES])> {
    let rows: Vec<Waiting> = sql_query(
        "SELECT '' AS gate, l.lane, now() AS now, (SELECT count(*) FROM (
                    SELECT FROM deliveries d WHERE d.lane = l.lane AND d.due_time <= now()
                     ORDER BY d.due_time LIMIT $2) AS found) AS waiting
           FROM unnest($1) AS l (lane)",
    )
    .bind::<Array<SmallInt>, _>(lanes())
    .bind::<BigInt, _>(i64::from(limit))
    .load(connection)
    .await?;
    Ok((rows.as_slice().first().map_or(DateTime::UNIX_EPOCH, |row| row.now), by_lane(rows.iter())))
}

async fn count_parked(connection: &mut AsyncPgConnection, rooms: &[(&str, u32)]) -> QueryResult<Vec<Waiting>> {
    sql_query(
        "SELECT g.gate, l.lane, now() AS now, (SELECT count(*) FROM (
                    SELECT FROM deliveries d WHERE d.parked_on = g.gate AND d.lane = l.lane
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
    let rooms: Vec<(&str, u32)> = open
        .keys()
        .filter_map(|name| GateKey::parse(name).map(|key| (name.as_str(), admission.room(&key).min(limit))))
        .filter(|(_, room)| *room > 0)
        .collect();
    if rooms.is_empty() {
        return Ok(Vec::new());
    }
    let waiting = count_parked(connection, &rooms).await?;
    let mut left = limit;
    let mut shares = Vec::new();
    for (gate, room) in rooms {
        let waiting = by_lane(waiting.iter().filter(|row| row.gate == gate));
        let given = share(room.min(left), waiting, terms.policy.lane_weights(), terms.random);
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
                 SELECT d.* FROM deliveries d WHERE d.parked_on = share.gate AND d.lane = share.lane
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

async fn take_due(connection: &mut AsyncPgConnection, shares: [u32; LANES]) -> QueryResult<Vec<Due>> {
    let query = format!(
        "WITH taken AS MATERIALIZED (
             SELECT c.* FROM unnest($1, $2) AS share (lane, most) CROSS JOIN LATERAL (
                 SELECT d.* FROM deliveries d WHERE d.lane = share.lane AND d.due_time <= now()
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
           n.kind, n.locale, n.arguments, n.contacts, n.trace_id, n.traceparent, n.create_time, n.expire_time, now() AS now
      FROM taken t
     CROSS JOIN LATERAL (SELECT * FROM notifications WHERE notification_id = t.notification_id LIMIT 1) AS n
      LEFT JOIN LATERAL (SELECT * FROM preferences WHERE recipient_id = n.recipient_id LIMIT 1) AS p ON true
      LEFT JOIN LATERAL (SELECT * FROM addresses WHERE (channel, address) = (t.channel, t.address) LIMIT 1) AS a ON true
      LEFT JOIN LATERAL (SELECT * FROM addresses WHERE (channel, address) = (t.channel, a.moved_to) LIMIT 1) AS moved ON true
     ORDER BY t.lane, t.due_time";

/// Attempts whose worker let the lease run out may have arrived: on record as ambiguous.
async fn close_lost(connection: &mut AsyncPgConnection, due: &[Due]) -> QueryResult<()> {
    let outcome = Outcome::new(OutcomeClass::Ambiguous, LEASE_LOST);
    let lost: Vec<_> = due
        .iter()
        .filter(|delivery| delivery.state == DeliveryState::Sending.as_str())
        .map(|delivery| (delivery.held(), &outcome))
        .collect();
    settle::close_attempts(connection, &lost).await
}

impl<'a> Terms<'a> {
    fn admission(&self, now: DateTime<Utc>, gates: BTreeMap<String, Gate>) -> Admission<'a> {
        Admission::new(now, self.policy, gates, self.in_flight.clone(), self.in_flight_max)
    }
}

/// Decides about each: settled, leased or parked; and remembers what passed the gates.
async fn admit(
    connection: &mut AsyncPgConnection,
    terms: Terms<'_>,
    due: Vec<Due>,
    open: &BTreeMap<String, Gate>,
    decide: &(impl Fn(&Due) -> Option<Step> + Send + Sync),
) -> QueryResult<Claim> {
    let Some(now) = due.as_slice().first().map(|due| due.now) else {
        let open: Vec<&str> = open.keys().map(String::as_str).collect();
        gates::lock(connection, &[], &open).await?;
        gates::settle_waiting(connection, &open).await?;
        return Ok(Claim::default());
    };
    let due: Vec<(Due, Vec<GateKey>)> =
        due.into_iter().map(|due| (due.gates(), due)).map(|(keys, due)| (due, keys)).collect();
    let all = || due.iter().flat_map(|(_, keys)| keys);
    let crowded = crowded(terms, all());
    let noted: BTreeSet<&str> = all()
        .filter(|key| terms.policy.rate(key).is_some() || crowded.contains(key.name.as_str()))
        .map(|key| key.name.as_str())
        .collect();
    let names: BTreeSet<&str> = all().map(|key| key.name.as_str()).chain(open.keys().map(String::as_str)).collect();
    let noted: Vec<&str> = noted.into_iter().collect();
    let names: Vec<&str> = names.into_iter().collect();
    let gates = gates::lock(connection, &noted, &names).await?;

    let limit = usize::try_from(terms.limit).unwrap_or(usize::MAX);
    let mut admission = terms.admission(now, gates);
    let mut claim = Claim::default();
    for (delivery, keys) in due {
        match decide(&delivery) {
            Some(step) => claim.settled.push((delivery, step)),
            None if claim.leased.len() >= limit => match admission.hold(&keys) {
                Some(gate) => claim.parked.push((delivery, gate)),
                None => claim.left += 1,
            },
            None => match admission.admit(&keys) {
                Ok(()) => claim.leased.push(delivery),
                Err(gate) => claim.parked.push((delivery, gate)),
            },
        }
    }
    let settlements: Vec<_> = claim.settled.iter().map(|(due, step)| Settlement::untried(due, step)).collect();
    settle::apply(connection, now, &settlements).await?;
    lease(connection, terms, &mut claim.leased).await?;
    let begun: Vec<Change> = claim.leased.iter().map(|due| due.change(now, DeliveryState::Sending, "")).collect();
    feed::tell(connection, &begun).await?;
    park(connection, &claim.parked).await?;
    gates::save(connection, &admission.changes().collect::<Vec<_>>()).await?;
    gates::settle_waiting(connection, &open.keys().map(String::as_str).collect::<Vec<_>>()).await?;
    Ok(claim)
}

/// Domains for which there are more deliveries than workers may take: some will be parked on them.
fn crowded<'a>(terms: Terms<'_>, keys: impl Iterator<Item = &'a GateKey>) -> BTreeSet<&'a str> {
    let mut sends: BTreeMap<&str, u32> = BTreeMap::new();
    for key in keys.filter(|key| key.scope == Scope::Domain) {
        let in_flight = || terms.in_flight.get(&key.name).copied().unwrap_or_default();
        *sends.entry(&key.name).or_insert_with(in_flight) += 1;
    }
    let fill_up = |name: &str| {
        let room = terms.in_flight_max.saturating_sub(terms.in_flight.get(name).copied().unwrap_or_default());
        room < terms.limit
    };
    let crowded = sends.into_iter().filter(|(name, count)| *count > terms.in_flight_max && fill_up(name));
    crowded.map(|(name, _)| name).collect()
}

async fn lease(connection: &mut AsyncPgConnection, terms: Terms<'_>, due: &mut [Due]) -> QueryResult<()> {
    if due.is_empty() {
        return Ok(());
    }
    for delivery in due.iter_mut() {
        delivery.attempt_count += 1;
        delivery.tries_used += 1;
    }
    sql_query(
        "WITH leased AS (
             UPDATE deliveries d
                SET state = 'SENDING', next_attempt_time = NULL, parked_on = NULL, park_until = NULL, address = c.address,
                    lease_until = now() + $5, lease_owner = $6,
                    attempt_count = attempt_count + 1, tries_used = tries_used + 1
               FROM unnest($1, $2, $3, $4) AS c (notification_id, position, trace_id, address)
              WHERE (d.notification_id, d.position) = (c.notification_id, c.position)
          RETURNING d.notification_id, d.position, d.attempt_count, c.trace_id)
         INSERT INTO attempts (notification_id, position, number, start_time, trace_id)
         SELECT notification_id, position, attempt_count, now(), trace_id FROM leased",
    )
    .bind::<Array<SqlUuid>, _>(due.iter().map(|d| d.notification_id).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(due.iter().map(|d| d.position).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(due.iter().map(|d| d.trace_id.as_str()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(due.iter().map(|d| d.address.as_str()).collect::<Vec<_>>())
    .bind::<Interval, _>(interval(terms.lease))
    .bind::<Text, _>(terms.owner)
    .execute(connection)
    .await?;
    Ok(())
}

/// Out of everybody's way until the gate opens; looked at when it expires in any case. A lease that was lost is over.
async fn park(connection: &mut AsyncPgConnection, parked: &[(Due, GateKey)]) -> QueryResult<()> {
    let moved: Vec<_> =
        parked.iter().filter(|(due, gate)| due.parked_on.as_deref() != Some(gate.name.as_str())).collect();
    if moved.is_empty() {
        return Ok(());
    }
    sql_query(
        "UPDATE deliveries d
            SET state = 'QUEUED', parked_on = p.gate, park_until = p.expire_time,
                next_attempt_time = coalesce(next_attempt_time, now()), lease_until = NULL, lease_owner = NULL
           FROM unnest($1, $2, $3, $4) AS p (notification_id, position, gate, expire_time)
          WHERE (d.notification_id, d.position) = (p.notification_id, p.position)",
    )
    .bind::<Array<SqlUuid>, _>(moved.iter().map(|(due, _)| due.notification_id).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(moved.iter().map(|(due, _)| due.position).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(moved.iter().map(|(_, gate)| gate.name.as_str()).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(moved.iter().map(|(due, _)| due.expire_time).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

//! What goes out next: deliveries are picked, and each is leased under a fencing token, parked on the gate that holds it, or
//! settled without a try.

use std::collections::{BTreeMap, BTreeSet};

use diesel::{
    QueryResult, sql_query,
    sql_types::{Array, Integer, Interval, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use notify_domain::{
    admission::Verdict,
    delivery::{LEASE_LOST, Outcome, Step},
    gate::{Gate, GateKey, Scope},
    state::{DeliveryState, OutcomeClass},
};
use service::database::Connection;
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::{
    due::Due,
    feed::{self, Change},
    gates, pick,
    pick::Terms,
    queue::interval,
    settle::{self, Settlement},
};

/// What a claim brought.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    /// To be sent, each with its attempt on record.
    pub(crate) leased: Vec<Due>,
    /// Settled without a try.
    pub(crate) settled: Vec<(Due, Step)>,
    /// As they were when their workers let their leases run out.
    pub(crate) lost: Vec<Due>,
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
            let due = pick::take(connection, terms, &open).await?;
            picked.extend(due.iter().map(|due| (due.notification_id, due.position)));
            async {
                let lost = close_lost(connection, &due).await?;
                Ok(Claim { lost, ..admit(connection, terms, due, &open, decide).await? })
            }
            .instrument(span(picked.len()))
            .await
        })
        .await
}

/// Most looks at the queue find nothing, and need no span.
fn span(deliveries: usize) -> Span {
    if deliveries == 0 { Span::none() } else { tracing::info_span!(parent: None, "claim", deliveries) }
}

/// Attempts whose worker let the lease run out may have arrived: on record as ambiguous.
async fn close_lost(connection: &mut AsyncPgConnection, due: &[Due]) -> QueryResult<Vec<Due>> {
    let outcome = Outcome::new(OutcomeClass::Ambiguous, LEASE_LOST);
    let lost: Vec<Due> =
        due.iter().filter(|delivery| delivery.state == DeliveryState::Sending.as_str()).cloned().collect();
    let ended: Vec<_> = lost.iter().map(|delivery| (delivery.held(), &outcome)).collect();
    settle::close_attempts(connection, &ended).await?;
    Ok(lost)
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
    open.keys().filter_map(|name| GateKey::parse(name)).for_each(|key| admission.looked_at(key));
    let mut claim = Claim::default();
    for (delivery, keys) in due {
        match decide(&delivery) {
            Some(step) => claim.settled.push((delivery, step)),
            None if claim.leased.len() >= limit => match admission.hold(&keys) {
                Some(gate) => claim.parked.push((delivery, gate)),
                None => claim.left += 1,
            },
            None => match admission.admit(&keys) {
                Verdict::Passes => claim.leased.push(delivery),
                Verdict::Parked(gate) => claim.parked.push((delivery, gate)),
                Verdict::Stays => claim.left += 1,
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

/// Gates before which there are more deliveries than workers may wait, and those take their time: some will be parked.
fn crowded<'a>(terms: Terms<'_>, keys: impl Iterator<Item = &'a GateKey>) -> BTreeSet<&'a str> {
    let in_flight = |name: &str| terms.in_flight.get(name).copied().unwrap_or_default();
    let mut sends: BTreeMap<&str, (u32, Scope)> = BTreeMap::new();
    for key in keys.filter(|key| in_flight(&key.name).is_slow) {
        sends.entry(&key.name).or_insert_with(|| (in_flight(&key.name).sends, key.scope)).0 += 1;
    }
    let crowded = sends.into_iter().filter(|(_, (count, scope))| *count > terms.in_flight_max.before(*scope));
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
                SET state = 'SENDING', next_attempt_time = NULL, parked_on = NULL, waiting_since = NULL, address = c.address,
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
            SET state = 'QUEUED', parked_on = p.gate, waiting_since = coalesce(waiting_since, next_attempt_time, now()),
                next_attempt_time = p.expire_time, lease_until = NULL, lease_owner = NULL
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

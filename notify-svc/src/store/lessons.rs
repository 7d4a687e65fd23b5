//! What tries teach beyond their own delivery: of the address, and of the provider.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use notify_domain::{
    delivery::Outcome,
    gate::{GateKey, Health, health_key},
    policy::Policy,
};

use super::{
    addresses::Mark,
    due::{Finished, Held},
    gates,
};

/// What a try has taught about its address.
pub(super) fn of_address(finished: &Finished) -> Option<Mark<'_>> {
    let (delivery, outcome) = (&finished.delivery, &finished.outcome);
    let moved_to = outcome.moved_to.as_deref().filter(|moved_to| *moved_to != delivery.address);
    (moved_to.is_some() || outcome.marks_address()).then(|| Mark {
        channel: &delivery.channel,
        address: &delivery.address,
        reason: &outcome.reason,
        moved_to,
        notification_id: delivery.notification_id,
    })
}

/// Remembers what tries have told of their providers: pauses, failures, and that one is well again. Returns the tries whose
/// refusal was news: until then the provider had not refused, or not for this reason.
pub(super) async fn of_providers(
    connection: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    told: &[&Finished],
    policy: &Policy,
) -> QueryResult<Vec<Held>> {
    let told: Vec<(GateKey, &Finished)> =
        told.iter().filter_map(|finished| Some((health_key(&finished.delivery.gates())?.clone(), *finished))).collect();
    let names: BTreeSet<&str> = told.iter().map(|(key, _)| key.name.as_str()).collect();
    let noted: BTreeSet<&str> =
        told.iter().filter(|(_, tried)| is_worth_a_row(&tried.outcome)).map(|(key, _)| key.name.as_str()).collect();
    let (noted, names): (Vec<_>, Vec<_>) = (noted.into_iter().collect(), names.into_iter().collect());
    let mut gates = gates::lock(connection, &noted, &names).await?;
    let (mut changed, mut refused) = (BTreeMap::new(), Vec::new());
    for (key, Finished { delivery, outcome, .. }) in &told {
        let Some(before) = gates.get(&key.name) else { continue };
        let mut gate = before.clone();
        gate.heard(now, outcome.health(), &outcome.reason, policy.breaker());
        if outcome.health() == Health::Refusing && !(before.tripped && before.reason == outcome.reason) {
            refused.push(delivery.held());
        }
        if let Some(pause) = outcome.pause {
            gate.pause(now, pause, &outcome.reason);
        }
        if *before != gate {
            changed.insert(key.name.as_str(), key);
            gates.insert(key.name.clone(), gate);
        }
    }
    let rows: Vec<_> = changed
        .into_iter()
        .filter_map(|(name, key)| gates.get(name).map(|gate| (name, gate, gate.open_time(now, policy.rate(key)))))
        .collect();
    gates::save(connection, &rows).await?;
    Ok(refused)
}

/// That a provider of which nothing is remembered is well needs no row.
fn is_worth_a_row(outcome: &Outcome) -> bool {
    outcome.pause.is_some() || !matches!(outcome.health(), Health::Alive | Health::Unknown)
}

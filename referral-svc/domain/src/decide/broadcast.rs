//! Decisions about broadcasts: beginning and stopping. Going forward is no decision of anybody's; see [`Broadcast::after`].

use super::{Context, Verdict};
use crate::{
    broadcast::{self, Broadcast, BroadcastState, Ending, NewBroadcast, Stage},
    command::{Outcome, Refusal},
    id::{BroadcastId, IdSource},
    state::{Changes, State},
};

pub(super) fn create(state: &State, asked: &NewBroadcast, context: &Context<'_>, ids: &mut IdSource) -> Verdict {
    let Some(expire_time) = broadcast::expire_time(asked.expire_time, context.now) else {
        return Verdict::refused(Refusal::ExpireTimeOutOfRange);
    };
    if asked.filter.ancestor_id.is_some_and(|ancestor_id| !state.partners.contains_key(&ancestor_id)) {
        return Verdict::refused(Refusal::AncestorNotFound);
    }
    let broadcast = Broadcast {
        broadcast_id: ids.make(),
        asked: asked.clone(),
        expire_time,
        create_time: context.now,
        published: 0,
        progress: None,
        stage: Stage::Running { next_step_time: context.now },
    };
    changed(broadcast, Outcome::BroadcastBegun)
}

pub(super) fn cancel(state: &State, broadcast_id: BroadcastId, reason: &str, context: &Context<'_>) -> Verdict {
    let Some(broadcast) = state.broadcasts.get(&broadcast_id) else {
        return Verdict::refused(Refusal::BroadcastNotFound);
    };
    match broadcast.state() {
        BroadcastState::Running => {
            let ending = Ending::Cancelled { reason: reason.to_owned() };
            changed(broadcast.clone().ended(ending, context.now), Outcome::BroadcastCancelled)
        }
        state => Verdict::refused(Refusal::BroadcastEnded(state)),
    }
}

/// The broadcast, new or changed, as the only change.
fn changed(broadcast: Broadcast, outcome: fn(Broadcast) -> Outcome) -> Verdict {
    let changes = Changes { broadcast: Some(broadcast.clone()), ..Changes::default() };
    Verdict::done(outcome(broadcast), changes)
}

//! The notices of an end of PRO: three days before, one day before, at the end, each once for each end.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Context, Result, Undecided, Verdict, notice};
use crate::{
    command::Outcome,
    id::PartnerId,
    state::{About, Changes, Noticed, ProNotice, State},
};

impl ProNotice {
    /// In their order.
    pub const ALL: [Self; 3] = [Self::ThreeDays, Self::OneDay, Self::Ended];

    /// How long before the end it is due.
    pub fn before(self) -> TimeDelta {
        match self {
            Self::ThreeDays => TimeDelta::days(3),
            Self::OneDay => TimeDelta::days(1),
            Self::Ended => TimeDelta::zero(),
        }
    }

    /// From when on it would say something wrong: the next one is due. None: it stays true.
    pub fn expires(self, end: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = match self {
            Self::ThreeDays => Self::OneDay,
            Self::OneDay => Self::Ended,
            Self::Ended => return None,
        };
        end.checked_sub_signed(next.before())
    }

    fn is_due(self, end: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        end.checked_sub_signed(self.before()).is_none_or(|due| due <= now)
    }
}

/// Requests whatever is due. Each is requested once; one that comes too late to be true is requested with an expiry that has
/// passed, so that it is on record and never sent.
pub(super) fn send(state: &State, partner_ids: &[PartnerId], context: &Context<'_>) -> Result<Verdict> {
    let mut changes = Changes::default();
    for &partner_id in partner_ids {
        let standing = state.standings.get(&partner_id).ok_or(Undecided::Incomplete("a standing"))?;
        let Some(expires) = standing.pro_expires_at else { continue };
        // An end that went away and came back has had its notices: a renewal was refunded.
        let before =
            state.notices_requested.get(&(partner_id, expires)).copied().unwrap_or(0).max(standing.notices_sent);
        let mut sent = before;
        for due in ProNotice::ALL.into_iter().skip(usize::from(sent)).take_while(|due| due.is_due(expires, context.now))
        {
            changes.notices.push(notice(state, partner_id, About::ProEnding { notice: due, expires })?);
            sent = sent.saturating_add(1);
        }
        if sent != standing.notices_sent {
            let new = sent.saturating_sub(before);
            changes.noticed.push(Noticed { partner_id, pro_end: expires, sent, new });
        }
    }
    Ok(Verdict::done(Outcome::Noticed, changes))
}

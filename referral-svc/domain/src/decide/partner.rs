//! Decisions about partners: registration, attaching, personal data, PRO counts.

use chrono::{DateTime, Utc};

use super::{Context, Result, Undecided, Verdict, later, notice};
use crate::{
    LEVELS,
    command::{Attribution, Outcome, PartnerView, ProfileChange, Refusal, RegisterPartner},
    id::{IdSource, PartnerId},
    partner::{Contact, Partner, Profile, ReferralCode, Standing, XpAward},
    state::{About, Attached, Changes, Growth, State},
    xp,
};

pub(super) fn register(
    state: &State,
    registration: &RegisterPartner,
    context: &Context<'_>,
    ids: &mut IdSource,
) -> Result<Verdict> {
    if let Some(known) = state.by_external_id.get(&registration.external_id) {
        let view = state.view(*known).ok_or(Undecided::Incomplete("a registered partner"))?;
        let outcome = Outcome::Registered { view, attribution: Attribution::AlreadyRegistered };
        return Ok(Verdict::done(outcome, Changes::default()));
    }
    let referrer = registration
        .code
        .as_ref()
        .and_then(|code| state.by_code.get(code))
        .map(|id| state.partners.get(id).ok_or(Undecided::Incomplete("a code's owner")))
        .transpose()?;
    let attribution = match (&registration.code, referrer) {
        (None, _) => Attribution::NoCode,
        (Some(_), None) => Attribution::UnknownCode,
        (Some(_), Some(_)) => Attribution::Attributed,
    };
    let free = |code: &&ReferralCode| !state.by_code.contains_key(*code);
    let partner = Partner {
        partner_id: ids.make(),
        external_id: registration.external_id.clone(),
        referral_code: registration.candidates.iter().find(free).ok_or(Undecided::NoCodeFree)?.clone(),
        referrer_id: referrer.map(|referrer| referrer.partner_id),
        depth: referrer.map_or(0, |referrer| referrer.depth.saturating_add(1)),
        lineage: referrer.map(Partner::lineage_below).unwrap_or_default(),
        profile: with_default_contact(registration),
        create_time: context.now,
        attach_time: None,
    };
    let mut changes = Changes::default();
    welcome_below(state, &partner, &Standing::default(), context, &mut changes)?;
    changes.new_partner = Some(partner.clone());
    let view = PartnerView { partner, standing: Standing::default() };
    Ok(Verdict::done(Outcome::Registered { view, attribution }, changes))
}

/// `telegram:N` says where its owner is reached.
fn with_default_contact(registration: &RegisterPartner) -> Profile {
    let mut profile = registration.profile.clone();
    if let Some(chat) = registration.external_id.strip_prefix("telegram:")
        && profile.contacts.is_empty()
        && !chat.is_empty()
        && chat.bytes().all(|byte| byte.is_ascii_digit())
    {
        profile.contacts.push(Contact { channel: "telegram".to_owned(), address: chat.to_owned() });
    }
    profile
}

pub(super) fn attach(
    state: &State,
    partner_id: PartnerId,
    code: &ReferralCode,
    context: &Context<'_>,
) -> Result<Verdict> {
    let Some(partner) = state.partners.get(&partner_id) else {
        return Ok(Verdict::refused(Refusal::PartnerNotFound));
    };
    let Some(referrer_id) = state.by_code.get(code) else {
        return Ok(Verdict::refused(Refusal::ReferralCodeNotFound));
    };
    let referrer = state.partners.get(referrer_id).ok_or(Undecided::Incomplete("a code's owner"))?;
    let above = state.above.get(referrer_id).ok_or(Undecided::Incomplete("who stands above a referrer"))?;
    if partner.referrer_id.is_some() {
        return Ok(Verdict::refused(Refusal::ReferrerAlreadySet));
    }
    if partner_id == *referrer_id || above.contains(&partner_id) {
        return Ok(Verdict::refused(Refusal::ReferralCycle));
    }
    if context.now >= later(partner.create_time, context.plan.attribution_window()) {
        return Ok(Verdict::refused(Refusal::AttributionWindowClosed));
    }
    let moved = Partner {
        referrer_id: Some(*referrer_id),
        depth: referrer.depth.saturating_add(1),
        lineage: referrer.lineage_below(),
        attach_time: Some(context.now),
        ..partner.clone()
    };
    let standing = state.standings.get(&partner_id).ok_or(Undecided::Incomplete("a standing"))?.clone();
    let mut changes = Changes::default();
    welcome_below(state, &moved, &standing, context, &mut changes)?;
    changes.attached = Some(Attached { partner: moved.clone(), deeper: moved.depth.saturating_sub(partner.depth) });
    Ok(Verdict::done(Outcome::Attached(PartnerView { partner: moved, standing }), changes))
}

/// What a partner's arrival gives to those above: XP and news for the partner alone, counts for all who come along.
fn welcome_below(
    state: &State,
    partner: &Partner,
    own: &Standing,
    context: &Context<'_>,
    changes: &mut Changes,
) -> Result<()> {
    for ((level, &ancestor_id), &base) in (1_u8..).zip(&partner.lineage).zip(context.plan.signup_xp()) {
        let standing = state.standings.get(&ancestor_id).ok_or(Undecided::Incomplete("an ancestor's standing"))?;
        let below = usize::from(level);
        let mut growth = Growth { ancestor_id, members: [0; LEVELS], pro_members: [0; LEVELS] };
        growth.members[below.saturating_sub(1)] = 1;
        growth.pro_members[below.saturating_sub(1)] = i64::from(own.counted_as_pro);
        for (slot, count) in growth.members.iter_mut().skip(below).zip(&own.members) {
            *slot = *count;
        }
        for (slot, count) in growth.pro_members.iter_mut().skip(below).zip(&own.pro_members) {
            *slot = *count;
        }
        changes.growth.push(growth);
        if base == 0 {
            continue;
        }
        let multiplier = if standing.is_pro(context.now) { context.plan.pro_xp_multiplier() } else { 1 };
        let xp = xp::award(base, multiplier);
        changes.awards.push(XpAward {
            partner_id: ancestor_id,
            source_partner_id: partner.partner_id,
            level,
            multiplier,
            xp,
            create_time: context.now,
        });
        let name = partner.profile.display_name().to_owned();
        changes.notices.push(notice(state, ancestor_id, About::Signup { level, name, xp })?);
        let total = standing.xp.saturating_add(xp);
        if xp::level_of(total) > xp::level_of(standing.xp) {
            let about = About::LevelUp { level: xp::level_of(total), xp: total };
            changes.notices.push(notice(state, ancestor_id, about)?);
        }
    }
    Ok(())
}

pub(super) fn update(state: &State, partner_id: PartnerId, change: &ProfileChange) -> Verdict {
    let Some(mut view) = state.view(partner_id) else {
        return Verdict::refused(Refusal::PartnerNotFound);
    };
    view.partner.profile = change.clone().apply(&view.partner.profile);
    let changes = Changes { profile: Some((partner_id, view.partner.profile.clone())), ..Changes::default() };
    Verdict::done(Outcome::Updated(view), changes)
}

pub(super) fn count_pro(state: &State, partner_ids: &[PartnerId], now: DateTime<Utc>) -> Result<Verdict> {
    let mut changes = Changes::default();
    for partner_id in partner_ids {
        let (Some(partner), Some(standing)) = (state.partners.get(partner_id), state.standings.get(partner_id)) else {
            return Err(Undecided::Incomplete("a partner to count"));
        };
        let is_pro = standing.is_pro(now);
        if is_pro == standing.counted_as_pro {
            continue;
        }
        changes.counted.push((*partner_id, is_pro));
        for (slot, &ancestor_id) in partner.lineage.iter().enumerate().take(LEVELS) {
            if !state.standings.contains_key(&ancestor_id) {
                return Err(Undecided::Incomplete("an ancestor's standing"));
            }
            let mut growth = Growth { ancestor_id, members: [0; LEVELS], pro_members: [0; LEVELS] };
            growth.pro_members[slot] = if is_pro { 1 } else { -1 };
            changes.growth.push(growth);
        }
    }
    Ok(Verdict::done(Outcome::Counted, changes))
}

//! Preferences between the contract's messages and the domain's values.

use notify_domain::{
    kind::Kind,
    preference::{Mute, Preferences, QuietHours},
};
use p2phub_proto::notify::v1 as wire;
use service::error::Failure;

use super::fields;
use crate::convert;

/// What is not to be sent, said either way.
const MUTES_MAX: usize = 100;

/// Checked, in a fixed order, and nothing twice.
pub(super) fn inward(given: &wire::Preferences) -> Result<Preferences, Failure> {
    for (field, count) in
        [("preferences.muted_kinds", given.muted_kinds.len()), ("preferences.mutes", given.mutes.len())]
    {
        if count > MUTES_MAX {
            return Err(Failure::violation(field, format!("must be at most {MUTES_MAX}")));
        }
    }
    let kinds = given.muted_kinds.iter().map(|number| {
        let field = "preferences.muted_kinds";
        let kind = mutable(field, fields::kind(field, *number)?)?;
        Ok(Mute { kind: Some(kind.ok_or_else(|| Failure::violation(field, "is not a known kind"))?), channel: None })
    });
    let mut mutes = kinds.chain(given.mutes.iter().map(mute)).collect::<Result<Vec<_>, Failure>>()?;
    mutes.sort_unstable();
    mutes.dedup();
    Ok(Preferences { mutes, quiet_hours: given.quiet_hours.as_ref().map(quiet_hours).transpose()? })
}

fn mutable(field: &str, kind: Option<Kind>) -> Result<Option<Kind>, Failure> {
    match kind {
        Some(kind) if kind.is_money() => {
            Err(Failure::violation(field, format!("{} is about money and can't be muted", kind.as_str())))
        }
        kind => Ok(kind),
    }
}

fn mute(given: &wire::Mute) -> Result<Mute, Failure> {
    let field = "preferences.mutes.kind";
    let kind = mutable(field, fields::kind(field, given.kind)?)?;
    let channel = match given.channel.as_str() {
        "" => None,
        name => Some(fields::contact_channel("preferences.mutes.channel", name)?),
    };
    if kind.is_none() && channel.is_none() {
        return Err(Failure::violation("preferences.mutes", "at least one field of each is required"));
    }
    Ok(Mute { kind, channel })
}

fn quiet_hours(given: &wire::QuietHours) -> Result<QuietHours, Failure> {
    let quiet = QuietHours {
        start_minute: minute("preferences.quiet_hours.start", &given.start)?,
        end_minute: minute("preferences.quiet_hours.end", &given.end)?,
        time_zone: given.time_zone.parse().map_err(|_| {
            Failure::violation("preferences.quiet_hours.time_zone", "must be an IANA name such as Europe/Berlin")
        })?,
    };
    if quiet.start_minute == quiet.end_minute {
        return Err(Failure::violation("preferences.quiet_hours.end", "must not be the same as start"));
    }
    Ok(quiet)
}

/// "HH:MM" as a minute of the day.
fn minute(field: &str, text: &str) -> Result<u32, Failure> {
    let two_digits = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok()).flatten()
    };
    text.split_once(':')
        .and_then(|(hour, minute)| two_digits(hour).zip(two_digits(minute)))
        .filter(|(hour, minute)| *hour < 24 && *minute < 60)
        .map(|(hour, minute)| hour * 60 + minute)
        .ok_or_else(|| Failure::violation(field, "must be a time of day such as 22:00"))
}

/// Kinds that are muted everywhere apart from the rest.
pub(super) fn outward(wanted: &Preferences) -> wire::Preferences {
    let kind = |kind: Kind| i32::from(convert::kind(kind.as_str()));
    let (everywhere, rest): (Vec<&Mute>, Vec<&Mute>) =
        wanted.mutes.iter().partition(|mute| mute.channel.is_none() && mute.kind.is_some());
    let muted_kinds = everywhere.into_iter().filter_map(|mute| mute.kind.map(kind)).collect();
    let mutes = rest.into_iter().map(|mute| wire::Mute {
        kind: mute.kind.map(kind).unwrap_or_default(),
        channel: mute.channel.map(|channel| channel.as_str().to_owned()).unwrap_or_default(),
    });
    let time = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
    let quiet_hours = wanted.quiet_hours.map(|quiet| wire::QuietHours {
        start: time(quiet.start_minute),
        end: time(quiet.end_minute),
        time_zone: quiet.time_zone.name().to_owned(),
    });
    wire::Preferences { muted_kinds, mutes: mutes.collect(), quiet_hours }
}

/// For the audit record.
pub(super) fn summary(wanted: &Preferences) -> String {
    let quiet = if wanted.quiet_hours.is_some() { "quiet hours" } else { "no quiet hours" };
    format!("{} mutes, {quiet}", wanted.mutes.len())
}

#[cfg(test)]
mod tests {
    use wire::NotificationKind::{CommissionReceived, LevelUp, PayoutState, SignupL1, Unspecified};

    use super::*;

    fn mutes(kind: wire::NotificationKind, channel: &str) -> wire::Preferences {
        let mute = wire::Mute { kind: kind.into(), channel: channel.to_owned() };
        wire::Preferences { mutes: vec![mute], ..Default::default() }
    }

    fn quiet(start: &str, end: &str, time_zone: &str) -> wire::Preferences {
        let (start, end, time_zone) = (start.to_owned(), end.to_owned(), time_zone.to_owned());
        wire::Preferences { quiet_hours: Some(wire::QuietHours { start, end, time_zone }), ..Default::default() }
    }

    #[test]
    fn faults_name_their_field() {
        let kinds = |kinds: Vec<i32>| wire::Preferences { muted_kinds: kinds, ..Default::default() };
        let many = vec![wire::Mute { kind: LevelUp.into(), channel: String::new() }; 101];
        for (field, given) in [
            ("muted_kinds", kinds(vec![PayoutState.into()])),
            ("muted_kinds", kinds(vec![99])),
            ("muted_kinds", kinds(vec![Unspecified.into()])),
            ("muted_kinds", kinds(vec![LevelUp.into(); 101])),
            ("mutes", wire::Preferences { mutes: many, ..Default::default() }),
            ("mutes", mutes(Unspecified, "")),
            ("mutes.kind", mutes(CommissionReceived, "email")),
            ("mutes.channel", mutes(LevelUp, "pigeon")),
            ("mutes.channel", mutes(LevelUp, "log")),
            ("quiet_hours.start", quiet("24:00", "08:00", "UTC")),
            ("quiet_hours.start", quiet("7:00", "08:00", "UTC")),
            ("quiet_hours.end", quiet("22:00", "08:60", "UTC")),
            ("quiet_hours.end", quiet("22:00", "+8:00", "UTC")),
            ("quiet_hours.end", quiet("08:00", "08:00", "UTC")),
            ("quiet_hours.time_zone", quiet("22:00", "08:00", "Europe/Atlantis")),
            ("quiet_hours.time_zone", quiet("22:00", "08:00", "")),
        ] {
            let failure = inward(&given).expect_err(field);
            assert_eq!(failure.violations[0].0, format!("preferences.{field}"), "{given:?}");
        }
    }

    #[test]
    fn what_is_set_is_shown_with_kinds_muted_everywhere_apart() {
        let given = wire::Preferences {
            muted_kinds: vec![LevelUp.into(), SignupL1.into(), LevelUp.into()],
            mutes: vec![
                wire::Mute { kind: SignupL1.into(), channel: String::new() },
                wire::Mute { kind: SignupL1.into(), channel: "slack".to_owned() },
                wire::Mute { kind: 0, channel: "email".to_owned() },
            ],
            ..quiet("22:05", "08:00", "Europe/Berlin")
        };
        let shown = outward(&inward(&given).expect("sound"));
        assert_eq!(shown.muted_kinds, [i32::from(SignupL1), i32::from(LevelUp)]);
        assert_eq!(shown.mutes, [given.mutes[2].clone(), given.mutes[1].clone()]);
        assert_eq!(shown.quiet_hours, given.quiet_hours);
        assert_eq!(outward(&inward(&shown).expect("sound")), shown);
        assert_eq!(outward(&Preferences::default()), wire::Preferences::default());
    }
}

//! What a recipient wants to hear of, on which channel, and when: asked before every attempt.

use chrono::{DateTime, Days, LocalResult, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::{channel::Channel, kind::Kind};

/// Minutes of a day.
const DAY_MINUTES: u32 = 24 * 60;

/// A recipient's wishes; whoever never said anything wants everything, at any time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// What is not to be sent, and where.
    pub mutes: Vec<Mute>,
    /// When nothing is to be sent.
    pub quiet_hours: Option<QuietHours>,
}

/// Something not to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub struct Mute {
    /// `None`: every kind but the money notices.
    pub kind: Option<Kind>,
    /// `None`: every channel.
    pub channel: Option<Channel>,
}

/// A mute as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    kind: Option<String>,
    channel: Option<String>,
}

impl From<Mute> for Stored {
    fn from(mute: Mute) -> Self {
        let kind = mute.kind.map(|kind| kind.as_str().to_owned());
        Self { kind, channel: mute.channel.map(|channel| channel.as_str().to_owned()) }
    }
}

impl TryFrom<Stored> for Mute {
    type Error = &'static str;

    /// An unknown name must not pass for "any".
    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let kind = stored.kind.map(|name| Kind::parse(&name).ok_or("unknown kind")).transpose()?;
        let channel = stored.channel.map(|name| Channel::parse(&name).ok_or("unknown channel")).transpose()?;
        Ok(Self { kind, channel })
    }
}

/// Mutes as they are stored; those of a newer version that this one doesn't know are left out.
pub fn stored_mutes(json: &serde_json::Value) -> Vec<Mute> {
    let items = json.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| Mute::deserialize(item).ok()).collect()
}

impl Preferences {
    /// Whether a notification of this kind is not to be sent over this channel.
    pub fn mutes(&self, kind: Kind, channel: Channel) -> bool {
        !kind.is_money()
            && self.mutes.iter().any(|mute| {
                mute.kind.is_none_or(|muted| muted == kind) && mute.channel.is_none_or(|muted| muted == channel)
            })
    }
}

/// Hours of the day in which nothing is to be sent, by the recipient's clock. Start and end differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietHours {
    /// The first quiet minute of the day, 0 to 1439.
    pub start_minute: u32,
    /// The first minute that isn't quiet any more, 0 to 1439; before the start: on the next day.
    pub end_minute: u32,
    /// Where the recipient's clock is.
    pub time_zone: Tz,
}

impl QuietHours {
    /// When they are over, if it is quiet now.
    ///
    /// The clock on the wall decides: an end that a change to summer time leaps over is the moment of the leap, and an hour that
    /// comes twice is quiet twice.
    pub fn end_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if !self.covers(now) {
            return None;
        }
        let today = now.with_timezone(&self.time_zone).date_naive();
        let end = NaiveTime::from_num_seconds_from_midnight_opt(self.end_minute.checked_mul(60)?, 0)?;
        // Another day later only where a leap takes away all that isn't quiet.
        (0..=2)
            .filter_map(|days| today.checked_add_days(Days::new(days)))
            .flat_map(|day| self.instants(day.and_time(end)))
            .find(|instant| *instant > now && !self.covers(*instant))
    }

    fn covers(&self, instant: DateTime<Utc>) -> bool {
        let clock = instant.with_timezone(&self.time_zone).time();
        let minute = clock.num_seconds_from_midnight().checked_div(60).unwrap_or_default();
        if self.start_minute < self.end_minute {
            (self.start_minute..self.end_minute).contains(&minute)
        } else {
            minute >= self.start_minute || minute < self.end_minute
        }
    }

    /// When the wall clock shows this: once, twice, or, if it leaps over it, when it has leapt.
    fn instants(&self, wall: NaiveDateTime) -> impl Iterator<Item = DateTime<Utc>> {
        let shown = |wall: NaiveDateTime| self.time_zone.from_local_datetime(&wall);
        let (first, second) = match shown(wall) {
            LocalResult::Single(once) => (Some(once), None),
            LocalResult::Ambiguous(first, second) => (Some(first), Some(second)),
            LocalResult::None => {
                let later = (1..=i64::from(DAY_MINUTES))
                    .filter_map(|minutes| wall.checked_add_signed(TimeDelta::try_minutes(minutes)?));
                (later.filter_map(|wall| shown(wall).earliest()).next(), None)
            }
        };
        first.into_iter().chain(second).map(|instant| instant.with_timezone(&Utc))
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::TZ_VARIANTS;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn quiet(start: u32, end: u32, time_zone: Tz) -> QuietHours {
        QuietHours { start_minute: start, end_minute: end, time_zone }
    }

    #[test]
    fn a_mute_counts_for_its_kind_and_its_channel() {
        let muted = |kind, channel| Preferences { mutes: vec![Mute { kind, channel }], ..Preferences::default() };
        let signups = muted(Some(Kind::SignupL1), None);
        assert!(signups.mutes(Kind::SignupL1, Channel::Email) && !signups.mutes(Kind::SignupL2, Channel::Email));
        let email = muted(None, Some(Channel::Email));
        assert!(email.mutes(Kind::LevelUp, Channel::Email) && !email.mutes(Kind::LevelUp, Channel::Slack));
        assert!(!Preferences::default().mutes(Kind::LevelUp, Channel::Log));
    }

    #[test]
    fn money_notices_are_never_muted() {
        for kind in Kind::ALL.iter().copied().filter(|kind| kind.is_money()) {
            for muted in [None, Some(kind)] {
                let mutes = vec![Mute { kind: muted, channel: None }];
                assert!(!Preferences { mutes, quiet_hours: None }.mutes(kind, Channel::Email), "{kind:?}");
            }
        }
        assert_eq!(Kind::ALL.iter().filter(|kind| kind.is_money()).count(), 4);
    }

    #[test]
    fn mutes_are_stored_by_name_and_unknown_names_are_no_wildcard() {
        let mutes =
            vec![Mute { kind: Some(Kind::LevelUp), channel: None }, Mute { kind: None, channel: Some(Channel::Email) }];
        let json = serde_json::json!([{"kind": "LEVEL_UP", "channel": null}, {"kind": null, "channel": "email"}]);
        assert_eq!(serde_json::to_value(&mutes).expect("json"), json);
        assert_eq!(stored_mutes(&json), mutes);
        assert_eq!(stored_mutes(&serde_json::json!([{"kind": "TELEPATHY", "channel": null}, {"kind": 7}, "x"])), []);
        assert_eq!(stored_mutes(&serde_json::json!({})), []);
    }

    #[test]
    fn quiet_nights_end_in_the_morning() {
        let night = quiet(22 * 60, 8 * 60, Tz::Europe__Moscow);
        for (now, end) in [
            ("2026-01-10T18:59:59Z", None),
            ("2026-01-10T19:00:00Z", Some("2026-01-11T05:00:00Z")),
            ("2026-01-11T04:59:59Z", Some("2026-01-11T05:00:00Z")),
            ("2026-01-11T05:00:00Z", None),
        ] {
            assert_eq!(night.end_after(at(now)), end.map(at), "{now}");
        }
        let siesta = quiet(13 * 60, 15 * 60, Tz::UTC);
        assert_eq!(siesta.end_after(at("2026-01-10T13:00:00Z")), Some(at("2026-01-10T15:00:00Z")));
        assert_eq!(siesta.end_after(at("2026-01-10T15:00:00Z")), None);
    }

    #[test]
    fn an_end_that_the_clock_leaps_over_is_the_leap() {
        // Berlin goes from 02:00 to 03:00 at 01:00 UTC.
        let night = quiet(22 * 60, 2 * 60 + 30, Tz::Europe__Berlin);
        assert_eq!(night.end_after(at("2026-03-29T00:10:00Z")), Some(at("2026-03-29T01:00:00Z")));
        // All that isn't quiet is leapt over: the next day, then.
        let nearly_all = quiet(2 * 60 + 45, 2 * 60 + 30, Tz::Europe__Berlin);
        assert_eq!(nearly_all.end_after(at("2026-03-28T23:00:00Z")), Some(at("2026-03-30T00:30:00Z")));
    }

    #[test]
    fn an_hour_that_comes_twice_is_quiet_twice() {
        // Berlin goes from 03:00 back to 02:00 at 01:00 UTC.
        let night = quiet(60, 2 * 60 + 30, Tz::Europe__Berlin);
        assert_eq!(night.end_after(at("2026-10-25T00:10:00Z")), Some(at("2026-10-25T00:30:00Z")));
        assert_eq!(night.end_after(at("2026-10-25T00:40:00Z")), None);
        assert_eq!(night.end_after(at("2026-10-25T01:10:00Z")), Some(at("2026-10-25T01:30:00Z")));
    }

    proptest! {
        #[test]
        fn the_end_is_ahead_near_and_not_quiet(
            zone in 0..TZ_VARIANTS.len(),
            start in 0..DAY_MINUTES,
            length in 1..DAY_MINUTES,
            // 2020 to 2040.
            second in 1_577_836_800_i64..2_208_988_800,
        ) {
            let hours = quiet(start, (start + length) % DAY_MINUTES, TZ_VARIANTS[zone]);
            let now = DateTime::from_timestamp(second, 0).expect("a time");
            match hours.end_after(now) {
                None => prop_assert!(!hours.covers(now)),
                Some(end) => {
                    prop_assert!(hours.covers(now) && !hours.covers(end));
                    // A day, and an hour that comes twice (in Troll two); a leap may take what isn't quiet away once.
                    let hours_max = if DAY_MINUTES - length > 120 { 26 } else { 50 };
                    prop_assert!(end > now && end - now <= TimeDelta::hours(hours_max), "{now} {end}");
                }
            }
        }

        #[test]
        fn nothing_overflows(start in 0..DAY_MINUTES, end in 0..DAY_MINUTES, zone in 0..TZ_VARIANTS.len()) {
            let hours = quiet(start, end, TZ_VARIANTS[zone]);
            for now in [DateTime::<Utc>::MIN_UTC + TimeDelta::days(3), DateTime::<Utc>::MAX_UTC - TimeDelta::days(3)] {
                let _ = hours.end_after(now);
            }
        }
    }
}

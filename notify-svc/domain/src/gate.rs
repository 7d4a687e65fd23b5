//! Gates: what a delivery has to pass besides time. A gate is closed by a limit that is used up, by a provider that asks for
//! a pause or fails, or by an operator; whatever it holds is parked on it, out of everybody else's way.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

use crate::{channel::Channel, retry::RETRY_AFTER_MAX};

/// A token bucket: `sends` per `per_ms`, up to `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many may pass in the time.
    pub sends: u32,
    /// The time, in milliseconds.
    pub per_ms: u32,
    /// How many may pass at once after a rest.
    pub burst: u32,
}

impl Rate {
    /// The time that one token takes to come back; rounded up, lest more pass than may.
    fn interval(&self) -> TimeDelta {
        let micros = u64::from(self.per_ms).saturating_mul(1000).div_ceil(u64::from(self.sends).max(1));
        TimeDelta::microseconds(i64::try_from(micros).unwrap_or(i64::MAX).max(1))
    }

    /// The time that an empty bucket takes to fill.
    fn capacity(&self) -> TimeDelta {
        self.interval().checked_mul(i32::try_from(self.burst).unwrap_or(i32::MAX)).unwrap_or(TimeDelta::MAX)
    }
}

/// When a provider that fails is left in peace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Failures in a row that it takes.
    pub failures: u32,
    /// And for how long, in milliseconds, there must have been nothing but failures: longer than the first retries wait.
    pub failing_ms: u32,
    /// The shortest time between two probes.
    pub pause_ms: u32,
    /// The longest.
    pub pause_max_ms: u32,
}

impl Breaker {
    /// The longer it has failed, the rarer it is asked.
    fn pause(&self, failing_for: TimeDelta) -> TimeDelta {
        let half = failing_for.checked_div(2).unwrap_or_default();
        half.clamp(
            TimeDelta::milliseconds(self.pause_ms.into()),
            TimeDelta::milliseconds(self.pause_max_ms.max(self.pause_ms).into()),
        )
    }
}

/// How long a probe may take before another one is sent.
const PROBE: TimeDelta = TimeDelta::seconds(15);

/// What an attempt tells of the provider, whatever became of the notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Alive,
    /// It doesn't answer, or says that it can't.
    Failing,
    /// It refuses us: our set-up is wrong.
    Refusing,
    /// Nothing.
    Unknown,
}

/// What a gate remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// When the bucket will be full again (GCRA's theoretical arrival time).
    pub full_time: DateTime<Utc>,
    /// Nothing passes before.
    pub closed_until: DateTime<Utc>,
    /// Failures in a row.
    pub failure_count: u32,
    /// Since when there have been nothing but failures.
    pub failing_since: Option<DateTime<Utc>>,
    /// Whether only probes pass, one at a time.
    pub tripped: bool,
    /// Why it is closed.
    pub reason: String,
    /// Whether deliveries are parked on it.
    pub waiting: bool,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            full_time: DateTime::UNIX_EPOCH,
            closed_until: DateTime::UNIX_EPOCH,
            failure_count: 0,
            failing_since: None,
            tripped: false,
            reason: String::new(),
            waiting: false,
        }
    }
}

impl Gate {
    /// How many may pass now.
    pub fn room(&self, now: DateTime<Utc>, rate: Option<&Rate>) -> u32 {
        if now < self.closed_until {
            return 0;
        }
        let by_rate = rate.map_or(u32::MAX, |rate| {
            let used = self.full_time.signed_duration_since(now).max(TimeDelta::zero());
            let free = rate.capacity().checked_sub(&used).unwrap_or_default().num_microseconds().unwrap_or(i64::MAX);
            let each = rate.interval().num_microseconds().unwrap_or(i64::MAX);
            u32::try_from(free.checked_div(each).unwrap_or_default()).unwrap_or_default()
        });
        if self.tripped { by_rate.min(1) } else { by_rate }
    }

    /// When the next may pass; not after `now` if it may now.
    pub fn open_time(&self, now: DateTime<Utc>, rate: Option<&Rate>) -> DateTime<Utc> {
        let refilled = rate.map_or(now, |rate| {
            let spare = rate.capacity().checked_sub(&rate.interval()).unwrap_or_default();
            self.full_time.checked_sub_signed(spare).unwrap_or(now)
        });
        self.closed_until.max(refilled)
    }

    /// One passes; `room` has said that it may.
    pub fn pass(&mut self, now: DateTime<Utc>, rate: Option<&Rate>) {
        if let Some(rate) = rate {
            self.full_time = later(self.full_time.max(now), rate.interval());
        }
        if self.tripped {
            self.closed_until = self.closed_until.max(later(now, PROBE));
        }
    }

    /// Nothing passes for a while: the provider asked for it.
    pub fn pause(&mut self, now: DateTime<Utc>, pause: Duration, reason: &str) {
        let until = later(now, TimeDelta::from_std(pause.min(RETRY_AFTER_MAX)).unwrap_or(TimeDelta::MAX));
        if until > self.closed_until {
            self.closed_until = until;
            reason.clone_into(&mut self.reason);
        }
    }

    /// Takes in what an attempt has told of the provider.
    pub fn heard(&mut self, now: DateTime<Utc>, health: Health, reason: &str, breaker: &Breaker) {
        match health {
            Health::Unknown => {}
            Health::Alive => {
                if self.tripped {
                    self.closed_until = now;
                    self.reason.clear();
                }
                (self.failure_count, self.failing_since, self.tripped) = (0, None, false);
            }
            Health::Failing | Health::Refusing => {
                self.failure_count = self.failure_count.saturating_add(1);
                let since = *self.failing_since.get_or_insert(now);
                let failing_for = now.signed_duration_since(since);
                let long = failing_for >= TimeDelta::milliseconds(breaker.failing_ms.into());
                let enough = self.failure_count >= breaker.failures && long;
                if self.tripped || enough || health == Health::Refusing {
                    let until = later(now, breaker.pause(failing_for));
                    // A probe that has failed needs no more time; a pause that the provider asked for stays.
                    self.closed_until = if self.tripped { until } else { self.closed_until.max(until) };
                    self.tripped = true;
                    reason.clone_into(&mut self.reason);
                }
            }
        }
    }
}

fn later(time: DateTime<Utc>, by: TimeDelta) -> DateTime<Utc> {
    time.checked_add_signed(by).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// What a gate stands in front of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A whole channel: only operators close it.
    Channel,
    /// The bot's token, the mail server, Slack.
    Provider,
    /// The host of a webhook, the domain of an e-mail address.
    Domain,
    /// One address.
    Recipient,
}

/// A gate by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateKey {
    /// What it stands in front of.
    pub scope: Scope,
    /// The channel.
    pub channel: Channel,
    /// "channel/telegram", "domain/webhook/example.org".
    pub name: String,
}

impl GateKey {
    /// The gate that operators close.
    pub fn channel(channel: Channel) -> Self {
        Self { scope: Scope::Channel, channel, name: format!("channel/{}", channel.as_str()) }
    }

    /// A gate by its stored name; `None` if there is no such.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '/');
        let scope = match parts.next()? {
            "channel" => Scope::Channel,
            "provider" => Scope::Provider,
            "domain" => Scope::Domain,
            "recipient" => Scope::Recipient,
            _ => return None,
        };
        let channel = Channel::parse(parts.next()?)?;
        Some(Self { scope, channel, name: name.to_owned() })
    }
}

/// The gates that deliveries to one address have to pass. `digest` stands for the address, which may be long and personal.
pub fn keys(channel: Channel, address: &str, digest: &str) -> Vec<GateKey> {
    let key = |scope, name| GateKey { scope, channel, name };
    let name = channel.as_str();
    let provider = || key(Scope::Provider, format!("provider/{name}"));
    let domain = |host: &str| key(Scope::Domain, format!("domain/{name}/{}", bounded(host)));
    let mut keys = vec![GateKey::channel(channel)];
    match channel {
        Channel::Log => return keys,
        Channel::Telegram | Channel::Slack => keys.push(provider()),
        Channel::Email => {
            let host = address.rsplit_once('@').map_or("", |(_, host)| host);
            keys.extend([provider(), domain(host)]);
        }
        Channel::Webhook => keys.push(domain(authority(address))),
    }
    keys.push(key(Scope::Recipient, format!("recipient/{name}/{digest}")));
    keys
}

/// The gate that an attempt's health concerns: what all deliveries that could fail the same way share.
pub fn health_key(keys: &[GateKey]) -> Option<&GateKey> {
    let scope = |scope| keys.iter().find(|key| key.scope == scope);
    scope(Scope::Provider).or_else(|| scope(Scope::Domain))
}

/// A URL's host with its port, if it names one.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

fn bounded(name: &str) -> String {
    name.chars().take(64).collect::<String>().to_lowercase()
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;

//! Configuration: one environment variable a field, checked before anything starts.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, bail};
use chrono::TimeDelta;
use clap::Parser;
use referral_domain::{payment::Method, plan::Plan, ton::raw_address};
use reqwest::Url;
use service::{database::DatabaseConfig, http::Listen};
use tonic::transport::Endpoint;

use crate::{app::Signer, store::clock::Clock, verify::TonSettings};

/// Where HTTP is unless that is set or taken.
pub const HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50061);
const POOL_SIZE: usize = 16;
const BATCH_MAX: u16 = 500;
const NOTIFY_URL: &str = "http://127.0.0.1:50052";
const PAYMENT_METHODS: &str = "manual";
const LEDGER_CHECK_INTERVAL_MINUTES: u64 = 60;
const TON_API_URL: &str = "https://tonapi.io";
/// 1 %.
const TON_TOLERANCE_BPS: u16 = 100;
const TON_RATE_MAX_AGE_SECONDS: u32 = 600;
/// A week.
const LEDGER_CHECK_INTERVAL_MINUTES_MAX: u64 = 7 * 24 * 60;

/// P2PHub's referral service: partners, payments and the ledger, over gRPC.
#[derive(Parser, Clone)]
#[command(name = "referral-svc", version, after_help = service::telemetry::ENVIRONMENT_HELP)]
pub struct Config {
    /// Where to listen for gRPC.
    #[arg(long, env = "REFERRAL_LISTEN", default_value = "127.0.0.1:50051", value_name = "REFERRAL_LISTEN")]
    pub listen: SocketAddr,
    /// Where to listen for HTTP: /livez, /readyz, /metrics, /log-level. [default: 127.0.0.1:50061, or any free port on
    /// loopback if that is taken]
    #[arg(long, env = "REFERRAL_HTTP_LISTEN", value_name = "REFERRAL_HTTP_LISTEN")]
    pub http_listen: Option<SocketAddr>,
    /// The service's own database, as the role that serves: postgres://user@host:port/name. Required.
    #[arg(long, env = "REFERRAL_DATABASE_URL", hide_env_values = true, value_name = "REFERRAL_DATABASE_URL")]
    pub database_url: Option<String>,
    /// The same database, as the role that migrates. [default: REFERRAL_DATABASE_URL]
    #[arg(long, env = "REFERRAL_MIGRATION_URL", hide_env_values = true, value_name = "REFERRAL_MIGRATION_URL")]
    pub migration_url: Option<String>,
    /// How many database connections at most.
    #[arg(long, env = "REFERRAL_POOL_SIZE", default_value_t = POOL_SIZE, value_parser = pool_size, value_name = "REFERRAL_POOL_SIZE")]
    pub pool_size: usize,
    /// How many commands one transaction takes at most, 1 to 500; 1 to see what batches are worth.
    #[arg(
        long,
        env = "REFERRAL_BATCH_MAX",
        default_value_t = BATCH_MAX,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(BATCH_MAX)),
        value_name = "REFERRAL_BATCH_MAX"
    )]
    pub batch_max: u16,
    /// Where notify-svc listens.
    #[arg(long, env = "NOTIFY_URL", default_value = NOTIFY_URL, value_name = "NOTIFY_URL")]
    pub notify_url: String,
    /// A JSON file with the plan: rates, XP, price, durations. [default: the built-in plan]
    #[arg(long, env = "PLAN_FILE", value_name = "PLAN_FILE")]
    pub plan_file: Option<PathBuf>,
    /// Which payment methods are open, separated by commas: trusted, manual, ton; empty: none.
    #[arg(long, env = "PAYMENT_METHODS", default_value = PAYMENT_METHODS, value_name = "PAYMENT_METHODS")]
    pub payment_methods: String,
    /// Minutes between two checks of the books; 0: only when an operator asks.
    #[arg(
        long,
        env = "LEDGER_CHECK_INTERVAL_MINUTES",
        default_value_t = LEDGER_CHECK_INTERVAL_MINUTES,
        value_parser = clap::value_parser!(u64).range(0..=LEDGER_CHECK_INTERVAL_MINUTES_MAX),
        value_name = "LEDGER_CHECK_INTERVAL_MINUTES"
    )]
    pub ledger_check_interval_minutes: u64,
    /// The account that payments in TON go to; required if PAYMENT_METHODS has ton.
    #[arg(long, env = "TON_ADDRESS", value_name = "TON_ADDRESS")]
    pub ton_address: Option<String>,
    /// Where to ask for transactions and for the rate of TON: an endpoint that is compatible with TonAPI.
    #[arg(long, env = "TON_API_URL", default_value = TON_API_URL, value_name = "TON_API_URL")]
    pub ton_api_url: String,
    /// The key for it; a secret. [default: none]
    #[arg(long, env = "TON_API_KEY", hide_env_values = true, value_name = "TON_API_KEY")]
    pub ton_api_key: Option<String>,
    /// By how much an amount in TON may differ from what was asked, either way, in hundredths of a percent, 1000 at most.
    #[arg(long, env = "TON_TOLERANCE_BPS", default_value_t = TON_TOLERANCE_BPS, value_parser = clap::value_parser!(u16).range(0..=1000),
        value_name = "TON_TOLERANCE_BPS")]
    pub ton_tolerance_bps: u16,
    /// How old the rate may be that a payment in TON is opened with, in seconds.
    #[arg(long, env = "TON_RATE_MAX_AGE_SECONDS", default_value_t = TON_RATE_MAX_AGE_SECONDS,
        value_parser = clap::value_parser!(u32).range(60..=86_400), value_name = "TON_RATE_MAX_AGE_SECONDS")]
    pub ton_rate_max_age_seconds: u32,
    /// 32 random bytes in hex or base64: the key that exported heads of the audit chains are signed with. Unset: none are.
    #[arg(long, env = "AUDIT_SIGNING_KEY", hide_env_values = true, value_name = "AUDIT_SIGNING_KEY")]
    pub audit_signing_key: Option<String>,
    /// Shifts the time, for tests.
    #[arg(skip)]
    pub clock: Clock,
}

fn pool_size(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|size| (4..=1000).contains(size)).ok_or_else(|| "must be 4 to 1000".to_owned())
}

impl Config {
    /// The defaults, whatever the environment says, with a database, and any free port for HTTP; then fields are set.
    pub fn new(database_url: impl Into<String>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            http_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            database_url: Some(database_url.into()),
            migration_url: None,
            pool_size: POOL_SIZE,
            batch_max: BATCH_MAX,
            notify_url: NOTIFY_URL.to_owned(),
            plan_file: None,
            payment_methods: PAYMENT_METHODS.to_owned(),
            ledger_check_interval_minutes: LEDGER_CHECK_INTERVAL_MINUTES,
            ton_address: None,
            ton_api_url: TON_API_URL.to_owned(),
            ton_api_key: None,
            ton_tolerance_bps: TON_TOLERANCE_BPS,
            ton_rate_max_age_seconds: TON_RATE_MAX_AGE_SECONDS,
            audit_signing_key: None,
            clock: Clock::default(),
        }
    }

    pub(crate) fn database(&self) -> anyhow::Result<DatabaseConfig> {
        let url = self.database_url.clone().filter(|url| !url.is_empty());
        Ok(DatabaseConfig {
            url: url.context("REFERRAL_DATABASE_URL is not set: the service needs a PostgreSQL database of its own")?,
            migration_url: self.migration_url.clone().filter(|url| !url.is_empty()),
            pool_size: self.pool_size,
        })
    }

    pub(crate) fn http(&self) -> Listen {
        Listen { given: self.http_listen, default: HTTP_LISTEN, variable: "REFERRAL_HTTP_LISTEN", grpc: self.listen }
    }

    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        let Some(file) = &self.plan_file else {
            return Ok(Plan::built_in());
        };
        let name = file.display();
        let json = std::fs::read_to_string(file).with_context(|| format!("PLAN_FILE: can't read {name}"))?;
        Plan::from_json(&json).with_context(|| format!("PLAN_FILE: {name}"))
    }

    pub(crate) fn methods(&self) -> anyhow::Result<Vec<Method>> {
        let names = self.payment_methods.split(',').map(str::trim).filter(|name| !name.is_empty());
        names
            .map(|name| match Method::from_name(name) {
                Some(method) => Ok(method),
                None => bail!("PAYMENT_METHODS: {name:?} is not one of trusted, manual, ton"),
            })
            .collect()
    }

    /// None: no payment in TON can be opened or verified.
    pub(crate) fn ton(&self, methods: &[Method]) -> anyhow::Result<Option<TonSettings>> {
        let Some(address) = self.ton_address.as_deref().filter(|address| !address.is_empty()) else {
            if methods.contains(&Method::Ton) {
                bail!("TON_ADDRESS is not set: payments in TON (PAYMENT_METHODS) need an account");
            }
            return Ok(None);
        };
        let api_url = Url::parse(&self.ton_api_url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .context("TON_API_URL: must be an http or https URL, such as https://tonapi.io")?;
        Ok(Some(TonSettings {
            address: raw_address(address).context("TON_ADDRESS")?,
            api_url,
            api_key: self.ton_api_key.clone().filter(|key| !key.is_empty()),
            tolerance_bps: self.ton_tolerance_bps,
            rate_max_age: TimeDelta::seconds(i64::from(self.ton_rate_max_age_seconds)),
        }))
    }

    /// None: heads aren't exported.
    pub(crate) fn signer(&self) -> anyhow::Result<Option<Signer>> {
        let key = self.audit_signing_key.as_deref().map(str::trim).filter(|key| !key.is_empty());
        key.map(|key| Signer::from_text(key).context("AUDIT_SIGNING_KEY: must be 32 bytes in hex or base64"))
            .transpose()
    }

    /// None: never.
    pub(crate) fn ledger_check_every(&self) -> Option<Duration> {
        let minutes = self.ledger_check_interval_minutes;
        (minutes > 0).then(|| Duration::from_secs(minutes * 60))
    }

    pub(crate) fn notify(&self) -> anyhow::Result<Endpoint> {
        let endpoint = Endpoint::from_shared(self.notify_url.clone())
            .ok()
            .filter(|endpoint| endpoint.uri().scheme_str() == Some("http") && endpoint.uri().host().is_some())
            .context("NOTIFY_URL: must be an http URL, such as http://127.0.0.1:50052")?;
        let patience = Duration::from_secs(5);
        Ok(endpoint
            .connect_timeout(patience)
            .http2_keep_alive_interval(patience)
            .keep_alive_timeout(patience)
            .keep_alive_while_idle(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_are_checked_every_hour_or_never() {
        let mut config = Config::new("postgres://nobody@localhost/nothing");
        assert_eq!(config.ledger_check_every(), Some(Duration::from_secs(3600)));
        config.ledger_check_interval_minutes = 0;
        assert_eq!(config.ledger_check_every(), None);
    }
}

//! Configuration: environment variables (or flags), their defaults, and what is refused.

use std::{
    convert::Infallible,
    fmt, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, builder::NonEmptyStringValueParser};
use notify_domain::policy::Policy;
use service::{database::DatabaseConfig, http::Listen, telemetry};
use tonic::transport::Endpoint;

const LISTEN: &str = "127.0.0.1:50052";
/// Where HTTP is unless that is set or taken
pub const HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50062);
const POOL_SIZE: u16 = 16;
const TELEGRAM_API_URL: &str = "https://api.telegram.org";
const SMTP_FROM: &str = "P2PHub <no-reply@localhost>";
/// Sends only wait for their servers: many at once, so that some that hang delay nobody else.
const WORKERS: u16 = 128;

/// Takes requests to notify someone over a gRPC stream, and gets each one to its recipient.
#[derive(Clone, Parser)]
#[command(name = "notify-svc", version, after_help = telemetry::ENVIRONMENT_HELP)]
pub struct Config {
    /// Where to listen
    #[arg(long, env = "NOTIFY_LISTEN", value_name = "NOTIFY_LISTEN", default_value = LISTEN, hide_env = true)]
    pub listen: SocketAddr,

    /// Where to listen for HTTP: /livez, /readyz, /metrics, /log-level [default: 127.0.0.1:50062, or any free port on
    /// loopback if that is taken]
    #[arg(long, env = "NOTIFY_HTTP_LISTEN", value_name = "NOTIFY_HTTP_LISTEN", hide_env = true)]
    pub http_listen: Option<SocketAddr>,

    /// Where referral-svc listens, such as http://127.0.0.1:50051, for /readyz to report on it [default: it reports
    /// nothing of it]
    #[arg(long, env = "REFERRAL_URL", value_name = "REFERRAL_URL", hide_env = true)]
    pub referral_url: Option<String>,

    /// PostgreSQL, as the role that serves; required
    #[arg(long, env = "NOTIFY_DATABASE_URL", value_name = "NOTIFY_DATABASE_URL", hide_env = true)]
    pub database_url: Option<String>,

    /// The same database, as the role that migrates [default: the database URL]
    #[arg(long, env = "NOTIFY_MIGRATION_URL", value_name = "NOTIFY_MIGRATION_URL", hide_env = true)]
    pub migration_url: Option<String>,

    /// Connections to PostgreSQL for calls, 2 to 1000; the stream and the dispatcher have their own
    #[arg(long, env = "NOTIFY_POOL_SIZE", value_name = "NOTIFY_POOL_SIZE", hide_env = true,
          default_value_t = POOL_SIZE, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub pool_size: u16,

    /// Sends at once, 1 to 1000
    #[arg(long, env = "NOTIFY_WORKERS", value_name = "NOTIFY_WORKERS", hide_env = true,
          default_value_t = WORKERS, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub workers: u16,

    /// Whether the channel `log` writes texts too, which name people: true or false
    #[arg(long, env = "NOTIFY_LOG_TEXT", value_name = "NOTIFY_LOG_TEXT", hide_env = true,
          default_value_t = false, action = clap::ArgAction::Set)]
    pub log_text: bool,

    /// The bot that sends over Telegram; unset: that channel is off
    #[arg(long, env = "TELEGRAM_BOT_TOKEN", value_name = "TELEGRAM_BOT_TOKEN", hide_env = true)]
    pub telegram_bot_token: Option<String>,

    /// Where Telegram's Bot API is
    #[arg(long, env = "TELEGRAM_API_URL", value_name = "TELEGRAM_API_URL", hide_env = true,
          default_value = TELEGRAM_API_URL, value_parser = NonEmptyStringValueParser::new())]
    pub telegram_api_url: String,

    /// Signs webhooks: whsec_ and 24 to 64 bytes in base64; while the secret is being changed two of them with a space
    /// between, and each webhook carries both signatures; unset: that channel is off
    #[arg(long, env = "WEBHOOK_SIGNING_SECRET", value_name = "WEBHOOK_SIGNING_SECRET", hide_env = true)]
    pub webhook_signing_secret: Option<String>,

    /// Which private addresses webhooks may go to: none, loopback, or all [default: loopback if the service itself
    /// listens on loopback, else none]
    #[arg(long, env = "WEBHOOK_PRIVATE_TARGETS", value_name = "WEBHOOK_PRIVATE_TARGETS", hide_env = true)]
    pub webhook_private_targets: Option<String>,

    /// The server that sends e-mail: smtps://user:password@host:465 (implicit TLS) or smtp://host:587 (STARTTLS; with
    /// ?tls=opportunistic if offered, with ?tls=none never; on loopback opportunistic is the default); unset: that channel is
    /// off
    #[arg(long, env = "SMTP_URL", value_name = "SMTP_URL", hide_env = true)]
    pub smtp_url: Option<String>,

    /// Who e-mail comes from: an address, or a name and an address
    #[arg(long, env = "SMTP_FROM", value_name = "SMTP_FROM", hide_env = true,
          default_value = SMTP_FROM, value_parser = NonEmptyStringValueParser::new())]
    pub smtp_from: String,

    /// A file of PEM certificates that the SMTP server's may be signed by, besides those that the system trusts
    #[arg(long, env = "SMTP_CA_FILE", value_name = "SMTP_CA_FILE", hide_env = true, value_parser = path)]
    pub smtp_ca_file: Option<PathBuf>,

    /// Where one click on "unsubscribe" in an e-mail goes: an https URL, to which ?token=… is added; whatever serves it
    /// hands the token to NotificationService.Unsubscribe [default: none, a mailto: to SMTP_FROM]
    #[arg(long, env = "UNSUBSCRIBE_URL", value_name = "UNSUBSCRIBE_URL", hide_env = true)]
    pub unsubscribe_url: Option<String>,

    /// Where Slack's webhooks are, https://hooks.slack.com; unset: that channel is off
    #[arg(long, env = "SLACK_API_URL", value_name = "SLACK_API_URL", hide_env = true)]
    pub slack_api_url: Option<String>,

    /// Where people manage their account: buttons lead below it [default: none, no buttons]
    #[arg(long, env = "NOTIFY_APP_URL", value_name = "NOTIFY_APP_URL", hide_env = true)]
    pub app_url: Option<String>,

    /// Retries, lanes, lifetimes and limits, as JSON like the built-in policy.json [default: that]
    #[arg(long, env = "DELIVERY_POLICY_FILE", value_name = "DELIVERY_POLICY_FILE", hide_env = true, value_parser = path)]
    pub delivery_policy_file: Option<PathBuf>,
}

/// Any text, an empty one too: that counts as unset.
fn path(text: &str) -> Result<PathBuf, Infallible> {
    Ok(PathBuf::from(text))
}

impl Config {
    /// The defaults, on a database, and any free port for HTTP.
    pub fn new(database_url: impl Into<String>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50052)),
            http_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            referral_url: None,
            database_url: Some(database_url.into()),
            migration_url: None,
            pool_size: POOL_SIZE,
            workers: WORKERS,
            log_text: false,
            telegram_bot_token: None,
            telegram_api_url: TELEGRAM_API_URL.to_owned(),
            webhook_signing_secret: None,
            webhook_private_targets: None,
            smtp_url: None,
            smtp_from: SMTP_FROM.to_owned(),
            smtp_ca_file: None,
            unsubscribe_url: None,
            slack_api_url: None,
            app_url: None,
            delivery_policy_file: None,
        }
    }

    /// Checked; a variable that is set but empty counts as unset.
    pub(crate) fn checked(mut self) -> anyhow::Result<Self> {
        for value in [
            &mut self.referral_url,
            &mut self.database_url,
            &mut self.migration_url,
            &mut self.telegram_bot_token,
            &mut self.webhook_signing_secret,
            &mut self.webhook_private_targets,
            &mut self.smtp_url,
            &mut self.unsubscribe_url,
            &mut self.slack_api_url,
            &mut self.app_url,
        ] {
            *value = value.take().filter(|text| !text.is_empty());
        }
        for value in [&mut self.smtp_ca_file, &mut self.delivery_policy_file] {
            *value = value.take().filter(|path| !path.as_os_str().is_empty());
        }
        Ok(self)
    }

    /// The delivery policy: the file's, or the built-in one.
    pub(crate) fn policy(&self) -> anyhow::Result<Policy> {
        let Some(file) = &self.delivery_policy_file else {
            return Ok(Policy::builtin());
        };
        let json = fs::read_to_string(file)
            .with_context(|| format!("DELIVERY_POLICY_FILE: {} can't be read", file.display()))?;
        Policy::parse(&json).with_context(|| format!("DELIVERY_POLICY_FILE: {} makes no sense", file.display()))
    }

    pub(crate) fn http(&self) -> Listen {
        Listen { given: self.http_listen, default: HTTP_LISTEN, variable: "NOTIFY_HTTP_LISTEN", grpc: self.listen }
    }

    /// referral-svc, if it is known where that is.
    pub(crate) fn referral(&self) -> anyhow::Result<Option<Endpoint>> {
        let Some(url) = self.referral_url.clone() else { return Ok(None) };
        let endpoint = Endpoint::from_shared(url)
            .ok()
            .filter(|endpoint| endpoint.uri().scheme_str() == Some("http") && endpoint.uri().host().is_some())
            .context("REFERRAL_URL: must be an http URL, such as http://127.0.0.1:50051")?;
        let patience = Duration::from_secs(5);
        Ok(Some(endpoint.http2_keep_alive_interval(patience).keep_alive_timeout(patience).keep_alive_while_idle(true)))
    }

    pub(crate) fn database(&self) -> anyhow::Result<DatabaseConfig> {
        let url =
            self.database_url.clone().context("NOTIFY_DATABASE_URL is not set: there is no database to work on")?;
        Ok(DatabaseConfig { url, migration_url: self.migration_url.clone(), pool_size: self.pool_size.into() })
    }
}

/// Without URLs of databases, tokens and secrets.
impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("listen", &self.listen)
            .field("pool_size", &self.pool_size)
            .field("workers", &self.workers)
            .field("log_text", &self.log_text)
            .field("telegram", &self.telegram_bot_token.is_some())
            .field("telegram_api_url", &self.telegram_api_url)
            .field("webhook", &self.webhook_signing_secret.is_some())
            .field("email", &self.smtp_url.is_some())
            .field("slack", &self.slack_api_url.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_its_help_names_every_variable() {
        let mut command = Config::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        let variables = [
            "NOTIFY_LISTEN",
            "NOTIFY_HTTP_LISTEN",
            "REFERRAL_URL",
            "NOTIFY_DATABASE_URL",
            "NOTIFY_MIGRATION_URL",
            "NOTIFY_POOL_SIZE",
            "NOTIFY_WORKERS",
            "NOTIFY_LOG_TEXT",
            "TELEGRAM_BOT_TOKEN",
            "TELEGRAM_API_URL",
            "WEBHOOK_SIGNING_SECRET",
            "WEBHOOK_PRIVATE_TARGETS",
            "SMTP_URL",
            "SMTP_FROM",
            "SMTP_CA_FILE",
            "UNSUBSCRIBE_URL",
            "SLACK_API_URL",
            "NOTIFY_APP_URL",
            "DELIVERY_POLICY_FILE",
            "OTEL_",
            "SENTRY_DSN",
            "SENTRY_ENVIRONMENT",
            "SENTRY_TRACES_SAMPLE_RATE",
            "RUST_LOG",
            "LOG_FORMAT",
        ];
        for variable in variables {
            assert!(help.contains(variable), "{variable}");
        }
    }

    #[test]
    fn defaults_are_the_same_by_hand_and_by_command_line() {
        let parsed = Config::try_parse_from(["notify-svc", "--database-url", "postgres://x"]).expect("parsed");
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::new("postgres://x")));
    }

    #[test]
    fn a_malformed_value_is_named() {
        let error = Config::try_parse_from(["notify-svc", "--workers", "many"]).expect_err("refused").to_string();
        assert!(error.contains("NOTIFY_WORKERS"), "{error}");
    }

    #[test]
    fn no_database_is_an_error_that_names_the_variable() {
        let config = Config::new("").checked().expect("sound");
        let error = config.database().map(drop).expect_err("refused").to_string();
        assert!(error.contains("NOTIFY_DATABASE_URL"), "{error}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut config = Config::new("postgres://user:hidden@x/y");
        config.telegram_bot_token = Some("hidden".to_owned());
        config.webhook_signing_secret = Some("hidden".to_owned());
        config.smtp_url = Some("smtps://user:hidden@x".to_owned());
        assert!(!format!("{config:?}").contains("hidden"));
    }
}

//! What the local pair is told by its command line and environment: its own data directory, and all that each service reads.

use std::{
    env,
    fmt::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, error::ContextKind};
use nix::unistd::{User, geteuid};

/// What the local pair opens unless `PAYMENT_METHODS` says otherwise.
pub(crate) const LOCAL_PAYMENT_METHODS: &str = "trusted,manual";

/// P2PHub's referral pair on this machine: both services and, unless they are given databases, a private PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "p2phub", version)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    own: Own,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs both services until Ctrl-C or SIGTERM (what happens without a command, too)
    Run,
    /// Plays a chain of ten people and one sale on a throw-away database, and checks every figure
    Demo,
}

#[derive(Args, Debug)]
struct Own {
    /// Where the private PostgreSQL keeps its data [default: p2phub under $XDG_DATA_HOME or ~/.local/share]
    #[arg(env = "P2PHUB_DATA_DIR", long, global = true, hide_env_values = true)]
    data_dir: Option<PathBuf>,
}

/// What to do.
pub(crate) enum Task {
    Run { data_dir: Option<PathBuf> },
    Demo,
}

/// What `run` needs to know.
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) referral: referral_svc::Config,
    pub(crate) notify: notify_svc::Config,
    /// Unless it is set, referral-svc is told where notify-svc really listens.
    pub(crate) notify_url_given: bool,
}

impl Task {
    /// Reads the command line; `--help` and mistakes end the process here.
    pub(crate) fn from_command_line() -> Self {
        let matches = Cli::command().after_help(variables()).get_matches();
        let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        match cli.verb.unwrap_or(Verb::Run) {
            Verb::Run => Self::Run { data_dir: cli.own.data_dir },
            Verb::Demo => Self::Demo,
        }
    }
}

impl Settings {
    /// Reads the environment.
    pub(crate) fn read(data_dir: Option<PathBuf>) -> anyhow::Result<Self> {
        let mut settings = Self {
            data_dir: data_dir.map_or_else(default_data_dir, Ok)?,
            referral: referral_from_environment()?,
            notify: notify_from_environment()?,
            notify_url_given: is_set("NOTIFY_URL"),
        };
        ensure_free(settings.referral.listen, "REFERRAL_LISTEN")?;
        ensure_free(settings.notify.listen, "NOTIFY_LISTEN")?;
        let (referral, notify) = (&mut settings.referral, &mut settings.notify);
        for (http, variable, default, others) in [
            (&mut referral.http_listen, "REFERRAL_HTTP_LISTEN", referral_svc::HTTP_LISTEN, notify.listen),
            (&mut notify.http_listen, "NOTIFY_HTTP_LISTEN", notify_svc::HTTP_LISTEN, referral.listen),
        ] {
            match *http {
                Some(address) => ensure_free(address, variable)?,
                // A default takes nothing that the other service was given.
                None if others.port() == default.port() => *http = Some((Ipv4Addr::LOCALHOST, 0).into()),
                None => {}
            }
        }
        Ok(settings)
    }
}

/// referral-svc's settings, with the payment methods that the local pair opens.
fn referral_from_environment() -> anyhow::Result<referral_svc::Config> {
    let mut config: referral_svc::Config = from_environment()?;
    if !is_set("PAYMENT_METHODS") {
        config.payment_methods = LOCAL_PAYMENT_METHODS.to_owned();
    }
    config.database_url = config.database_url.filter(|url| !url.is_empty());
    config.audit_signing_key = config.audit_signing_key.filter(|key| !key.is_empty());
    Ok(config)
}

/// notify-svc's settings; the local pair's log shows the texts.
fn notify_from_environment() -> anyhow::Result<notify_svc::Config> {
    let mut config: notify_svc::Config = from_environment()?;
    config.log_text = config.log_text || !is_set("NOTIFY_LOG_TEXT");
    config.database_url = config.database_url.filter(|url| !url.is_empty());
    Ok(config)
}

/// A service's settings from its variables alone; a malformed one is named.
fn from_environment<C: Parser>() -> anyhow::Result<C> {
    let mut command = C::command();
    command.build();
    C::try_parse_from([command.get_name()]).map_err(|error| {
        let text = error.to_string();
        let text = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").trim();
        let flag = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
        let variable = command.get_arguments().find(|argument| argument.to_string() == flag);
        match variable.and_then(|argument| argument.get_env()) {
            Some(variable) => anyhow::anyhow!("{}: {text}", variable.to_string_lossy()),
            None => anyhow::anyhow!("{text}"),
        }
    })
}

fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some()
}

/// Finds a taken port before anything else is started.
fn ensure_free(address: SocketAddr, variable: &str) -> anyhow::Result<()> {
    TcpListener::bind(address).map(drop).with_context(|| {
        format!("can't listen on {address}; stop what listens there, or set {variable} to another address")
    })
}

fn default_data_dir() -> anyhow::Result<PathBuf> {
    let given = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(data) = given("XDG_DATA_HOME") {
        return Ok(data.join("p2phub"));
    }
    let home = match given("HOME") {
        Some(home) => Some(home),
        None => User::from_uid(geteuid())?.map(|user| user.dir),
    };
    let home = home.context("there is no home directory to keep data in: set P2PHUB_DATA_DIR")?;
    Ok(home.join(Path::new(".local/share/p2phub")))
}

/// The part of `--help` about the services' variables, made from their own definitions.
fn variables() -> String {
    let mut text = String::from("Environment variables:\n");
    let own = [("PG_BIN_DIR", "Directory of the programs initdb and postgres [default: the newest installed version]")];
    for (name, help) in own {
        let _ = writeln!(text, "  {name}\n          {help}");
    }
    for (title, command) in [
        ("Read by referral-svc:", referral_svc::Config::command()),
        ("Read by notify-svc:", notify_svc::Config::command()),
    ] {
        let _ = write!(text, "\n{title}\n{}", variables_of(&command));
    }
    let _ = write!(text, "\n{}", service::telemetry::ENVIRONMENT_HELP);
    text
}

fn http_default(address: SocketAddr) -> String {
    format!(" [default: {address}, or any free port on loopback if that is taken]")
}

fn variables_of(command: &Command) -> String {
    let mut text = String::new();
    for argument in command.get_arguments() {
        let Some(name) = argument.get_env().and_then(|name| name.to_str()) else {
            continue;
        };
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.split(" [default:").next().unwrap_or_default();
        // What each service needs alone the local pair provides.
        let help = help.trim_end_matches("Required").trim_end_matches("; required").trim_end_matches([' ', '.']);
        let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = match name {
            "PAYMENT_METHODS" => format!(" [default: {LOCAL_PAYMENT_METHODS}]"),
            "NOTIFY_LOG_TEXT" => " [default: true]".to_owned(),
            "NOTIFY_URL" => " [default: where notify-svc listens]".to_owned(),
            "REFERRAL_URL" => " [default: where referral-svc listens]".to_owned(),
            "REFERRAL_HTTP_LISTEN" => http_default(referral_svc::HTTP_LISTEN),
            "NOTIFY_HTTP_LISTEN" => http_default(notify_svc::HTTP_LISTEN),
            "REFERRAL_DATABASE_URL" | "NOTIFY_DATABASE_URL" => " [default: the private PostgreSQL]".to_owned(),
            "REFERRAL_MIGRATION_URL" | "NOTIFY_MIGRATION_URL" => " [default: the database URL]".to_owned(),
            "AUDIT_SIGNING_KEY" => " [default: made at the first start, and kept in the data directory]".to_owned(),
            "PLAN_FILE" => " [default: the built-in plan]".to_owned(),
            _ if defaults.is_empty() => String::new(),
            _ => format!(" [default: {}]", defaults.join(",")),
        };
        let _ = writeln!(text, "  {name}\n          {help}{default}");
    }
    text
}

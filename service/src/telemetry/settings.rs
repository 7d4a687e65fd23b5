//! The environment variables of telemetry, read and checked once at start.

use std::fmt;
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::level;

const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) struct Settings {
    /// Tracing directives.
    pub(super) log: String,
    pub(super) json: bool,
    /// Whether spans are pushed over OTLP.
    pub(super) traces: Switch,
    /// Whether metrics are pushed over OTLP.
    pub(super) metrics: Switch,
    /// None: off, since SENTRY_DSN is not set.
    pub(super) sentry: Option<Sentry>,
    /// Zero: none is slow.
    pub(super) slow_statement: Duration,
}

pub(super) struct Sentry {
    pub(super) dsn: sentry::types::Dsn,
    /// None: the service and its version.
    pub(super) release: Option<String>,
    pub(super) environment: String,
    pub(super) traces_sample_rate: f64,
}

/// On or off, and what an operator wants to know of it: where to, or why not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Switch {
    On(String),
    Off(String),
}

impl Switch {
    pub(super) fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(to) => write!(f, "on: {to}"),
            Self::Off(why) => write!(f, "off: {why}"),
        }
    }
}

impl Settings {
    pub(super) fn read(variable: Variable<'_>) -> anyhow::Result<Self> {
        let variable: Variable<'_> = &|name| variable(name).filter(|value| !value.trim().is_empty());
        let sampler = sampler(variable)?;
        let traces = match otlp("TRACES", &["otlp"], variable)? {
            Switch::On(endpoint) => Switch::On(format!("{endpoint}, sampler {sampler}")),
            off @ Switch::Off(_) => off,
        };
        Ok(Self {
            log: log(variable("RUST_LOG"))?,
            json: match variable("LOG_FORMAT").as_deref() {
                None => !std::io::stderr().is_terminal(),
                Some("json") => true,
                Some("text") => false,
                Some(other) => bail!("LOG_FORMAT is `{other}`: it must be text or json"),
            },
            traces,
            // Prometheus may fetch them whatever is pushed.
            metrics: otlp("METRICS", &["otlp", "prometheus"], variable)?,
            sentry: sentry(variable)?,
            slow_statement: slow_statement(variable("SLOW_STATEMENT_MS"))?,
        })
    }

    /// Whether errors go to Sentry, and how much else; the DSN is nobody's business.
    pub(super) fn sentry_switch(&self) -> Switch {
        match &self.sentry {
            None => Switch::Off("SENTRY_DSN is not set".to_owned()),
            Some(sentry) => {
                let (environment, rate) = (&sentry.environment, sentry.traces_sample_rate);
                Switch::On(format!("environment {environment}, transactions of {rate} of the traces"))
            }
        }
    }
}

fn log(rust_log: Option<String>) -> anyhow::Result<String> {
    let directives = rust_log.unwrap_or_else(|| "info".to_owned());
    level::check(&directives).with_context(|| format!("RUST_LOG is `{directives}`"))?;
    Ok(directives)
}

/// The sampler's name, and its ratio if it has one.
fn sampler(variable: Variable<'_>) -> anyhow::Result<String> {
    let sampler = variable(SAMPLER).unwrap_or_else(|| "parentbased_always_on".to_owned());
    if !SAMPLERS.contains(&sampler.as_str()) {
        bail!("{SAMPLER} is `{sampler}`: it must be one of {}", SAMPLERS.join(", "));
    }
    if !sampler.ends_with("traceidratio") {
        return Ok(sampler);
    }
    let ratio = share(SAMPLER_ARG, variable(SAMPLER_ARG), 1.0)?;
    Ok(format!("{sampler} {ratio}"))
}

/// A signal has an endpoint of its own or the common one, and is sent unless something says otherwise.
fn otlp(signal: &str, exporters: &[&str], variable: Variable<'_>) -> anyhow::Result<Switch> {
    let own = |what: &str| format!("OTEL_EXPORTER_OTLP_{signal}_{what}");
    for name in ["OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(), own("PROTOCOL")] {
        if let Some(protocol) = variable(&name).filter(|protocol| protocol != "grpc") {
            bail!("{name} is `{protocol}`: only grpc is supported");
        }
    }
    let exporter_variable = format!("OTEL_{signal}_EXPORTER");
    let exporter = variable(&exporter_variable).unwrap_or_else(|| "otlp".to_owned());
    let endpoint = [own("ENDPOINT"), "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned()]
        .into_iter()
        .find_map(|name| variable(&name).map(|endpoint| (name, endpoint)));
    let endpoint = match endpoint {
        Some((name, endpoint)) => {
            Some(shown(&endpoint).with_context(|| format!("{name} is not an http or https URL"))?)
        }
        None => None,
    };
    let off = |why: &str| Ok(Switch::Off(why.to_owned()));
    if variable("OTEL_SDK_DISABLED").is_some_and(|disabled| disabled.eq_ignore_ascii_case("true")) {
        return off("OTEL_SDK_DISABLED is true");
    }
    match (exporter.as_str(), endpoint) {
        ("none", _) => off(&format!("{exporter_variable} is none")),
        (other, _) if !exporters.contains(&other) => {
            bail!("{exporter_variable} is `{other}`: it must be {} or none", exporters.join(", "))
        }
        ("otlp", Some(endpoint)) => Ok(Switch::On(endpoint)),
        ("otlp", None) => off("OTEL_EXPORTER_OTLP_ENDPOINT is not set"),
        (other, _) => off(&format!("{exporter_variable} is {other}")),
    }
}

/// An endpoint without the user and the password that it may hold.
fn shown(endpoint: &str) -> Option<String> {
    let uri: http::Uri = endpoint.trim().parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
    let host = uri.authority()?.as_str().rsplit('@').next()?;
    Some(format!("{scheme}://{host}"))
}

fn sentry(variable: Variable<'_>) -> anyhow::Result<Option<Sentry>> {
    const RATE: &str = "SENTRY_TRACES_SAMPLE_RATE";
    let traces_sample_rate = share(RATE, variable(RATE), 0.1)?;
    let Some(dsn) = variable("SENTRY_DSN") else { return Ok(None) };
    Ok(Some(Sentry {
        // The DSN is half a secret: it isn't echoed.
        dsn: dsn.trim().parse().ok().context("SENTRY_DSN is not a DSN, such as https://key@host/1")?,
        release: variable("SENTRY_RELEASE"),
        environment: variable("SENTRY_ENVIRONMENT").unwrap_or_else(|| "production".to_owned()),
        traces_sample_rate,
    }))
}

fn slow_statement(value: Option<String>) -> anyhow::Result<Duration> {
    let Some(value) = value else { return Ok(Duration::from_millis(250)) };
    match value.parse() {
        Ok(milliseconds) => Ok(Duration::from_millis(milliseconds)),
        Err(_) => bail!("SLOW_STATEMENT_MS is `{value}`: it must be a whole number of milliseconds, or 0 for none"),
    }
}

fn share(name: &str, value: Option<String>, default: f64) -> anyhow::Result<f64> {
    let Some(value) = value else { return Ok(default) };
    match value.trim().parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => bail!("{name} is `{value}`: it must be a number from 0 to 1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let find = |asked: &str| variables.iter().find(|(name, _)| *name == asked);
        Settings::read(&|asked| find(asked).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn nothing_set_sends_nothing() {
        let empty = [("SENTRY_DSN", " "), ("OTEL_EXPORTER_OTLP_ENDPOINT", "")];
        for settings in [read(&[]), read(&empty)].map(Result::unwrap) {
            assert_eq!(settings.traces.to_string(), "off: OTEL_EXPORTER_OTLP_ENDPOINT is not set");
            assert_eq!(settings.metrics, settings.traces);
            assert!(settings.sentry.is_none());
            assert_eq!(settings.sentry_switch().to_string(), "off: SENTRY_DSN is not set");
        }
    }

    #[test]
    fn each_signal_says_where_to_or_why_not() {
        let common = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:secret@host:4317");
        let sampled = "on: http://host:4317, sampler parentbased_always_on";
        let cases = [
            (vec![common], sampled, "on: http://host:4317"),
            (vec![common, ("OTEL_METRICS_EXPORTER", "none")], sampled, "off: OTEL_METRICS_EXPORTER is none"),
            (
                vec![common, ("OTEL_METRICS_EXPORTER", "prometheus")],
                sampled,
                "off: OTEL_METRICS_EXPORTER is prometheus",
            ),
            (
                vec![("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://m:4317")],
                "off: OTEL_EXPORTER_OTLP_ENDPOINT is not set",
                "on: https://m:4317",
            ),
            (
                vec![common, ("OTEL_SDK_DISABLED", "True")],
                "off: OTEL_SDK_DISABLED is true",
                "off: OTEL_SDK_DISABLED is true",
            ),
        ];
        for (variables, traces, metrics) in cases {
            let settings = read(&variables).unwrap();
            assert_eq!(
                (settings.traces.to_string().as_str(), settings.metrics.to_string().as_str()),
                (traces, metrics)
            );
        }
        let ratio = [common, (SAMPLER, "traceidratio"), (SAMPLER_ARG, "0.25")];
        assert_eq!(read(&ratio).unwrap().traces.to_string(), "on: http://host:4317, sampler traceidratio 0.25");
    }

    #[test]
    fn sentry_is_described_without_its_dsn() {
        let dsn = ("SENTRY_DSN", "https://half-a-secret@host/1");
        let settings = read(&[dsn, ("SENTRY_TRACES_SAMPLE_RATE", "0.5"), ("SENTRY_RELEASE", "r1")]).unwrap();
        assert_eq!(
            settings.sentry_switch().to_string(),
            "on: environment production, transactions of 0.5 of the traces"
        );
        assert_eq!(settings.sentry.unwrap().release.as_deref(), Some("r1"));
    }

    #[test]
    fn malformed_variables_are_named_and_secrets_are_not_echoed() {
        for (name, value) in [
            ("RUST_LOG", "info,service=loud=very"),
            ("LOG_FORMAT", "xml"),
            ("SENTRY_DSN", "https://half-a-secret"),
            ("SENTRY_TRACES_SAMPLE_RATE", "1.5"),
            (SAMPLER, "sometimes"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "half-a-secret@collector:4317"),
            ("SLOW_STATEMENT_MS", "-1"),
        ] {
            let error = format!("{:#}", read(&[(name, value)]).err().expect(name));
            assert!(error.contains(name) && !error.contains("half-a-secret"), "{error}");
        }
    }
}

//! The environment variables of telemetry, read and checked once at start.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::level;

const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

pub(super) struct Settings {
    /// Tracing directives.
    pub(super) log: String,
    pub(super) json: bool,
    pub(super) otlp: Otlp,
    pub(super) sentry: Option<Sentry>,
    /// Zero: none is slow.
    pub(super) slow_statement: Duration,
}

/// Which signals go out over OTLP.
#[derive(Clone, Copy)]
pub(super) struct Otlp {
    pub(super) traces: bool,
    pub(super) metrics: bool,
}

impl Otlp {
    pub(super) fn any(self) -> bool {
        self.traces || self.metrics
    }
}

pub(super) struct Sentry {
    pub(super) dsn: sentry::types::Dsn,
    pub(super) environment: String,
    pub(super) traces_sample_rate: f32,
}

impl Settings {
    pub(super) fn read(variable: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        Ok(Self {
            log: log(variable("RUST_LOG"))?,
            json: match variable("LOG_FORMAT").as_deref() {
                None => !std::io::stderr().is_terminal(),
                Some("json") => true,
                Some("text") => false,
                Some(other) => bail!("LOG_FORMAT is `{other}`: it must be text or json"),
            },
            otlp: otlp(&variable)?,
            sentry: sentry(&variable)?,
            slow_statement: slow_statement(variable("SLOW_STATEMENT_MS"))?,
        })
    }
}

fn log(rust_log: Option<String>) -> anyhow::Result<String> {
    let directives = rust_log.unwrap_or_else(|| "info".to_owned());
    level::check(&directives).with_context(|| format!("RUST_LOG is `{directives}`"))?;
    Ok(directives)
}

fn otlp(variable: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Otlp> {
    if let Some(sampler) = variable("OTEL_TRACES_SAMPLER") {
        if !SAMPLERS.contains(&sampler.as_str()) {
            bail!("OTEL_TRACES_SAMPLER is `{sampler}`: it must be one of {}", SAMPLERS.join(", "));
        }
        if sampler.ends_with("traceidratio") {
            share("OTEL_TRACES_SAMPLER_ARG", variable("OTEL_TRACES_SAMPLER_ARG"), 1.0)?;
        }
    }
    for signal in ["", "TRACES_", "METRICS_"] {
        let name = format!("OTEL_EXPORTER_OTLP_{signal}PROTOCOL");
        if let Some(protocol) = variable(&name).filter(|protocol| protocol != "grpc") {
            bail!("{name} is `{protocol}`: only grpc is supported");
        }
    }
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"));
    let is_on = |signal: &str| {
        let name = format!("OTEL_{signal}_EXPORTER");
        let exports = match variable(&name).as_deref() {
            None | Some("otlp") => true,
            Some("none") => false,
            Some(other) => bail!("{name} is `{other}`: it must be otlp or none"),
        };
        let endpoint = variable(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
        let configured = endpoint.or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT")).is_some();
        Ok(exports && configured && !disabled)
    };
    Ok(Otlp { traces: is_on("TRACES")?, metrics: is_on("METRICS")? })
}

fn sentry(variable: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Option<Sentry>> {
    const RATE: &str = "SENTRY_TRACES_SAMPLE_RATE";
    let traces_sample_rate = share(RATE, variable(RATE), 0.1)?;
    let Some(dsn) = variable("SENTRY_DSN") else { return Ok(None) };
    Ok(Some(Sentry {
        // The DSN is half a secret: it isn't echoed.
        dsn: dsn.parse().context("SENTRY_DSN is not a DSN")?,
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

fn share(name: &str, value: Option<String>, default: f32) -> anyhow::Result<f32> {
    let Some(value) = value else { return Ok(default) };
    match value.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => bail!("{name} is `{value}`: it must be a number from 0 to 1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &'static str) -> Result<Settings, String> {
        Settings::read(&|asked| (asked == name).then(|| value.to_owned())).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn nothing_set_sends_nothing() {
        let settings = Settings::read(&|_| None).unwrap();
        assert!(!settings.otlp.any());
        assert!(settings.sentry.is_none());
    }

    #[test]
    fn each_signal_is_switched_by_itself() {
        const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317");
        for (variables, expected) in [
            (vec![ENDPOINT], (true, true)),
            (vec![ENDPOINT, ("OTEL_SDK_DISABLED", "true")], (false, false)),
            (vec![ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")], (false, true)),
            (vec![ENDPOINT, ("OTEL_METRICS_EXPORTER", "none")], (true, false)),
            (vec![("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:4317")], (true, false)),
        ] {
            let value = |asked: &str| variables.iter().find(|(name, _)| *name == asked).map(|it| it.1.to_owned());
            let otlp = Settings::read(&value).unwrap().otlp;
            assert_eq!((otlp.traces, otlp.metrics), expected, "{variables:?}");
        }
    }

    #[test]
    fn malformed_variables_are_named() {
        for (name, value) in [
            ("RUST_LOG", "info,service=loud=very"),
            ("LOG_FORMAT", "xml"),
            ("SENTRY_DSN", "nonsense"),
            ("SENTRY_TRACES_SAMPLE_RATE", "1.5"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_EXPORTER", "console"),
            ("SLOW_STATEMENT_MS", "-1"),
        ] {
            let error = read(name, value).err().expect(name);
            assert!(error.contains(name), "{error}");
        }
    }
}

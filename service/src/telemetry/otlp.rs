//! The exporters of traces and metrics over OTLP/gRPC, with TLS by the standard's variables.

mod watched;

use std::path::Path;

use anyhow::Context as _;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithTonicConfig as _};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use watched::Watched;

pub(super) fn span_exporter() -> anyhow::Result<Watched<SpanExporter>> {
    let mut exporter = SpanExporter::builder().with_tonic();
    if let Some(tls) = tls("TRACES")? {
        exporter = exporter.with_tls_config(tls);
    }
    let exporter = exporter.build().context("traces can't be exported as OTEL_EXPORTER_OTLP_* says")?;
    Ok(Watched::new(exporter, "traces"))
}

pub(super) fn metric_exporter() -> anyhow::Result<Watched<MetricExporter>> {
    let mut exporter = MetricExporter::builder().with_tonic();
    if let Some(tls) = tls("METRICS")? {
        exporter = exporter.with_tls_config(tls);
    }
    let exporter = exporter.build().context("metrics can't be exported as OTEL_EXPORTER_OTLP_* says")?;
    Ok(Watched::new(exporter, "metrics"))
}

/// What the signal's own variable says, else the one for all signals, with the name of that which said it.
fn variable(signal: &str, name: &str) -> Option<(String, String)> {
    [format!("OTEL_EXPORTER_OTLP_{signal}_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")].into_iter().find_map(|name| {
        let value = std::env::var(&name).ok().filter(|value| !value.is_empty())?;
        Some((name, value))
    })
}

/// The exporter reads none of these variables by itself, and without them trusts nobody. None for a plain endpoint.
fn tls(signal: &str) -> anyhow::Result<Option<ClientTlsConfig>> {
    let secure = |(_, endpoint): (_, String)| endpoint.to_ascii_lowercase().starts_with("https:");
    if !variable(signal, "ENDPOINT").is_some_and(secure) {
        return Ok(None);
    }
    let file = |name| variable(signal, name).map(|(name, path)| read(&name, &path)).transpose();
    let mut tls = match file("CERTIFICATE")? {
        Some(authority) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)),
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    if let (Some(certificate), Some(key)) = (file("CLIENT_CERTIFICATE")?, file("CLIENT_KEY")?) {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    Ok(Some(tls))
}

fn read(name: &str, path: impl AsRef<Path>) -> anyhow::Result<Vec<u8>> {
    let path = path.as_ref();
    std::fs::read(path).with_context(|| format!("{name}: can't read {}", path.display()))
}

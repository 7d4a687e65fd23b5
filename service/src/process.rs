//! A service's whole life as a process: telemetry, runtime, serving, a clean stop.

use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{shutdown, telemetry};

/// How long threads may go on after everything else has ended.
pub const LINGER: Duration = Duration::from_secs(2);

/// Runs `serve` until it ends; its token is cancelled on Ctrl-C or SIGTERM, and another Ctrl-C ends the process at once.
/// An error goes to stderr, for people, and makes the exit code 1.
pub fn run(service_name: &'static str, serve: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>) -> ExitCode {
    match try_run(service_name, serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{service_name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(
    service_name: &'static str,
    serve: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let telemetry = telemetry::init(service_name)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async { serve(shutdown::on_signal()?).await });
    if let Err(error) = &result {
        telemetry::report::ended(error);
    }
    // Whatever still blocks a thread doesn't keep the process.
    runtime.shutdown_timeout(LINGER);
    telemetry.shutdown();
    result
}

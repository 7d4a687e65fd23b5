//! The local pair: both services in one process on a private PostgreSQL, for `cargo run`, the demo and the tests.

pub mod databases;
mod demo;
mod pair;
pub mod postgres;
mod run;
mod settings;
mod signing;

use std::{
    env, io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use service::{process, shutdown};
use settings::{Settings, Task};

/// The whole program `p2phub`.
pub fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("p2phub: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<ExitCode> {
    let task = Task::from_command_line();
    if matches!(task, Task::Demo) && env::var_os("RUST_LOG").is_none() {
        return Err(quietly().into());
    }
    let telemetry = service::telemetry::init("p2phub")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = match task {
        Task::Run { data_dir } => Settings::read(data_dir)
            .and_then(|settings| runtime.block_on(async { run::run(settings, shutdown::on_signal()?).await }))
            .map(|()| ExitCode::SUCCESS),
        Task::Demo => runtime.block_on(async { demo::run(&shutdown::on_signal()?).await }),
    };
    runtime.shutdown_timeout(process::LINGER);
    telemetry.shutdown();
    result
}

/// Begins again with warnings only: the demo's output is for a person to read. Returns only if that fails.
fn quietly() -> io::Error {
    match env::current_exe() {
        Ok(program) => Command::new(program).args(env::args_os().skip(1)).env("RUST_LOG", "warn").exec(),
        Err(error) => error,
    }
}

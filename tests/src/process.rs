//! A service as a process of its own: `PAIR_PROCESS` says which; the arguments are the service's own.

use std::{
    env,
    io::{self, Read},
    process::{self, ExitCode},
    thread,
};

use chrono::TimeDelta;
use clap::Parser;

/// Names the service that a process is to be.
pub const VARIABLE: &str = "PAIR_PROCESS";

/// Puts referral-svc's clock past the end of the calendar if it is set: whatever looks at the clock panics.
pub const CLOCK_BROKEN: &str = "PAIR_CLOCK_BROKEN";

/// The whole of such a process.
pub fn main() -> ExitCode {
    // The test holds the other end: a test that is killed takes its services with it.
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(1);
    });
    match env::var(VARIABLE).as_deref() {
        Ok("referral-svc") if env::var_os(CLOCK_BROKEN).is_some() => clock_broken(),
        Ok("referral-svc") => referral_svc::main(),
        Ok("notify-svc") => notify_svc::main(),
        Ok("p2phub") => p2phub::main(),
        other => {
            eprintln!("{VARIABLE} must name a service: {other:?}");
            ExitCode::FAILURE
        }
    }
}

fn clock_broken() -> ExitCode {
    let config = referral_svc::Config::parse();
    config.clock.set_ahead(TimeDelta::MAX);
    service::process::run("referral-svc", async |shutdown| {
        referral_svc::start(config, shutdown).await?.finished().await
    })
}
